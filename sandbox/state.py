"""What a sandbox remembers between commands: its ports, its options, its credentials; one file per sandbox.

Ports are chosen once and kept, so that kubeconfigs, stored objects and open terminals stay right after `down` and
`up`.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FILE = "sandbox.json"

CLUSTERS: dict[str, str] = {"dr1": "east", "dr2": "west"}
"""The two clusters and their regions."""

PORT_FIRST, PORT_LAST = 20000, 32000
"""Below the range from which Linux and macOS take ports for outgoing connections, so that none is taken meanwhile."""

ADMIN = "admin"
SYSTEM_USERS = (ADMIN, "controller-manager", "scheduler", "kwok")
USERS = ("worker", "operator", "array", "gitops")
"""Identities beside the control plane's own; each has a kubeconfig of its own."""

PARTS = ("array", "operator", "gitops", "worker")
"""What runs on top of the servers, and can be left out by `--without`."""


class Options(BaseModel):
    """Choices of `hubless sandbox up`."""

    model_config = ConfigDict(extra="forbid")

    vrg_operator: str = "builtin"
    """`builtin`, `none`, or the path of the real dr-cluster operator."""
    delays: Literal["real", "zero"] = "real"
    """`zero` takes out the pauses that the real storage and operator make; for tests."""
    lag: float = Field(default=5.0, gt=0)
    """Seconds between two syncs of the array."""
    without: list[str] = []
    """Parts of `PARTS` that are not started."""

    audit: bool = False
    """The API servers write down what workers ask of them (`sandbox.controlplane.audit_log`)."""

    @property
    def delay_scale(self) -> float:
        """What the stand-ins multiply their pauses with."""
        return 1.0 if self.delays == "real" else 0.0


class ClusterState(BaseModel):
    """Ports and tokens of one cluster."""

    name: str
    region: str
    ports: dict[str, int]
    tokens: dict[str, str]
    """Bearer token by user."""

    @property
    def api_url(self) -> str:
        """The API server."""
        return f"https://127.0.0.1:{self.ports['api']}"

    @property
    def s3_url(self) -> str:
        """The S3 store of this cluster's site."""
        return f"http://127.0.0.1:{self.ports['s3']}"


class SandboxState(BaseModel):
    """Everything a later command needs to find this sandbox's servers."""

    name: str
    directory: Path
    options: Options = Options()
    ports: dict[str, int]
    """Of the parts that exist once: `temporal`, `temporal-ui`, …"""
    clusters: dict[str, ClusterState]
    s3_access_key: str
    s3_secret_key: str
    seeded: bool = False
    """The clusters' objects and Temporal's search attributes were written once."""

    @property
    def temporal_address(self) -> str:
        """`host:port` of Temporal's frontend."""
        return f"127.0.0.1:{self.ports['temporal']}"

    @property
    def temporal_ui(self) -> str:
        """Temporal Web."""
        return f"http://127.0.0.1:{self.ports['temporal-ui']}"

    def kubeconfig(self, cluster: str, user: str = ADMIN) -> Path:
        """Kubeconfig of a user; the administrator's carries the cluster's name alone."""
        suffix = "" if user == ADMIN else f"-{user}"
        return self.directory / "kubeconfigs" / f"{cluster}{suffix}.yaml"

    def save(self) -> None:
        """Replaces the file in one step; readable by its owner only, because it holds tokens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = self.directory / f"{FILE}.new"
        temporary.touch(mode=0o600)
        temporary.write_text(self.model_dump_json(indent=2))
        os.replace(temporary, self.directory / FILE)


CLUSTER_PORTS = (
    "etcd",
    "etcd-peer",
    "api",
    "controller-manager",
    "scheduler",
    "kwok",
    "s3",
    "s3-grpc",
    "s3-behind",
    "weed-master",
    "weed-master-grpc",
    "weed-volume",
    "weed-volume-grpc",
    "weed-filer",
    "weed-filer-grpc",
    "worker",
    "operator",
)
TEMPORAL_PORTS = ("temporal", "temporal-ui", "temporal-http", "temporal-metrics")


def home() -> Path:
    """Directory of all sandboxes."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "hubless" / "sandboxes"


def directory_of(name: str) -> Path:
    """Directory of one sandbox; HUBLESS_SANDBOX_DIR names it outright."""
    explicit = os.environ.get("HUBLESS_SANDBOX_DIR")
    return Path(explicit).expanduser().absolute() if explicit else home() / name


def load(directory: Path) -> SandboxState | None:
    """The sandbox in a directory; None when there is none."""
    path = directory / FILE
    return SandboxState.model_validate_json(path.read_text()) if path.exists() else None


def create(name: str, directory: Path, options: Options) -> SandboxState:
    """A new sandbox with ports that are free now and fresh credentials; nothing is started."""
    free = _free_ports()
    state = SandboxState(
        name=name,
        directory=directory,
        options=options,
        ports={key: next(free) for key in TEMPORAL_PORTS},
        clusters={
            cluster: ClusterState(
                name=cluster,
                region=region,
                ports={key: next(free) for key in CLUSTER_PORTS},
                tokens={user: secrets.token_hex(16) for user in (*SYSTEM_USERS, *USERS)},
            )
            for cluster, region in CLUSTERS.items()
        },
        s3_access_key=secrets.token_hex(10),
        s3_secret_key=secrets.token_hex(20),
    )
    state.save()
    return state


def _free_ports() -> Iterator[int]:
    """Ports nobody listens on, from a random point on: two sandboxes made at once hardly ever meet."""
    start = random.randrange(PORT_FIRST, PORT_LAST)
    for offset in range(PORT_LAST - PORT_FIRST):
        port = PORT_FIRST + (start - PORT_FIRST + offset) % (PORT_LAST - PORT_FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port
    raise OSError(f"no free port between {PORT_FIRST} and {PORT_LAST}")
