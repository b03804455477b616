"""Leaves in the stores what is known of each cluster, for people who have nothing but the stores (design 8).

The worker that holds a cluster's Lease writes (S16): one request per store when it becomes the writer, and one when
something that the document says changes or a store has come back, never sooner than `PAUSE_SECONDS` after the one
before. There is no heartbeat, so an idle installation makes no request; the document says when it was written, and
whether a cluster answers now is said by whoever asks it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from activities.access.s3 import S3Store
from activities.mirror import Mirror
from ramen import names
from ramen.errors import HublessError
from ramen.health import image_version
from ramen.kinds import DEPLOYMENT
from ramen.s3layout import ClusterStatusDocument
from worker.clusters import Clusters

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""Between two comparisons; no request is made."""

PAUSE_SECONDS = 180.0
"""Shortest time between two writes of one cluster's document, however often it comes and goes."""

OPERATOR_SECONDS = 600.0
"""Between two looks at which operator is installed: one request to the API server."""


@dataclass
class _Cluster:
    """What this worker knows of one cluster, and what it told to whom."""

    operator: str = ""
    operator_due: float = 0.0
    told: dict[str, tuple[object, ...]] = field(default_factory=dict)
    """By profile: the facts that the store has from this worker."""
    due: float = 0.0


@dataclass
class ClusterReports:
    """The writer of the documents of all clusters of which this worker holds the Lease; `now` is monotonic."""

    clusters: Clusters
    is_writer: Callable[[str], bool]
    stores: Mapping[str, S3Store]
    identity: str
    namespace: str = names.RAMEN_NAMESPACE
    now: Callable[[], float] = time.monotonic
    _known: dict[str, _Cluster] = field(default_factory=dict)

    async def run(self) -> None:
        """Looks and writes until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One comparison for each cluster, and the writes that follow from it."""
        for cluster in self.clusters.names():
            known = self._known.setdefault(cluster, _Cluster())
            if self.is_writer(cluster):
                await self._tell(cluster, known)
            else:
                known.told.clear()  # somebody else writes meanwhile

    async def _tell(self, cluster: str, known: _Cluster) -> None:
        if cluster not in self.clusters.names():
            return  # it left the registry while the one before it was reported
        gate = self.clusters.gate(cluster)
        if gate.last_answer is None:
            return
        if gate.is_open:
            await self._look_at_operator(cluster, known)
        facts = (gate.is_open, gate.version, known.operator)
        behind = [profile for profile in self.stores if known.told.get(profile) != facts]
        if not behind or self.now() < known.due:
            return
        known.due = self.now() + PAUSE_SECONDS
        document = ClusterStatusDocument(
            cluster=cluster,
            reachable=gate.is_open,
            last_seen=gate.last_answer,
            written_at=datetime.now(UTC),
            api_server_version=gate.version,
            operator_version=known.operator,
            worker=self.identity,
        )
        written = await Mirror(self.stores).of(behind).write_cluster_status(document)
        known.told.update(dict.fromkeys(written.stored, facts))
        for why in written.failed.values():
            log.debug("the report of %s was not stored: %s", cluster, why)

    async def _look_at_operator(self, cluster: str, known: _Cluster) -> None:
        if self.now() < known.operator_due:
            return
        known.operator_due = self.now() + OPERATOR_SECONDS
        try:
            found = await self.clusters.access(cluster).read(DEPLOYMENT, names.OPERATOR_DEPLOYMENT, self.namespace)
        except HublessError as err:
            log.debug("the operator's version on %s is not known: %s", cluster, err)
            return
        pods = ((found or {}).get("spec") or {}).get("template", {}).get("spec") or {}
        known.operator = image_version([container.get("image") or "" for container in pods.get("containers") or []])
