"""What a Temporal namespace needs before workflows can start in it: checked at each start, added where missing."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from workflows.attributes import INTEGERS, KEYWORDS

log = logging.getLogger(__name__)

RETENTION = timedelta(days=30)
"""How long finished actions stay in the list: long enough for the review after an incident."""

VISIBLE_SECONDS = 30.0
"""A new namespace is known to all parts of a Temporal server after about ten seconds."""

CALL_LIMIT = timedelta(seconds=5)

WANTED: dict[str, IndexedValueType.ValueType] = {
    **dict.fromkeys(KEYWORDS, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD),
    **dict.fromkeys(INTEGERS, IndexedValueType.INDEXED_VALUE_TYPE_INT),
}


class NotPreparedError(Exception):
    """The namespace lacks something that this worker may not add; the text has the command that adds it."""


async def prepare(client: Client) -> list[str]:
    """Registers the namespace and the search attributes that are missing; returns what was added.

    Raises `NotPreparedError` when the server does not let this worker add them, and `RPCError` when Temporal does
    not answer.
    """
    added = []
    if await _register_namespace(client):
        added.append(f"namespace {client.namespace}")
    return added + await _add_attributes(client)


async def _register_namespace(client: Client) -> bool:
    try:
        request = DescribeNamespaceRequest(namespace=client.namespace)
        await client.workflow_service.describe_namespace(request, timeout=CALL_LIMIT)
        return False
    except RPCError as err:
        if err.status is not RPCStatusCode.NOT_FOUND:
            raise
    return await _register(client)


async def _register(client: Client) -> bool:
    retention = Duration()
    retention.FromTimedelta(RETENTION)
    try:
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(
                namespace=client.namespace,
                description="Hubless: disaster recovery of applications",
                workflow_execution_retention_period=retention,
            ),
            timeout=CALL_LIMIT,
        )
    except RPCError as err:
        if err.status is RPCStatusCode.ALREADY_EXISTS:
            return False  # the peer's worker was quicker
        if err.status in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED):
            raise NotPreparedError(
                f"Temporal has no namespace {client.namespace} and does not let this worker make it; run: "
                f"temporal operator namespace create --namespace {client.namespace} --retention {RETENTION.days}d"
            ) from err
        raise
    return True


async def _add_attributes(client: Client) -> list[str]:
    deadline = asyncio.get_running_loop().time() + VISIBLE_SECONDS
    while True:
        try:
            return await _add_missing(client)
        except RPCError as err:
            # A namespace that was made a moment ago is not known everywhere yet.
            if err.status is not RPCStatusCode.NOT_FOUND or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(0.5)


async def _add_missing(client: Client) -> list[str]:
    service, namespace = client.operator_service, client.namespace
    found = await service.list_search_attributes(ListSearchAttributesRequest(namespace=namespace), timeout=CALL_LIMIT)
    missing = {name: kind for name, kind in WANTED.items() if name not in found.custom_attributes}
    if not missing:
        return []
    try:
        await service.add_search_attributes(
            AddSearchAttributesRequest(namespace=namespace, search_attributes=missing), timeout=CALL_LIMIT
        )
    except RPCError as err:
        if err.status is RPCStatusCode.ALREADY_EXISTS:
            return []
        if err.status in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED):
            commands = "; ".join(
                f"temporal operator search-attribute create --namespace {namespace} --name {name} "
                f"--type {'Int' if name in INTEGERS else 'Keyword'}"
                for name in missing
            )
            raise NotPreparedError(f"Temporal does not let this worker add search attributes; run: {commands}") from err
        raise
    return [f"search attribute {name}" for name in missing]
