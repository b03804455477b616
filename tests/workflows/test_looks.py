"""A look at a side that is being left is over in time, whoever takes it and when (D12)."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, TimeoutError, TimeoutType
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.options import look
from workflows.steps import call

LOOK_SECONDS = 4.0

LATE_SECONDS = 2.0
"""When a worker takes the look: its own limit would let it last for six seconds."""


@activity.defn
async def silent(_: str) -> str:
    """A cluster that takes a request and never answers it."""
    await asyncio.sleep(10 * LOOK_SECONDS)
    return ""


@workflow.defn
class OneLook:
    @workflow.run
    async def run(self, queue: str) -> str:
        return await call(silent, "", queue=queue, limits=look(LOOK_SECONDS), summary="Look")


async def test_a_look_that_a_worker_took_late_does_not_have_all_its_time_again(temporal: Client) -> None:
    queue = uuid.uuid4().hex
    control = Worker(temporal, task_queue=queue, workflows=[OneLook], workflow_runner=UnsandboxedWorkflowRunner())
    late = Worker(
        temporal, task_queue=f"{queue}.cluster", activities=[silent], graceful_shutdown_timeout=timedelta(seconds=0)
    )
    async with control:
        handle = await temporal.start_workflow(OneLook.run, f"{queue}.cluster", id=queue, task_queue=queue)
        await asyncio.sleep(LATE_SECONDS)  # the lateness is what is tested
        async with late:
            try:
                await handle.result()
            except WorkflowFailureError as err:
                failed = err.cause
    assert isinstance(failed, ActivityError)
    assert isinstance(failed.cause, TimeoutError)
    assert failed.cause.type is TimeoutType.SCHEDULE_TO_CLOSE
