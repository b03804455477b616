"""What the keepers of DRPC copies ask of applications' workflows: their state by a query, their Updates by request ID.

A query leaves no trace in a history, so an application whose copies are kept costs nothing while it is idle.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import QueryRejectCondition, WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts import ProtectRequest
from activities.errors import is_unprocessed
from activities.surveying import SurveyActivities
from ramen import errors, names
from ramen.drpc_edits import Entity, Known
from ramen.errors import ClusterUnreachable, HublessError, Refused
from workflows.inputs import (
    WORKFLOW_TASK_TIMEOUT,
    Answer,
    AppState,
    MoveRequest,
    ProtectUpdate,
    StatusView,
    UnprotectRequest,
)
from workflows.view import copy_spec, is_leaving

QUERY_LIMIT = timedelta(seconds=5)
"""A worker answers in milliseconds; one that took the workflow with it into death costs a sticky time-out first."""

UPDATE_LIMIT = timedelta(seconds=20)
"""An answer takes up to 10 s (S15); asked again with the same ID when it stayed out."""


class NoAnswer(HublessError):
    """Temporal or the application's workflow gave no answer: not known whether anything was started."""

    retryable = True


class Entities:
    """Speaks to the workflows of applications with the worker's Temporal client."""

    def __init__(self, client: Client, surveys: SurveyActivities) -> None:
        self._client = client
        self._surveys = surveys

    async def ask(self, namespace: str, name: str) -> tuple[Known, StatusView | None]:
        """What the application's workflow says now; never raises."""
        handle = self._client.get_workflow_handle(names.entity_id(namespace, name))
        try:
            view = await handle.query(
                "status",
                result_type=StatusView,
                reject_condition=QueryRejectCondition.NOT_OPEN,
                rpc_timeout=QUERY_LIMIT,
            )
        except WorkflowQueryRejectedError as err:
            if err.status is WorkflowExecutionStatus.COMPLETED:
                return Known(Entity.UNPROTECTED), None
            # Terminated or failed from outside: nobody took the protection away.
            return Known(Entity.ABSENT), None
        except WorkflowQueryFailedError as err:
            return Known(Entity.UNKNOWN, why=f"the workflow of {namespace}/{name} cannot answer ({err})"), None
        except RPCError as err:
            if err.status is RPCStatusCode.NOT_FOUND:
                return Known(Entity.ABSENT), None
            if err.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.FAILED_PRECONDITION):
                return Known(Entity.UNKNOWN, why=f"no worker answers for {names.entity_id(namespace, name)}"), None
            return Known(Entity.UNKNOWN, why="Temporal does not answer"), None
        return known(view.state, view.answering), view if view.state.app is not None else None

    async def protect(self, request: ProtectRequest, request_id: str, requester: str) -> Answer:
        """Protects an application. Raises `Refused` with the reason, `NoAnswer`, `ClusterUnreachable`."""
        try:
            await self._surveys.resolve_application(request)  # a refusal here leaves no workflow behind (S15)
        except ApplicationError as err:
            raise _refusal(err) from err
        update = ProtectUpdate(request=request, request_id=request_id, requester=requester)
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            "DRPlacementControl",
            AppState(namespace=request.namespace, name=request.name),
            id=names.entity_id(request.namespace, request.name),
            task_queue=names.CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            task_timeout=WORKFLOW_TASK_TIMEOUT,
            static_summary=f"Protects {request.name} in namespace {request.namespace}",
        )
        try:
            answer: Answer = await self._client.execute_update_with_start_workflow(
                "apply",
                update,
                id=request_id,
                start_workflow_operation=start,
                result_type=Answer,
                rpc_timeout=UPDATE_LIMIT,
            )
        except (WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError, RPCError) as err:
            raise unanswered(err) from err
        return answer

    async def send(self, namespace: str, name: str, update: str, request: MoveRequest | UnprotectRequest) -> Answer:
        """Sends `failover`, `relocate` or `unprotect`. Raises `Refused` with the reason, or `NoAnswer`."""
        handle = self._client.get_workflow_handle(names.entity_id(namespace, name))
        try:
            answer: Answer = await handle.execute_update(
                update, request, id=request.request_id, result_type=Answer, rpc_timeout=UPDATE_LIMIT
            )
        except (WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError, RPCError) as err:
            raise unanswered(err) from err
        return answer


def known(state: AppState, answering: str = "") -> Known:
    """The part of an application's state that copies depend on, with the request that is being looked into."""
    if state.app is None:
        return Known(Entity.ABSENT, answering=answering)
    return Known(
        Entity.LEAVING if is_leaving(state) else Entity.PROTECTED,
        serving=state.decision.cluster or "",
        epoch=state.epoch,
        spec=copy_spec(state),
        accepted=frozenset(state.answers),
        answering=answering,
    )


def unanswered(err: WorkflowUpdateFailedError | WorkflowUpdateRPCTimeoutOrCancelledError | RPCError) -> HublessError:
    """What a request that gave no answer failed with: `NoAnswer` when the same request is to be sent again,
    `ClusterUnreachable` or `Refused` when the application said no."""
    if isinstance(err, WorkflowUpdateFailedError):
        if is_unprocessed(err.cause):
            return NoAnswer("no worker got to see it; it is asked again")
        if isinstance(err.cause, ApplicationError):
            return _refusal(err.cause)
    return NoAnswer(f"not known whether it was started: {getattr(err, 'message', None) or err}")


def _refusal(err: ApplicationError) -> HublessError:
    """The error as it was raised; what is not known by name is a refusal too."""
    kind = getattr(errors, err.type or "", None)
    if isinstance(kind, type) and issubclass(kind, HublessError) and kind.retryable:
        return ClusterUnreachable(err.message)
    return Refused(err.message)
