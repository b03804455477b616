"""Follows an action to its end: a live table on a terminal, one line per change elsewhere.

Watching changes nothing. Ctrl-C and a time-out leave the action running and say so.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from starter import console, exitcodes
from starter.client import Hubless
from starter.durations import precise, since
from starter.failures import NoWorker, Stopped, Unfinished, Unreachable
from workflows.inputs import ActionResult, Answer, Outcome, Step, StepState, StepsView

POLL_SECONDS = 0.5
"""A person sees two changes a second; a query costs a worker about a millisecond."""

OBSTACLE_SECONDS = 2.0
"""Between two questions to Temporal why a wait lasts: a heartbeat carries nothing newer, most waits end before."""

MARKS = {
    StepState.PENDING: "◎",
    StepState.RUNNING: "◎",
    StepState.DONE: "✔",
    StepState.FAILED: "✗",
    StepState.SKIPPED: "►",
}


def line(step: Step, now: datetime) -> str:
    """One step: mark, title, duration, and what is awaited or what came of it."""
    note = step.note
    if step.state is StepState.RUNNING and step.waiting:
        note = f"waiting for {step.waiting.reason}"
        if step.waiting.cluster and step.waiting.cluster not in step.waiting.reason:
            note += f" on {step.waiting.cluster}"
        if step.waiting.since:
            note += f", {since(step.waiting.since, now)}"
    took = ""
    if step.started_at and step.state is not StepState.SKIPPED:
        took = precise(((step.ended_at or now) - step.started_at).total_seconds())
    return f"{MARKS[step.state]} {step.title:<40} {took:>7}   {note}".rstrip()


def render(view: StepsView | None, heading: str, now: datetime, obstacle: str = "") -> str:
    """The whole table as text, `obstacle` being what holds the present wait up."""
    lines = [heading]
    if view is not None:
        lines += [f"  {line(step, now)}" for step in view.steps]
        if view.needs_operator:
            lines.append(f"  ⚠ {view.needs_operator}")
    if obstacle:
        lines.append(f"  Held up: {obstacle}")
    return "\n".join(lines)


class Changes:
    """Prints each step when it begins and when it ends: the live view of a log file."""

    def __init__(self) -> None:
        self._shown: dict[int, tuple[StepState, str]] = {}
        self._asked = ""
        self._obstacle = ""

    def show(self, view: StepsView, obstacle: str = "") -> None:
        """Prints what is new since the last call; durations alone are no change."""
        now = datetime.now(UTC)
        for index, step in enumerate(view.steps):
            seen = (step.state, step.note)
            if self._shown.get(index) != seen:
                self._shown[index] = seen
                console.tell(f"  {line(step, now)}")
        if obstacle and obstacle != self._obstacle:
            console.tell(f"  Held up: {obstacle}")
        self._obstacle = obstacle
        if view.needs_operator and view.needs_operator != self._asked:
            console.warning(view.needs_operator)
        self._asked = view.needs_operator


async def follow(hubless: Hubless, answer: Answer, where: str, timeout: float | None) -> ActionResult:
    """Shows an action's steps until it ends and returns its result.

    `where` is `shop -n web`; `timeout` in seconds, None for no limit. Raises `Unfinished` when the time is over or
    the person stopped watching.
    """
    heading = f"{answer.message}, epoch {answer.epoch}        {answer.workflow_id}"
    kind = answer.action.value.lower()
    ended = asyncio.ensure_future(_result(hubless, answer.workflow_id))
    try:
        async with asyncio.timeout(timeout):
            if console.is_terminal(sys.stderr):
                await _live(hubless, answer.workflow_id, heading, ended)
            else:
                console.tell(heading)
                await _lines(hubless, answer.workflow_id, ended)
            return await ended
    except TimeoutError as err:
        raise Unfinished(
            f"Still running after {precise(timeout or 0)}. The {kind} goes on: hubless status {where} --watch"
        ) from err
    except asyncio.CancelledError as err:
        raise Unfinished(f"Stopped watching. The {kind} goes on: hubless status {where} --watch") from err
    finally:
        ended.cancel()


async def _result(hubless: Hubless, workflow_id: str) -> ActionResult:
    """The result, whenever it comes: while Temporal is away the action stands still, and goes on afterwards."""
    while True:
        try:
            return await hubless.result(workflow_id)
        except Unreachable:
            await asyncio.sleep(POLL_SECONDS)


async def _steps(hubless: Hubless, workflow_id: str) -> StepsView | str:
    """The steps, or who does not answer: an action that was accepted goes on when somebody does."""
    try:
        return await hubless.steps(workflow_id)
    except Stopped as err:
        watching = asyncio.current_task()
        if watching is not None and watching.cancelling():
            # Ctrl-C in the middle of a call comes back as the call's failure; it must not be taken for one.
            raise asyncio.CancelledError from err
        if isinstance(err, NoWorker):
            return "No worker answers; the action goes on when one does."
        if isinstance(err, Unreachable):
            return "Temporal does not answer; the action goes on when it does."
        raise


class _Obstacle:
    """What holds the present wait of an action up; asked for when a wait lasts, and seldom."""

    def __init__(self, hubless: Hubless, workflow_id: str) -> None:
        self._hubless, self._workflow_id = hubless, workflow_id
        self._awaited: object = None
        self._said = ""
        self._due = 0.0

    async def of(self, view: StepsView | None) -> str:
        """Empty while nothing is awaited, or nothing is said about it."""
        awaited = [(index, step.waiting) for index, step in enumerate(view.steps if view else []) if step.waiting]
        if awaited != self._awaited:
            self._awaited, self._said, self._due = awaited, "", time.monotonic() + OBSTACLE_SECONDS
        elif awaited and time.monotonic() >= self._due:
            self._said = await self._hubless.obstacle(self._workflow_id)
            self._due = time.monotonic() + OBSTACLE_SECONDS
        return self._said


async def _lines(hubless: Hubless, workflow_id: str, ended: asyncio.Future[ActionResult]) -> None:
    changes, obstacle = Changes(), _Obstacle(hubless, workflow_id)
    silent = ""
    while True:
        over = ended.done()
        seen = await _steps(hubless, workflow_id)
        if isinstance(seen, StepsView):
            silent = ""
            changes.show(seen, await obstacle.of(seen))
        elif seen != silent:
            silent = seen
            console.waiting(seen)
        if over:
            return
        await asyncio.wait([ended], timeout=POLL_SECONDS)


async def _live(hubless: Hubless, workflow_id: str, heading: str, ended: asyncio.Future[ActionResult]) -> None:
    screen, obstacle = Console(stderr=True, highlight=False), _Obstacle(hubless, workflow_id)

    def shown(view: StepsView | None, held_up: str = "") -> RenderableType:
        return Text(render(view, heading, datetime.now(UTC), held_up))

    last: StepsView | None = None
    with Live(shown(None), console=screen, refresh_per_second=4, redirect_stdout=False, redirect_stderr=False) as live:
        while True:
            over = ended.done()
            seen = await _steps(hubless, workflow_id)
            if isinstance(seen, StepsView):
                last = seen
                live.update(shown(seen, await obstacle.of(seen)), refresh=True)
            else:
                live.update(shown(last, seen), refresh=True)
            if over:
                return
            await asyncio.wait([ended], timeout=POLL_SECONDS)


def exit_code(result: ActionResult) -> int:
    """0 for an action that did what was asked; 1 for one that was aborted or superseded."""
    return exitcodes.DONE if result.outcome is Outcome.DONE else exitcodes.FAILED
