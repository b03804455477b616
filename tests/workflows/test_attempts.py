"""Which attempt of an activity counts, asked of a real Temporal server."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities import attempts
from activities.attempts import still_current
from ramen.errors import StaleAttempt


class Attempts:
    """An activity whose first attempt does not learn that its time is over, as in a process that was frozen."""

    def __init__(self) -> None:
        self.second_ran = asyncio.Event()
        self.asked: asyncio.Task[None] | None = None
        self.is_held = asyncio.Event()

    @activity.defn(name="frozen_at_first")
    async def frozen_at_first(self) -> None:
        if activity.info().attempt == 1:
            self.asked = asyncio.create_task(self._ask_late())
            await asyncio.shield(self.asked)
        await still_current()
        self.second_ran.set()

    async def _ask_late(self) -> None:
        await self.second_ran.wait()
        await still_current()

    @activity.defn(name="held")
    async def held(self) -> None:
        self.is_held.set()
        self.asked = asyncio.create_task(self._until_stopped())
        await asyncio.shield(self.asked)

    async def _until_stopped(self) -> None:
        while True:
            await still_current()
            await asyncio.sleep(0.02)


@workflow.defn(name="OneActivity")
class OneActivity:
    @workflow.run
    async def run(self, name: str) -> None:
        await workflow.execute_activity(
            name,
            start_to_close_timeout=timedelta(seconds=3 if name == "frozen_at_first" else 60),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        )


def serving(client: Client, of: Attempts, queue: str) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        workflows=[OneActivity],
        activities=[of.frozen_at_first, of.held],
        workflow_runner=UnsandboxedWorkflowRunner(),
        graceful_shutdown_timeout=timedelta(0),
    )


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may keep Temporal from answering for a while."""
    monkeypatch.setattr(attempts, "ANSWER_SECONDS", 30.0)


async def test_an_attempt_whose_task_another_one_did_is_over(temporal: Client) -> None:
    mine, queue = Attempts(), uuid.uuid4().hex
    async with serving(temporal, mine, queue):
        await temporal.execute_workflow(OneActivity.run, "frozen_at_first", id=queue, task_queue=queue)
        assert mine.asked is not None
        with pytest.raises(StaleAttempt, match="attempt 1 of frozen_at_first is over"):
            await mine.asked


async def test_an_attempt_that_is_being_stopped_writes_no_more(temporal: Client) -> None:
    mine, queue = Attempts(), uuid.uuid4().hex
    async with serving(temporal, mine, queue):
        handle = await temporal.start_workflow(OneActivity.run, "held", id=queue, task_queue=queue)
        await mine.is_held.wait()
        assert mine.asked is not None
        assert not mine.asked.done()
        await handle.cancel()
        with pytest.raises(StaleAttempt):
            await mine.asked
