"""Adoption over a world in memory and a real Temporal server: what is inferred, what is held, what goes on."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from activities.contracts import Gate
from ramen import names
from ramen.app import AppRef, Decision
from ramen.names import DECISION, PREVIOUS
from ramen.recovery import Verdict
from tests.workflows.conftest import Application
from tests.workflows.world import World
from workflows.inputs import AdoptRequest, AdoptResult, MoveRequest, Outcome, Timings


async def adopt(shop: Application, consent: bool = True, **more: Any) -> AdoptResult:
    request = AdoptRequest(
        app=AppRef(namespace="web", name=shop.name), consent=consent, timings=Timings(look_seconds=1), **more
    )
    result: AdoptResult = await shop.client.execute_workflow(
        "Adopt",
        request,
        id=names.adopt_id("web", shop.name),
        task_queue=names.CONTROL_QUEUE,
        result_type=AdoptResult,
    )
    return result


async def forgotten(shop: Application) -> None:
    """Everything of the application that Temporal holds is gone; what was begun just now is in no list yet."""
    status = await shop.status()
    number = status.state.epoch.number if status.state.epoch else 0
    clean_up = names.action_id("web", shop.name, "Reprotect", number)
    for workflow_id in dict.fromkeys([shop.entity.id, status.child or clean_up, clean_up]):
        with suppress(RPCError):  # it does not run
            await shop.client.get_workflow_handle(workflow_id).terminate("lost")


async def test_consent_to_something_else_than_what_is_inferred_now_does_nothing(
    shop: Application, world: World
) -> None:
    await shop.protect()
    await shop.protected()
    await forgotten(shop)
    looked = await adopt(shop, consent=False)
    world.log.clear()
    shown = looked.inference.model_copy(update={"verdict": Verdict.FINISH, "serving": "dr2"})
    assert not (await adopt(shop, shown=shown)).adopted
    assert not world.did("claim_epoch")
    assert (await adopt(shop, shown=looked.inference)).adopted


async def test_a_protection_that_was_cut_off_before_its_primary_is_begun_again(shop: Application, world: World) -> None:
    """The peer's Secondary VRG is written beside the Primary, so it may be all that there is."""
    await shop.protect()
    await shop.protected()
    await forgotten(shop)
    del world.vrgs["dr1"]
    world.vrgs["dr2"]["metadata"]["annotations"] = {names.EPOCH: "1.t1", names.ACTION: "Deploy"}
    held = await adopt(shop)
    assert (held.inference.verdict, held.adopted) == (Verdict.NOTHING, False)
    assert f"hubless protect {shop.name} -n web" in held.inference.plan
    assert (await shop.ended((await shop.protect()).workflow_id)).outcome is Outcome.DONE
    status = await shop.protected()
    assert (status.state.decision.cluster, world.role("dr1"), world.role("dr2")) == ("dr1", "primary", "secondary")
    assert status.state.epoch is not None
    assert status.state.epoch.number == 2


