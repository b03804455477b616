"""One idle application: what a minute costs in Temporal and in the workers."""

from __future__ import annotations

import asyncio

from ramen import names
from sandbox.application import Application
from sandbox.bench.figures import Table, calls_of_workers, events_of
from sandbox.driver import Driver
from starter import console

IDLE_SECONDS = 60
"""Long enough for what comes once a minute."""


async def measure(driver: Driver) -> None:
    """Prints the table."""
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
