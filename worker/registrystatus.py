"""Writes the status of the ClusterRegistry on each cluster that this worker is the writer of (S16).

What it says is decided in `ramen.health`; here it is observed, compared with what stands there, and written when it
differs and the budget allows it. Nothing is written for a probe.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ramen import names
from ramen.conditions import Condition, set_condition
from ramen.errors import Conflict, HublessError, KindMissing, NotFound
from ramen.health import AVAILABLE, UNAVAILABLE, UNKNOWN, HealthBook, Sighting, Weight, WriteBudget, weight
from ramen.kinds import CLUSTER_REGISTRY
from ramen.objects import ClusterRegistry, ClusterRegistryStatus
from worker.clusters import Clusters

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at the gates; no request is made."""

WORKERS_SECONDS = 60.0
"""Between two questions to Temporal which workers reach a cluster; one request per cluster."""

FAILED_SECONDS = 15.0
"""Pause after a status could not be written."""

READ_SECONDS = 60.0
"""Between two looks at what stands there, in case somebody made the object again."""

Workers = Callable[[str], Awaitable[list[str] | None]]
"""Identities of the workers that reach a cluster, sorted; None while that cannot be known."""


@dataclass
class _Written:
    """What stands on one cluster, as this worker left it."""

    status: ClusterRegistryStatus
    version: str
    """Resource version of the object that was read or written last: a write is of nothing that came later."""
    budget: WriteBudget
    read_at: float


@dataclass
class _Workers:
    """Who reaches a cluster, as last heard."""

    found: list[str] | None = None
    due: float = 0.0
    was_available: bool = False


@dataclass
class RegistryStatus:
    """The writer of all registry statuses of this worker; `now` is monotonic."""

    clusters: Clusters
    is_writer: Callable[[str], bool]
    identity: str
    workers: Workers
    conditions: Callable[[str], Iterable[Condition]] = lambda _: ()
    """What else is to be said on a cluster."""
    now: Callable[[], float] = time.monotonic
    book: HealthBook = field(default_factory=HealthBook)
    _written: dict[str, _Written] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    """By cluster: nothing is tried there before this time, after a failure."""
    _workers: dict[str, _Workers] = field(default_factory=dict)

    async def run(self) -> None:
        """Looks and writes until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One look at all gates, and the writes that follow from it."""
        known = self.clusters.names()
        writes_on = [name for name in known if self.is_writer(name)]
        for name in self._written.keys() - set(writes_on):
            del self._written[name]
        if writes_on:
            await asyncio.gather(*(self._ask_workers(name) for name in known))
            # A cluster may have left the registry while Temporal was asked.
            known = [name for name in known if name in self.clusters.names()]
            writes_on = [name for name in writes_on if name in known]
        self.book.observe({name: self._sighting(name) for name in known}, self.now())
        due = [
            name for name in writes_on if self.clusters.gate(name).is_open and self.now() >= self._due.get(name, 0.0)
        ]
        await asyncio.gather(*map(self._keep, due))

    async def _ask_workers(self, name: str) -> None:
        """Who serves the cluster's queue: asked each minute, and when the cluster came or went."""
        heard = self._workers.setdefault(name, _Workers())
        available = self.clusters.gate(name).is_open
        if self.now() >= heard.due or available != heard.was_available:
            heard.due, heard.was_available = self.now() + WORKERS_SECONDS, available
            heard.found = await self.workers(name)

    def _sighting(self, name: str) -> Sighting:
        gate = self.clusters.gate(name)
        known = self._workers.get(name, _Workers()).found
        if gate.is_open:
            # A poll that was open when a gate closed is still counted for a minute, so it proves nothing by itself.
            reach = sorted({self.identity, *(known or ())})
            return Sighting(AVAILABLE, gate.since, gate.version, self.clusters.note(name), tuple(reach))
        if not gate.is_known or not self.clusters.has_credentials(name):
            return Sighting(UNKNOWN, gate.since, gate.version, gate.error)
        return Sighting(UNAVAILABLE, gate.since, gate.version, gate.error)

    async def _keep(self, cluster: str) -> None:
        try:
            if cluster not in self._written or self.now() >= self._written[cluster].read_at + READ_SECONDS:
                await self._read(cluster)
            await self._write(cluster)
        except Conflict as err:
            log.debug("registry status on %s: %s", cluster, err)
            self._written[cluster].read_at = float("-inf")  # somebody wrote meanwhile; the next look reads what
        except HublessError as err:
            # A registry that is missing is said by whoever reads it as its own; anything else heals by itself.
            log.debug("registry status on %s: %s", cluster, err)
            self._due[cluster] = self.now() + FAILED_SECONDS
            if isinstance(err, NotFound | KindMissing):
                self._written.pop(cluster, None)

    async def _read(self, cluster: str) -> None:
        """Goes on from what stands there: at first what another writer, or this one before a restart, left."""
        found = await self.clusters.access(cluster).read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
        if found is None:
            raise NotFound(f"ClusterRegistry {names.REGISTRY_NAME} on {cluster}")
        status = ClusterRegistry.of(found).status
        self.book.inherit(status.clusters)
        version = str(found["metadata"].get("resourceVersion") or "")
        now, known = self.now(), self._written.get(cluster)
        if known is None:
            self._written[cluster] = _Written(status, version, WriteBudget(now), now)
        else:
            known.status, known.version, known.read_at = status, version, now

    async def _write(self, cluster: str) -> None:
        written, now = self._written[cluster], self.now()
        wanted = ClusterRegistryStatus(
            clusters=self.book.entries(),
            conditions=list(written.status.conditions),
            reporter=self.identity,
        )
        moved = [
            set_condition(wanted.conditions, condition, datetime.now(UTC)) for condition in self.conditions(cluster)
        ]
        old = written.status
        urgency = weight(old.clusters, wanted.clusters)
        if any(moved) or old.reporter != wanted.reporter:
            urgency = max(urgency, Weight.FACTS)
        # Temporal and the cluster were asked since this worker was found to be the writer.
        if not written.budget.allows(now, urgency) or not self.is_writer(cluster):
            return
        written.budget.spend(now)
        patch = {"metadata": {"resourceVersion": written.version}, "status": wanted.model_dump(mode="json")}
        done = await self.clusters.access(cluster).patch(
            CLUSTER_REGISTRY, names.REGISTRY_NAME, patch, subresource="status"
        )
        written.status, written.version = wanted, str(done["metadata"].get("resourceVersion") or "")
