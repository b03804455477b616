"""What ends, begins, or is replaced while a request looks around: it is judged by what is true when it acts."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError, WorkflowUpdateStage

from activities.contracts import Gate
from ramen import names
from ramen.app import Role, Wanted
from ramen.epoch import Epoch
from tests.workflows.conftest import Application
from tests.workflows.test_adopt import adopt, forgotten
from tests.workflows.test_cut_off import promoted_and_held, relocate_that_hangs_in_its_demotion
from tests.workflows.world import World
from workflows.entity import DRPlacementControl
from workflows.inputs import (
    Answer,
    AppState,
    MoveRequest,
    OperatorRequest,
    Outcome,
    ReleaseRequest,
    StepState,
    UnprotectRequest,
)


async def protected(shop: Application) -> None:
    await shop.protect()
    await shop.protected()


async def test_a_decision_that_came_while_a_failover_back_looked_around_needs_the_loss_accepted(
    shop: Application, world: World
) -> None:
    """S2: dr2 serves by now, and what it wrote would be discarded."""
    await protected(shop)
    world.publishing["dr2"] = asyncio.Event()
    there = await shop.move("failover", "dr2")
    await shop.steps_until(there.workflow_id, lambda view: view.steps[-1].title == "Decide for dr2")
    world.frozen.add("dr1")
    back = asyncio.create_task(shop.refused("failover", MoveRequest(target="dr1", request_id="back")))
    await shop.until(lambda view: view.answering == "back")
    world.publishing["dr2"].set()
    assert (await shop.ended(there.workflow_id)).outcome is Outcome.DONE
    await shop.until(lambda view: view.state.decision.cluster == "dr2")
    world.frozen.clear()
    assert "--accept-data-loss" in (await back).message
    assert (world.role("dr1"), world.role("dr2")) == ("primary", "primary")
    assert (await shop.protected()).state.decision.cluster == "dr2"


async def test_a_failover_to_the_side_that_an_abort_demotes_needs_the_loss_accepted(
    shop: Application, world: World
) -> None:
    """S2: its copy was good when it was promoted; now it is rebuilt from dr1, and has holes until that is done."""
    moving = await promoted_and_held(shop, world)
    world.hold.add(("dr2", Gate.ACCEPTED_SECONDARY))
    await shop.update("abort", OperatorRequest(reason="a mistake"))
    await world.until(lambda: world.role("dr2") == "secondary")
    error = await shop.refused("failover", MoveRequest(target="dr2", request_id="again"))
    assert "dr2's copy" in error.message
    assert "being rebuilt from dr1" in error.message
    world.hold.clear()
    assert (await shop.ended(moving)).outcome is Outcome.ABORTED
    await shop.protected()
    assert (await shop.move("failover", "dr2")).message == "Failover started"


async def test_a_failover_to_the_side_that_an_aborted_relocate_left_alone_goes_on(
    shop: Application, world: World
) -> None:
    """A relocate's target was not touched before the abort; if its source is lost now, nothing has to be accepted."""
    moving = await relocate_that_hangs_in_its_demotion(shop, world)
    world.hold.add(("dr1", Gate.READY))
    await shop.update("abort", OperatorRequest(reason="a mistake"))
    world.silent.add("dr1")
    again = await shop.move("failover", "dr2")
    assert (await shop.ended(moving)).outcome is Outcome.SUPERSEDED
    assert (await shop.ended(again.workflow_id)).outcome is Outcome.DONE


async def test_an_abort_does_not_hit_the_failover_that_replaced_what_it_was_meant_for(
    shop: Application, world: World
) -> None:
    """Two people at once: one aborts the relocate that hangs, the other one has just overruled it."""
    moving = await relocate_that_hangs_in_its_demotion(shop, world)
    world.hold.add(("dr2", Gate.READY))
    world.frozen.add("dr2")
    overruling = asyncio.create_task(shop.move("failover", "dr2"))
    await shop.until(lambda view: bool(view.answering))
    said = [
        await shop.entity.start_update(
            verb, OperatorRequest(request_id=verb), wait_for_stage=WorkflowUpdateStage.ACCEPTED, result_type=Answer
        )
        for verb in ("abort", "retry")
    ]
    world.frozen.clear()
    failover = (await overruling).workflow_id
    for update in said:
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await update.result()
        assert f"meant for {moving}, and by now {failover} runs" in str(caught.value.cause)
    world.hold.clear()
    assert (await shop.ended(failover)).outcome is Outcome.DONE


