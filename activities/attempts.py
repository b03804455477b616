"""Whether the attempt that runs here is still the one that Temporal counts on.

An epoch tells actions apart, not two attempts of one activity. A worker that was frozen, or cut off from Temporal, has
taken the tasks that were answered to its open polls; once it goes on it begins them, long after they timed out and
another worker did them. By then the same action may have promoted what this attempt would demote, or placed what it
would take away, under the same epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError, RPCStatusCode

from ramen.errors import NotYet, StaleAttempt

ANSWER_SECONDS = 2.0
"""Temporal answers in milliseconds; one that does not could not be told of the write either."""

StillCurrent = Callable[[], Awaitable[None]]
"""Raises `StaleAttempt` where this attempt may write no more.

Asked after the read that a write is guarded by, and right before that write: whatever a later attempt or step writes
after the answer changes the object's version, and the write is refused.
"""


async def still_current() -> None:
    """Asks Temporal, whose answer to a heartbeat tells whether the task is still this attempt's.

    Raises `StaleAttempt` when the task timed out, was done by another attempt, or is being stopped; `NotYet` when
    Temporal does not say.
    """
    info = activity.info()
    task = activity.client().get_async_activity_handle(task_token=info.task_token)
    unsaid = f"Temporal does not say whether attempt {info.attempt} of {info.activity_type} is current"
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await task.heartbeat()
    except AsyncActivityCancelledError as err:
        if err.details is not None and not err.details.cancel_requested:
            raise NotYet(f"{info.activity_type} was paused or reset in Temporal.") from err
        raise StaleAttempt(f"{info.activity_type} is being stopped; nothing more is written.") from err
    except TimeoutError as err:
        raise NotYet(f"{unsaid}: no answer in {ANSWER_SECONDS:.0f} s") from err
    except RPCError as err:
        if err.status is RPCStatusCode.NOT_FOUND:
            raise StaleAttempt(
                f"attempt {info.attempt} of {info.activity_type} is over, and nothing more is written."
            ) from err
        raise NotYet(f"{unsaid}: {err.message}") from err
