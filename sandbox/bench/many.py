"""Many applications failed over at once: until all serve; CPU of product, servers and stand-ins apart."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import psutil

from sandbox.application import Application
from sandbox.bench.figures import Table
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from starter import console


async def measure(driver: Driver, count: int) -> None:
    """Prints the tables; the applications stay where they went."""
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
