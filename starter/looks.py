"""Short looks at the clusters, as standalone activities: the same reads that the workflows use, without a workflow.

A look changes nothing and never waits long. Whoever does not answer in time is reported as such, and never as absent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio.client import ActivityFailureError, Client, RPCError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from activities import contracts
from activities.contracts import (
    ClusterHealth,
    InstallationProof,
    LastSeen,
    PolicyCheck,
    ProtectRequest,
    ReadVrg,
    StoresQuery,
    StoresSeen,
    Survey,
    SurveyResult,
)
from ramen import names
from ramen.app import AppRef, AppSpec, Observed
from starter.failures import Failed, Refused

LOOK_SECONDS = 1.0
"""How long a look waits for a worker; about 1 s, so that a dead side does not hold a person up (S12)."""
READ_SECONDS = 5.0
"""Limit of one read once a worker has taken it; the clients behind it have shorter ones."""
SURVEY_SECONDS = 15.0
"""A survey lists several kinds and may have to make a client first."""


class NotServed(Exception):
    """No worker took the look in time, or it failed; the text says which."""


async def _run(
    client: Client,
    contract: Callable[..., Any],
    args: list[Any],
    queue: str,
    kind: Any,
    wait: float = LOOK_SECONDS,
    limit: float = READ_SECONDS,
) -> Any:
    """One attempt of one activity. Raises `NotServed`, or `ApplicationError` as the activity raised it."""
    name = contract.__name__
    try:
        return await client.execute_activity(
            name,
            args=args,
            id=f"look/{name}/{uuid4().hex}",
            task_queue=queue,
            result_type=kind,
            schedule_to_start_timeout=timedelta(seconds=wait),
            start_to_close_timeout=timedelta(seconds=limit),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
    except ActivityFailureError as err:
        if isinstance(err.cause, ApplicationError):
            raise err.cause from err
        raise NotServed(f"no worker answers on {queue}") from err
    except RPCError as err:
        raise NotServed(err.message) from err


async def look(client: Client, app: AppRef, cluster: str) -> Observed:
    """What an application looks like on one cluster now; a side that does not answer is `reachable` False."""
    try:
        seen: Observed = await _run(
            client,
            contracts.read_vrg,
            [ReadVrg(app=app, cluster=cluster)],
            names.cluster_queue(cluster),
            Observed,
        )
    except NotServed:
        return Observed(cluster=cluster, reachable=False, error=f"no worker reaches {cluster}")
    except ApplicationError as err:
        return Observed(cluster=cluster, reachable=False, error=err.message)
    return seen


async def look_everywhere(client: Client, app: AppRef, clusters: Iterable[str]) -> dict[str, Observed]:
    """`look` at several clusters at once, by cluster name."""
    seen = await asyncio.gather(*(look(client, app, cluster) for cluster in clusters))
    return {each.cluster: each for each in seen}


async def last_seen(client: Client, app: AppRef, cluster: str) -> Observed | None:
    """What a worker's watch last saw of the application there, however long ago; None when nobody remembers."""
    try:
        seen: Observed = await _run(
            client, contracts.last_seen, [LastSeen(app=app, cluster=cluster)], names.CONTROL_QUEUE, Observed
        )
    except (NotServed, ApplicationError):
        return None
    return seen if seen.vrg else None


async def health(client: Client, wait: float = LOOK_SECONDS) -> list[ClusterHealth]:
    """Every cluster of the registry as one worker sees it. Raises `NotServed` when no worker answers."""
    try:
        seen: list[ClusterHealth] = await _run(
            client, contracts.list_health, [], names.CONTROL_QUEUE, list[ClusterHealth], wait
        )
    except ApplicationError as err:
        raise NotServed(err.message) from err
    return seen


async def health_by_name(client: Client) -> dict[str, ClusterHealth]:
    """`health` by cluster name; empty when no worker answers."""
    try:
        return {each.cluster: each for each in await health(client)}
    except NotServed:
        return {}


async def mirrored(client: Client) -> list[AppRef]:
    """Every application that a store or a watch knows. Raises `NotServed`, or `ApplicationError`."""
    found: list[AppRef] = await _run(
        client, contracts.list_mirrored, [], names.CONTROL_QUEUE, list[AppRef], wait=READ_SECONDS, limit=SURVEY_SECONDS
    )
    return found


async def resolve(client: Client, request: ProtectRequest) -> AppSpec:
    """The request with its policy and clusters. Raises `Refused` as the resolver says, `Failed` without a worker."""
    try:
        app: AppSpec = await _run(
            client,
            contracts.resolve_application,
            [request],
            names.CONTROL_QUEUE,
            AppSpec,
            wait=READ_SECONDS,
            limit=SURVEY_SECONDS,
        )
    except NotServed as err:
        raise Failed(f"{str(err)[0].upper()}{str(err)[1:]}. Nothing was started. See: hubless check") from err
    except ApplicationError as err:
        raise Refused(err.message) from err
    return app


async def policies(client: Client) -> list[PolicyCheck]:
    """What DRPolicies and DRClusters say of themselves on each cluster. Raises `NotServed`."""
    try:
        found: list[PolicyCheck] = await _run(
            client, contracts.check_policies, [], names.CONTROL_QUEUE, list[PolicyCheck], limit=SURVEY_SECONDS
        )
    except ApplicationError as err:
        raise NotServed(err.message) from err
    return found


async def survey(client: Client, app: AppSpec, cluster: str) -> SurveyResult:
    """Kinds, VRG and PVCs of an application on one cluster. Raises `NotServed`, or `ApplicationError`."""
    found: SurveyResult = await _run(
        client,
        contracts.survey_cluster,
        [Survey(app=app, cluster=cluster)],
        names.cluster_queue(cluster),
        SurveyResult,
        limit=SURVEY_SECONDS,
    )
    return found


async def stores(client: Client, app: AppSpec) -> StoresSeen:
    """What the stores of an application's policy hold. Raises `NotServed`, or `ApplicationError`."""
    seen: StoresSeen = await _run(
        client,
        contracts.read_stores,
        [StoresQuery(app=app.ref, profiles=sorted({cluster.s3_profile for cluster in app.clusters}))],
        names.CONTROL_QUEUE,
        StoresSeen,
        limit=SURVEY_SECONDS,
    )
    return seen


async def prove(client: Client, cluster: str) -> InstallationProof:
    """What the cluster's own worker finds when it writes and reads each store. Raises `NotServed`."""
    try:
        found: InstallationProof = await _run(
            client,
            contracts.prove_installation,
            [],
            names.own_queue(cluster),
            InstallationProof,
            limit=SURVEY_SECONDS,
        )
    except ApplicationError as err:
        raise NotServed(err.message) from err
    return found
