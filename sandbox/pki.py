"""Certificates and kubeconfigs of the sandbox's control planes.

One authority per cluster, so that a kubeconfig of one cluster cannot be mistaken for the other's. Users are known by
tokens: the API server reads them from one file, which is enough for servers that listen on the loopback only.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID

from sandbox.state import SYSTEM_USERS, USERS, ClusterState

VALID_DAYS = 3650
"""A sandbox may lie untouched for a year and has to come up again."""

GROUPS = dict.fromkeys(SYSTEM_USERS, "system:masters")
"""The control plane's own parts may do everything; the other users get what RBAC gives them."""


class Pki:
    """One cluster's files in `<directory>`: `ca.crt`, `server.crt`, `server.key`, `sa.pub`, `sa.key`, `tokens.csv`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def file(self, name: str) -> Path:
        """Path of one of the files."""
        return self.directory / name

    def ensure(self, cluster: ClusterState) -> None:
        """Writes all files unless they exist; keys and tokens are readable by their owner only."""
        if self.file("tokens.csv").exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = certificate(f"hubless sandbox {cluster.name}", authority_key, None, None)
        server_key = ec.generate_private_key(ec.SECP256R1())
        server = certificate("kube-apiserver", server_key, authority, authority_key)
        # Service account tokens are signed with RS256 unless a key of another kind says otherwise.
        account_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = account_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _write(self.file("ca.crt"), authority.public_bytes(serialization.Encoding.PEM))
        _write(self.file("server.crt"), server.public_bytes(serialization.Encoding.PEM))
        _write(self.file("server.key"), pem(server_key))
        _write(self.file("sa.key"), pem(account_key))
        _write(self.file("sa.pub"), public)
        lines = [f'{token},{user_name(user)},{user},"{GROUPS.get(user, "")}"' for user, token in cluster.tokens.items()]
        _write(self.file("tokens.csv"), "\n".join([*lines, ""]).encode())


def user_name(user: str) -> str:
    """Name under which RBAC knows a user of the sandbox."""
    return f"hubless-{user}"


def kubeconfig(cluster: ClusterState, user: str, authority: Path) -> str:
    """Kubeconfig text with everything inside, so that it can be copied into a Secret as it is.

    The user's name has the cluster's in it: where files are merged (KUBECONFIG=a:b), the first of a name wins.
    """
    name = f"{user_name(user)}@{cluster.name}"
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": cluster.name,
                    "cluster": {
                        "server": cluster.api_url,
                        "certificate-authority-data": base64.b64encode(authority.read_bytes()).decode(),
                    },
                }
            ],
            "users": [{"name": name, "user": {"token": cluster.tokens[user]}}],
            "contexts": [{"name": cluster.name, "context": {"cluster": cluster.name, "user": name}}],
            "current-context": cluster.name,
        },
        sort_keys=False,
    )


def write_kubeconfigs(cluster: ClusterState, authority: Path, directory: Path) -> None:
    """Writes `<cluster>.yaml` for the administrator and `<cluster>-<user>.yaml` for the others."""
    directory.mkdir(parents=True, exist_ok=True)
    for user in (*SYSTEM_USERS, *USERS):
        name = cluster.name if user == "admin" else f"{cluster.name}-{user}"
        _write(directory / f"{name}.yaml", kubeconfig(cluster, user, authority).encode())


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: CertificateIssuerPrivateKeyTypes | None,
) -> x509.Certificate:
    """Self-signed authority when `issuer` is None, else a server certificate for the loopback."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is None:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        names: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.DNSName("localhost"),
            x509.DNSName("kubernetes.default.svc"),
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
        builder = builder.add_extension(identifier, critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
