"""Errors of `ramen.errors` as Temporal sees them, mapped in one place.

A workflow decides by the type, which is the name of the class; whether a retry can help is the class's own word.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.beats import beating
from ramen.errors import HublessError, NotYet

P = ParamSpec("P")
R = TypeVar("R")
Self = TypeVar("Self")

RETRY_DELAY = timedelta(seconds=1)
"""A fixed delay: with a growing one a flapping gate makes the next attempt half a minute late (temporal.md 5.5)."""

NOT_YET_DELAY = timedelta(milliseconds=200)
"""What `NotYet` waits for is usually a moment away, and an application is down meanwhile."""


def to_application_error(err: HublessError) -> ApplicationError:
    """The error with its class name as type; a retryable one is benign, so that waiting raises no alarm."""
    name = type(err).__name__
    if not err.retryable:
        return ApplicationError(str(err), type=name, non_retryable=True)
    delay = NOT_YET_DELAY if isinstance(err, NotYet) else RETRY_DELAY
    return ApplicationError(str(err), type=name, next_retry_delay=delay, category=ApplicationErrorCategory.BENIGN)


def is_unprocessed(cause: BaseException | None) -> bool:
    """Whether the cause of a failed Update means that no worker got to see it, so that asking again is right.

    Temporal's server says so when a workflow task that carried the Update came to its end without it, as after a
    restart of the server. It names no answer of the application: nothing was decided, and the ID is free again.
    """
    return isinstance(cause, ApplicationError) and cause.type == "UnprocessedUpdate"


def implements(
    contract: Callable[P, Awaitable[R]], *, beats: bool = True
) -> Callable[[Callable[Concatenate[Self, P], Awaitable[R]]], Callable[Concatenate[Self, P], Awaitable[R]]]:
    """Makes a method the implementation of an activity of `activities.contracts`: its name, our errors mapped, and
    heartbeats while it lasts, unless it gives its own."""
    definition: Any = vars(contract)["__temporal_activity_definition"]

    def decorate(
        method: Callable[Concatenate[Self, P], Awaitable[R]],
    ) -> Callable[Concatenate[Self, P], Awaitable[R]]:
        @functools.wraps(method)
        async def mapped(self: Self, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                async with beating() if beats else contextlib.nullcontext():
                    return await method(self, *args, **kwargs)
            except HublessError as err:
                raise to_application_error(err) from err

        registered: Any = activity.defn(name=definition.name)(mapped)
        return cast("Callable[Concatenate[Self, P], Awaitable[R]]", registered)

    return decorate
