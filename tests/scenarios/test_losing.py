"""Losing and doubling things beside the chaos bench: zombies, forks, wrong clocks, flapping and emptied clusters."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, RPCError, WorkflowExecutionStatus
from temporalio.contrib.pydantic import pydantic_data_converter

from ramen import names
from ramen.app import AppRef
from ramen.errors import HublessError
from ramen.kinds import NAMESPACE
from sandbox import faults, holding, sites
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.holding import Hold
from sandbox.lifecycle import Sandbox
from sandbox.processes import Probe
from starter.client import Hubless
from starter.failures import Failed, Refused, Stopped
from tests.scenarios.checks import Story
from workflows.inputs import AdoptRequest, Outcome

CLOCK_SECONDS = 600
"""How wrong the clock of a worker is."""


@asynccontextmanager
async def special_worker(sandbox: Sandbox, cluster: str, name: str = "", **environment: str) -> AsyncIterator[str]:
    """A worker with holds in the place of the usual one, or beside it when it has a name of its own."""
    usual = sandbox.worker_spec(cluster)
    spec = sandbox.worker_spec(cluster, holds=True)
    port = str(sandbox.state.clusters[cluster].ports["worker"])
    if name:
        port = "0"
    spec = spec.model_copy(
        update={
            "name": name or usual.name,
            "env": {**spec.env, "HUBLESS_HTTP_PORT": port, **environment},
            "probe": None if name else Probe(port=int(port)),
        }
    )
    await sandbox.processes.start(spec)
    try:
        yield spec.name
    finally:
        sandbox.processes.thaw(spec.name)
        if name:
            await sandbox.processes.stop(spec.name)
            sandbox.processes.forget(spec.name)
        else:
            await sandbox.processes.start(usual)


async def test_a_zombie_worker_wakes_up_after_a_newer_action(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """S1: a worker is frozen right before it promotes; the action goes on elsewhere, and another one after it."""
    story = await Story.begin(driver, application)
    number = (await _epoch(driver, application)) + 1
    async with special_worker(sandbox, "dr1"), special_worker(sandbox, "dr2"):
        workflow_id = names.action_id(application.namespace, application.name, "Failover", number)
        holds = [Hold(workflow_id=workflow_id, activity_id=str(n)) for n in (1, 2, 3)]
        for hold in holds:
            holding.place(sandbox.directory, hold)
        answer = await driver.move("failover", application, "dr2")
        promotion = await _find(driver, answer.workflow_id, "apply_vrg")
        for hold in holds:
            if hold.activity_id != promotion:
                holding.release(sandbox.directory, hold)
        mine = Hold(workflow_id=workflow_id, activity_id=promotion)
        await driver.until(lambda: _is_held(sandbox, mine), "the promotion to be held")
        zombie = f"{holding.holder(sandbox.directory, mine)}-worker"
        sandbox.processes.freeze(zombie)
        holding.release(sandbox.directory, mine)
        assert (await driver.ended(answer)).outcome is Outcome.DONE
        await story.serves("dr2")
        await driver.protected(application)
        await story.move("relocate", "dr1")
        before = [await driver.vrg(application, cluster) for cluster in driver.clusters]
        sandbox.processes.thaw(zombie)
        await story.settled("dr1")
        await asyncio.sleep(2)  # the zombie has nothing to wait for: what it writes, it writes at once
        after = [await driver.vrg(application, cluster) for cluster in driver.clusters]
        assert [v and v["spec"]["replicationState"] for v in before] == [
            v and v["spec"]["replicationState"] for v in after
        ]
        await story.nothing_was_lost()


async def test_a_worker_that_was_frozen_begins_old_tasks_of_the_present_action(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """S1: its open polls took tasks of a relocate that others then did; it begins them when the relocate is done."""
    story = await Story.begin(driver, application)
    for target, frozen in (("dr2", "dr1-worker"), ("dr1", "dr2-worker")):
        sandbox.processes.freeze(frozen)
        try:
            await story.move("relocate", target)
        finally:
            sandbox.processes.thaw(frozen)
        await story.settled(target)
        await story.nothing_was_lost()


@pytest.mark.matrix
async def test_two_workers_of_one_cluster(driver: Driver, sandbox: Sandbox, application: Application) -> None:
    async with special_worker(sandbox, "dr1", "dr1-second"):
        story = await Story.begin(driver, application)
        await story.move("failover", "dr2")
        await story.settled("dr2")
        await story.nothing_old_was_lost()
        answer = await driver.move("relocate", application, "dr1")
        await sandbox.processes.kill("dr1-worker")
        await driver.ended(answer)
        await story.settled("dr1")
        await sandbox.processes.start_again("dr1-worker")


@pytest.mark.parametrize(
    "seconds", [CLOCK_SECONDS, pytest.param(-CLOCK_SECONDS, marks=pytest.mark.matrix)], ids=["ahead", "behind"]
)
async def test_a_worker_whose_clock_is_wrong(
    driver: Driver, sandbox: Sandbox, application: Application, seconds: int
) -> None:
    async with special_worker(sandbox, "dr1", HUBLESS_SANDBOX_CLOCK=str(seconds)):
        story = await Story.begin(driver, application)
        await story.move("failover", "dr2")
        await story.settled("dr2")
        await story.nothing_old_was_lost()
        await story.move("relocate", "dr1")
        await story.settled("dr1")
        await story.nothing_was_lost()


async def test_a_temporal_database_that_was_copied_and_runs_twice(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """S1: both halves know the same epochs; whichever acts second meets an epoch that it did not issue, and stops."""
    story = await Story.begin(driver, application)
    async with fork(sandbox) as other:
        twin = Driver(sandbox, Hubless(other))
        try:
            await story.move("failover", "dr2")
            await story.settled("dr2")
            before = [await driver.vrg(application, cluster) for cluster in driver.clusters]
            with pytest.raises((Refused, Failed), match=r"not issued here|held by|driven by somebody else"):
                await twin.move("failover", application, "dr1")
            with pytest.raises((Refused, Failed)):
                await twin.move("relocate", application, "dr2")
            after = [await driver.vrg(application, cluster) for cluster in driver.clusters]
            assert [_what(vrg) for vrg in before] == [_what(vrg) for vrg in after]
            await story.settled("dr2")
        finally:
            await twin.close()


@pytest.mark.matrix
async def test_both_halves_of_a_fork_act_at_once(driver: Driver, sandbox: Sandbox, application: Application) -> None:
    """S1: two failovers to the same side under one number; one token wins, the other half stops."""
    story = await Story.begin(driver, application)
    async with fork(sandbox) as other:
        twin = Driver(sandbox, Hubless(other))
        try:
            asked = await asyncio.gather(
                driver.move("failover", application, "dr2"),
                twin.move("failover", application, "dr2"),
                return_exceptions=True,
            )
            outcomes = []
            for half, answer in zip((driver, twin), asked, strict=True):
                if isinstance(answer, BaseException):
                    assert isinstance(answer, (Refused, Failed)), answer
                    continue
                outcomes.append((await half.ended(answer)).outcome)
            assert outcomes.count(Outcome.DONE) <= 1, outcomes
            assert outcomes, asked
            await driver.until(lambda: driver.serves(application, "dr2"), "one half to have moved it")
            one, two = [await driver.vrg(application, cluster) for cluster in driver.clusters]
            assert one is not None
            assert two is not None
            assert two["spec"]["replicationState"] == "primary"
        finally:
            await twin.close()
    await story.serves("dr2")


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("action", "terminate"),
        ("action", "cancel"),
        ("action", "reset"),
        ("entity", "reset"),
        ("entity", "cancel"),
        ("reprotect", "terminate"),
        ("reprotect", "cancel"),
        ("reprotect", "reset"),
    ],
)
async def test_a_workflow_is_ended_from_outside(
    driver: Driver, sandbox: Sandbox, application: Application, what: str, how: str
) -> None:
    """S14: whatever is done to a workflow in the middle of a failover, a failover afterwards brings it to rest.

    An entity that was reset to its beginning knows of no application; it has to be adopted first, and says so.
    """
    story = await Story.begin(driver, application)
    held = faults.Faults(resync={"dr1": "hang"}) if what == "reprotect" else faults.Faults(promotion={"dr2": "hang"})
    faults.save(sandbox.directory, held)
    answer = await driver.move("failover", application, "dr2")
    workflow_id = answer.workflow_id
    if what == "reprotect":
        await driver.ended(answer)
        workflow_id = names.action_id(application.namespace, application.name, "Reprotect", answer.epoch)
        await driver.until(lambda: _is_running(driver, workflow_id), "the reprotect to run")
        await driver.until(lambda: _has_role(driver, application, "dr1", "secondary"), "dr1 to be demoted")
    else:
        await driver.until(lambda: _has_role(driver, application, "dr2", "primary"), "dr2 to be asked")
    if what == "entity":
        workflow_id = names.entity_id(application.namespace, application.name)
    await _do(driver, workflow_id, how)
    faults.save(sandbox.directory, faults.Faults())
    # Whatever it came to, somebody asks again until it is where it is to be.
    await driver.until(lambda: _serves_by_status(driver, application, "dr2"), "a failover to dr2 to be accepted", 90)
    await story.settled("dr2")
    await story.serves("dr2")


@pytest.mark.matrix
async def test_a_cluster_that_flaps_for_a_minute(driver: Driver, sandbox: Sandbox, application: Application) -> None:
    story = await Story.begin(driver, application)
    answer = await driver.move("failover", application, "dr2")
    for _ in range(10):
        sandbox.processes.freeze("dr2-apiserver")
        await asyncio.sleep(3)
        sandbox.processes.thaw("dr2-apiserver")
        await asyncio.sleep(3)
    assert (await driver.ended(answer)).outcome is Outcome.DONE
    await story.settled("dr2")
    await story.nothing_old_was_lost()


@pytest.mark.parametrize("stage", ["at rest", "in the middle"])
@pytest.mark.matrix
async def test_both_clusters_are_lost_and_both_return(
    driver: Driver, sandbox: Sandbox, application: Application, stage: str
) -> None:
    story = await Story.begin(driver, application)
    if stage == "in the middle":
        faults.save(sandbox.directory, faults.Faults(resync={"dr1": "hang"}))
        await story.move("failover", "dr2")
        await driver.until(lambda: _has_role(driver, application, "dr1", "secondary"), "dr1 to be demoted")
    for cluster in driver.clusters:
        await sites.lose(sandbox, cluster)
    await asyncio.sleep(15)  # a Reprotect that waits for an absent cluster has parked by then
    now = faults.load(sandbox.directory)
    faults.save(sandbox.directory, now.model_copy(update={"resync": {}}))
    for cluster in driver.clusters:
        await sites.give_back(sandbox, cluster)
    home = "dr1" if stage == "at rest" else "dr2"
    await story.settled(home)
    other = "dr2" if home == "dr1" else "dr1"
    await story.move("failover", other)
    await story.settled(other)


@pytest.mark.matrix
async def test_the_namespace_is_deleted_on_the_side_that_does_not_serve(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """S7: absence is never deletion; the peer is set up again and the application goes on serving."""
    mine = application.model_copy(update={"namespace": f"ns-{application.name}"})
    story = await Story.begin(driver, mine)
    access = await driver.access("dr2")
    await access.delete(NAMESPACE, mine.namespace)
    await driver.until(lambda: _is_gone(driver, mine, "dr2"), "the VRG on dr2 to go", 90)
    await story.serves("dr1")
    await driver.until(lambda: _has_role(driver, mine, "dr2", "secondary"), "dr2 to be set up again", 90)
    await story.settled("dr1")
    await story.move("failover", "dr2")
    await story.settled("dr2")
    await story.nothing_old_was_lost()


# --- small hands ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def fork(sandbox: Sandbox) -> AsyncIterator[Client]:
    """A second Temporal with a copy of the database as it is now, and workers of its own on both clusters."""
    state, processes = sandbox.state, sandbox.processes
    await processes.stop("temporal")
    for path in (state.directory / "data").glob("temporal.db*"):
        shutil.copy(path, path.with_name(path.name.replace("temporal", "twin")))
    await processes.start_again("temporal")
    spec = processes.spec("temporal")
    ports = {str(state.ports[key]): str(_free_port()) for key in state.ports if key.startswith("temporal")}
    argv = [_moved(argument, ports) for argument in spec.argv]
    port = int(ports[str(state.ports["temporal"])])
    address = f"127.0.0.1:{port}"
    await processes.start(spec.model_copy(update={"name": "twin", "argv": argv, "probe": Probe(port=port)}))
    workers = [
        special_worker(sandbox, cluster, f"twin-{cluster}", TEMPORAL_ADDRESS=address) for cluster in state.clusters
    ]
    try:
        async with workers[0], workers[1]:
            yield await _connected(address)
    finally:
        await processes.stop("twin")
        processes.forget("twin")


async def _connected(address: str) -> Client:
    """A server listens before it answers."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await Client.connect(
                    address, namespace=names.TEMPORAL_NAMESPACE, data_converter=pydantic_data_converter
                )
            except RuntimeError:
                await asyncio.sleep(0.2)


