"""Whether this worker is alone: it reaches neither Temporal nor any peer nor any store (S16)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from activities.access.s3 import S3Store
from ramen.errors import HublessError, StoreUnreachable
from worker.clusters import Clusters

ISOLATED_SECONDS = 30.0
"""So long without any answer from outside, and what is known here is no longer said to be so (S16)."""

LOOK_SECONDS = 5.0
"""Between two looks; only one that finds Temporal and all peers away asks a store."""


class Contact:
    """When anybody outside this cluster answered last. `now` is monotonic, in seconds."""

    def __init__(
        self,
        clusters: Clusters,
        temporal_up: Callable[[], bool],
        stores: Mapping[str, S3Store],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.last: datetime | None = None
        """Wall time of the last answer, to be shown only; None before the first."""
        self._clusters = clusters
        self._temporal_up = temporal_up
        self._stores = stores
        self._now = now
        self._since = now()

    @property
    def is_lost(self) -> bool:
        """Whether nobody has answered for `ISOLATED_SECONDS`."""
        return self._now() - self._since >= ISOLATED_SECONDS

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One look, the cheapest sign of life first."""
        peers = [name for name in self._clusters.names() if name != self._clusters.own]
        if self._temporal_up() or any(self._clusters.gate(name).is_open for name in peers) or await self._any_store():
            self._since, self.last = self._now(), datetime.now(UTC)

    async def _any_store(self) -> bool:
        for store in list(self._stores.values()):
            try:
                await store.head_bucket()
            except StoreUnreachable:
                continue
            except HublessError:
                return True  # it refuses, so it is there
            return True
        return False
