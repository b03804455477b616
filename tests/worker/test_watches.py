"""What the watches of all clusters show of an application."""

from __future__ import annotations

from ramen.kinds import CLUSTER_REGISTRY, VRG
from tests.worker.fakes import registry, two_clusters, vrg
from tests.worker.test_clusters import is_open, serving, until
from worker.watches import Watches


async def test_a_cluster_that_left_the_registry_is_out_of_sight_before_its_watch_ends() -> None:
    """Its workers may take long to end; whoever asks meanwhile is told of the other clusters."""
    world = two_clusters()
    for server in world.servers.values():
        server.put(VRG, vrg())
    async with serving(world) as clusters:
        watches = Watches(clusters)
        await until(is_open(clusters, "dr1"))
        await until(is_open(clusters, "dr2"))
        for name in clusters.names():
            watches.join(name)
        try:
            await until(lambda: set(watches.seen(("web", "shop"))) == {"dr1", "dr2"})
            world.servers["dr1"].put(CLUSTER_REGISTRY, registry(dr1="uid-dr1"))
            await until(lambda: clusters.names() == ["dr1"])
            assert set(watches.seen(("web", "shop"))) == {"dr1"}
            assert watches.clusters() == ["dr1", "dr2"]
        finally:
            await watches.close()