def _moved(argument: str, ports: dict[str, str]) -> str:
    if "temporal.db" in argument:
        return argument.replace("temporal.db", "twin.db")
    name, _, value = argument.rpartition("=")
    return f"{name}={ports[value]}" if value in ports else argument


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _epoch(driver: Driver, application: Application) -> int:
    epoch = (await driver.status(application)).state.epoch
    assert epoch is not None
    return epoch.number


async def _find(driver: Driver, workflow_id: str, activity: str) -> str:
    """ID of the first activity of a type in a workflow, once it is scheduled."""
    found = ""

    async def scheduled() -> bool:
        nonlocal found
        async for event in driver.hubless.client.get_workflow_handle(workflow_id).fetch_history_events():
            given = event.activity_task_scheduled_event_attributes
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED and (
                given.activity_type.name == activity
            ):
                found = given.activity_id
                return True
        return False

    await driver.until(scheduled, f"{activity} to be scheduled")
    return found


async def _is_held(sandbox: Sandbox, hold: Hold) -> bool:
    return holding.holder(sandbox.directory, hold) is not None


async def _is_running(driver: Driver, workflow_id: str) -> bool:
    try:
        found = await driver.hubless.client.get_workflow_handle(workflow_id).describe()
    except RPCError:
        return False  # not started yet
    return found.status is WorkflowExecutionStatus.RUNNING


