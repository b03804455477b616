"""Heartbeats of activities that last, so that a frozen worker is found out long before their time limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from temporalio import activity

BEAT_SECONDS = 0.5
"""Before the first heartbeat of an activity that should be short, and between two: most have ended before the first."""


def beat_seconds(least: float) -> float:
    """How often an activity that waits heartbeats: a third of its heartbeat time-out, but `least` at the least."""
    timeout = activity.info().heartbeat_timeout
    return max(least, timeout.total_seconds() / 3) if timeout else least


@contextlib.asynccontextmanager
async def beating(*details: Any, after: float = BEAT_SECONDS, every: float = BEAT_SECONDS) -> AsyncIterator[None]:
    """Heartbeats while the body runs: `after` seconds for the first time, then `every` so many.

    `details` are for the next attempt. Outside an activity nothing is done.
    """
    if not activity.in_activity():
        yield
        return

    async def beat() -> None:
        await asyncio.sleep(after)
        while True:
            activity.heartbeat(*details)
            await asyncio.sleep(every)

    task = asyncio.create_task(beat(), name="heartbeats")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
