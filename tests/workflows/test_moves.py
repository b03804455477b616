"""Orders of steps, refusals, and ways out, over a world in memory and a real Temporal server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType

from activities.contracts import Gate
from ramen.desired import Drawback
from tests.workflows.conftest import Application
from tests.workflows.world import World
from workflows.inputs import ClusterSignal, MoveRequest, OperatorRequest, Outcome, UnprotectRequest


async def test_protect_then_fail_over_with_the_source_alive(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.log.clear()
    answer = await shop.move("failover", "dr2")
    result = await shop.ended(answer.workflow_id)
    assert result.outcome is Outcome.DONE
    assert result.decision.cluster == "dr2"
    assert result.decision.retained == ["dr1"]
    await shop.protected()
    order = [entry for entry in world.log if entry[0] in ("write_vrg", "publish_decision")]
    assert order.index(("write_vrg", "dr2", "primary")) < order.index(("publish_decision", "dr2", "dr2"))
    assert order.index(("publish_decision", "dr2", "dr2")) < order.index(("write_vrg", "dr1", "secondary"))
    assert order.index(("write_vrg", "dr1", "secondary")) < order.index(("publish_decision", "dr1", "dr2"))
    status = await shop.status()
    assert status.state.decision.retained == []
    assert [c["type"] for c in status.drpc["status"]["conditions"]] == ["Available", "PeerReady", "Protected"]
    assert status.drpc["status"]["phase"] == "FailedOver"


async def test_why_a_cluster_was_chosen_is_said_in_answer_status_and_details(shop: Application, world: World) -> None:
    world.placement_reason = "the first ready one of policy gold"
    answer = await shop.protect()
    assert answer.message.endswith(" on dr1 (chosen: the first ready one of policy gold)")
    assert (await shop.protected()).hubless["chosen"] == "the first ready one of policy gold"
    details: Any = await shop.entity.query("__temporal_workflow_metadata")
    assert "dr1 was chosen: the first ready one of policy gold" in str(details)


async def test_failover_with_the_source_dead_parks_and_the_debt_is_paid_when_it_returns(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    world.silent.add("dr1")
    answer = await shop.move("failover", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    owed = await shop.until(lambda view: not view.child and bool(view.state.debts))
    assert [debt.cluster for debt in owed.state.debts] == ["dr1"]
    assert world.role("dr1") == "primary"
    world.silent.clear()
    await shop.entity.signal("cluster_returned", {"cluster": "dr1"})
    await shop.protected()
    assert world.role("dr1") == "secondary"


async def test_a_parked_debt_is_paid_although_nobody_tells_that_the_cluster_is_back(
    shop: Application, world: World
) -> None:
    """S8: workers that start when their clusters are back already see nothing return."""
    await shop.protect()
    await shop.protected()
    world.silent.add("dr1")
    answer = await shop.move("failover", "dr2")
    await shop.ended(answer.workflow_id)
    await shop.until(lambda view: not view.child and bool(view.state.debts))
    world.silent.clear()
    await shop.protected()
    assert world.role("dr1") == "secondary"


async def test_a_cluster_that_answers_again_starts_nothing_for_an_application_that_owes_nothing(
    shop: Application, world: World
) -> None:
    """A moment's silence of a cluster must not start an action of each of a thousand applications."""
    await shop.protect()
    await shop.protected()
    before = len(world.did("stamp_epoch", "dr2"))
    await shop.entity.signal("cluster_returned", {"cluster": "dr2"})
    view = await shop.status()
    assert view.child == ""
    assert len(world.did("stamp_epoch", "dr2")) == before


