"""What activities see of the worker: its clusters and its watches behind one face (`activities.clusters.Clusters`)."""

from __future__ import annotations

from activities.access.protocol import ClusterAccess
from activities.contracts import ClusterHealth
from activities.waiting import SharedWatch
from worker.clusters import Clusters
from worker.watches import Watches


class Reach:
    """Access, watch and health of every cluster by its name."""

    def __init__(self, clusters: Clusters, watches: Watches) -> None:
        self.own = clusters.own
        self._clusters = clusters
        self._watches = watches

    def names(self) -> list[str]:
        """All clusters known, the own one first."""
        return self._clusters.names()

    def access(self, name: str) -> ClusterAccess:
        """The client of a cluster; raises GateClosed while it does not answer."""
        return self._clusters.access(name)

    def watch(self, name: str) -> SharedWatch:
        """The one watch of a cluster; raises GateClosed for a cluster that is not known."""
        return self._watches.get(name)

    def health(self) -> list[ClusterHealth]:
        """What this worker knows of every cluster."""
        return self._clusters.health()
