"""The whole process against a real Temporal dev server and clusters in memory."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import timedelta

import aiohttp
import pytest
from temporalio import workflow
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import Runtime
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities import contracts
from ramen import names
from ramen.app import AppRef, Observed
from ramen.epoch import Epoch
from ramen.errors import ClusterUnreachable
from ramen.kinds import DRPC, PLACEMENT_DECISION, POD, PVC, VOLUME_REPLICATION, VRG
from tests.worker.fakes import World, two_clusters, vrg
from worker import compose
from worker.compose import Process
from worker.settings import Settings
from workflows.attributes import INTEGERS, KEYWORDS
from workflows.inputs import ClusterSignal


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class Running:
    """A process under test, its exit code once it ended."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.task = asyncio.create_task(process.run())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition; an early end of the process fails at once with its log."""

        def holds_or_ended() -> bool:
            return self.task.done() or condition()

        await until(holds_or_ended)
        assert not self.task.done(), "the process ended"

    async def get(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.process.http_port}{path}") as answer,
        ):
            return answer.status, await answer.text()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, temporal: WorkflowEnvironment) -> Callable[..., Running]:
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal.client.service_client.config.target_host)
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "hubless-test")
    # The exit code says whether it ended in time; a busy machine is no part of what is tested.
    monkeypatch.setattr(compose, "CLOSE_SECONDS", 30.0)

    def make(world: World, **more: int) -> Running:
        settings = Settings(
            cluster="dr1", http_port=0, probe_seconds=0.2, refresh_seconds=1, graceful_seconds=1, **more
        )
        return Running(Process(settings, Runtime.default(), f"dr1@test:{os.getpid()}", connect=world.connect))

    return make


async def test_start_prepares_temporal_serves_all_clusters_and_ends_in_order(
    start: Callable[..., Running], temporal: WorkflowEnvironment
) -> None:
    world = two_clusters()
    running = start(world)
    await running.until(lambda: running.process.figures().is_ready)
    await until(lambda: len(running.process.figures().slots_used) == 4)

    status, body = await running.get("/readyz")
    assert status == 200
    assert '"dr2"' in body
    _, metrics = await running.get("/metrics")
    assert 'hubless_gate_open{cluster="dr2"} 1.0' in metrics
    assert (await running.get("/healthz"))[0] == 200

    service = temporal.client.operator_service
    found = await service.list_search_attributes(ListSearchAttributesRequest(namespace="hubless-test"))
    assert {*KEYWORDS, *INTEGERS} <= set(found.custom_attributes)

    running.process.stop()
    assert await running.task == 0
    assert all(client.closed for client in world.clients)


