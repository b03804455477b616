"""`make chaos`: the command."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from sandbox.chaos.bench import Bench
from sandbox.chaos.plan import Row, State, batches, plan
from sandbox.chaos.table import report
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from sandbox.state import Options, home
from starter import console
from starter.client import Hubless


async def run(path: Path, state: State, seconds: float, size: int, only: str) -> None:
    """Runs what was not run yet until the time is up."""
    code = _commit()
    with tempfile.TemporaryDirectory(prefix="hubless-chaos-") as directory:
        sandbox = Sandbox(Path(directory), "chaos", say=console.action)
        limit = time.monotonic() + seconds
        try:
            await sandbox.up(Options(delays="zero", lag=1.0))
            os.environ.update(sandbox.environment())
            driver = Driver(sandbox, await Hubless.connect())
            bench = Bench(driver, console.action, path.with_suffix(".records"))
            await bench.begin()
            if not state.steps:
                state.steps = await bench.discover()
                state.save(path)
            steps = {step.id: step for step in state.steps}
            rows = plan(state.steps, state.seed)
            console.action(f"seed {state.seed}: {len(steps)} steps, {len(rows)} rows")
            left = [row for row in rows if only in row.id and _undone(state, row)]
            for group in batches(left, size):
                if time.monotonic() > limit:
                    console.action("the time is up; run it again to go on")
                    break
                results = await bench.batch(group, steps)
                state.results.update({row: found.model_copy(update={"commit": code}) for row, found in results.items()})
                state.save(path)
                for row_id, result in results.items():
                    if result.verdict != "passed":
                        console.action(f"{result.verdict}: {row_id}: {result.detail}")
            await bench.end()
            await driver.close()
        finally:
            await sandbox.down()


def _commit() -> str:
    """The commit of the code that runs, with `-dirty` when something differs from it; empty outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _undone(state: State, row: Row) -> bool:
    result = state.results.get(row.id)
    return result is None or result.verdict == "not run"


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.chaos", description="Breaks every part at every step of every action, and checks."
    )
    parser.add_argument("--state", type=Path, default=home().parent / "chaos.json", help="where results are kept")
    parser.add_argument("--seed", type=int, help="of a new state file")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no batch after this time")
    parser.add_argument("--apps", type=int, default=16, help="rows of one batch")
    parser.add_argument("--only", default="", help="rows whose name contains this text")
    parser.add_argument("--again", action="store_true", help="run rows again that failed")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    given = parser.parse_args()
    if given.fresh:
        given.state.unlink(missing_ok=True)
    if given.table:
        return report(given.state)
    state = State(seed=random.randrange(1000) if given.seed is None else given.seed)
    if given.state.exists():
        state = State.model_validate_json(given.state.read_text())
    if given.again:
        state.results = {row: result for row, result in state.results.items() if result.verdict != "failed"}
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # answers that come after their limit are nobody's any more
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_stoppable(run(given.state, state, given.seconds, given.apps, given.only)))
    return report(given.state)


async def _stoppable(work: Coroutine[Any, Any, None]) -> None:
    """Ends on TERM as on Ctrl-C: in order, with the sandbox down."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the SDK's threads can crash the interpreter's teardown