async def _has_role(driver: Driver, application: Application, cluster: str, role: str) -> bool:
    vrg = await driver.vrg(application, cluster)
    return vrg is not None and vrg["spec"]["replicationState"] == role


async def _is_gone(driver: Driver, application: Application, cluster: str) -> bool:
    return await driver.vrg(application, cluster) is None


def _what(vrg: dict[str, object] | None) -> object:
    return vrg and (vrg["spec"], vrg["metadata"]["annotations"])  # type: ignore[index]


async def _serves_by_status(driver: Driver, application: Application, cluster: str) -> bool:
    """Asks for a failover to a cluster until the application serves there by its own view."""
    try:
        state = (await driver.status(application)).state
        if state.app is None:
            await driver.hubless.adopt(
                AdoptRequest(app=AppRef(namespace=application.namespace, name=application.name), consent=True)
            )
            return False
        if state.decision.cluster == cluster and not (state.action and state.action.outcome is None):
            return True
        if state.action and state.action.outcome is None:
            return False
        await driver.move("failover", application, cluster)
    except (Stopped, HublessError):
        pass
    return False


async def _do(driver: Driver, workflow_id: str, how: str) -> None:
    client = driver.hubless.client
    handle = client.get_workflow_handle(workflow_id)
    if how == "terminate":
        await handle.terminate("by a test")
    elif how == "cancel":
        await handle.cancel()
    else:
        completed = 0
        async for event in handle.fetch_history_events():
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                completed = completed or event.event_id
        run_id = (await handle.describe()).run_id
        await client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
                reason="by a test",
                workflow_task_finish_event_id=completed,
                request_id=f"reset-{run_id}",
            )
        )