async def test_failover_does_not_wait_for_a_source_that_is_frozen(shop: Application, world: World) -> None:
    """D12: the look at the side that is left is given up, and what was last seen of it dates the data."""
    await shop.protect()
    await shop.protected()
    world.frozen.add("dr1")
    answer = await shop.move("failover", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    assert "2" not in world.did("stamp_epoch", "dr1"), "a side that does not answer is claimed when it returns"
    record = (await shop.status()).state.action
    assert record is not None
    assert record.data_as_of is not None
    world.frozen.clear()


@pytest.mark.parametrize("verb", ["failover", "relocate"])
@pytest.mark.parametrize("workers", ["say what they see", "have no time either"])
async def test_a_target_that_is_busy_is_not_taken_for_unreachable(
    shop: Application, world: World, verb: str, workers: str
) -> None:
    """S12: a hundred failovers at once must not refuse each other."""
    await shop.protect()
    await shop.protected()
    world.busy.add("dr2")
    if workers == "have no time either":
        world.forgetful.add("dr2")
    answer = await shop.move(verb, "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE


async def test_relocate_promotes_only_after_every_side_is_secondary(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.log.clear()
    answer = await shop.move("relocate", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    order = [entry for entry in world.log if entry[0] in ("write_vrg", "publish_decision", "await_vrg")]
    promotion = order.index(("write_vrg", "dr2", "primary"))
    for earlier in (
        ("publish_decision", "dr1", ""),
        ("write_vrg", "dr1", "secondary"),
        ("await_vrg", "dr1", Gate.SECONDARY.value),
        ("await_vrg", "dr2", Gate.SECONDARY.value),
    ):
        assert order.index(earlier) < promotion
    assert order.index(("publish_decision", "dr2", "dr2")) > promotion


async def test_relocate_without_a_witness_waits_for_the_operator_and_goes_on_with_the_loss_accepted(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    world.unwitnessed.add("data-1")
    answer = await shop.move("relocate", "dr2")
    steps = await shop.steps_until(answer.workflow_id, lambda view: view.needs_operator)
    assert "data-1" in steps.needs_operator
    assert world.role("dr2") == "secondary"
    await shop.update("retry", OperatorRequest(accept_data_loss=True))
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE


async def test_abort_of_a_failover_that_hangs_demotes_the_target_and_removes_what_was_restored(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr2", Gate.READY))
    answer = await shop.move("failover", "dr2")
    await world.until(lambda: world.role("dr2") == "primary")
    await shop.update("abort", OperatorRequest(requester="ann", reason="it hangs"))
    page: Any = await shop.client.get_workflow_handle(answer.workflow_id).query("__temporal_workflow_metadata")
    assert "Being aborted: it hangs" in str(page)
    assert "Can be aborted" not in str(page)
    result = await shop.ended(answer.workflow_id)
    assert result.outcome is Outcome.ABORTED
    assert world.did("remove_restored", "dr2")
    assert world.role("dr2") == "secondary"
    status = await shop.protected()
    assert status.state.decision.cluster == "dr1"


async def test_abort_of_a_relocate_after_quiescing_makes_the_source_primary_before_it_is_placed_again(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr1", Gate.FINAL_SYNC_COMPLETE))
    answer = await shop.move("relocate", "dr2")
    await world.until(lambda: world.decisions["dr1"].cluster is None)
    world.log.clear()
    await shop.update("abort", OperatorRequest())
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.ABORTED
    assert world.decisions["dr1"].cluster == "dr1"
    dr1_came_back(world)
    assert world.role("dr1") == "primary"


def dr1_came_back(world: World) -> None:
    """It ended its demotion, was promoted again, and only then placed."""
    at = -1
    for entry in (
        ("write_vrg", "dr1", "secondary"),
        ("await_vrg", "dr1", Gate.SECONDARY.value),
        ("write_vrg", "dr1", "primary"),
        ("await_vrg", "dr1", Gate.READY.value),
        ("publish_decision", "dr1", "dr1"),
    ):
        assert entry in world.log[at + 1 :], f"{entry} is missing after {world.log[: at + 1]}"
        at = world.log.index(entry, at + 1)


async def test_abort_of_a_relocate_before_quiescing_takes_nothing_down(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr1", Gate.FINAL_SYNC_PREPARED))
    answer = await shop.move("relocate", "dr2")
    await world.until(lambda: world.vrgs["dr1"]["spec"]["prepareForFinalSync"])
    world.log.clear()
    await shop.update("abort", OperatorRequest())
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.ABORTED
    assert world.did("write_vrg", "dr1") == ["primary"]
    assert not world.did("publish_decision", "dr1")


@pytest.mark.parametrize("gate", [Gate.FINAL_SYNC_PREPARED, Gate.FINAL_SYNC_COMPLETE])
async def test_failover_back_during_a_relocate_lets_a_demotion_end_that_has_begun(
    shop: Application, world: World, gate: Gate
) -> None:
    """S5, S3: PVCs that are on their way out are given up as Secondary; before that, nothing is taken down."""
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr1", gate))
    relocate = await shop.move("relocate", "dr2")
    flag = "prepareForFinalSync" if gate is Gate.FINAL_SYNC_PREPARED else "runFinalSync"
    await world.until(lambda: world.vrgs["dr1"]["spec"][flag])
    world.log.clear()
    back = await shop.move("failover", "dr1")
    assert (await shop.ended(relocate.workflow_id)).outcome is Outcome.SUPERSEDED
    assert (await shop.ended(back.workflow_id)).outcome is Outcome.DONE
    if gate is Gate.FINAL_SYNC_PREPARED:
        assert world.did("write_vrg", "dr1") == ["primary"]
        return
    dr1_came_back(world)


async def test_a_failover_back_to_the_serving_side_cannot_be_aborted(shop: Application, world: World) -> None:
    """S5: to undo it would demote the side that holds every write."""
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr1", Gate.FINAL_SYNC_COMPLETE))
    await shop.move("relocate", "dr2")
    await world.until(lambda: world.decisions["dr1"].cluster is None)
    world.hold.add(("dr1", Gate.READY))
    back = await shop.move("failover", "dr1")
    error = await shop.refused("abort", OperatorRequest(request_id="a1"))
    assert "Too late to abort: the decision names dr1" in error.message
    world.hold.clear()
    assert (await shop.ended(back.workflow_id)).outcome is Outcome.DONE


async def test_a_failover_supersedes_a_relocate_whose_source_hangs(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr1", Gate.FINAL_SYNC_PREPARED))
    first = await shop.move("relocate", "dr2")
    await shop.steps_until(first.workflow_id, lambda view: view.waiting)
    second = await shop.move("failover", "dr2")
    assert second.epoch == first.epoch + 1
    assert (await shop.ended(second.workflow_id)).outcome is Outcome.DONE
    assert (await shop.ended(first.workflow_id)).outcome is Outcome.SUPERSEDED


async def test_a_failover_supersedes_a_relocate_whose_worker_died(shop: Application, world: World) -> None:
    """S5: the cancelled wait ends with a time-out, which must not be taken for a step that waits for the operator."""
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr1", Gate.FINAL_SYNC_PREPARED))
    world.breaks_when_stopped = True
    first = await shop.move("relocate", "dr2")
    await shop.steps_until(first.workflow_id, lambda view: view.waiting)
    second = await shop.move("failover", "dr2")
    assert (await shop.ended(second.workflow_id)).outcome is Outcome.DONE
    assert (await shop.ended(first.workflow_id)).outcome is Outcome.SUPERSEDED


async def test_failover_back_before_reprotected_is_refused_and_goes_on_with_the_loss_accepted(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr2", Gate.REPROTECTED))
    answer = await shop.move("failover", "dr2")
    await shop.ended(answer.workflow_id)
    await shop.until(lambda view: view.child.rsplit("/", 1)[-1].startswith("reprotect"))
    before = (await shop.status()).state.issued
    await world.until(lambda: world.role("dr1") == "secondary")
    error = await shop.refused("failover", MoveRequest(target="dr1", request_id="r1"))
    assert error.type == "Refused"
    assert "--accept-data-loss" in error.message
    assert (await shop.status()).state.issued == before
    back = await shop.move("failover", "dr1", accept_data_loss=True)
    assert (await shop.ended(back.workflow_id)).outcome is Outcome.DONE


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
async def test_a_reprotect_makes_way_although_its_activity_ends_otherwise_after_the_stop(
    shop: Application, world: World, fails: bool
) -> None:
    await shop.protect()
    await shop.protected()
    world.hold |= {("dr1", Gate.CLEANED), ("dr2", Gate.REPROTECTED)}
    there = await shop.move("failover", "dr2")
    await shop.ended(there.workflow_id)
    world.publishing["dr2"] = asyncio.Event()
    world.hold.remove(("dr1", Gate.CLEANED))
    reprotect = (await shop.until(lambda view: "/reprotect" in view.child)).child
    await shop.steps_until(reprotect, lambda view: view.steps[-1].title == "Release the old side in dr2's decision")
    async with asyncio.timeout(20):
        back = asyncio.create_task(shop.move("failover", "dr1", accept_data_loss=True))
        while not await shop.has_event(reprotect, EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED):
            await asyncio.sleep(0.05)
    if fails:
        world.vrgs["dr2"]["spec"]["replicationState"] = "flapping"  # what is published needs a Primary
    world.publishing["dr2"].set()
    assert (await shop.ended((await back).workflow_id)).outcome is Outcome.DONE
    assert (await shop.ended(reprotect)).outcome is Outcome.SUPERSEDED


async def test_a_failover_does_not_wait_until_the_wait_of_a_reprotect_learns_of_its_end(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr2", Gate.REPROTECTED))
    world.deaf.add(Gate.REPROTECTED)
    there = await shop.move("failover", "dr2")
    await shop.ended(there.workflow_id)
    reprotect = (await shop.until(lambda view: "/reprotect" in view.child)).child
    await shop.steps_until(reprotect, lambda view: "sync of every volume" in view.steps[-1].title)
    back = await shop.move("failover", "dr1", accept_data_loss=True)
    assert (await shop.ended(back.workflow_id)).outcome is Outcome.DONE
    assert (await shop.ended(reprotect)).outcome is Outcome.SUPERSEDED
    assert ("dr2", Gate.REPROTECTED) in world.hold, "the wait had not ended before"
    world.hold.clear()


async def test_a_wait_that_lasts_goes_on_without_the_lock(shop: Application, world: World) -> None:
    world.hold.add(("dr1", Gate.REPROTECTED))
    await shop.protect()
    waiting = f"drpc/web/{shop.name}/reprotect-1"
    await shop.until(lambda view: view.child == waiting)
    handle = shop.client.get_workflow_handle(waiting)
    await world.until(lambda: waiting in world.locked_by and not world.locks)
    async with asyncio.timeout(20):
        # The first wait learns of its end by its next heartbeat.
        while len(pending := (await handle.describe()).raw_description.pending_activities) > 1:
            await asyncio.sleep(0.05)
    assert [each.activity_type.name for each in pending] == ["await_vrg"], "no lock"
    world.hold.clear()
    await shop.until(lambda view: view.state.action is not None and view.state.action.reprotected_at is not None)
    assert world.locked_by.count(waiting) >= 2, "taken again for what is written after the wait"
    result = await handle.result()
    assert [step["state"] for step in result["steps"]] == ["done"] * len(result["steps"])


async def test_a_missing_volume_refuses_the_failover_and_accepting_it_goes_on(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    for profile in world.stored:
        world.stored[profile] = world.stored[profile][:1]
    error = await shop.refused("failover", MoveRequest(target="dr2", request_id="r1"))
    assert error.type == "VolumesMissing"
    assert "data-1" in error.message
    assert world.role("dr2") == "secondary"
    world.dropped.add("data-1")
    answer = await shop.move("failover", "dr2", accept_missing_volumes=["data-1"])
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE


async def test_a_volume_lost_after_the_check_keeps_the_decision_unpublished(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.dropped.add("data-1")
    answer = await shop.move("failover", "dr2")
    steps = await shop.steps_until(answer.workflow_id, lambda view: view.needs_operator)
    assert "data-1" in steps.needs_operator
    assert "dr2" not in world.decisions or world.decisions["dr2"].cluster != "dr2"
    await shop.update("retry", OperatorRequest(accept_missing_volumes=["data-1"]))
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("silent", "asked"),
    [(["s3-dr1"], ["s3-dr2"]), (["s3-dr1", "s3-dr2"], ["s3-dr1", "s3-dr2"]), ([], ["s3-dr1", "s3-dr2"])],
)
async def test_a_store_that_was_silent_is_not_waited_for_by_the_claim(
    shop: Application, world: World, silent: list[str], asked: list[str]
) -> None:
    """S13: it was waited for once. Where all were silent each is tried again: the claim is to be somewhere."""
    await shop.protect()
    await shop.protected()
    world.silent_coordination |= set(silent)
    answer = await shop.move("relocate", "dr2")
    assert sorted(world.claimed_on) == asked
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE


async def test_no_store_refuses_the_failover_before_any_write(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.silent |= {"s3-dr1", "s3-dr2"}
    world.log.clear()
    error = await shop.refused("failover", MoveRequest(target="dr2", request_id="r1"))
    assert error.type == "NoStore"
    assert "s3-dr1" in error.message
    # The mirror of the last action may still be written beside; nothing else was.
    assert {entry[0] for entry in world.log} <= {"mirror_state", "append_history"}


async def test_a_promotion_knows_which_store_lacks_the_volumes(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.stored["s3-dr2"] = []
    answer = await shop.move("failover", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    assert world.drawbacks["dr2"] == {"s3-dr2": Drawback.LACKS_VOLUMES}


@pytest.mark.parametrize("emptied", ["s3-dr1", "s3-dr2"])
async def test_resume_with_nothing_owed_proves_again_and_brings_back_what_a_store_lost(
    shop: Application, world: World, emptied: str
) -> None:
    await shop.protect()
    before = (await shop.protected()).state.protected["dr2"]
    world.stored[emptied] = []
    world.log.clear()
    answer = await shop.update("resume", OperatorRequest(request_id="r1"))
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    assert world.did("request_upload", "dr1")
    assert world.stored[emptied] == world.volumes
    assert (await shop.protected()).state.protected["dr2"] > before
    assert world.role("dr1") == "primary"


async def test_a_foreign_epoch_stops_the_entity_for_good(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.set_epoch("dr2", "9.somebody")
    error = await shop.refused("failover", MoveRequest(target="dr2", request_id="r1"))
    assert error.type == "Superseded"
    world.set_epoch("dr2", "1.t1")
    again = await shop.refused("failover", MoveRequest(target="dr2", request_id="r2"))
    assert again.type == "Superseded"
    assert "adopt" in again.message


async def test_a_lock_of_somebody_else_refuses_and_names_its_holder(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.lock_holder = "other/drpc"
    before = (await shop.status()).state.issued
    error = await shop.refused("failover", MoveRequest(target="dr2", request_id="r1"))
    assert error.type == "LockHeld"
    assert "other/drpc" in error.message
    assert (await shop.status()).state.issued == before
    answer = await shop.move("failover", "dr2", break_lock="other/drpc")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE


async def test_relocate_is_refused_while_a_cluster_does_not_answer_and_names_the_failover(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    world.silent.add("dr1")
    error = await shop.refused("relocate", MoveRequest(target="dr2", request_id="r1"))
    assert error.type == "Refused"
    assert f"hubless failover {shop.name} -n web --to dr2" in error.message


async def test_a_cluster_outside_the_policy_and_the_present_cluster_are_refused(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    unknown = await shop.refused("failover", MoveRequest(target="dr7", request_id="r1"))
    assert unknown.message == "dr7 is not a cluster of policy gold (dr1, dr2)."
    present = await shop.refused("failover", MoveRequest(target="dr1", request_id="r2"))
    assert present.message == f"{shop.name} already serves on dr1."


async def test_the_same_request_gets_the_same_answer_and_starts_nothing_new(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    request = MoveRequest(target="dr2", request_id="once")
    first = await shop.update("failover", request)
    await shop.ended(first.workflow_id)
    second = await shop.entity.execute_update("failover", request, id="another-update-id", result_type=type(first))
    assert second == first


async def test_a_failover_typed_into_temporal_web_goes_through_the_entity(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    result = await shop.client.execute_workflow(
        "Failover",
        {"confirm": f"web/{shop.name}", "request": {"target": "dr2"}},
        id=f"typed-{shop.name}",
        task_queue="hubless.control",
    )
    assert f"drpc/web/{shop.name}/failover-2" in result["message"]
    await shop.until(lambda view: view.state.decision.cluster == "dr2")


@pytest.mark.parametrize("target", ["dr2", "dr1"])
async def test_a_failover_that_was_terminated_waits_for_a_person(shop: Application, world: World, target: str) -> None:
    """S14, S5: the one good copy must not be demoted by a clean-up that nobody asked for; either way leads on."""
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr2", Gate.READY))
    first = await shop.move("failover", "dr2")
    await world.until(lambda: world.role("dr2") == "primary")
    await shop.client.get_workflow_handle(first.workflow_id).terminate("by mistake")
    status = await shop.until(lambda view: bool(view.state.interrupted))
    assert f"hubless failover {shop.name} -n web --to dr2" in status.state.interrupted
    available = status.drpc["status"]["conditions"][0]
    assert (available["status"], available["reason"]) == ("Unknown", "Interrupted")
    assert available["message"] == status.state.interrupted
    assert status.drpc["status"]["progression"] == "Paused"
    await shop.entity.signal("cluster_returned", {"cluster": "dr1"})
    refused = await shop.refused("resume", OperatorRequest(request_id="r1"))
    assert "ended from outside" in refused.message
    assert world.role("dr2") == "primary", "nothing was cleaned up"
    world.hold.clear()
    answer = await shop.move("failover", target)
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    settled = await shop.protected()
    assert settled.state.decision.cluster == target
    assert not settled.state.interrupted


async def test_an_action_outlives_its_entity(shop: Application, world: World) -> None:
    """S14: whoever terminates the entity in Temporal Web does not leave a cluster half moved."""
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr2", Gate.READY))
    answer = await shop.move("failover", "dr2")
    await world.until(lambda: world.role("dr2") == "primary")
    await shop.entity.terminate("by mistake")
    world.hold.clear()
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    assert world.decisions["dr2"].cluster == "dr2"


async def test_unprotect_deletes_the_secondary_before_the_primary_and_ends_the_entity(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    await shop.update("unprotect", UnprotectRequest(request_id="u1"))
    await shop.entity.result()
    assert [where for what, where, _ in world.log if what == "delete_vrg"] == ["dr2", "dr1"]
    assert world.vrgs == {}


async def test_a_cancelled_entity_aborts_what_runs_and_lives_on(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr2", Gate.READY))
    there = await shop.move("failover", "dr2")
    await world.until(lambda: world.role("dr2") == "primary")
    await shop.entity.cancel()
    assert (await shop.ended(there.workflow_id)).outcome is Outcome.ABORTED
    world.hold.clear()
    await shop.protected()
    again = await shop.move("failover", "dr2")
    assert (await shop.ended(again.workflow_id)).outcome is Outcome.DONE


async def test_a_reprotect_that_is_terminated_begins_again(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr1", Gate.CLEANED))
    there = await shop.move("failover", "dr2")
    await shop.ended(there.workflow_id)
    reprotect = (await shop.until(lambda view: "/reprotect" in view.child)).child
    await shop.client.get_workflow_handle(reprotect).terminate("by a test")
    world.hold.clear()
    assert "dr1" in (await shop.protected()).state.protected


async def test_a_failover_back_that_meets_the_published_decision_needs_the_loss_accepted(
    shop: Application, world: World
) -> None:
    """S2: the decision goes out in the moment in which the failover back is asked for; pods may write by it."""
    await shop.protect()
    await shop.protected()
    world.publishing["dr2"] = asyncio.Event()
    there = await shop.move("failover", "dr2")
    await shop.steps_until(there.workflow_id, lambda view: view.steps[-1].title == "Decide for dr2")
    async with asyncio.timeout(20):
        back = asyncio.create_task(shop.refused("failover", MoveRequest(target="dr1", request_id="r1")))
        while not await shop.has_event(there.workflow_id, EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED):
            await asyncio.sleep(0.05)
    world.publishing["dr2"].set()
    assert "--accept-data-loss" in (await back).message
    view = await shop.protected()
    assert view.state.decision.cluster == "dr2"
    assert (world.role("dr1"), world.role("dr2")) == ("secondary", "primary")


async def test_a_hint_right_after_an_unprotect_protects_nothing_again(shop: Application, world: World) -> None:
    """The deleted VRG is told to the entity while it still writes its last words to the stores."""
    await shop.protect()
    await shop.protected()
    world.mirroring.clear()
    answer = await shop.update("unprotect", UnprotectRequest(request_id="u1"))
    await shop.ended(answer.workflow_id)
    await shop.entity.signal("vrg_observed", ClusterSignal(cluster="dr2", reason="deleted"))
    await shop.status()  # whatever follows from the hint was scheduled by now
    error = await shop.refused("failover", MoveRequest(target="dr2", request_id="f1"))
    assert "not protected" in error.message
    world.mirroring.set()
    await shop.entity.result()
    assert world.vrgs == {}
    children = [found.id async for found in shop.client.list_workflows(f'WorkflowId STARTS_WITH "{shop.entity.id}/"')]
    assert f"{shop.entity.id}/reprotect-{answer.epoch}" not in children
