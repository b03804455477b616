"""A real Temporal dev server for all workflow tests, and one application in a fresh world for each."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Interceptor, Worker

from activities.contracts import ProtectRequest
from ramen import names
from tests.workflows.world import World
from workflows import attributes
from workflows.entity import DRPlacementControl
from workflows.inputs import Answer, AppState, MoveRequest, ProtectUpdate, StatusView, StepsView, Timings
from workflows.registry import WORKFLOWS, sandbox_runner


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[Client]:
    """The dev server, with the search attributes that workers register."""
    here = str(Path(sys.executable).parent / "temporal")
    path = os.environ.get("TEMPORAL_CLI") or shutil.which("temporal") or here
    keys = [SearchAttributeKey.for_keyword(name) for name in attributes.KEYWORDS]
    keys += [SearchAttributeKey.for_int(name) for name in attributes.INTEGERS]  # type: ignore[misc]
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=path,
        data_converter=pydantic_data_converter,
        search_attributes=keys,
        dev_server_log_level="error",
        dev_server_startup_timeout=timedelta(seconds=50),
    ) as env:
        yield env.client


POLL_SECONDS = 45.0
"""Only a net: a workflow task that is lost on a busy machine costs ten seconds."""

View = TypeVar("View", bound=BaseModel)


async def _polled(read: Callable[[], Awaitable[View]], condition: Callable[[View], Any], seconds: float) -> View:
    """Reads until a condition holds.

    Raises:
        AssertionError: it did not in time; with what was read last, without which a rare failure stays a riddle.
    """
    view: View | None = None
    try:
        async with asyncio.timeout(seconds):
            while not condition(view := await read()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        last = view.model_dump_json(indent=1, exclude_defaults=True) if view else "no answer at all"
        raise AssertionError(f"not within {seconds:.0f} s; last read: {last}") from None
    return view


class Application:
    """One protected application in its own namespace of IDs, driven as a person would."""

    def __init__(self, client: Client, world: World, name: str) -> None:
        self.client, self.world, self.name = client, world, name

    @property
    def entity(self) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(names.entity_id("web", self.name))

    async def start_empty(self) -> WorkflowHandle[Any, Any]:
        """Starts the entity; it knows no application yet."""
        state = AppState(
            namespace="web",
            name=self.name,
            # Whoever is silent here fails at once, so what waits for a worker may wait for a busy machine.
            timings=Timings(
                look_seconds=5, slot_seconds=30, await_park_seconds=10, look_again_seconds=2, long_wait_seconds=0.5
            ),
        )
        return await self.client.start_workflow(
            DRPlacementControl.run, state, id=names.entity_id("web", self.name), task_queue=names.CONTROL_QUEUE
        )

    async def protect(self) -> Answer:
        handle = await self.start_empty()
        update = ProtectUpdate(
            request=ProtectRequest(namespace="web", name=self.name, spec={}), request_id=uuid.uuid4().hex
        )
        return await handle.execute_update("apply", update, result_type=Answer)

    async def update(self, verb: str, request: Any) -> Answer:
        return await self.entity.execute_update(verb, request, result_type=Answer)

    async def move(self, verb: str, target: str, **more: Any) -> Answer:
        return await self.update(verb, MoveRequest(target=target, request_id=uuid.uuid4().hex, **more))

    async def refused(self, verb: str, request: Any) -> ApplicationError:
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await self.update(verb, request)
        cause = caught.value.cause
        assert isinstance(cause, ApplicationError)
        return cause

    async def status(self) -> StatusView:
        return await self.entity.query("status", result_type=StatusView)

    async def steps(self, workflow_id: str) -> StepsView:
        return await self.client.get_workflow_handle(workflow_id).query("steps", result_type=StepsView)

    async def steps_until(self, workflow_id: str, condition: Callable[[StepsView], Any]) -> StepsView:
        """Polls the steps of an action until a condition holds; the limit is the test's own."""
        return await _polled(lambda: self.steps(workflow_id), condition, POLL_SECONDS)

    async def has_event(self, workflow_id: str, kind: EventType.ValueType) -> bool:
        """Whether the history of a workflow has an event of this kind by now."""
        history = self.client.get_workflow_handle(workflow_id).fetch_history_events()
        return any([event.event_type == kind async for event in history])

    async def until(self, condition: Callable[[StatusView], bool], seconds: float = POLL_SECONDS) -> StatusView:
        """Polls the status until a condition holds; the limit is the test's own."""
        return await _polled(self.status, condition, seconds)

    async def protected(self) -> StatusView:
        return await self.until(lambda view: not view.child and not view.state.debts and bool(view.state.protected))

    async def ended(self, workflow_id: str) -> Any:
        from workflows.inputs import ActionResult

        handle = self.client.get_workflow_handle(workflow_id, result_type=ActionResult)
        return await handle.result()


@pytest.fixture
async def world() -> World:
    return World(f"shop-{uuid.uuid4().hex[:6]}")


def _portable(part: Any) -> Any:
    """A history without stack traces, identities and names of sticky queues, which name paths and hosts and play no
    part in a replay."""
    if isinstance(part, dict):
        kept = {key: _portable(value) for key, value in part.items() if key not in ("stackTrace", "identity")}
        return {**kept, "name": "sticky"} if kept.get("kind") == "TASK_QUEUE_KIND_STICKY" else kept
    return [_portable(item) for item in part] if isinstance(part, list) else part


async def record(client: Client, folder: Path, test: str, name: str) -> None:
    """Stores the histories of a test's workflows, for `test_replay.py`; see there for when to do it."""
    folder.mkdir(parents=True, exist_ok=True)
    async for found in client.list_workflows('ExecutionStatus!="Terminated"'):
        if name not in found.id or (found.close_time is None and found.workflow_type != "DRPlacementControl"):
            continue
        history = await client.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
        last = found.id.rsplit("/", 1)[-1]
        kind = found.workflow_type if last.startswith(("shop", "typed")) else last
        (folder / f"{test.removeprefix('test_')}.{kind}.json").write_text(
            json.dumps(_portable(json.loads(history.to_json())), indent=1) + "\n"
        )


@pytest.fixture
def interceptors() -> list[Interceptor]:
    """What a test puts between a workflow and the server, by a parameter of this name."""
    return []


@pytest.fixture
async def shop(
    temporal: Client, world: World, interceptors: list[Interceptor], request: pytest.FixtureRequest
) -> AsyncIterator[Application]:
    """An application that is not protected yet; workers serve all queues from the test's world."""
    activities = world.activities()
    queues = [names.CONTROL_QUEUE]
    for cluster in ("dr1", "dr2"):
        queues += [names.cluster_queue(cluster), names.wait_queue(cluster)]
    async with AsyncExitStack() as stack:
        for queue in queues:
            await stack.enter_async_context(
                Worker(
                    temporal,
                    task_queue=queue,
                    activities=activities,
                    workflows=WORKFLOWS if queue == names.CONTROL_QUEUE else [],
                    workflow_runner=sandbox_runner(),
                    interceptors=interceptors,
                    graceful_shutdown_timeout=timedelta(0),
                    max_heartbeat_throttle_interval=timedelta(milliseconds=200),
                )
            )
        application = Application(temporal, world, world.name)
        yield application
        if folder := os.environ.get("HUBLESS_RECORD_HISTORIES"):
            await record(temporal, Path(folder), request.node.name, application.name)
        # A left-over run of one test must not reach the workers of the next.
        async for found in temporal.list_workflows('ExecutionStatus="Running"'):
            with suppress(RPCError):  # it has just ended by itself
                await temporal.get_workflow_handle(found.id, run_id=found.run_id).terminate()
