"""A policy that got new peer classes while its applications run: both VRGs are given them, without an action."""

from __future__ import annotations

from tests.workflows.conftest import Application
from tests.workflows.world import World
from workflows.inputs import ClusterSignal, StatusView

FAST = {"storageClassName": "fast", "clusterIDs": ["id-1", "id-2"], "replicationID": "r"}
CHANGED = ClusterSignal(cluster="dr1", policy_changed=True)


async def protected_again(shop: Application, signal: ClusterSignal) -> StatusView:
    await shop.entity.signal("vrg_observed", signal)
    child = (await shop.until(lambda view: bool(view.child))).child
    await shop.ended(child)
    return await shop.protected()


async def test_new_peer_classes_reach_the_vrgs_of_both_sides(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.classes = [FAST]
    status = await protected_again(shop, CHANGED)
    assert world.did("refresh_vrg", "dr1") == ["fast"]
    assert world.written_classes["dr2"] == "fast"
    assert world.role("dr1") == "primary"
    assert status.state.app is not None
    assert status.state.app.peer_classes == [FAST]
    assert status.state.epoch is not None
    assert status.state.epoch.number == 1, "nothing was decided"


async def test_the_serving_side_is_given_them_while_the_other_is_away(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.classes = [FAST]
    world.silent.add("dr2")
    await shop.entity.signal("vrg_observed", CHANGED)
    await world.until(lambda: world.did("refresh_vrg", "dr1"))
    world.silent.clear()
    await shop.entity.signal("cluster_returned", ClusterSignal(cluster="dr2"))
    await shop.protected()
    assert world.written_classes["dr2"] == "fast"


async def test_a_policy_that_cannot_be_read_takes_nothing_away(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.classes = [FAST]
    await protected_again(shop, CHANGED)
    for classes in (None, []):
        world.classes = classes
        status = await protected_again(shop, CHANGED)
        assert status.state.app is not None
        assert status.state.app.peer_classes == [FAST]


async def test_a_hint_of_another_kind_reads_no_policy(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.classes = [FAST]
    await protected_again(shop, ClusterSignal(cluster="dr1"))
    assert world.did("refresh_vrg") == []


async def test_a_move_after_it_writes_what_it_brought(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.classes = [FAST]
    await protected_again(shop, CHANGED)
    moving = await shop.move("failover", "dr2")
    await shop.ended(moving.workflow_id)
    await shop.protected()
    assert world.written_classes["dr2"] == "fast"
