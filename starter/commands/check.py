"""`hubless check` and `hubless cluster check`: is everything there that a failover would need, before it is needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import RPCError
from temporalio.exceptions import ApplicationError

from activities.contracts import ClusterHealth
from ramen import names
from ramen.app import AppSpec, PolicyCluster, StoreReport, Volume
from ramen.words import counted
from starter import complete, console, exitcodes, looks
from starter.client import Hubless
from starter.durations import clock, since
from starter.failures import Refused, Stopped
from starter.run import run

POLLED_SECONDS = 75
"""A worker that lives polls again within one minute, the length of a long poll; older pollers are gone."""

cluster_app = typer.Typer(help="The clusters of the installation.", no_args_is_help=True, rich_markup_mode=None)


@dataclass
class Report:
    """Counts what was found while it is printed on stdout."""

    ok: int = 0
    warnings: int = 0
    problems: int = 0

    def good(self, text: str) -> None:
        """Something is as it should be."""
        self.ok += 1
        console.result(f"✔ {text}")

    def warn(self, text: str) -> None:
        """Something works, with a risk."""
        self.warnings += 1
        console.result(f"⚠ {text}")

    def problem(self, text: str) -> None:
        """Something that a failover or relocate needs is missing; says the remedy."""
        self.problems += 1
        console.result(f"✗ {text}")

    def end(self) -> int:
        """Prints the counts; 1 when there was a problem."""
        counts = f"{self.ok} ok, {counted(self.warnings, 'warning')}, {counted(self.problems, 'problem')}"
        console.result(f"{'✗' if self.problems else '✔'} Check completed ({counts})")
        return exitcodes.FAILED if self.problems else exitcodes.DONE


def check() -> None:
    """Check Temporal, workers, clusters, stores and kinds; exit 1 when something is missing.

    Run it after an installation, from a monitor, and before a planned move. It changes nothing.

    \b
    Examples:
      # everything
      hubless check
    \b
      # one cluster
      hubless cluster check dr1
    """
    run(_check())


@cluster_app.callback()
def _cluster() -> None:
    """The clusters of the installation: their registry, credentials and health."""


@cluster_app.command("check")
def cluster_check(
    cluster: Annotated[
        str,
        typer.Argument(
            metavar="[CLUSTER]", help="Name of the cluster; all without it.", autocompletion=complete.clusters
        ),
    ] = "",
) -> None:
    """Check that workers reach a cluster, since when, and that it has the kinds that Hubless needs.

    \b
    Examples:
      # all clusters
      hubless cluster check
    \b
      # the one that a relocate waits for
      hubless cluster check dr1
    """
    run(_cluster_check(cluster))


async def _check() -> int:
    hubless = await Hubless.connect()
    report = Report()
    report.good(f"Temporal answers at {hubless.address}, namespace {hubless.client.namespace}")
    await _check_queue(hubless, report, names.CONTROL_QUEUE)
    clusters = await _clusters(hubless, report)
    for each in clusters:
        await _check_cluster(hubless, report, each)
    await _check_policies(hubless, report)
    apps = await _apps(hubless, report)
    await _check_stores(hubless, report, apps)
    return report.end()


async def _cluster_check(cluster: str) -> int:
    hubless = await Hubless.connect()
    report = Report()
    clusters = await _clusters(hubless, report)
    if cluster and clusters:
        chosen = [each for each in clusters if each.cluster == cluster]
        if not chosen:
            known = ", ".join(each.cluster for each in clusters)
            raise Refused(f"{cluster} is not a cluster of the registry ({known}).\n  Add it to the ClusterRegistry.")
        clusters = chosen
    for each in clusters:
        await _check_cluster(hubless, report, each)
    return report.end()


async def _clusters(hubless: Hubless, report: Report) -> list[ClusterHealth]:
    """The clusters of the registry; none, and a problem reported, when no worker can say."""
    try:
        found = await looks.health(hubless.client)
    except looks.NotServed as err:
        report.problem(f"Clusters not known: {err}. Start a worker: hubless worker")
        return []
    if not found:
        report.problem("The registry names no cluster. Make a ClusterRegistry object named hubless on every cluster")
    return sorted(found, key=lambda each: each.cluster)


async def _check_queue(hubless: Hubless, report: Report, queue: str) -> None:
    """Workers that poll a queue for workflows; the gates of cluster queues are seen by `list_health` instead."""
    try:
        workers = await pollers(hubless, queue)
    except RPCError as err:
        report.problem(f"Task queue {queue} cannot be described: {err.message}")
        return
    if not workers:
        report.problem(f"No worker polls {queue}: no action can start. Start one: hubless worker")
    elif len(workers) == 1:
        report.warn(f"One worker polls {queue} ({workers[0]}): when it goes, no action can start")
    else:
        report.good(f"{len(workers)} workers poll {queue} ({', '.join(workers)})")


async def pollers(hubless: Hubless, queue: str, kind: TaskQueueType.ValueType | None = None) -> list[str]:
    """Identities of the workers that polled the queue in the last `POLLED_SECONDS`, sorted. Raises `RPCError`."""
    answer = await hubless.client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=hubless.client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=kind or TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    newest = datetime.now(UTC) - timedelta(seconds=POLLED_SECONDS)
    return sorted(
        {
            poller.identity
            for poller in answer.pollers
            if poller.last_access_time.ToDatetime().replace(tzinfo=UTC) >= newest
        }
    )


async def _check_cluster(hubless: Hubless, report: Report, each: ClusterHealth) -> None:
    name = each.cluster
    if not each.reachable:
        began = each.last_answer or each.since
        last = f" since {clock(began)} ({since(began)})" if began else ""
        report.problem(
            f"{name} does not answer{last}: {each.error or 'no answer'}. Look at its API server and kubeconfig"
        )
        return
    workers = await pollers(hubless, names.cluster_queue(name), TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)
    served = f"; {counted(len(workers), 'worker')} on {names.cluster_queue(name)}"
    version = f", Kubernetes {each.version}" if each.version else ""
    if workers:
        report.good(f"{name} answers{version}{served}")
    else:
        report.problem(f"{name} answers{version}, but no worker takes work for it. Start one: hubless worker")
        return
    await _check_kinds(hubless, report, name)
    await _check_own(hubless, report, name)


async def _check_own(hubless: Hubless, report: Report, cluster: str) -> None:
    """What only the cluster's own worker can prove: the stores, written and read from there with the keys there."""
    try:
        proof = await looks.prove(hubless.client, cluster)
    except looks.NotServed:
        report.warn(
            f"No worker of {cluster} itself answers: whether {cluster} reads and writes the stores is not known. "
            f"Start it: HUBLESS_CLUSTER={cluster} hubless worker run"
        )
        return
    for profile in sorted({store.profile for store in proof.stores}):
        stores = [store for store in proof.stores if store.profile == profile]
        problems = list(dict.fromkeys(store.problem for store in stores if store.problem))
        for problem in problems:
            report.problem(f"{cluster}: {problem}")
        if not problems:
            report.good(f"{cluster} reads and writes {profile} (buckets {', '.join(store.bucket for store in stores)})")
        for store in stores:
            if store.conditional_writes is False:
                report.warn(
                    f"{cluster}: {profile} has no conditional writes in bucket {store.bucket}: two orchestrators could "
                    "claim the same epoch there. Use a store that honours If-None-Match and If-Match"
                )
    if not proof.stores:
        report.problem(f"{cluster} knows no S3 profile. Give the dr-cluster operator's ConfigMap s3StoreProfiles")
    for problem in proof.problems:
        report.problem(f"{cluster}: {problem}")


