"""Holds activities at a step: a worker for fault tests, which waits where the bench says before or after an activity.

A step of an action takes milliseconds, so whoever wants to break something in the middle of it must stop time there.
The worker is the product's own, with one interceptor: for each activity it looks for a file that names it, and while
that file exists it waits, before the work (nothing is done yet) or after it (all is done and nobody knows).
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import temporalio.client
from pydantic import BaseModel
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

DIRECTORY = "holds"

CLOCK = "HUBLESS_SANDBOX_CLOCK"
"""Variable: seconds by which the wall clock of the worker is wrong."""

LOOK_SECONDS = 0.02
"""Pause between two looks at the file: short against the limits of activities, which run on while one is held."""

BEAT_SECONDS = 1.0
"""Heartbeats go on while an activity is held, or its wait would be taken for dead."""

When = Literal["before", "after"]


class Hold(BaseModel):
    """One activity of one workflow that is to stop, and on which side of its work."""

    workflow_id: str
    activity_id: str
    """The number of the activity in its workflow's run, as the SDK counts: the first is `1`."""
    when: When = "before"

    def path(self, directory: Path) -> Path:
        """The file whose existence holds the activity."""
        return directory / DIRECTORY / f"{quote(self.workflow_id, safe='')}@{self.activity_id}.{self.when}"


def place(directory: Path, hold: Hold) -> None:
    """From now on the activity stops there."""
    path = hold.path(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def release(directory: Path, hold: Hold) -> None:
    """Lets the activity go on, in whatever worker it stands; not being held is no error."""
    hold.path(directory).unlink(missing_ok=True)
    _mark(hold.path(directory)).unlink(missing_ok=True)


def holder(directory: Path, hold: Hold) -> str | None:
    """Cluster of the worker in which the activity stands, or stood before its limit ended it; None while none did."""
    try:
        return _mark(hold.path(directory)).read_text() or None
    except FileNotFoundError:
        return None


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


class Holding(temporalio.client.Interceptor, Interceptor):
    """Looks for holds around every activity; a client hands it to all workers that it serves."""

    def __init__(self, directory: Path, worker: str) -> None:
        self._directory = directory
        self._worker = worker

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """One interceptor for each activity."""
        return _Held(next, self._directory, self._worker)


class _Held(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, directory: Path, worker: str) -> None:
        super().__init__(following)
        self._directory = directory
        self._worker = worker

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        await self._wait("before")
        result = await super().execute_activity(input)
        await self._wait("after")
        return result

    async def _wait(self, when: When) -> None:
        info = activity.info()
        hold = Hold(workflow_id=info.workflow_id or "", activity_id=info.activity_id, when=when)
        path, waited = hold.path(self._directory), 0.0
        if not path.exists():
            return
        # Whoever is cancelled by its time limit leaves the mark: it is tried again and has not passed the step.
        mark = _mark(path)
        mark.write_text(self._worker)
        while path.exists():
            await asyncio.sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS
            if info.heartbeat_timeout and waited >= BEAT_SECONDS:
                activity.heartbeat()
                waited = 0.0
        mark.unlink(missing_ok=True)


def shift_clock(seconds: float) -> None:
    """Makes every module of the product that has been loaded read a wall clock that is wrong by so much.

    Temporal's own client and the monotonic clock stay right, as they do on a machine whose wall clock is off.
    """
    import worker.compose  # all that a worker needs

    right = time.time

    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return datetime.datetime.fromtimestamp(right() + seconds, tz)

    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("ramen", "activities", "worker") and getattr(module, "datetime", None) is (
            datetime.datetime
        ):
            setattr(module, "datetime", Wrong)  # noqa: B010
    setattr(time, "time", lambda: right() + seconds)  # noqa: B010
    logging.getLogger(__name__).warning("%s: this worker's clock is %+.0f s off", worker.compose.__name__, seconds)


def main() -> None:
    """Runs the product's worker with holds; it is configured as the product's own, by its environment."""
    from worker.main import main as run

    directory = Path(os.environ["HUBLESS_SANDBOX_DIR"])
    holding = Holding(directory, os.environ["HUBLESS_CLUSTER"])
    connect = temporalio.client.Client.connect

    async def with_holds(*given: Any, **more: Any) -> temporalio.client.Client:
        return await connect(*given, **more, interceptors=[holding])

    setattr(temporalio.client.Client, "connect", with_holds)  # noqa: B010  # the product needs no seam for this
    if shift := float(os.environ.get(CLOCK, "0")):
        shift_clock(shift)
    run(None)


if __name__ == "__main__":
    main()
