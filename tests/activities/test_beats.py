"""Signs of life of activities that should be short."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.testing import ActivityEnvironment

from activities.beats import beat_seconds, beating
from activities.errors import implements


@activity.defn(name="shown")
async def shown(wait: bool) -> str:
    raise NotImplementedError


class Activities:
    def __init__(self) -> None:
        self.enough = asyncio.Event()

    @implements(shown)
    async def shown(self, wait: bool) -> str:
        if wait:
            await self.enough.wait()
        return "done"


async def test_an_activity_that_lasts_gives_signs_of_life_and_a_short_one_costs_none() -> None:
    activities, beats = Activities(), 0

    def beaten(*details: Any) -> None:
        nonlocal beats
        beats += 1
        if beats >= 2:
            activities.enough.set()

    environment = ActivityEnvironment()
    environment.on_heartbeat = beaten
    assert await environment.run(activities.shown, False) == "done"
    assert beats == 0
    async with asyncio.timeout(10):
        assert await environment.run(activities.shown, True) == "done"
    assert beats >= 2


async def test_beats_repeat_what_the_next_attempt_has_to_know() -> None:
    """A heartbeat without details would take them away."""
    told: list[Any] = []
    enough = asyncio.Event()

    def beaten(*details: Any) -> None:
        told.append(details)
        if len(told) >= 2:
            enough.set()

    async def lasting() -> None:
        async with beating("token", after=0.0, every=0.01):
            await enough.wait()

    environment = ActivityEnvironment()
    environment.on_heartbeat = beaten
    async with asyncio.timeout(10):
        await environment.run(lasting)
    assert set(told) == {("token",)}


async def test_the_same_code_runs_outside_of_an_activity() -> None:
    async with beating(after=0.0, every=0.001):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("timeout", "every"), [(None, 1.5), (3.0, 1.5), (30.0, 10.0)])
def test_a_time_out_holds_three_heartbeats_where_it_is_long_enough(timeout: float | None, every: float) -> None:
    environment = ActivityEnvironment()
    limit = timedelta(seconds=timeout) if timeout else None
    environment.info = dataclasses.replace(environment.info, heartbeat_timeout=limit)

    def asked() -> float:
        return beat_seconds(1.5)

    assert environment.run(asked) == every