async def test_a_vrg_that_holds_volumes_is_not_taken_over_by_a_protection(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    await forgotten(shop)
    del world.vrgs["dr1"]
    recorded = {names.EPOCH: "1.t1", names.ACTION: "Deploy", names.VOLUMES: '[{"name": "data-0"}]'}
    world.vrgs["dr2"]["metadata"]["annotations"] = recorded
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await shop.protect()
    assert "hubless adopt" in str(refused.value.cause)


async def test_an_idle_application_is_held_again_and_moves(shop: Application, world: World) -> None:
    await shop.protect()
    before = await shop.protected()
    await forgotten(shop)
    looked = await adopt(shop, consent=False)
    assert (looked.inference.verdict, looked.inference.serving, looked.adopted) == (Verdict.ADOPT, "dr1", False)
    world.log.clear()
    held = await adopt(shop)
    assert held.adopted
    status = await shop.protected()
    assert status.state.epoch is not None
    assert before.state.epoch is not None
    assert status.state.epoch.number == before.state.epoch.number + 1
    assert status.state.volumes == before.state.volumes
    assert status.state.action is not None
    assert status.state.action.reprotected_at is not None, "the proof that follows is told"
    assert ("write_vrg", "dr1", "primary") not in world.log, "what runs is not touched"
    answer = await shop.move("failover", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE


async def test_an_entity_that_was_reset_to_its_beginning_is_adopted(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    await world.until(lambda: (world.mirrored or {}).get("observed", {}).get("protected"))
    await forgotten(shop)
    await shop.start_empty()
    error = await shop.refused("failover", MoveRequest(target="dr2", request_id="r1"))
    assert f"hubless adopt {shop.name} -n web" in error.message
    assert (await adopt(shop)).adopted
    answer = await shop.move("failover", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE


async def test_a_site_lost_together_with_temporal_can_be_failed_over(shop: Application, world: World) -> None:
    """S2: the proof of the good copy survives in the stores, so the worst day needs no acceptance of loss."""
    await shop.protect()
    await shop.protected()
    await world.until(lambda: (world.mirrored or {}).get("observed", {}).get("protected"))
    await forgotten(shop)
    world.silent.add("dr1")
    held = await adopt(shop)
    assert (held.inference.verdict, held.inference.serving) == (Verdict.ADOPT, "dr1")
    answer = await shop.move("failover", "dr2")
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    assert world.decisions["dr2"].cluster == "dr2"


async def test_a_promotion_that_was_cut_off_is_finished(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr2", Gate.READY))
    await shop.move("failover", "dr2")
    await world.until(lambda: world.role("dr2") == "primary")
    await forgotten(shop)
    world.hold.clear()
    world.vrgs["dr2"]["metadata"]["annotations"] |= {DECISION: "dr2", PREVIOUS: "dr1"}
    held = await adopt(shop)
    assert (held.inference.verdict, held.inference.serving) == (Verdict.FINISH, "dr2")
    assert (await shop.ended(held.workflow_id)).outcome is Outcome.DONE
    assert world.decisions["dr2"].cluster == "dr2"
    status = await shop.protected()
    assert status.state.decision.cluster == "dr2"
    assert world.role("dr1") == "secondary"


@pytest.mark.parametrize(
    ("held_at", "left_as"),
    [(("dr1", Gate.FINAL_SYNC_COMPLETE), "primary"), (("dr2", Gate.SECONDARY), "secondary")],
    ids=["before", "after"],
)
async def test_a_relocate_that_was_cut_off_at_its_demotion_brings_its_source_back(
    shop: Application, world: World, held_at: tuple[str, Gate], left_as: str
) -> None:
    """Before the demotion the source is Primary, ready and decided for: it is not refused as serving already."""
    await shop.protect()
    await shop.protected()
    world.hold.add(held_at)
    await shop.move("relocate", "dr2")
    await world.until(
        lambda: (
            world.role("dr1") == left_as and (left_as == "secondary" or world.vrgs["dr1"]["spec"].get("runFinalSync"))
        )
    )
    await forgotten(shop)
    world.hold.clear()
    held = await adopt(shop)
    assert (held.inference.verdict, held.inference.serving) == (Verdict.BRING_BACK, "dr1")
    assert (await shop.ended(held.workflow_id)).outcome is Outcome.DONE
    assert world.role("dr1") == "primary"
    assert not world.vrgs["dr1"]["spec"].get("runFinalSync")
    assert world.decisions["dr1"].cluster == "dr1"
    status = await shop.protected()
    assert (status.state.decision.cluster, status.state.interrupted) == ("dr1", "")


async def test_a_fork_is_for_a_person_who_may_name_a_side(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    await forgotten(shop)
    world.set_epoch("dr2", "1.other")
    asked = await adopt(shop)
    assert (asked.inference.verdict, asked.adopted) == (Verdict.ASK, False)
    assert set(asked.inference.choices) == {"dr1", "dr2"}
    held = await adopt(shop, serving="dr1")
    assert held.adopted
    status = await shop.protected()
    assert status.state.decision.cluster == "dr1"


async def test_what_is_held_is_refused_and_an_entity_that_stopped_is_replaced(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    with pytest.raises(WorkflowFailureError) as caught:
        await adopt(shop)
    assert isinstance(caught.value.cause, ApplicationError)
    assert "nothing to adopt" in caught.value.cause.message
    world.set_epoch("dr2", "9.somebody")
    await shop.refused("failover", MoveRequest(target="dr2", request_id="r1"))
    held = await adopt(shop, serving="dr1")
    assert held.adopted
    assert held.epoch >= 10
    status = await shop.protected()
    assert not status.state.superseded


async def test_unknown_to_clusters_and_stores_is_said_so(shop: Application, world: World) -> None:
    with pytest.raises(WorkflowFailureError) as caught:
        await adopt(shop)
    assert isinstance(caught.value.cause, ApplicationError)
    assert "--policy" in caught.value.cause.message


async def test_a_side_that_was_left_is_not_held_against_the_stores(shop: Application, world: World) -> None:
    """dr1 answered when the failover claimed it, was lost, and returns when Temporal and dr2 are gone."""
    await shop.protect()
    await shop.protected()
    world.hold.add(("dr2", Gate.READY))
    answer = await shop.move("failover", "dr2")
    await world.until(lambda: world.role("dr2") == "primary")
    world.silent.add("dr1")
    world.hold.clear()
    assert (await shop.ended(answer.workflow_id)).outcome is Outcome.DONE
    await world.until(lambda: world.mirrored_decision and world.mirrored_decision.cluster == "dr2")
    await forgotten(shop)
    world.silent = {"dr2"}
    held = await adopt(shop)
    assert (held.inference.verdict, held.adopted) == (Verdict.ASK, False)
    assert "decided for dr2" in held.inference.why
    assert world.role("dr2") == "primary"


async def test_a_primary_that_nothing_places_is_placed_while_its_peer_is_away(shop: Application, world: World) -> None:
    await shop.protect()
    await shop.protected()
    await forgotten(shop)
    world.decisions["dr1"] = Decision()
    world.silent = {"dr2"}
    held = await adopt(shop)
    assert (held.inference.verdict, held.adopted) == (Verdict.FINISH, True)
    assert (await shop.ended(held.workflow_id)).outcome is Outcome.DONE
    assert world.decisions["dr1"].cluster == "dr1"
