"""Requests that were typed into Temporal Web's start form, sent on to the application's entity (S15)."""

from __future__ import annotations

from typing import Any

from temporalio import activity
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities import contracts
from activities.contracts import ForwardRequest
from activities.errors import implements
from ramen.errors import Refused
from ramen.names import entity_id

UPDATES = ("failover", "relocate")
"""Updates of the entity that may be asked for in a start form."""


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
