"""GitOps: who gets the application, who loses it, and what is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ramen.kinds import DEPLOYMENT, NAMESPACE, PLACEMENT_DECISION, PVC
from ramen.names import PLACEMENT_LABEL, RETAINED_FOR_FAILOVER
from sandbox.application import APPLICATION, Application, deploy, ensure, register, registered
from sandbox.ledger import Ledger
from sandbox.standins.gitops import GitOps
from tests.sandbox.watched_cluster import WatchedCluster

SHOP = Application.of("web", "shop")


class World:
    """GitOps of dr1, running."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cluster = WatchedCluster("dr1")
        register(directory, SHOP)
        self.ledger = Ledger.open(directory)
        self.gitops = GitOps(self.cluster, directory)
        self.tasks = [asyncio.create_task(loop) for loop in self.gitops.loops()]

    def decide(self, *entries: tuple[str, str]) -> None:
        decisions = [{"clusterName": cluster, "reason": reason} for cluster, reason in entries]
        self.cluster.put(
            PLACEMENT_DECISION,
            {
                "metadata": {
                    "name": "shop-placement-decision-1",
                    "namespace": "web",
                    "labels": {PLACEMENT_LABEL: SHOP.placement},
                },
                "status": {"decisions": decisions},
            },
        )

    def claims(self) -> list[str]:
        return sorted(name for _, name in self.cluster.objects.get(PVC, {}))

    def runs(self) -> bool:
        return self.cluster.look(DEPLOYMENT, "shop", "web") is not None and self.claims() == SHOP.claim_names

    async def seen(self, *clusters: str) -> None:
        """Waits until GitOps has recorded a decision for exactly these clusters: it has looked, then."""

        def told() -> bool:
            events = self.ledger.events("decision", "web", "shop")
            return bool(events) and [entry["clusterName"] for entry in events[-1].detail["decisions"]] == [*clusters]

        await self.cluster.until(told)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.gitops.close()
        self.ledger.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


async def test_a_cluster_that_the_decision_names_gets_the_application(world: World) -> None:
    world.decide(("dr1", "dr1"))
    await world.cluster.until(world.runs)
    assert world.cluster.look(NAMESPACE, "web") is not None


async def test_a_cluster_that_is_retained_keeps_the_application(world: World) -> None:
    world.decide(("dr1", "dr1"))
    await world.cluster.until(world.runs)
    world.decide(("dr1", RETAINED_FOR_FAILOVER), ("dr2", "dr2"))
    await world.seen("dr1", "dr2")
    assert world.runs()


async def test_a_cluster_that_is_named_no_more_loses_deployment_and_claims(world: World) -> None:
    world.decide(("dr1", "dr1"))
    await world.cluster.until(world.runs)
    world.decide(("dr2", "dr2"))
    await world.cluster.until(lambda: world.cluster.look(DEPLOYMENT, "shop", "web") is None)
    for name in SHOP.claim_names:
        claim = world.cluster.look(PVC, name, "web")
        assert claim is not None, "its finalizer holds it"
        assert claim["metadata"]["deletionTimestamp"]


async def test_a_claim_that_goes_missing_is_applied_again(world: World) -> None:
    world.decide(("dr1", "dr1"))
    await world.cluster.until(world.runs)
    name = SHOP.claim_names[0]
    world.cluster.edit(PVC, name, "web", lambda body: body["metadata"].pop("finalizers"))
    world.cluster.remove(PVC, name, "web")
    await world.cluster.until(world.runs)


async def test_an_application_deployed_by_hand_is_left_alone_until_there_is_a_decision(world: World) -> None:
    await deploy(world.directory, world.cluster, SHOP)
    assert registered(world.directory)[0].deployed == "dr1"
    other = Application.of("web", "other")
    register(world.directory, other)
    world.cluster.put(
        PLACEMENT_DECISION,
        {
            "metadata": {
                "name": "other-placement-decision-1",
                "namespace": "web",
                "labels": {PLACEMENT_LABEL: other.placement},
            },
            "status": {"decisions": [{"clusterName": "dr1", "reason": "dr1"}]},
        },
    )
    # Once the other application is there, GitOps has passed over this one as well.
    await world.cluster.until(lambda: world.cluster.look(DEPLOYMENT, "other", "web") is not None)
    assert world.cluster.look(DEPLOYMENT, "shop", "web") is not None


def restored(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "web", "labels": SHOP.labels},
        "spec": {"volumeName": "pv-of-the-restore", "storageClassName": "array"},
    }


async def test_restored_claims_are_not_pruned_before_the_decision_names_the_cluster(world: World) -> None:
    world.decide(("dr2", "dr2"))
    await world.seen("dr2")
    for name in SHOP.claim_names:
        world.cluster.put(PVC, restored(name))
    world.decide(("dr2", RETAINED_FOR_FAILOVER))
    world.decide(("dr2", RETAINED_FOR_FAILOVER), ("dr1", "dr1"))
    await world.cluster.until(world.runs)
    for name in SHOP.claim_names:
        claim = world.cluster.look(PVC, name, "web")
        assert claim is not None
        assert claim["spec"]["volumeName"] == "pv-of-the-restore"
        assert "deletionTimestamp" not in claim["metadata"]


async def test_the_ledger_learns_of_each_decision_once(world: World) -> None:
    world.decide(("dr1", "dr1"))
    await world.cluster.until(world.runs)
    world.decide()
    await world.seen()
    found = [event.detail["decisions"] for event in world.ledger.events("decision", "web", "shop")]
    assert found == [[{"clusterName": "dr1", "reason": "dr1"}], []]


async def test_a_decision_of_another_placement_means_nothing(world: World) -> None:
    world.decide(("dr1", "dr1"))
    await world.cluster.until(world.runs)
    writes = world.cluster.writes
    world.cluster.put(
        PLACEMENT_DECISION,
        {
            "metadata": {"name": "x", "namespace": "web", "labels": {PLACEMENT_LABEL: "x"}},
            "status": {"decisions": []},
        },
    )
    world.decide(("dr1", RETAINED_FOR_FAILOVER))
    await world.seen("dr1")
    assert world.cluster.writes == writes


def test_the_application_is_one_writer_with_its_claims() -> None:
    deployment = SHOP.deployment()
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    mounted = [v["persistentVolumeClaim"]["claimName"] for v in deployment["spec"]["template"]["spec"]["volumes"]]
    assert mounted == SHOP.claim_names == [claim["metadata"]["name"] for claim in SHOP.claims()]
    for _, body in SHOP.manifests():
        assert body["metadata"]["labels"] == {"app": "shop", APPLICATION: "shop"}


async def test_ensuring_twice_creates_once() -> None:
    cluster = WatchedCluster("dr1")
    assert len(await ensure(cluster, SHOP)) == 4
    assert await ensure(cluster, SHOP) == []
