"""The connection to Temporal, and a typed call for each Update and Query of an application.

Every error of the SDK is turned into words and an exit code here and nowhere else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import (
    Client,
    RPCError,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.exceptions import TimeoutError as TimedOut
from temporalio.service import RPCStatusCode

from activities.errors import is_unprocessed
from ramen import errors, names
from starter.failures import Failed, NoWorker, Refused, Stopped, Unfinished, Unreachable
from workflows.inputs import (
    WORKFLOW_TASK_TIMEOUT,
    ActionResult,
    AdoptRequest,
    AdoptResult,
    Answer,
    AppState,
    ProtectUpdate,
    StatusView,
    StepsView,
)

T = TypeVar("T", bound=BaseModel)

ENTITY_TYPE = "DRPlacementControl"
"""Workflow type of an application (design 5)."""
DEFAULT_ADDRESS = "127.0.0.1:7233"
"""Where Temporal listens when nothing is configured, as its own tools assume."""
CONNECT_SECONDS = 5.0
"""A server that is there answers within milliseconds; a dropped packet costs the operator no more than this."""
ANSWER_SECONDS = 10.0
"""How long a request may go unanswered before the command says that it is not known whether it started (S15)."""
UNPROCESSED_PAUSE = 0.2
"""Before a request is sent again that no worker got to see."""
ADOPT_SECONDS = 40.0
"""An adoption looks at every cluster and store, of which some may be silent, and waits for its first steps."""
ONE_LINE = 100
"""Longer refusals are shown on two lines, as terminals are wide."""
QUERY_SECONDS = 3.0
"""A worker answers a query in milliseconds; without one the server would hold the call much longer."""

REFUSALS = frozenset(
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.HublessError) and not kind.retryable
)
"""Failures of an Update that mean: nothing was started. Their text says what, why and the remedy."""


async def connect() -> Client:
    """Connects as TEMPORAL_* variables and the Temporal configuration file say (guides/temporal.md 10.5).

    Raises `Unreachable` when nobody answers, `Refused` for a configuration that cannot be read.
    """
    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError, OSError) as err:
        raise Refused(f"The Temporal configuration cannot be read: {err}") from err
    address = config.setdefault("target_host", DEFAULT_ADDRESS)
    config.setdefault("namespace", names.TEMPORAL_NAMESPACE)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await Client.connect(**config, data_converter=pydantic_data_converter)
    except TimeoutError as err:
        raise unreachable(address, f"no answer in {CONNECT_SECONDS:.0f} s") from err
    except (RuntimeError, RPCError) as err:
        raise unreachable(address, _reason(str(err))) from err
    except ValueError as err:
        raise Refused(f"The Temporal address {address!r} is not valid: {err}") from err


def unreachable(address: str, reason: str) -> Unreachable:
    """The one line for a Temporal that does not answer (design 9)."""
    return Unreachable(
        f"Temporal does not answer at {address} ({reason}). Nothing was started; "
        "running applications are not affected.\n"
        "  Start it or its standby and ask again. To move an application without Temporal: docs/without-temporal.md"
    )


def _reason(text: str) -> str:
    """The useful words of a connection error: `connection refused`, not the Rust structure around it."""
    found = re.search(r'message: "([^"]+)"', text)
    return (found[1] if found else text.splitlines()[0]).lower()


class Hubless:
    """What the command line can ask of the applications that Hubless protects."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.address = client.service_client.config.target_host

    @classmethod
    async def connect(cls) -> Hubless:
        """Connects; raises as `connect`."""
        return cls(await connect())

    def _entity(self, namespace: str, name: str) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(names.entity_id(namespace, name))

    async def require_protected(self, namespace: str, name: str) -> None:
        """Returns when the application's workflow is open; raises `Refused` with the remedy when not."""
        try:
            found = await self._entity(namespace, name).describe(rpc_timeout=timedelta(seconds=QUERY_SECONDS))
        except RPCError as err:
            raise self._broken(err, namespace, name) from err
        if found.status is not WorkflowExecutionStatus.RUNNING:
            raise Refused(
                f"{name} in namespace {namespace} is no longer protected.\n  Protect it again: hubless protect --help"
            )

    async def status(self, namespace: str, name: str) -> StatusView:
        """The application's own view. Raises `Refused` when unknown, `NoWorker` when nobody answers for it."""
        return await self._query(names.entity_id(namespace, name), "status", StatusView, namespace, name)

    async def steps(self, workflow_id: str) -> StepsView:
        """The steps of one action; raises as `status`."""
        namespace, name = names.split_entity_id(workflow_id) or ("", workflow_id)
        return await self._query(workflow_id, "steps", StepsView, namespace, name)

    async def obstacle(self, workflow_id: str) -> str:
        """Why a waiting activity of an action does not get on, in its own words; empty while none has said anything.

        Between two attempts that is what the last one failed with, else what its heartbeat carries.
        """
        try:
            found = await self.client.get_workflow_handle(workflow_id).describe(
                rpc_timeout=timedelta(seconds=QUERY_SECONDS)
            )
        except RPCError:
            return ""
        for pending in found.raw_description.pending_activities:
            if pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED:
                said = pending.last_failure.message
            else:
                told = await self.client.data_converter.decode(pending.heartbeat_details.payloads)
                said = str(told[0].get("waiting", "")) if told and isinstance(told[0], dict) else ""
            if said:
                return said
        return ""

    async def _query(self, workflow_id: str, query: str, kind: type[T], namespace: str, name: str) -> T:
        handle = self.client.get_workflow_handle(workflow_id)
        try:
            answer: T = await handle.query(query, result_type=kind, rpc_timeout=timedelta(seconds=QUERY_SECONDS))
        except WorkflowQueryFailedError as err:
            raise Failed(f"{workflow_id} cannot answer {query!r}: {err}") from err
        except RPCError as err:
            raise self._broken(err, namespace, name) from err
        return answer

    async def ask(
        self, update: str, namespace: str, name: str, request: BaseModel, request_id: str, again: str
    ) -> Answer:
        """Sends one Update and returns the application's answer.

        Raises `Refused` when it said no, `Unfinished` with `again` (the command that repeats the request) when no
        answer came in `ANSWER_SECONDS`.
        """
        handle = self._entity(namespace, name)
        return await self._answered(
            lambda: handle.execute_update(update, request, id=request_id, result_type=Answer),
            namespace,
            name,
            request_id,
            again,
        )

    async def apply(self, request: ProtectUpdate, again: str) -> Answer:
        """Protects an application: starts its workflow where there is none, and sends `apply`; raises as `ask`."""
        namespace, name = request.request.namespace, request.request.name

        async def send() -> Answer:
            # The SDK takes such an operation once.
            start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
                ENTITY_TYPE,
                AppState(namespace=namespace, name=name),
                id=names.entity_id(namespace, name),
                task_queue=names.CONTROL_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                task_timeout=WORKFLOW_TASK_TIMEOUT,
                static_summary=f"Protects {name} in namespace {namespace}",
            )
            answer: Answer = await self.client.execute_update_with_start_workflow(
                "apply", request, id=request.request_id, start_workflow_operation=start, result_type=Answer
            )
            return answer

        return await self._answered(send, namespace, name, request.request_id, again)

    async def _answered(
        self, send: Callable[[], Awaitable[Answer]], namespace: str, name: str, request_id: str, again: str
    ) -> Answer:
        unknown = Unfinished(
            f"No answer in {ANSWER_SECONDS:.0f} s: not known whether it started. Request ID: {request_id}\n"
            f"  Asking again with this ID starts nothing twice: {again}"
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while True:
                    try:
                        return await send()
                    except WorkflowUpdateFailedError as err:
                        if not is_unprocessed(err.cause):
                            raise
                    await asyncio.sleep(UNPROCESSED_PAUSE)
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as err:
            raise unknown from err
        except WorkflowUpdateFailedError as err:
            raise _refusal(err) from err
        except RPCError as err:
            if err.status is RPCStatusCode.NOT_FOUND:
                raise self._broken(err, namespace, name) from err
            raise unknown from err

    async def adopt(self, request: AdoptRequest) -> AdoptResult:
        """Looks at an application that no workflow holds, and with consent holds it again.

        Raises `Refused` in the workflow's own words, `NoWorker` when no worker answers in `ADOPT_SECONDS`.
        """
        app = request.app
        call = self.client.execute_workflow(
            "Adopt",
            request,
            id=names.adopt_id(app.namespace, app.name, is_look=not request.consent),
            task_queue=names.CONTROL_QUEUE,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            # Only a look may be given up; what was consented to is carried to its end.
            execution_timeout=None if request.consent else timedelta(seconds=ADOPT_SECONDS),
            result_type=AdoptResult,
            static_summary=f"{'Adopts' if request.consent else 'Looks at'} {app.name} in namespace {app.namespace}",
        )
        no_worker = NoWorker(
            f"No worker answered for {app.name} in {ADOPT_SECONDS:.0f} s (task queue {names.CONTROL_QUEUE}).\n"
            "  See which workers run: hubless check. What was consented to goes on once one answers."
        )
        try:
            async with asyncio.timeout(ADOPT_SECONDS):
                result: AdoptResult = await call
        except TimeoutError as err:
            raise no_worker from err
        except WorkflowFailureError as err:
            cause: BaseException | None = err.cause
            if isinstance(cause, ActivityError):
                cause = cause.cause
            if isinstance(cause, ApplicationError) and cause.type in REFUSALS:
                raise Refused(_two_lines(cause.message)) from err
            if isinstance(cause, TimedOut):
                raise no_worker from err
            raise Failed(f"{app.name} was not adopted: {getattr(cause, 'message', None) or cause or err}") from err
        except RPCError as err:
            raise self._broken(err, app.namespace, app.name) from err
        return result

    async def result(self, workflow_id: str) -> ActionResult:
        """Waits until an action ends. Raises `Failed` when its workflow broke."""
        try:
            answer: ActionResult = await self.client.get_workflow_handle(workflow_id, result_type=ActionResult).result()
        except WorkflowFailureError as err:
            raise Failed(f"{workflow_id} failed: {err.cause or err}") from err
        except RPCError as err:
            raise self._broken(err, "", workflow_id) from err
        return answer

    async def applications(self) -> AsyncIterator[tuple[str, str]]:
        """Namespace and name of every protected application, in no order."""
        query = f'WorkflowType="{ENTITY_TYPE}" AND ExecutionStatus="Running"'
        try:
            async for row in self.client.list_workflows(query):
                if found := names.split_entity_id(row.id):
                    yield found
        except RPCError as err:
            raise self._broken(err, "", "") from err

    def _broken(self, err: RPCError, namespace: str, name: str) -> Stopped:
        """Words and exit code for a call that Temporal did not carry out."""
        if err.status is RPCStatusCode.NOT_FOUND and "namespace" in err.message.lower():
            return Unreachable(
                f"Temporal at {self.address} has no namespace {self.client.namespace}. Nothing was started.\n"
                "  Start a worker, which makes it, or set TEMPORAL_NAMESPACE."
            )
        if err.status is RPCStatusCode.NOT_FOUND:
            return Refused(
                f"{name} in namespace {namespace} is not protected by Hubless.\n"
                "  What is: hubless status. To protect it: hubless protect --help. "
                f"After a loss of Temporal: hubless adopt {name} -n {namespace}"
            )
        if err.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.FAILED_PRECONDITION):
            return NoWorker(
                f"No worker answers for {name} in namespace {namespace} (task queue {names.CONTROL_QUEUE}).\n"
                "  See which workers run: hubless check. Start one: hubless worker"
            )
        return unreachable(self.address, _reason(err.message))


def _refusal(err: WorkflowUpdateFailedError) -> Stopped:
    """Says no in the application's own words; anything that is not one of our refusals is a failure."""
    cause = err.cause
    if isinstance(cause, ApplicationError) and cause.type in REFUSALS:
        return Refused(_two_lines(cause.message))
    return Failed(f"The request failed: {getattr(cause, 'message', None) or cause or err}")


def _two_lines(text: str) -> str:
    """What and why on the first line, the remedy below it, where the text is too long for one line."""
    head, dot, rest = text.partition(". ")
    if "\n" in text or not dot or len(text) <= ONE_LINE:
        return text
    return f"{head}.\n  {rest}"
