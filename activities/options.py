"""Time limits and retry policies by kind of activity: one place, so that no workflow carries a number of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from temporalio.common import RetryPolicy

NEVER_RETRY = ["PayloadsTooLarge"]
"""Errors of ours say themselves whether a retry helps (ramen.errors); this one is Temporal's."""

SHORT_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=10),
    non_retryable_error_types=NEVER_RETRY,
)
"""Unlimited: a step of an action is never given up by itself, the operator decides (design 5)."""

ONCE = RetryPolicy(maximum_attempts=1)
"""A look that is no gate: one answer or none."""


@dataclass(frozen=True)
class Limits:
    """Time limits of one kind of activity; `schedule_to_start` None waits for a worker without end, `schedule_to_close`
    None tries without end."""

    start_to_close: timedelta
    schedule_to_start: timedelta | None = None
    heartbeat: timedelta | None = None
    schedule_to_close: timedelta | None = None
    retry: RetryPolicy = field(default_factory=lambda: SHORT_RETRY)


SHORT_BEAT = timedelta(seconds=3)
"""A short activity that lasts heartbeats by itself (`activities.errors.implements`); so long a silence means that its
worker is frozen or gone. On a machine with five times more work than cores a beat came two seconds late."""

SHORT = Limits(start_to_close=timedelta(seconds=6), heartbeat=SHORT_BEAT)
"""A few API calls of some milliseconds each, repeatable; bounds what a task costs that was lost with its worker."""

STORE = Limits(start_to_close=timedelta(seconds=10), heartbeat=SHORT_BEAT)
"""Store calls answer in milliseconds and give up on a silent store after about 1 s."""

WAIT = Limits(start_to_close=timedelta(days=7), heartbeat=timedelta(seconds=5))
"""Waits last as long as the clusters need; five seconds of silence mean that the worker is gone (temporal.md 4.5)."""


PATIENT_WAIT = Limits(start_to_close=WAIT.start_to_close, heartbeat=timedelta(seconds=30))
"""Waits of a Reprotect, which are many: a worker that is lost meanwhile delays only the word that the application is
clean, or re-protected."""

LONG_WAIT = Limits(start_to_close=WAIT.start_to_close, heartbeat=timedelta(seconds=120))
"""The same when they last (`Timings.long_wait_seconds`): after the loss of a site every application may wait for its
volumes to be copied, for hours and all at once, and each heartbeat is a write of Temporal's."""

PATIENT_LOCK = Limits(start_to_close=WAIT.start_to_close, heartbeat=timedelta(seconds=12))
"""Of a Reprotect's lock. It is renewed every 15 s, so by another worker within 27 s of the last
time, and lost after 30 (S13)."""


def look(seconds: float) -> Limits:
    """A single look, for the side that is being left (D12, S12): `seconds` to find a worker, a quarter more in all.

    That nobody took it in time is told apart from that nobody answered, so the two limits must not end at once.
    """
    return Limits(
        start_to_close=timedelta(seconds=seconds),
        schedule_to_start=timedelta(seconds=seconds),
        schedule_to_close=timedelta(seconds=seconds * 1.25),
        retry=ONCE,
    )


def short_within(seconds: float) -> Limits:
    """A short activity that must find a free slot in time; used where an answer is refused without one."""
    return Limits(
        start_to_close=SHORT.start_to_close,
        heartbeat=SHORT_BEAT,
        schedule_to_start=timedelta(seconds=seconds),
        retry=RetryPolicy(maximum_attempts=3, initial_interval=timedelta(milliseconds=200)),
    )
