"""Activities that speak to entities: requests sent on to them (S15), what is open, and its end (S14)."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities import contracts
from activities.contracts import EndEntity, EntitySeen, ForwardRequest
from activities.errors import implements, is_unprocessed
from ramen.app import AppRef
from ramen.errors import Refused
from ramen.names import entity_id

UPDATES = ("failover", "relocate")
"""Updates of the entity that may be asked for in a start form."""


QUERY_LIMIT = timedelta(seconds=3)
"""An entity that lives answers a query in milliseconds."""


class ForwardingActivities:
    """Speaks to entities with the worker's own Temporal client."""

    @implements(contracts.forward_request)
    async def forward_request(self, request: ForwardRequest) -> dict[str, Any]:
        """See the contract; raises Refused with the entity's own words, or when there is no entity."""
        action = request.action.lower()
        if action not in UPDATES:
            raise Refused(f"{request.action} cannot be asked for here; only {' and '.join(UPDATES)} can.")
        handle = activity.client().get_workflow_handle(entity_id(request.app.namespace, request.app.name))
        given = {**request.request, "request_id": request.request_id}
        try:
            # The ID makes a retry of this activity meet the answer of the first attempt.
            answer: dict[str, Any] = await handle.execute_update(
                action, given, id=request.request_id, result_type=dict[str, Any]
            )
        except WorkflowUpdateFailedError as err:
            cause = err.cause
            if is_unprocessed(cause):
                raise  # the activity's retry asks again with the same ID
            if isinstance(cause, ApplicationError):
                raise ApplicationError(cause.message, type=cause.type, non_retryable=True) from err
            raise Refused(str(cause or err)) from err
        except RPCError as err:
            if err.status is RPCStatusCode.NOT_FOUND:
                raise Refused(
                    f"{request.app} is not protected here. Protect it first, or after a loss of Temporal: "
                    f"hubless adopt {request.app.name} -n {request.app.namespace}"
                ) from err
            raise
        return answer

    @implements(contracts.describe_entity)
    async def describe_entity(self, app: AppRef) -> EntitySeen:
        """See the contract; an entity that does not answer a query counts as acting."""
        client, entity = activity.client(), entity_id(app.namespace, app.name)
        handle = client.get_workflow_handle(entity)
        try:
            is_open = (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        except RPCError as err:
            if err.status is not RPCStatusCode.NOT_FOUND:
                raise
            is_open = False
        superseded, is_empty = "", False
        if is_open:
            try:
                status: dict[str, Any] = await handle.query("status", rpc_timeout=QUERY_LIMIT, result_type=dict)
                superseded = status["state"].get("superseded") or ""
                is_empty = status["state"].get("app") is None
            except (RPCError, WorkflowQueryFailedError) as err:
                activity.logger.warning("%s does not answer: %s", entity, err)
        query = f'ExecutionStatus="Running" AND WorkflowId STARTS_WITH "{entity}/"'
        actions = [found.id async for found in client.list_workflows(query)]
        return EntitySeen(is_open=is_open, superseded=superseded, is_empty=is_empty, actions=actions)

    @implements(contracts.end_entity)
    async def end_entity(self, request: EndEntity) -> None:
        """See the contract; an action that waits for a person is terminated, its writes have ended."""
        client, app = activity.client(), request.app
        entity = entity_id(app.namespace, app.name)
        try:
            await client.get_workflow_handle(entity).terminate(request.reason)
        except RPCError as err:
            if err.status is not RPCStatusCode.NOT_FOUND:
                raise
        query = f'ExecutionStatus="Running" AND WorkflowId STARTS_WITH "{entity}/"'
        async for found in client.list_workflows(query):
            # The new entity claims a newer epoch before it writes: whatever this one still does is refused (S1).
            with suppress(RPCError):
                await client.get_workflow_handle(found.id, run_id=found.run_id).terminate(request.reason)
