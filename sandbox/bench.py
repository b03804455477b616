"""`make bench`: measures what the project promises, on a sandbox of its own, and prints tables; asserts nothing.

Two sandboxes are used one after the other: one with the delays of the real operator, for figures that a user meets,
and one without, where what is left is orchestration. Beside each move stands the floor: the same API calls made by a
bare script in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from ramen import names
from ramen.kinds import CONFIG_MAP, PLACEMENT_DECISION, POD, PVC, VRG
from sandbox import bench_clusters
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from sandbox.state import Options
from starter import console
from starter.client import Hubless

IDLE_SECONDS = 60
"""The issue speaks of a minute."""


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


async def main(rounds: int, many: int, skip_idle: bool) -> None:
    """Runs everything; progress on stderr, tables on stdout."""
    console.result(
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )
    await with_sandbox(Options(delays="real"), lambda driver: _moves(driver, rounds, "as the real operator delays"))

    async def without_delays(driver: Driver) -> None:
        await _moves(driver, rounds, "storage and operator answer at once")
        if not skip_idle:
            await _idle(driver)
            await bench_clusters.measure(driver, lambda title, unit: Table(title, unit=unit))
        # Imported late: they use the tables of this module.
        from sandbox import bench_losing, bench_stores

        await bench_losing.losing(driver, rounds)
        await bench_stores.measure(driver, rounds)  # last: it leaves proxies in front of the stores

    await with_sandbox(Options(delays="zero", lag=1.0), without_delays)
    if many:
        await with_sandbox(Options(delays="zero", lag=MANY_LAG_SECONDS), lambda driver: _many(driver, many))


async def clusters() -> None:
    """Only the part about clusters; `python -m sandbox.bench_clusters`."""
    options = Options(delays="zero", lag=1.0)
    await with_sandbox(
        options, lambda driver: bench_clusters.measure(driver, lambda title, unit: Table(title, unit=unit))
    )


async def with_sandbox(options: Options, work: Callable[[Driver], Awaitable[None]]) -> None:
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


# --- one application ------------------------------------------------------------


async def _moves(driver: Driver, rounds: int, title: str) -> None:
    times = Table(f"One application, {title}")
    costs = Table(f"Cost of one action, {title}", unit="")
    for number in range(rounds):
        app = Application.of("bench", f"one-{number}")
        await driver.deploy(app, "dr1")
        asked = time.time()
        answer = await driver.protect(app, "dr1")
        await driver.ended(answer)
        times.add("protect: request to serving", time.time() - asked)
        await driver.protected(app)
        times.add("protect: request to re-protected", time.time() - asked)
        for verb, target in (("failover", "dr2"), ("relocate", "dr1")):
            await _move(driver, app, verb, target, times, costs)
        await driver.ended(await driver.unprotect(app))
        console.action(f"round {number + 1} of {rounds} done")
    for _ in range(rounds):
        times.add("floor: the calls of a failover by a bare script", await _floor(driver))
    times.show()
    costs.show()


async def _move(driver: Driver, app: Application, verb: str, target: str, times: Table, costs: Table) -> None:
    calls = await calls_of_workers(driver)
    asked = time.time()
    answer = await driver.move(verb, app, target)
    result = await driver.ended(answer)
    serving = time.time() - asked
    times.add(f"{verb}: request to serving", serving)
    clusters = result.clusters_seconds
    times.add(f"{verb}: of it waiting for operator and storage", clusters)
    times.add(f"{verb}: of it orchestration", serving - clusters)
    events = await events_of(driver.hubless.client.get_workflow_handle(answer.workflow_id))
    costs.add(f"{verb}: history events of the action", events["events"])
    view = await driver.protected(app)
    record = view.state.action
    if record and record.cleaned_at and record.requested_at:
        times.add(f"{verb}: request to cleaned", (record.cleaned_at - record.requested_at).total_seconds())
    times.add(f"{verb}: request to re-protected", time.time() - asked)
    spent = await calls_of_workers(driver)
    for name, count in spent.items():
        costs.add(f"{verb}: {name}", count - calls.get(name, 0))
    costs.add(
        f"{verb}: activities from request to serving", await _activities_to_serving(driver, app, answer.workflow_id)
    )
    if result.serving_at is None:
        raise RuntimeError(f"{verb} of {app.name} ended without serving: {result.message}")


async def events_of(handle: WorkflowHandle[Any, Any]) -> dict[str, int]:
    """Number of history events of a run, and of the activities in it."""
    found = {"events": 0, "activities": 0}
    async for event in handle.fetch_history_events():
        found["events"] += 1
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            found["activities"] += 1
    return found


async def _activities_to_serving(driver: Driver, app: Application, workflow_id: str) -> float:
    """Activities of the entity since it took the request, and of the action."""
    mine = (await events_of(driver.hubless.client.get_workflow_handle(workflow_id)))["activities"]
    before = 0
    entity = driver.hubless.client.get_workflow_handle(names.entity_id(app.namespace, app.name))
    async for event in entity.fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
            before = 0
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            before += 1
        started = event.start_child_workflow_execution_initiated_event_attributes
        if event.event_type == EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED and (
            started.workflow_id == workflow_id
        ):
            return before + mine
    return mine


async def _floor(driver: Driver) -> float:
    """The API calls of a failover, one after the other as they depend on each other, without any orchestration."""
    dr1, dr2 = await driver.access("dr1"), await driver.access("dr2")
    name = f"floor-{time.time_ns()}"
    body = {"metadata": {"name": name, "namespace": "bench"}, "data": {"epoch": "1"}}
    for access in (dr1, dr2):
        await access.create(CONFIG_MAP, body)
    began = time.perf_counter()

    async def look(access: Any) -> dict[str, Any]:
        vrg, _, _ = await asyncio.gather(
            access.read(CONFIG_MAP, name, "bench"), access.list(PVC, "bench"), access.list(POD, "bench")
        )
        found: dict[str, Any] = vrg
        return found

    async def write(access: Any, found: dict[str, Any], epoch: str) -> dict[str, Any]:
        written: dict[str, Any] = await access.replace(CONFIG_MAP, {**found, "data": {"epoch": epoch}})
        return written

    found = await asyncio.gather(look(dr1), look(dr2))
    stamped = await asyncio.gather(write(dr1, found[0], "2"), write(dr2, found[1], "2"))
    await write(dr2, stamped[1], "3")
    await dr2.list(VRG, "bench")
    await dr2.list(PLACEMENT_DECISION, "bench")
    took = time.perf_counter() - began
    for access in (dr1, dr2):
        await access.delete(CONFIG_MAP, name, "bench")
    return took


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


# --- idle ------------------------------------------------------------


async def _idle(driver: Driver) -> None:
    """An idle protected application: what a minute costs in Temporal and in the workers."""
    app = Application.of("bench", "idle")
    await driver.deploy(app, "dr1")
    await driver.ended(await driver.protect(app, "dr1"))
    await driver.protected(app)
    entity = driver.hubless.client.get_workflow_handle(names.entity_id(app.namespace, app.name))
    await asyncio.sleep(5)  # what followed the last action has ended
    events, calls = await events_of(entity), await calls_of_workers(driver)
    console.action(f"idle for {IDLE_SECONDS} s")
    await asyncio.sleep(IDLE_SECONDS)
    after, spent = await events_of(entity), await calls_of_workers(driver)
    table = Table(
        "An idle protected application, one minute (API calls are those of the whole worker: probe, registry)"
    )
    table.unit = ""
    table.add("history events of the entity", after["events"] - events["events"])
    for name in spent:
        table.add(name, spent[name] - calls.get(name, 0))
    table.show()
    await driver.ended(await driver.unprotect(app))


# --- many ------------------------------------------------------------


async def _many(driver: Driver, count: int) -> None:
    """Many applications failed over at once: until all serve; CPU of product, servers and stand-ins apart."""
    apps = [Application.of(f"many-{number}", "app") for number in range(count)]
    limit = asyncio.Semaphore(10)
    driver.look_seconds = 2.0  # a hundred waits that look every moment would be most of the load

    async def prepare(app: Application) -> None:
        async with limit:
            await driver.deploy(app, "dr1", 300)
            await driver.ended(await driver.protect(app, "dr1"), 300)

    console.action(f"deploying and protecting {count} applications")
    began = time.time()
    await asyncio.gather(*(prepare(app) for app in apps))
    await asyncio.gather(*(driver.protected(app, 600) for app in apps))
    console.action(f"{count} applications are protected after {time.time() - began:.0f} s; failing over")
    memory = _memory(driver.sandbox)
    cpu = _cpu(driver.sandbox)
    table = Table(f"{count} applications failed over at once, stand-ins at zero delay")
    asked = datetime.now(UTC)

    async def fail_over(app: Application) -> None:
        answer = await driver.move("failover", app, "dr2")
        result = await driver.ended(answer, 600)
        if result.serving_at:
            table.add("request to serving, each application", (result.serving_at - asked).total_seconds())

    await asyncio.gather(*(fail_over(app) for app in apps))
    spent = _cpu(driver.sandbox)
    table.show()
    shares = Table("CPU while they moved, by group", unit="core s")
    for group, seconds in spent.items():
        shares.add(group, seconds - cpu.get(group, 0.0))
    shares.show()
    figures = Table(f"Memory with {count} applications", unit="MB")
    for name, megabytes in memory.items():
        figures.add(name, megabytes)
    figures.show()


def _group(name: str) -> str:
    if name.endswith("worker"):
        return "workers (the product)"
    if name.endswith(("operator", "gitops")) or name == "array":
        return "stand-ins"
    return "temporal" if name == "temporal" else "control planes and stores"


def _cpu(sandbox: Sandbox) -> dict[str, float]:
    """CPU seconds used so far by the sandbox's processes and this one, by group."""
    used: dict[str, float] = {"bench itself": sum(psutil.Process().cpu_times()[:2])}
    for name in sandbox.processes.names():
        pid = sandbox.processes.pid(name)
        if pid:
            group = _group(name)
            used[group] = used.get(group, 0.0) + sum(psutil.Process(pid).cpu_times()[:2])
    return used


def _memory(sandbox: Sandbox) -> dict[str, float]:
    found = {}
    for name in sandbox.processes.names():
        pid = sandbox.processes.pid(name)
        if pid and name.endswith("worker"):
            found[name] = psutil.Process(pid).memory_info().rss / 1e6
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures Hubless on a sandbox of its own and prints tables.")
    parser.add_argument("--rounds", type=int, default=5, help="moves of one application")
    parser.add_argument("--many", type=int, default=100, help="applications failed over at once; 0 leaves it out")
    parser.add_argument("--skip-idle", action="store_true", help="leave out the idle minute")
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.many, given.skip_idle))
    os._exit(0)  # the SDK's threads can crash the interpreter's teardown