def probe(cluster: str) -> AppSpec:
    """A spec that selects nothing: a survey with it tells only which kinds a cluster has."""
    return AppSpec(
        namespace="default",
        name="hubless-check",
        uid="",
        policy="",
        clusters=[PolicyCluster(name=cluster, s3_profile="")],
        preferred_cluster=cluster,
        pvc_selector={"matchLabels": {"hubless.io/check": "none"}},
        placement="",
        scheduling_interval="",
    )


async def _check_kinds(hubless: Hubless, report: Report, cluster: str) -> None:
    try:
        found = await looks.survey(hubless.client, probe(cluster), cluster)
    except looks.NotServed as err:
        report.problem(f"{cluster}: its kinds are not known: {err}")
        return
    except ApplicationError as err:
        report.problem(f"{cluster}: {err.message}")
        return
    if found.missing_kinds:
        report.problem(
            f"{cluster} lacks the kinds {', '.join(found.missing_kinds)}. "
            "Install them: hubless crds | kubectl apply -f -"
        )
    else:
        report.good(f"{cluster} has every kind that Hubless needs")


async def _check_policies(hubless: Hubless, report: Report) -> None:
    """What every copy says of itself; a line that several clusters share is said once, with all of them."""
    try:
        found = await looks.policies(hubless.client)
    except looks.NotServed as err:
        report.problem(f"DRPolicies are not known: {err}")
        return
    for each in found:
        if each.error:
            report.warn(f"DRPolicies on {each.cluster} are not known: {each.error}")
    answered = [each for each in found if not each.error]
    if answered and not any(each.valid or each.problems for each in answered):
        report.warn("No cluster has a DRPolicy, so nothing can be protected. See docs/policies.md")
    valid = {
        (name, peers): f"Policy {name} is valid, peer classes: {peers}"
        for each in answered
        for name, peers in each.valid.items()
    }
    for (name, peers), text in valid.items():
        report.good(_where(text, [each.cluster for each in answered if each.valid.get(name) == peers]))
    for say, lists in (
        (report.problem, {each.cluster: each.problems for each in answered}),
        (report.warn, {each.cluster: each.warnings for each in answered}),
    ):
        for line in dict.fromkeys(line for lines in lists.values() for line in lines):
            say(_where(line, [cluster for cluster, lines in lists.items() if line in lines]))