async def test_a_failover_that_meets_the_end_of_a_release_begins_nothing(shop: Application, world: World) -> None:
    """D1: a hub drives it from now on, and nobody would follow the action."""
    await protected(shop)
    world.before["release_vrg"] = asyncio.Event()
    released = await shop.update("release", ReleaseRequest(request_id="give"))
    await world.until(lambda: "release_vrg" in world.waiting)
    world.before["stamp_epoch"] = asyncio.Event()
    refused = asyncio.create_task(shop.refused("failover", MoveRequest(target="dr2", request_id="late")))
    await world.until(lambda: "stamp_epoch" in world.waiting)
    world.before["release_vrg"].set()
    assert (await shop.ended(released.workflow_id)).outcome is Outcome.DONE
    await world.until(lambda: (2, "Release") in world.recorded)
    world.before["stamp_epoch"].set()
    assert "not protected" in (await refused).message
    assert await shop.entity.result() == f"{shop.name} was given back"
    assert world.role("dr2") == "secondary"


async def test_a_failover_whose_predecessor_met_the_new_epoch_can_be_aborted(shop: Application, world: World) -> None:
    """S5: that one ended by itself, so nothing was cut off that nobody saw; dr1 serves untouched."""
    first = await promoted_and_held(shop, world)
    world.before["stamp_epoch dr1"] = asyncio.Event()
    second = asyncio.create_task(shop.move("failover", "dr2"))
    assert (await shop.ended(first)).outcome is Outcome.SUPERSEDED
    await shop.until(lambda view: view.child != first)
    world.before["stamp_epoch dr1"].set()
    moving = (await second).workflow_id
    assert not (await shop.steps(moving)).point_of_no_return_passed
    await shop.update("abort", OperatorRequest(reason="a mistake"))
    world.hold.clear()
    assert (await shop.ended(moving)).outcome is Outcome.ABORTED
    await shop.protected()
    assert (world.role("dr1"), world.role("dr2")) == ("primary", "secondary")


async def test_a_move_that_was_terminated_while_it_was_overruled_counts_as_cut_off(
    shop: Application, world: World
) -> None:
    """S2: it may have decided, and nobody saw it."""
    first = await promoted_and_held(shop, world)
    world.before["claim_epoch"] = asyncio.Event()
    second = asyncio.create_task(shop.move("failover", "dr2"))
    await world.until(lambda: "claim_epoch" in world.waiting)
    await shop.client.get_workflow_handle(first).terminate()
    await shop.until(lambda view: not view.child)
    world.before["claim_epoch"].set()
    moving = (await second).workflow_id
    assert "nothing to go back to" in (await shop.refused("abort", OperatorRequest())).message
    world.hold.clear()
    assert (await shop.ended(moving)).outcome is Outcome.DONE


async def test_a_failover_asked_for_again_after_a_cut_off_one_has_no_way_back_either(
    shop: Application, world: World
) -> None:
    """S2: dr1 was given up by the relocate; the second failover only repeats the first."""
    await relocate_that_hangs_in_its_demotion(shop, world)
    world.hold.add(("dr2", Gate.READY))
    first = (await shop.move("failover", "dr2")).workflow_id
    await world.until(lambda: world.role("dr2") == "primary")
    again = (await shop.move("failover", "dr2", accept_missing_volumes=["data-1"])).workflow_id
    assert (await shop.ended(first)).outcome is Outcome.SUPERSEDED
    assert "nothing to go back to" in (await shop.refused("abort", OperatorRequest())).message
    world.hold.clear()
    assert (await shop.ended(again)).outcome is Outcome.DONE


