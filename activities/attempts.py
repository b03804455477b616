"""Whether the attempt that runs here is still the one that Temporal counts on.

An epoch tells actions apart, not two attempts of one activity. A worker that was frozen, or cut off from Temporal, has
taken the tasks that were answered to its open polls; once it goes on it begins them, long after they timed out and
another worker did them. By then the same action may have promoted what this attempt would demote, or placed what it
would take away, under the same epoch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError, RPCStatusCode

from ramen.errors import NotYet, StaleAttempt

ANSWER = timedelta(seconds=2)
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
    try:
        await task.heartbeat(rpc_timeout=ANSWER)
    except AsyncActivityCancelledError as err:
        raise StaleAttempt(f"{info.activity_type} is being stopped; nothing more is written.") from err
    except RPCError as err:
        if err.status is RPCStatusCode.NOT_FOUND:
            raise StaleAttempt(
                f"attempt {info.attempt} of {info.activity_type} is over, and nothing more is written."
            ) from err
        raise NotYet(f"Temporal does not say whether attempt {info.attempt} is current: {err.message}") from err