def _where(text: str, clusters: list[str]) -> str:
    return f"{text} (on {', '.join(clusters)})"


async def _apps(hubless: Hubless, report: Report) -> list[tuple[AppSpec, list[Volume]]]:
    """Spec and protected volumes of every application that answers."""
    found = []
    async for namespace, name in hubless.applications():
        try:
            state = (await hubless.status(namespace, name)).state
        except Stopped as err:
            report.problem(err.text.splitlines()[0])
            continue
        if state.superseded:
            report.problem(f"{name} in namespace {namespace} is stopped: {state.superseded}")
        elif state.app:
            found.append((state.app, state.volumes))
    return sorted(found, key=lambda each: (each[0].namespace, each[0].name))


async def _check_stores(hubless: Hubless, report: Report, apps: Iterable[tuple[AppSpec, list[Volume]]]) -> None:
    """Each store once, and each application's volumes in each store that answers (S9)."""
    known: dict[str, StoreReport] = {}
    seen_any = False
    for app, volumes in apps:
        seen_any = True
        try:
            seen = await looks.stores(hubless.client, app)
        except (looks.NotServed, ApplicationError) as err:
            report.problem(f"{app.name} in namespace {app.namespace}: its stores cannot be read: {err}")
            continue
        for store in seen.stores:
            if store.profile not in known:
                known[store.profile] = store
                _say_store(report, store)
            _say_volumes(report, app, volumes, store)
    if not seen_any:
        report.warn("No application is protected, so no store was read")


def _say_store(report: Report, store: StoreReport) -> None:
    if store.reachable:
        report.good(f"Store {store.profile} answers")
    else:
        report.problem(f"Store {store.profile} does not answer: {store.error}")


def _say_volumes(report: Report, app: AppSpec, volumes: list[Volume], store: StoreReport) -> None:
    if not store.reachable:
        return
    held = {(each.namespace, each.name) for each in store.volumes}
    missing = [each.name for each in volumes if (each.namespace, each.name) not in held]
    where = f"{app.name} in namespace {app.namespace}"
    if missing:
        report.problem(
            f"{where}: {', '.join(missing)} not in store {store.profile}: "
            f"a failover that restores from it would lack them. Upload them again: hubless resume {app.name} -n "
            f"{app.namespace}"
        )
    else:
        report.good(f"{where}: {counted(len(volumes), 'volume')} in store {store.profile}")