@workflow.defn(name="DRPlacementControl", sandboxed=False)
class Recorder:
    """Stands in for an entity: remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.over = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self.over)

    @workflow.signal
    def vrg_observed(self, signal: ClusterSignal) -> None:
        self.told.append(f"observed: {signal.reason}")

    @workflow.signal
    def cluster_returned(self, signal: ClusterSignal) -> None:
        self.told.append(f"returned: {signal.cluster}")

    @workflow.query
    def heard(self) -> list[str]:
        return self.told


async def test_entity_is_told_of_vrgs_that_disagree_and_of_a_cluster_that_returns(
    start: Callable[..., Running], temporal: WorkflowEnvironment
) -> None:
    world = two_clusters()
    world.servers["dr1"].put(VRG, vrg("primary", "7.abc", decision="dr1"))
    world.servers["dr2"].put(VRG, vrg("secondary", "7.abc"))
    running = start(world)
    await running.until(lambda: running.process.figures().is_ready)
    client = await Client.connect(
        temporal.client.service_client.config.target_host,
        namespace="hubless-test",
        data_converter=pydantic_data_converter,
    )
    async with Worker(client, task_queue="recorder", workflows=[Recorder]):
        entity = await client.start_workflow(Recorder.run, id=names.entity_id("web", "shop"), task_queue="recorder")

        async def heard(count: int) -> list[str]:
            async with asyncio.timeout(20):
                while len(told := await entity.query(Recorder.heard)) < count:
                    await asyncio.sleep(0.05)
            return told

        await until(lambda: len(running.process.watches.applications("dr2")) == 1)
        assert await entity.query(Recorder.heard) == []

        world.servers["dr2"].put(VRG, vrg("primary", "8.def", decision="dr2"))
        assert (await heard(1)) == ["observed: the VRG on dr1 is of epoch 7, the newest is 8"]

        world.servers["dr2"].failure = ClusterUnreachable("cut off")
        await until(lambda: not running.process.clusters.gate("dr2").is_open)
        world.servers["dr2"].failure = None
        assert "returned: dr2" in await heard(2)
        await entity.terminate()
    running.process.stop()
    assert await running.task == 0


async def test_waits_that_fill_all_their_slots_keep_no_write_waiting(
    start: Callable[..., Running], temporal: WorkflowEnvironment
) -> None:
    """S12: waits have a queue and slots of their own."""
    world = two_clusters()
    world.servers["dr2"].put(VRG, vrg("secondary", "7.abc"))
    running = start(world, slots=2, wait_slots=2)
    await running.until(lambda: running.process.figures().is_ready)
    await until(lambda: len(running.process.figures().slots_used) == 4)
    client = await Client.connect(
        temporal.client.service_client.config.target_host,
        namespace="hubless-test",
        data_converter=pydantic_data_converter,
    )
    app, epoch = AppRef(namespace="web", name="shop"), Epoch(number=8, token="def")
    absent = AppRef(namespace="web", name="absent")
    never = contracts.AwaitVrg(app=absent, cluster="dr2", gate=contracts.Gate.READY, epoch=epoch)
    waits = [
        await client.start_activity(
            "await_vrg",
            never,
            id=f"wait-{number}",
            task_queue=names.wait_queue("dr2"),
            start_to_close_timeout=timedelta(minutes=1),
        )
        for number in range(10)
    ]
    await until(lambda: running.process.figures().slots_used[names.wait_queue("dr2")] == 2)
    stamp = contracts.StampEpoch(app=app, cluster="dr2", epoch=epoch, action="Failover")
    stamped = await client.execute_activity(
        "stamp_epoch",
        stamp,
        id="stamp",
        task_queue=names.cluster_queue("dr2"),
        result_type=Observed,
        schedule_to_close_timeout=timedelta(seconds=10),
    )
    assert stamped.epoch == epoch
    for wait in waits:
        await wait.terminate()
    running.process.stop()
    assert await running.task == 0


async def test_start_without_temporal_says_so_and_goes_on_when_it_comes(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    running = start(two_clusters())
    with caplog.at_level(logging.WARNING):
        await until(lambda: "Temporal does not answer at 127.0.0.1:1" in caplog.text)
        await running.until(lambda: running.process.figures().own_gate_known)
    status, body = await running.get("/readyz")
    assert (status, '"not connected"' in body) == (503, True)
    assert (await running.get("/healthz"))[0] == 200
    running.process.stop()
    assert await running.task == 0


async def test_port_that_is_taken_ends_with_an_error(
    start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    first = start(two_clusters())
    await first.until(lambda: first.process.http_port > 0)
    settings = Settings(cluster="dr1", http_port=first.process.http_port)
    second = Process(settings, Runtime.default(), "dr1@test:2", connect=two_clusters().connect)
    assert await second.run() == 1
    assert "HUBLESS_HTTP_PORT" in caplog.text
    first.process.stop()
    assert await first.task == 0


async def test_idle_application_costs_no_call(start: Callable[..., Running]) -> None:
    world = two_clusters()
    for number in range(50):
        world.servers["dr1"].put(VRG, vrg("primary", decision="dr1", name=f"app-{number}"))
        world.servers["dr2"].put(VRG, vrg("secondary", name=f"app-{number}"))
    running = start(world)
    await until(lambda: len(running.process.watches.applications("dr2")) == 50)
    dr2 = world.servers["dr2"]
    dr2.requests.clear()
    await until(lambda: len(dr2.requests) >= 5)
    of_applications = {kind.plural for kind in (VRG, DRPC, PVC, POD, VOLUME_REPLICATION, PLACEMENT_DECISION)}
    asked = {resource for _, resource in dr2.requests}
    assert not asked & of_applications, "what belongs to the cluster, nothing per application"
    running.process.stop()
    assert await running.task == 0
