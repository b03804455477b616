"""What all passes of one operator share: watched objects, stores, configuration, memory of uploads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from activities.access.protocol import ClusterAccess, Object
from ramen import kinds, names
from ramen.kinds import Kind
from sandbox.standins import operator_store as store
from sandbox.standins.operator_store import Config, Stores
from sandbox.standins.runtime import Mirror, Name

WATCHED: tuple[Kind, ...] = (
    kinds.VRG,
    kinds.PVC,
    kinds.PV,
    kinds.VOLUME_REPLICATION,
    kinds.VOLUME_REPLICATION_CLASS,
    kinds.STORAGE_CLASS,
    kinds.POD,
    kinds.VOLUME_ATTACHMENT,
)
"""Kinds that a pass reads, from all namespaces."""

CONFIGURED: tuple[Kind, ...] = (kinds.CONFIG_MAP, kinds.SECRET)
"""Kinds that a pass reads from the operator's namespace."""


def utc_now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class World:
    """What all passes of one operator share."""

    access: ClusterAccess
    mirrors: dict[Kind, Mirror]
    """One for each kind of `WATCHED` and `CONFIGURED`."""
    now: Callable[[], str] = utc_now
    uploaded: dict[Name, str] = field(default_factory=dict)
    """resourceVersion of each VRG that this process uploaded last; empty after a restart (vrg.md 3.3)."""
    make_bucket: store.Connect = store.connect

    def __post_init__(self) -> None:
        self.stores = Stores(self._secret, self.make_bucket)
        self._parsed: tuple[Object | None, Config] = (None, Config())

    def config(self) -> Config:
        """The configuration as it is now; parsed again only when the ConfigMap changed."""
        found = self.mirrors[kinds.CONFIG_MAP].get(names.RAMEN_CONFIG_MAP, names.RAMEN_NAMESPACE)
        if found is not self._parsed[0]:
            self._parsed = (found, store.parse_config(found))
        return self._parsed[1]

    async def _secret(self, namespace: str, name: str) -> Object | None:
        if namespace == names.RAMEN_NAMESPACE:
            return self.mirrors[kinds.SECRET].get(name, namespace)
        return await self.access.read(kinds.SECRET, name, namespace)
