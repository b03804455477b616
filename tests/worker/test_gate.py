"""The gate's hysteresis, and the slots that follow it."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, TimeoutError, TimeoutType
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import FixedSizeSlotSupplier, PollerBehaviorSimpleMaximum, Worker, WorkerTuner

from ramen.errors import GateClosed
from worker.gate import Gate, HealthGate


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def tick(self, seconds: float = 1) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate("dr2", clock)


def test_closed_and_unknown_at_first(gate: Gate) -> None:
    assert (gate.is_open, gate.is_known) == (False, False)
    with pytest.raises(GateClosed, match="dr2"):
        gate.require()


def test_one_good_answer_opens(gate: Gate, clock: Clock) -> None:
    gate.answered("v1.36")
    health = gate.health("w")
    assert (health.reachable, health.since, health.last_answer, health.version) == (True, clock.now, clock.now, "v1.36")


def test_one_failure_does_not_close_the_second_does(gate: Gate, clock: Clock) -> None:
    gate.answered("v1.36")
    answered = clock.now
    clock.tick()
    gate.failed("refused")
    assert gate.is_open
    assert gate.is_failing
    closed = clock.tick()
    gate.failed("refused again")
    health = gate.health("w")
    assert (health.reachable, health.since, health.last_answer, health.error) == (
        False,
        closed,
        answered,
        "refused again",
    )


def test_failures_must_follow_each_other(gate: Gate) -> None:
    gate.answered("v1")
    for _ in range(5):
        gate.failed("lost")
        gate.answered("v1")
    assert gate.is_open


def test_position_keeps_its_time_while_nothing_changes(gate: Gate, clock: Clock) -> None:
    gate.answered("v1")
    opened = clock.now
    clock.tick()
    gate.answered("v1")
    assert gate.since == opened
    assert gate.last_answer == clock.now


def test_shut_closes_at_once_and_one_answer_opens_again(gate: Gate) -> None:
    gate.answered("v1")
    gate.shut("another cluster")
    assert not gate.is_open
    with pytest.raises(GateClosed, match="another cluster"):
        gate.require()
    gate.answered("v1")
    assert gate.is_open


def test_listeners_learn_whether_a_cluster_returns_or_is_met_first(gate: Gate) -> None:
    moves: list[tuple[bool, bool]] = []
    gate.on_change(lambda is_open, was_known: moves.append((is_open, was_known)))
    gate.answered("v1")
    gate.shut("gone")
    gate.shut("still gone")
    gate.answered("v1")
    assert moves == [(True, False), (False, True), (True, True)]


@activity.defn
async def touch() -> str:
    return "touched"


@workflow.defn(sandboxed=False)
class Touch:
    """One activity on a gated queue, with so many seconds to find a slot."""

    @workflow.run
    async def run(self, queue: str, seconds: int) -> str:
        return await workflow.execute_activity(
            touch,
            task_queue=queue,
            schedule_to_start_timeout=timedelta(seconds=seconds),
            start_to_close_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )


async def test_no_slots_while_closed_and_no_task_lost_when_it_opens(temporal: WorkflowEnvironment) -> None:
    gate, run = Gate("dr2"), uuid.uuid4().hex
    supplier = HealthGate(2, gate)
    tuner = WorkerTuner.create_composite(
        workflow_supplier=FixedSizeSlotSupplier(1),
        activity_supplier=supplier,
        local_activity_supplier=FixedSizeSlotSupplier(1),
        nexus_supplier=FixedSizeSlotSupplier(1),
    )
    gated = Worker(
        temporal.client,
        task_queue=f"gated-{run}",
        activities=[touch],
        tuner=tuner,
        activity_task_poller_behavior=PollerBehaviorSimpleMaximum(maximum=2),
    )
    control = Worker(temporal.client, task_queue=f"control-{run}", workflows=[Touch])

    async def attempt(number: int, seconds: int) -> str:
        return await temporal.client.execute_workflow(
            Touch.run, args=[f"gated-{run}", seconds], id=f"{run}-{number}", task_queue=f"control-{run}"
        )

    async with control, gated:
        with pytest.raises(WorkflowFailureError) as refused:
            await attempt(1, seconds=1)
        assert isinstance(refused.value.cause, ActivityError)
        timed_out = refused.value.cause.cause
        assert isinstance(timed_out, TimeoutError)
        assert timed_out.type is TimeoutType.SCHEDULE_TO_START

        gate.answered("v1")
        # Ten on two slots: each slot has to come back, also when the SDK gives it back from a thread of its own.
        assert await asyncio.gather(*(attempt(number, seconds=30) for number in range(2, 12))) == ["touched"] * 10
        async with asyncio.timeout(5):
            while supplier.used:
                await asyncio.sleep(0.01)
