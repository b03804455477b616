"""What Temporal makes of a request that is sent again after it was refused (`worker/drpcs.py` rests on it)."""

from __future__ import annotations

import pytest
from temporalio.client import Client, WorkflowUpdateFailedError

from activities.contracts import ProtectRequest
from ramen import names
from tests.workflows.conftest import Application
from tests.workflows.world import World
from workflows.entity import DRPlacementControl
from workflows.inputs import Answer, AppState, ProtectUpdate


async def test_a_request_gets_the_same_refusal_for_ever_and_another_one_is_judged_anew(
    shop: Application, world: World, temporal: Client
) -> None:
    entity = await temporal.start_workflow(
        DRPlacementControl.run,
        AppState(namespace="web", name=shop.name),
        id=names.entity_id("web", shop.name),
        task_queue=names.CONTROL_QUEUE,
    )

    async def apply(request_id: str) -> Answer:
        request = ProtectRequest(namespace="web", name=shop.name, spec={})
        update = ProtectUpdate(request=request, request_id=request_id)
        return await entity.execute_update("apply", update, id=request_id, result_type=Answer)

    world.silent.add("dr1")
    with pytest.raises(WorkflowUpdateFailedError):
        await apply("one")
    world.silent.clear()
    with pytest.raises(WorkflowUpdateFailedError):
        await apply("one")
    assert (await apply("two")).epoch == 1
