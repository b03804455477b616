"""An application is given back to a hub: only when nothing is owed, touching nothing, and taken again on purpose."""

from __future__ import annotations

from copy import deepcopy

import pytest

from activities.contracts import Gate
from ramen.names import ACTION, DRPC_UID
from ramen.recovery import Verdict
from tests.workflows.conftest import Application
from tests.workflows.test_adopt import adopt
from tests.workflows.world import World
from workflows.inputs import Answer, Outcome, ReleaseRequest


async def released(shop: Application) -> Answer:
    answer = await shop.update("release", ReleaseRequest(request_id="r1"))
    await shop.entity.result()
    return answer


async def test_release_touches_nothing_and_ends_the_entity(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    before, decisions = deepcopy(world.vrgs), dict(world.decisions)
    world.log.clear()
    answer = await released(shop)
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    assert [where for what, where, _ in world.log if what == "release_vrg"] == ["dr2", "dr1"]
    wrote = {what for what, _, _ in world.log}
    assert not wrote & {"write_vrg", "apply_vrg", "delete_vrg", "publish_decision", "remove_restored", "request_upload"}
    for cluster in ("dr1", "dr2"):
        assert world.vrgs[cluster]["spec"] == before[cluster]["spec"]
        assert world.vrgs[cluster]["metadata"]["annotations"][ACTION] == "Release"
    assert world.decisions == decisions, "GitOps goes on with what it has"


async def test_what_the_stores_keep_proves_nothing_afterwards(shop: Application, world: World) -> None:
    """S2, S3: a hub may do anything from now on, and the epoch does not tell."""
    await shop.protect()
    await shop.protected()
    await released(shop)
    assert world.mirrored
    assert world.mirrored["phase"] == "Released"
    assert (world.mirrored["volumes"], world.mirrored["wanted"]) == ([], {})
    assert world.mirrored["observed"] == {"debts": [], "protected": {}, "last_good": {}}


@pytest.mark.parametrize("silent", ["dr1", "dr2"])
async def test_release_is_refused_while_a_cluster_does_not_answer(shop: Application, world: World, silent: str) -> None:
    await shop.protect()
    await shop.protected()
    world.silent.add(silent)
    before = len(world.claims)
    error = await shop.refused("release", ReleaseRequest(request_id="r1"))
    assert f"{silent} does not answer" in error.message
    assert len(world.claims) == before, "a refusal consumes no epoch (S15)"
    assert not world.did("release_vrg")


async def test_release_is_refused_while_something_is_owed(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.silent.add("dr1")
    answer = await shop.move("failover", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    await shop.until(lambda view: bool(view.state.debts) and not view.child)
    world.silent.clear()
    error = await shop.refused("release", ReleaseRequest(request_id="r1"))
    assert "dr1 owes Secondary" in error.message or "being cleaned up" in error.message
    assert not world.did("release_vrg")


async def test_release_is_refused_while_an_action_runs(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr2", Gate.READY))
    await shop.move("failover", "dr2")
    error = await shop.refused("release", ReleaseRequest(request_id="r1"))
    assert "Failover to dr2 runs" in error.message
    world.hold.clear()


async def test_release_is_refused_while_a_cluster_is_not_what_is_wanted(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    vrg = world.vrgs.pop("dr2")
    assert "dr2 is missing" in (await shop.refused("release", ReleaseRequest(request_id="r1"))).message
    world.vrgs["dr2"] = vrg
    vrg["spec"]["replicationState"] = "primary"
    assert "dr2 is primary" in (await shop.refused("release", ReleaseRequest(request_id="r2"))).message


async def test_a_failover_takes_back_what_is_being_released(shop: Application, world: World) -> None:
    """S5: a site that is lost in the middle of a release is no dead end."""
    await shop.protect()
    await shop.protected()
    world.vanishes_at_release = "dr1"
    answer = await shop.update("release", ReleaseRequest(request_id="r1"))
    await shop.steps_until(answer.workflow_id, lambda view: view.needs_operator)
    moved = await shop.move("failover", "dr2")
    assert (await shop.ended(moved.workflow_id)).outcome is Outcome.DONE
    await shop.until(lambda view: view.state.decision.cluster == "dr2")
    assert world.role("dr2") == "primary"


async def test_what_was_released_is_adopted_only_by_its_policy(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    await released(shop)
    left = await adopt(shop)
    assert (left.inference.verdict, left.adopted) == (Verdict.NOTHING, False)
    assert "given back to a Ramen hub" in left.inference.why
    assert f"hubless adopt {shop.name} -n web --policy gold" in left.inference.plan
    specs = {cluster: deepcopy(vrg["spec"]) for cluster, vrg in world.vrgs.items()}
    for vrg in world.vrgs.values():
        vrg["metadata"]["annotations"][DRPC_UID] = "a hub's"
    looked = await adopt(shop, consent=False, policy="gold")
    assert (looked.inference.verdict, looked.inference.serving) == (Verdict.ADOPT, "dr1")
    world.log.clear()
    held = await adopt(shop, policy="gold")
    assert held.adopted
    assert held.epoch == 3
    assert ("write_vrg", "dr1", "primary") not in world.log, "what runs is not touched"
    status = await shop.protected()
    assert status.state.decision.cluster == "dr1"
    assert {cluster: vrg["spec"] for cluster, vrg in world.vrgs.items()} == specs
    answer = await shop.move("failover", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE


async def test_what_was_released_is_not_held_again_while_its_clusters_are_silent(
    shop: Application, world: World
) -> None:
    """Nobody sees its VRGs then, and the last decision of ours is in the stores; a hub may have moved it since."""
    await shop.protect()
    await shop.protected()
    await released(shop)
    world.silent |= {"dr1", "dr2"}
    left = await adopt(shop)
    assert (left.inference.verdict, left.adopted) == (Verdict.NOTHING, False)


async def test_a_proof_from_before_the_release_does_not_count(shop: Application, world: World) -> None:
    """S2: a store that was silent at the release still has the old state; the peer's copy may be spoiled since."""
    await shop.protect()
    await shop.protected()
    await world.until(lambda: (world.mirrored or {}).get("observed", {}).get("protected"))
    old = deepcopy(world.mirrored)
    await released(shop)
    assert old
    world.mirrored = old | {"epoch": world.claims[max(world.claims)].model_dump()}
    world.hold.add(("dr1", Gate.REPROTECTED))
    assert (await adopt(shop, policy="gold")).adopted
    assert (await shop.status()).state.protected == {}
    world.hold.clear()
