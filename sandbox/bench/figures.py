"""What every part of the bench shares: a sandbox of its own, tables, and what processes say that they asked for."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from sandbox.state import Options
from starter import console
from starter.client import Hubless

MANY_LAG_SECONDS = 30.0
"""Between two syncs with many applications: real storage replicates every minute or less often. At one second a hundred
applications at rest would keep both cores busy with the stand-ins' and the operators' statuses alone."""


@dataclass
class Table:
    """Figures by name: every measured value, in the order measured."""

    title: str
    rows: dict[str, list[float]] = field(default_factory=dict)
    unit: str = "s"

    def add(self, name: str, value: float) -> None:
        """Takes one more measurement."""
        self.rows.setdefault(name, []).append(value)

    def show(self) -> None:
        """Prints median, worst case and count."""
        console.result(f"\n{self.title}")
        lines = [
            [name, f"{statistics.median(values):.2f}", f"{max(values):.2f}", f"{min(values):.2f}", str(len(values))]
            for name, values in self.rows.items()
        ]
        console.result(console.table(["FIGURE", f"MEDIAN {self.unit}", "WORST", "BEST", "RUNS"], lines))


async def with_sandbox(options: Options, work: Callable[[Driver], Awaitable[None]]) -> None:
    """Runs `work` on a sandbox that lives as long as it."""
    with tempfile.TemporaryDirectory(prefix="hubless-bench-") as directory:
        sandbox = Sandbox(Path(directory), "bench", say=console.action)
        try:
            await sandbox.up(options)
            os.environ.update(sandbox.environment())
            driver = Driver(sandbox, await Hubless.connect())
            await work(driver)
            await driver.close()
        finally:
            await sandbox.down()


async def events_of(handle: WorkflowHandle[Any, Any]) -> dict[str, int]:
    """Number of history events of a run, and of the activities in it."""
    found = {"events": 0, "activities": 0}
    async for event in handle.fetch_history_events():
        found["events"] += 1
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            found["activities"] += 1
    return found


async def calls_of_workers(driver: Driver) -> dict[str, float]:
    """What the workers that run asked of API servers and stores so far, by kind of request."""
    found: dict[str, float] = {}
    for cluster, state in driver.sandbox.state.clusters.items():
        if not driver.sandbox.processes.pid(f"{cluster}-worker"):
            continue  # its site is lost
        text = await asyncio.to_thread(_metrics, state.ports["worker"])
        for line in text.splitlines():
            if line.startswith("#") or " " not in line:
                continue
            series, value = line.rsplit(" ", 1)
            if series.startswith("hubless_api_calls_total"):
                write = any(f'verb="{verb}"' in series for verb in ("create", "update", "patch", "delete"))
                where = series.split('cluster="')[1].split('"')[0] if 'cluster="' in series else cluster
                key = f"API {'writes' if write else 'reads and watches'} on {where}"
            elif series.startswith("hubless_s3_requests_total"):
                key = "S3 requests"
            else:
                continue
            found[key] = found.get(key, 0.0) + float(value)
    return found


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())