async def test_an_unprotect_whose_id_is_taken_says_to_ask_again(shop: Application, world: World) -> None:
    await protected(shop)
    taken = await shop.client.start_workflow(
        DRPlacementControl.run,
        AppState(namespace="web", name="other"),
        id=names.action_id("web", shop.name, "Unprotect", 2),
        task_queue=names.CONTROL_QUEUE,
    )
    error = await shop.refused("unprotect", UnprotectRequest(request_id="one"))
    assert "could not be started" in error.message
    assert "ask again" in error.message
    assert not (await shop.status()).state.interrupted
    await shop.ended((await shop.update("unprotect", UnprotectRequest(request_id="two"))).workflow_id)
    await taken.terminate()


async def test_an_action_whose_id_is_taken_is_refused_and_the_next_one_runs(shop: Application, world: World) -> None:
    """S14: the entity was reset to before it started an action that still runs; its ID is that of the next epoch."""
    await protected(shop)
    taken = await shop.client.start_workflow(
        DRPlacementControl.run,
        AppState(namespace="web", name="other"),
        id=names.action_id("web", shop.name, "Failover", 2),
        task_queue=names.CONTROL_QUEUE,
    )
    error = await shop.refused("failover", MoveRequest(target="dr2", request_id="one"))
    assert "could not be started" in error.message
    status = await shop.status()
    assert status.state.action is not None
    assert (status.state.action.kind.value, status.state.action.outcome) == ("Deploy", Outcome.DONE)
    assert status.state.interrupted, "nothing is cleaned up beside what still runs"
    again = await shop.move("failover", "dr2")
    assert (await shop.ended(again.workflow_id)).outcome is Outcome.DONE
    await taken.terminate()


async def test_an_application_that_changes_while_it_is_adopted_is_looked_at_again(
    shop: Application, world: World
) -> None:
    """S2, S14: a failover whose workflow was lost was still running, and promoted dr2 after adoption looked there."""
    await protected(shop)
    await forgotten(shop)
    epoch = Epoch(number=1, token="t1")
    world.when_claimed = lambda: world._write("dr2", Wanted(role=Role.PRIMARY, epoch=epoch, action="Failover"))
    with pytest.raises(WorkflowFailureError) as caught:
        await adopt(shop)
    assert "changed while it was being adopted, on dr2" in str(caught.value.cause)
    world.when_claimed = lambda: None
    looked = await adopt(shop, consent=False)
    assert looked.inference.epoch is not None
    assert looked.inference.epoch.number == 2, "whatever ran under the first epoch writes nothing any more"


async def test_an_undo_begins_when_all_that_ran_side_by_side_has_ended(shop: Application, world: World) -> None:
    """S5: a decision that is still being cleared would be written beside the one that brings the source back."""
    await protected(shop)
    world.publishing = {"dr1": asyncio.Event(), "dr2": asyncio.Event()}
    moving = await shop.move("relocate", "dr2")
    await shop.steps_until(
        moving.workflow_id, lambda view: len([row for row in view.steps if "Clear" in row.title]) == 2
    )
    await shop.update("abort", OperatorRequest(reason="a mistake"))
    world.publishing["dr2"].set()
    view = await shop.steps_until(
        moving.workflow_id, lambda view: any(row.state is StepState.SKIPPED for row in view.steps)
    )
    assert [row.title for row in view.steps if "Finish" in row.title or "primary again" in row.title] == []
    world.publishing["dr1"].set()
    assert (await shop.ended(moving.workflow_id)).outcome is Outcome.ABORTED
    assert world.decisions["dr1"].cluster == "dr1"


async def test_a_deletion_that_was_judged_while_another_cluster_served_is_refused(
    shop: Application, world: World
) -> None:
    """S7: a deleted DRPC object takes the protection away only on the cluster that serves."""
    await protected(shop)
    error = await shop.refused("unprotect", UnprotectRequest(request_id="d", basis_serving="dr2"))
    assert "serves on dr1 by now" in error.message
    assert (await shop.status()).state.protected, "a refused request changes nothing"
    assert (await shop.update("unprotect", UnprotectRequest(request_id="e", basis_serving="dr1"))).workflow_id
