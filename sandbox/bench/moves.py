"""One application: times and costs of its moves, beside the floor that no orchestration can go below."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from temporalio.api.enums.v1 import EventType

from ramen import names
from ramen.kinds import CONFIG_MAP, PLACEMENT_DECISION, POD, PVC, VRG
from sandbox.application import Application
from sandbox.bench.figures import Table, calls_of_workers, events_of
from sandbox.driver import Driver
from starter import console


async def measure(driver: Driver, rounds: int, title: str) -> None:
    """Prints two tables of `rounds` applications that fail over and relocate."""
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
