"""Moves that are cut off in the middle, by a request that is then refused, by a person, or by a cluster that refuses.

What was promoted by then holds the application's data; nothing of it may be demoted because a later request failed.
"""

from __future__ import annotations

import asyncio

import pytest
from temporalio import workflow
from temporalio.worker import (
    Interceptor,
    SignalExternalWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from activities.contracts import Gate
from ramen.app import Volume
from tests.workflows.conftest import Application
from tests.workflows.world import World
from workflows.inputs import ClusterSignal, MoveRequest, OperatorRequest, Outcome, UnprotectRequest


async def promoted_and_held(shop: Application, world: World) -> str:
    """A failover to dr2 that has promoted it and waits there for its volumes; its workflow ID."""
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr2", Gate.READY))
    answer = await shop.move("failover", "dr2")
    await world.until(lambda: world.role("dr2") == "primary")
    return answer.workflow_id


async def test_a_failover_that_hangs_is_asked_for_again(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.silent.add("dr1")
    world.hold.add(("dr2", Gate.READY))
    first = await shop.move("failover", "dr2")
    await world.until(lambda: world.role("dr2") == "primary")
    second = await shop.move("failover", "dr2", accept_missing_volumes=["data-1"])
    assert (await shop.ended(first.workflow_id)).outcome is Outcome.SUPERSEDED
    world.hold.clear()
    assert (await shop.ended(second.workflow_id)).outcome is Outcome.DONE
    assert world.role("dr2") == "primary"


async def test_a_request_that_fails_after_its_claim_leaves_what_was_promoted(shop: Application, world: World) -> None:
    first = await promoted_and_held(shop, world)
    world.changing.add("dr1")
    error = await shop.refused("failover", MoveRequest(target="dr1", request_id="back"))
    assert error.type == "Conflict"
    world.hold.clear()
    assert (await shop.ended(first)).outcome is Outcome.SUPERSEDED, "its epoch was taken"
    status = await shop.until(lambda view: bool(view.state.interrupted))
    assert "Failover to dr2 was cut off by a request that was then refused" in status.state.interrupted
    await shop.entity.signal("vrg_observed", ClusterSignal(cluster="dr1"))
    assert (await shop.refused("resume", OperatorRequest())).message
    assert world.role("dr2") == "primary", "no clean-up in the name of the old decision"
    world.changing.clear()
    again = await shop.move("failover", "dr2")
    assert (await shop.ended(again.workflow_id)).outcome is Outcome.DONE, "without accepting a loss"
    await shop.protected()


async def test_a_relocate_is_refused_after_a_move_that_was_ended_in_the_middle(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.published_late.add("dr2")
    moving = await shop.move("relocate", "dr2")
    await world.until(lambda: ("publish_decision", "dr2", "dr2") in world.log)
    await shop.client.get_workflow_handle(moving.workflow_id).terminate()
    await shop.until(lambda view: not view.child and bool(view.state.interrupted))
    world.published_late.clear()
    world.log.clear()
    error = await shop.refused("relocate", MoveRequest(target="dr2", request_id="again"))
    assert "Relocate to dr2 was ended from outside in the middle" in error.message
    assert not world.did("write_vrg"), "dr1 was not made Primary beside dr2"


@pytest.mark.parametrize("fault", ["forbidding", "changing"])
async def test_a_side_that_answers_with_errors_can_be_left(shop: Application, world: World, fault: str) -> None:
    """D12: lost rights, a missing CRD, an operator that writes all the time are reasons to leave, not to stay."""
    await shop.protect()
    await shop.protected()
    getattr(world, fault).add("dr1")
    answer = await shop.move("failover", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    getattr(world, fault).clear()


async def test_home_that_was_silent_when_the_aborted_move_claimed_it_is_claimed_afterwards(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    world.silent.add("dr1")
    world.hold.add(("dr2", Gate.READY))
    moving = await shop.move("failover", "dr2")
    await world.until(lambda: world.role("dr2") == "primary")
    await shop.update("abort", OperatorRequest(reason="the network is back"))
    assert (await shop.ended(moving.workflow_id)).outcome is Outcome.ABORTED
    world.hold.clear()
    world.silent.clear()
    await shop.entity.signal("cluster_returned", ClusterSignal(cluster="dr1"))
    await shop.protected()


async def test_a_cancel_while_an_abort_is_undoing_does_not_stop_it(shop: Application, world: World) -> None:
    moving = await promoted_and_held(shop, world)
    world.hold.add(("dr2", Gate.ACCEPTED_SECONDARY))
    await shop.update("abort", OperatorRequest(reason="a mistake"))
    await world.until(lambda: world.role("dr2") == "secondary")
    await shop.client.get_workflow_handle(moving).cancel()
    world.hold.clear()
    assert (await shop.ended(moving)).outcome is Outcome.ABORTED
    assert world.did("remove_restored", "dr2")


async def test_what_is_recorded_as_protected_is_what_was_proven(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.volumes = [*world.volumes, Volume(namespace="web", name="data-9", pv="pv-9")]
    world.stored = {profile: list(world.volumes) for profile in world.stored}
    world.hold.add(("dr1", Gate.REPROTECTED))
    world.proven.clear()
    await shop.entity.signal("vrg_observed", ClusterSignal(cluster="dr1"))
    child = (await shop.until(lambda view: bool(view.child))).child
    await shop.steps_until(child, lambda view: "sync of every volume" in view.steps[-1].title)
    world.volumes = [*world.volumes, Volume(namespace="web", name="data-10", pv="pv-10")]
    world.stored = {profile: list(world.volumes) for profile in world.stored}
    world.hold.clear()
    await shop.ended(child)
    status = await shop.protected()
    names = [volume.name for volume in status.state.volumes]
    assert "data-9" in world.proven[0]
    assert names[-2:] == ["data-9", "data-10"]
    assert world.proven[-1] == names


async def test_volumes_that_only_a_store_knows_are_restored(shop: Application, world: World) -> None:
    """S3: the first volumes of an application may come in the moment before its cluster is lost."""
    volumes, world.volumes = world.volumes, []
    world.stored = {"s3-dr1": [], "s3-dr2": []}
    await shop.protect()
    assert (await shop.protected()).state.known_empty
    world.volumes, world.stored["s3-dr2"] = volumes, list(volumes)
    world.dropped = {volumes[0].name}
    world.silent.add("dr1")
    moving = await shop.move("failover", "dr2")
    asked = (await shop.steps_until(moving.workflow_id, lambda view: view.needs_operator)).needs_operator
    assert volumes[0].name in asked
    world.dropped.clear()
    await shop.update("retry", OperatorRequest())
    assert (await shop.ended(moving.workflow_id)).outcome is Outcome.DONE


async def test_a_relocate_asks_for_its_own_witness(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.unwitnessed = {"data-0"}
    moving = await shop.move("relocate", "dr2")
    await shop.steps_until(moving.workflow_id, lambda view: view.needs_operator)
    status = await shop.status()
    assert [epoch for epoch in world.witnessed_of if epoch] == [status.state.epoch]
    await shop.update("abort", OperatorRequest(reason="not seen"))
    assert (await shop.ended(moving.workflow_id)).outcome is Outcome.ABORTED


async def test_a_flap_of_the_serving_side_needs_no_person(shop: Application, world: World) -> None:
    """D18: conditions are lost for moments; a clean-up that nobody watches waits for them to come back."""
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr1", Gate.CLEANED))
    answer = await shop.move("failover", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    child = (await shop.until(lambda view: "/reprotect" in view.child)).child
    await shop.steps_until(child, lambda view: "old pods" in view.steps[-1].title)
    world.vrgs["dr2"]["spec"]["replicationState"] = "flapping"
    world.hold.clear()
    await shop.steps_until(child, lambda view: view.waiting and "is not Primary" in view.waiting.reason)
    assert not (await shop.steps(child)).needs_operator
    world.vrgs["dr2"]["spec"]["replicationState"] = "primary"
    await shop.protected()


async def test_an_application_whose_last_volume_went_is_known_to_have_none(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.volumes = []
    await shop.entity.signal("vrg_observed", ClusterSignal(cluster="dr1"))
    status = await shop.until(lambda view: not view.child and view.state.known_empty)
    assert status.state.volumes == []
    world.stored = {profile: [] for profile in world.stored}
    moving = await shop.move("failover", "dr2")
    assert (await shop.ended(moving.workflow_id)).outcome is Outcome.DONE


async def relocate_that_hangs_in_its_demotion(shop: Application, world: World) -> str:
    """A relocate to dr2 that has taken the application from dr1 and waits there; its workflow ID."""
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr1", Gate.SECONDARY))
    moving = await shop.move("relocate", "dr2")
    await world.until(lambda: "dr1" in world.decisions and world.decisions["dr1"].cluster != "dr1")
    return moving.workflow_id


async def test_a_failover_that_overruled_a_relocate_has_nothing_to_go_back_to(shop: Application, world: World) -> None:
    """dr1 gave the application up: an abort that demotes dr2 as well would leave it nowhere, and call that done."""
    await relocate_that_hangs_in_its_demotion(shop, world)
    world.hold.add(("dr2", Gate.READY))
    moving = await shop.move("failover", "dr2")
    await world.until(lambda: world.role("dr2") == "primary")
    error = await shop.refused("abort", OperatorRequest(reason="a mistake"))
    assert "nothing to go back to" in error.message
    assert f"hubless failover {shop.name} -n web --to dr1" in error.message
    world.hold.clear()
    assert (await shop.ended(moving.workflow_id)).outcome is Outcome.DONE
    assert world.role("dr2") == "primary"


async def test_a_failover_after_a_move_that_was_ended_from_outside_is_not_aborted(
    shop: Application, world: World
) -> None:
    """The one before may have decided for the target, and nobody saw it: pods may write there (S2)."""
    first = await promoted_and_held(shop, world)
    await shop.client.get_workflow_handle(first).terminate()
    await shop.until(lambda view: not view.child and bool(view.state.interrupted))
    moving = await shop.move("failover", "dr2")
    assert "nothing to go back to" in (await shop.refused("abort", OperatorRequest())).message
    world.hold.clear()
    assert (await shop.ended(moving.workflow_id)).outcome is Outcome.DONE


async def test_a_failover_that_overruled_another_one_can_be_aborted(shop: Application, world: World) -> None:
    """A failover leaves the side that it came from as it was, so that is where an abort goes back to."""
    await promoted_and_held(shop, world)
    second = await shop.move("failover", "dr2")
    await shop.update("abort", OperatorRequest(reason="a mistake"))
    world.hold.clear()
    assert (await shop.ended(second.workflow_id)).outcome is Outcome.ABORTED
    await shop.protected()
    assert (world.role("dr1"), world.role("dr2")) == ("primary", "secondary")


class LateAnswers(Interceptor):
    """What an action answers to an abort reaches the entity late, as where Temporal is busy."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        return _Late


class _Late(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_LateOutbound(outbound))


class _LateOutbound(WorkflowOutboundInterceptor):
    async def signal_external_workflow(self, input: SignalExternalWorkflowInput) -> None:
        if input.signal == "stop_answered":
            await workflow.sleep(1)
        await super().signal_external_workflow(input)


late_answers = pytest.mark.parametrize("interceptors", [[LateAnswers()]], ids=["answered late"])


async def aborted_when_it_can_go_on(shop: Application, world: World, workflow_id: str) -> None:
    """Aborts an action that waits, and lets what it waits for come true before the entity hears that it is undone."""
    aborting = asyncio.create_task(shop.update("abort", OperatorRequest(reason="a mistake")))
    await shop.steps_until(workflow_id, lambda view: view.aborting)
    world.hold.clear()
    await aborting
    assert (await shop.ended(workflow_id)).outcome is Outcome.ABORTED
    await shop.protected()
    assert (world.role("dr1"), world.role("dr2")) == ("primary", "secondary")


@late_answers
async def test_a_failover_that_is_being_aborted_does_not_decide_any_more(shop: Application, world: World) -> None:
    """S5: what it waited for came true while its answer to the abort was on its way."""
    moving = await promoted_and_held(shop, world)
    await aborted_when_it_can_go_on(shop, world, moving)
    assert "dr2" not in world.did("publish_decision", "dr2")


@late_answers
async def test_a_relocate_that_is_being_aborted_does_not_promote_any_more(shop: Application, world: World) -> None:
    """S5, S1: its target and the source that is made primary again would both be Primary."""
    moving = await relocate_that_hangs_in_its_demotion(shop, world)
    await aborted_when_it_can_go_on(shop, world, moving)
    assert "primary" not in world.did("write_vrg", "dr2")


async def test_the_facts_of_an_action_come_true_after_a_request_that_took_an_epoch_and_was_refused(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr1", Gate.CLEANED))
    moving = await shop.move("failover", "dr2")
    assert (await shop.ended(moving.workflow_id)).outcome is Outcome.DONE
    child = (await shop.until(lambda view: "/reprotect" in view.child)).child
    await shop.steps_until(child, lambda view: "old pods" in view.steps[-1].title)
    world.changing.add("dr1")
    world.changing.add("dr2")
    await shop.refused("failover", MoveRequest(target="dr1", request_id="back", accept_data_loss=True))
    world.changing.clear()
    world.hold.clear()
    await shop.until(lambda view: not view.child)
    await shop.entity.signal("vrg_observed", ClusterSignal(cluster="dr1"))
    status = await shop.protected()
    assert status.state.action is not None
    assert status.state.action.epoch == 2
    assert status.state.action.cleaned_at is not None
    assert status.state.action.reprotected_at is not None
    assert status.drpc["status"]["progression"] == "Completed"


async def test_a_superseded_action_is_recorded_under_its_own_epoch(shop: Application, world: World) -> None:
    await promoted_and_held(shop, world)
    second = await shop.move("failover", "dr2")
    world.hold.clear()
    await shop.ended(second.workflow_id)
    await shop.protected()
    failovers = [epoch for epoch, action in world.recorded if action == "Failover"]
    assert failovers == [2, 3]


# --- deployments ----------------------------------------------------------------------------------------------------


async def test_a_deployment_that_cannot_end_is_ended_by_an_unprotect(shop: Application, world: World) -> None:
    world.hold.add(("dr1", Gate.READY))
    deploying = await shop.protect()
    await world.until(lambda: world.role("dr1") == "primary")
    assert "hubless unprotect" in (await shop.refused("abort", OperatorRequest())).message
    ending = await shop.update("unprotect", UnprotectRequest(request_id="end"))
    assert (await shop.ended(deploying.workflow_id)).outcome is Outcome.SUPERSEDED
    assert (await shop.ended(ending.workflow_id)).outcome is Outcome.DONE
    assert world.vrgs == {}


async def test_a_deployment_that_was_ended_from_outside_is_not_called_available(
    shop: Application, world: World
) -> None:
    world.hold.add(("dr1", Gate.READY))
    deploying = await shop.protect()
    await world.until(lambda: world.role("dr1") == "primary")
    await shop.client.get_workflow_handle(deploying.workflow_id).terminate()
    status = await shop.until(lambda view: not view.child and bool(view.state.interrupted))
    available = status.drpc["status"]["conditions"][0]
    assert (available["type"], available["status"]) == ("Available", "Unknown")
    assert "hubless unprotect" in available["message"]
    world.hold.clear()
    ending = await shop.update("unprotect", UnprotectRequest(request_id="end"))
    assert (await shop.ended(ending.workflow_id)).outcome is Outcome.DONE


async def test_a_deployment_that_decided_before_it_was_superseded_has_decided(shop: Application, world: World) -> None:
    """Pods run by its decision: a failover that is aborted goes back to them, and they are not forgotten."""
    world.published_late.add("dr1")
    deploying = await shop.protect()
    await world.until(lambda: ("publish_decision", "dr1", "dr1") in world.log)
    world.hold.add(("dr2", Gate.READY))
    moving = await shop.move("failover", "dr2", accept_data_loss=True)
    assert (await shop.ended(deploying.workflow_id)).outcome is Outcome.SUPERSEDED
    await shop.update("abort", OperatorRequest(reason="a mistake"))
    assert (await shop.ended(moving.workflow_id)).outcome is Outcome.ABORTED
    world.published_late.clear()
    world.hold.clear()
    status = await shop.protected()
    assert status.state.decision.cluster == "dr1"
