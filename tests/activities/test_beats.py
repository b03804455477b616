"""Signs of life of activities that should be short."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import activity
from temporalio.testing import ActivityEnvironment

from activities.beats import beating
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
