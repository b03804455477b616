"""Applications that go from row to row, and the patience with which they are asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from temporalio.service import RPCError

from ramen import names
from sandbox.application import Application
from sandbox.chaos.plan import Row, Step
from sandbox.holding import Hold
from starter.failures import Failed, NoWorker, Refused, Stopped
from workflows.inputs import Answer

AWAY_SECONDS = 4.0
"""How long a part stays broken when all actions have not ended before: longer than a gate takes to close."""

END_SECONDS = 150.0
"""Limit for an action, and for all that follows from it, once every part is back; seconds are normal."""

LOOK_SECONDS = 0.25
"""Pause between two looks at an action: dozens of them are watched at once."""

Said = TypeVar("Said")


@dataclass
class Lane:
    """An application that goes from row to row."""

    application: Application
    home: str
    protected: bool = False
    broken: bool = False
    """A row failed on it: it is left as it is, to be looked at."""
    asked: float = 0.0

    @property
    def entity(self) -> str:
        """Workflow ID of the application."""
        return names.entity_id(self.application.namespace, self.application.name)


@dataclass
class Run:
    """One row at work on one lane."""

    row: Row
    step: Step
    lane: Lane
    source: str
    target: str
    hold: Hold | None = None
    beside: Hold | None = None
    """Keeps an action in the middle whose step runs beside the others: the lock's."""
    answer: Answer | None = None
    asking: asyncio.Task[None] | None = None
    refusal: str = ""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    held_by: str = ""


async def patiently(ask: Callable[[], Awaitable[Said]]) -> Said:
    """Asks until somebody answers: on a machine where everything was just broken, nobody may for a while."""
    limit = time.monotonic() + END_SECONDS
    while True:
        try:
            return await ask()
        except (Stopped, RPCError) as err:
            if isinstance(err, Refused | Failed) and not isinstance(err, NoWorker):
                raise
            if time.monotonic() > limit:
                raise Failed(f"no answer in {END_SECONDS:.0f} s: {err}") from err
        await asyncio.sleep(LOOK_SECONDS)
