"""Figures of losing things: a failover whose source died with its worker, and what many applications at rest cost.

Part of `make bench`; alone: `python -m sandbox.bench.losing`. In each round the application's workflow is cached in the
worker that is about to be lost, as it would be after weeks of rest, and the request comes at once: nobody has noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import psutil

from ramen import names
from sandbox import faults, sites
from sandbox.application import Application
from sandbox.bench.figures import MANY_LAG_SECONDS, Table, calls_of_workers, events_of, with_sandbox
from sandbox.driver import Driver
from sandbox.state import Options
from starter import console
from starter.failures import Stopped

MINUTE = 60.0

SYNC_SECONDS = 0.3
"""Between two syncs of the storage stand-in: with a thousand applications one has a sync every five minutes, as in an
installation whose policy says so."""

LOOKS_PER_SECOND = 25
"""Looks at all applications together while they are waited for: more would be most of what is measured."""

AT_ONCE = 6
"""Applications that are protected, or moved, at the same time."""

TRIES = 5
"""A machine that is busy with so many may refuse a request: a look at a cluster came to no answer in its second."""

SITE = (*sites.PARTS, *sites.CONTROLLERS, *sites.SERVERS)
"""Processes of a site, without their cluster's name."""


async def losing(driver: Driver, rounds: int) -> None:
    """Failovers from a site that was killed, frozen, or lost its worker only: request to serving."""
    table = Table("Failover of an application whose cluster was lost with the worker that had its workflow cached")
    for how, lose in (("killed", _kill), ("frozen", _freeze), ("worker alone killed", _kill_worker)):
        for number in range(rounds):
            app = Application.of("losing", f"{how.split()[0]}-{number}")
            await cached_on(driver, app, "dr1")
            mend = await lose(driver)
            try:
                await _fail_over(driver, app, table, how)
            finally:
                await mend()
            await driver.protected(app, 180)
            await driver.ended(await driver.unprotect(app))
            console.action(f"{how}: round {number + 1} of {rounds} done")
    table.show()


async def cached_on(driver: Driver, app: Application, cluster: str) -> None:
    """Protects an application while only one worker runs, so that its workflow is in that worker's cache."""
    processes = driver.sandbox.processes
    other = next(name for name in driver.clusters if name != cluster)
    await driver.deploy(app, cluster)
    await driver.ended(await driver.protect(app, cluster))
    await driver.protected(app)
    await processes.stop(f"{other}-worker")
    # A query is answered from the cache of whoever ran the workflow last; now only one worker can.
    await driver.until(lambda: driver.status(app), "the remaining worker to take the workflow over", 90)
    await driver.hubless.client.get_workflow_handle(names.entity_id(app.namespace, app.name)).signal(
        "vrg_observed", {"cluster": cluster, "reason": "bench"}
    )
    await driver.protected(app)
    await processes.start_again(f"{other}-worker")
    await asyncio.sleep(3)  # the other worker knows its clusters again


async def _fail_over(driver: Driver, app: Application, table: Table, how: str) -> None:
    asked = time.time()
    result = await driver.ended(await driver.move("failover", app, "dr2"))
    serving = (result.serving_at.timestamp() if result.serving_at else time.time()) - asked
    table.add(f"{how}: request to serving", serving)
    table.add(f"{how}: of it waiting for operator and storage", result.clusters_seconds)
    table.add(f"{how}: of it orchestration", serving - result.clusters_seconds)


Mend = Callable[[], Awaitable[None]]


async def _kill(driver: Driver) -> Mend:
    await sites.lose(driver.sandbox, "dr1")
    return lambda: sites.give_back(driver.sandbox, "dr1")


async def _freeze(driver: Driver) -> Mend:
    """Connections stay open and silent: nothing tells anybody that the site is gone."""
    sandbox = driver.sandbox
    now = faults.load(sandbox.directory)
    faults.save(sandbox.directory, now.model_copy(update={"lost": ["dr1"]}))
    for part in SITE:
        sandbox.processes.freeze(f"dr1-{part}")

    async def mend() -> None:
        faults.save(sandbox.directory, now)
        for part in reversed(SITE):
            sandbox.processes.thaw(f"dr1-{part}")

    return mend


async def _kill_worker(driver: Driver) -> Mend:
    await driver.sandbox.processes.kill("dr1-worker")

    async def mend() -> None:
        await driver.sandbox.processes.start_again("dr1-worker")

    return mend


