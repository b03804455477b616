"""The S3 profiles of the dr-cluster operator's configuration, with the credentials that their Secrets hold."""

from __future__ import annotations

import ssl
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import Any

import yaml

from activities.access.protocol import Object
from activities.access.s3 import S3Store
from ramen import names
from ramen.config import ACCESS_KEY, SECRET_KEY

KEYS = (ACCESS_KEY, SECRET_KEY)
"""What a profile's Secret has to hold (vrg.md 3.1)."""


class UnusableProfileError(Exception):
    """A profile, or the whole configuration, cannot be used; the text names it and the remedy."""


@dataclass(frozen=True)
class Profile:
    """One S3 profile with its credentials, which no text of it shows."""

    name: str
    endpoint: str
    bucket: str
    region: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    ca_certificates: str = ""
    """PEM of the authorities that the store's certificate is judged by; empty for those that everybody trusts."""

    def store(self, bucket: str) -> S3Store:
        """A client of one bucket; contacts nothing yet."""
        return S3Store.connect(
            self.endpoint,
            bucket,
            self.access_key,
            self.secret_key,
            region=self.region,
            name=self.name,
            ca_certificates=self.ca_certificates,
        )


def read_profiles(
    config: Object | None, secrets: list[Object], namespace: str = names.RAMEN_NAMESPACE
) -> tuple[dict[str, Profile], dict[str, str]]:
    """Usable profiles by name in the order of the configuration, and by name why each other one is not usable.

    Raises `UnusableProfileError` when the ConfigMap itself is missing or unreadable.
    """
    contents = {secret["metadata"]["name"]: secret.get("data") or {} for secret in secrets}
    usable: dict[str, Profile] = {}
    unusable: dict[str, str] = {}
    for given in _configured(config):
        try:
            profile = _read(given, contents, namespace)
        except UnusableProfileError as err:
            unusable[str(given.get("s3ProfileName") or "")] = str(err)
        else:
            usable[profile.name] = profile
    return usable, unusable


def _read(given: dict[str, Any], contents: dict[str, dict[str, str]], own: str) -> Profile:
    name = str(given.get("s3ProfileName") or "")
    reference = given.get("s3SecretRef") or {}
    if not isinstance(reference, dict):
        raise UnusableProfileError(f"S3 profile {name}: s3SecretRef is no mapping; write name: SECRET under it")
    secret, namespace = str(reference.get("name") or ""), reference.get("namespace") or own
    if namespace != own:
        raise UnusableProfileError(
            f"S3 profile {name}: its Secret {secret} is in namespace {namespace}, but Hubless reads Secrets of "
            f"{own} only; keep a copy there and name it in s3SecretRef"
        )
    data = contents.get(secret)
    if data is None:
        raise UnusableProfileError(f"S3 profile {name}: Secret {namespace}/{secret} is missing; create it")
    try:
        access_key, secret_key = (b64decode(data[key], validate=True).decode().strip() for key in KEYS)
    except (KeyError, Base64Error, UnicodeDecodeError):
        raise UnusableProfileError(
            f"S3 profile {name}: Secret {namespace}/{secret} needs readable keys {' and '.join(KEYS)}"
        ) from None
    profile = Profile(
        name=name,
        endpoint=str(given.get("s3CompatibleEndpoint") or ""),
        bucket=str(given.get("s3Bucket") or ""),
        region=str(given.get("s3Region") or "us-east-1"),
        access_key=access_key,
        secret_key=secret_key,
        ca_certificates=_authorities(name, given.get("caCertificates")),
    )
    if not (name and profile.endpoint and profile.bucket):
        raise UnusableProfileError(
            f"S3 profile {name or '(without a name)'}: name, endpoint or bucket is missing; add it"
        )
    return profile


def _authorities(name: str, given: object) -> str:
    """The PEM in a profile's `caCertificates`, which holds it in base64 (drpc.md 6.2)."""
    if not given:
        return ""
    try:
        pem = b64decode("".join(str(given).split()), validate=True).decode()
        ssl.create_default_context().load_verify_locations(cadata=pem)
    except (ValueError, ssl.SSLError):
        raise UnusableProfileError(
            f"S3 profile {name}: caCertificates holds no certificate in PEM, in base64; correct it"
        ) from None
    return pem


def _configured(config: Object | None) -> list[dict[str, Any]]:
    where = f"ConfigMap {names.RAMEN_CONFIG_MAP}"
    if config is None:
        raise UnusableProfileError(f"{where} is missing: no S3 profile is known; install the dr-cluster operator")
    try:
        content = yaml.safe_load((config.get("data") or {}).get(names.RAMEN_CONFIG_KEY) or "")
        profiles = (content or {}).get("s3StoreProfiles") or []
        if all(isinstance(profile, dict) for profile in profiles):
            return list(profiles)
    except (yaml.YAMLError, AttributeError, TypeError):
        pass
    raise UnusableProfileError(f"{where}: {names.RAMEN_CONFIG_KEY} cannot be read; correct its s3StoreProfiles")