async def at_rest(driver: Driver, count: int, moved: int) -> None:
    """Many idle applications for a minute, then with `moved` of them elsewhere and their old side away."""
    apps = [Application.of(f"rest-{number}", "app", volumes=1) for number in range(count)]
    limit = asyncio.Semaphore(AT_ONCE)
    driver.look_seconds = 1.0  # so many waits that look every moment would be much of the load

    async def prepare(number: int, app: Application) -> None:
        async with limit:
            await driver.deploy(app, "dr1", 600)
            for left in reversed(range(TRIES)):
                try:
                    await driver.ended(await driver.protect(app, "dr1"), 600)
                    break
                except Stopped as err:
                    if not left:
                        raise
                    console.action(f"asked again for {app.namespace}: {err}")
        if number % 100 == 0:
            console.action(f"about {number} are protected")

    console.action(f"protecting {count} applications")
    await asyncio.gather(*(prepare(number, app) for number, app in enumerate(apps, 1)))
    driver.look_seconds = max(driver.look_seconds, count / LOOKS_PER_SECOND)
    await asyncio.gather(*(driver.protected(app, 900) for app in apps))
    await asyncio.sleep(5)
    await _minute(driver, apps, f"{count} idle applications, one minute")
    await sites.lose(driver.sandbox, "dr1")

    async def fail_over(app: Application) -> None:
        async with limit:
            await driver.ended(await driver.move("failover", app, "dr2"), 600)

    await asyncio.gather(*(fail_over(app) for app in apps[:moved]))
    await driver.until(lambda: _none_runs(driver), "every Reprotect to park", 300)
    await asyncio.sleep(5)
    await _minute(driver, apps, f"{count} applications, {moved} of them moved, whose old side is away, one minute")
    await sites.give_back(driver.sandbox, "dr1")


async def _none_runs(driver: Driver) -> bool:
    query = 'WorkflowType="Reprotect" AND ExecutionStatus="Running"'
    return (await driver.hubless.client.count_workflows(query)).count == 0


async def _minute(driver: Driver, apps: list[Application], title: str) -> None:
    some = apps[:10]
    entities = [driver.hubless.client.get_workflow_handle(names.entity_id(app.namespace, app.name)) for app in some]
    events = [(await events_of(entity))["events"] for entity in entities]
    before, cpu = await calls_of_workers(driver), _cpu(driver)
    await asyncio.sleep(MINUTE)
    after = await calls_of_workers(driver)
    table = Table(title, unit="")
    for entity, known in zip(entities, events, strict=True):
        table.add("history events of an application", (await events_of(entity))["events"] - known)
    for name, number in after.items():
        table.add(f"{name} of all workers", number - before.get(name, 0))
    for name, seconds in _cpu(driver).items():
        table.add(f"{name}: core seconds", seconds - cpu.get(name, seconds))
        pid = driver.sandbox.processes.pid(name)
        if pid:
            table.add(f"{name}: memory MB", psutil.Process(pid).memory_info().rss / 1e6)
    table.show()


def _cpu(driver: Driver) -> dict[str, float]:
    found = {}
    for cluster in driver.clusters:
        pid = driver.sandbox.processes.pid(f"{cluster}-worker")
        if pid:
            found[f"{cluster}-worker"] = sum(psutil.Process(pid).cpu_times()[:2])
    return found


async def main(rounds: int, apps: int, moved: int) -> None:
    """Both parts on a sandbox without delays of storage and operator."""

    async def work(driver: Driver) -> None:
        if rounds:
            await losing(driver, rounds)
        if apps:
            await at_rest(driver, apps, min(moved, apps))

    lag = max(MANY_LAG_SECONDS, apps * SYNC_SECONDS) if apps else 1.0
    await with_sandbox(Options(delays="zero", lag=lag), work)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures failovers from lost sites, and applications at rest.")
    parser.add_argument("--rounds", type=int, default=3, help="failovers of each kind; 0 leaves them out")
    parser.add_argument("--apps", type=int, default=0, help="applications at rest; 0 leaves them out")
    parser.add_argument("--moved", type=int, default=100, help="of these, those that move when their side is lost")
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.apps, given.moved))
    os._exit(0)  # the SDK's threads can crash the interpreter's teardown
