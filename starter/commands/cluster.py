"""`hubless cluster add|remove|list|rotate`: the registry and the kubeconfig Secrets, on every cluster at once.

Everything is looked at before anything is written. A command that was cut off is simply given again.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from ramen import names
from ramen.errors import HublessError, KindMissing, ServerBusy, Unauthorized
from ramen.kinds import (
    CLUSTER_REGISTRY,
    CONFIG_MAP,
    CRD,
    DRCLUSTER,
    DRPC,
    DRPOLICY,
    LEASE,
    NAMESPACE,
    PLACEMENT_DECISION,
    VOLUME_REPLICATION,
    VOLUME_REPLICATION_CLASS,
    VRG,
    Kind,
)
from ramen.objects import ClusterHealth, RegisteredCluster
from starter import complete, console, exitcodes, output
from starter.commands.check import cluster_app
from starter.durations import clock, moment_of, since
from starter.failures import Failed, Refused
from starter.installation import (
    Access,
    Installation,
    Member,
    connect,
    delete_secret,
    read_kubeconfig,
    secret_body,
    secret_name,
    uid_of,
    write_registry,
    write_secret,
)
from starter.options import Context
from starter.output import Format
from starter.rights import missing, needed
from starter.run import run

app = cluster_app

KINDS = (CLUSTER_REGISTRY, DRPC, DRPOLICY, DRCLUSTER, VRG, VOLUME_REPLICATION, VOLUME_REPLICATION_CLASS)
"""What has to be installed on a cluster before it can take part."""

BUSY_TRIES = 3
"""One second apart."""

STALE = timedelta(seconds=150)
"""Twice the length of a writer's Lease: a status that nobody confirmed for so long may be history."""

Cluster = Annotated[str, typer.Argument(metavar="NAME", help="Name of the cluster.", autocompletion=complete.clusters)]
File = Annotated[
    Path,
    typer.Option(
        "--kubeconfig", metavar="FILE", help="Kubeconfig that the workers are to use for it; its current context."
    ),
]
Absent = Annotated[
    bool,
    typer.Option("--allow-unreachable", help="Go on although a cluster does not answer; workers tell it later."),
]


# --- add -------------------------------------------------------------------------------------------------------------


@app.command()
def add(
    cluster: Cluster,
    kubeconfig: File,
    region: Annotated[str, typer.Option("--region", metavar="REGION", help="Where the cluster is.")] = "",
    context: Context = "",
    allow_unreachable: Absent = False,
) -> None:
    """Test a kubeconfig, then make its Secret and the registry entry on every cluster.

    Your own kubeconfig (KUBECONFIG, --context) has to reach a cluster that is in the registry already; for the first
    one, the cluster itself. A refusal changes nothing; what is there already is left as it is.

    \b
    Examples:
      # the first cluster, with your own kubeconfig pointing at it
      hubless cluster add dr1 --kubeconfig worker-dr1.yaml --region east --context dr1
    \b
      # the second one; dr1 leads to everything else
      hubless cluster add dr2 --kubeconfig worker-dr2.yaml --region west --context dr1
    """
    run(_add(cluster, kubeconfig, region, context, allow_unreachable))


async def _add(name: str, file: Path, region: str, context: str, allow_unreachable: bool) -> int:
    content = read_kubeconfig(file)
    new = await connect(name, content)
    try:
        uid = await _identity(new, file)
        installation = await Installation.open(context)
        try:
            _refuse_stranger(installation, name, uid)
            await installation.reach_members()
            _refuse_absent(installation, name, allow_unreachable)
            _refuse_disagreement(installation)
            await _refuse_unprepared(new)
            return await _write_new(installation, name, uid, region, content, new)
        finally:
            await installation.close()
    finally:
        await new.close()


async def _identity(access: Access, file: Path) -> str:
    """The fingerprint of the cluster that a kubeconfig file leads to."""
    try:
        return await uid_of(access)
    except Unauthorized:
        raise Refused(f"{file}: {access.name} refuses its credential (401). Renew the token in it.") from None
    except HublessError as err:
        raise Refused(f"{file}: {err}. Nothing was changed.") from None


def _refuse_stranger(installation: Installation, name: str, uid: str) -> None:
    """The name and the fingerprint belong together for ever, and the way in has to be one of ours."""
    for entry in installation.entries:
        if entry.name == name and entry.cluster_uid not in ("", uid):
            raise Refused(
                f"{name} in the registry is another cluster (uid {entry.cluster_uid}, this one is {uid}).\n"
                f"  Choose another name, or end it first: hubless cluster remove {name}"
            )
        if entry.name != name and entry.cluster_uid == uid:
            raise Refused(f"That cluster is in the registry already, as {entry.name}.\n  See: hubless cluster list")
    if not installation.home_name() and installation.home_uid != uid:
        known = ", ".join(entry.name for entry in installation.entries)
        if known:
            raise Refused(
                f"Your kubeconfig reaches a cluster that its registry ({known}) does not name.\n"
                f"  Choose one that it names: --context NAME"
            )
        raise Refused(
            f"The cluster of your kubeconfig has no ClusterRegistry {names.REGISTRY_NAME} yet.\n"
            f"  Add that cluster first, or choose one that has: --context NAME"
        )


def _refuse_absent(installation: Installation, name: str, allow_unreachable: bool) -> None:
    away = [member for other, member in installation.members.items() if member.access is None and other != name]
    if away and not allow_unreachable:
        lines = "\n".join(f"  {member.entry.name}: {member.problem}" for member in away)
        raise Refused(
            f"{', '.join(member.entry.name for member in away)} cannot be told; nothing was changed.\n{lines}\n"
            f"  Mend it, or go on without: --allow-unreachable (the workers write it there later)"
        )
    for member in away:
        console.warning(f"{member.entry.name} is not told now: {member.problem}")


def _refuse_disagreement(installation: Installation, except_for: str = "") -> None:
    """Registries that differ are an edit that somebody has not finished; which one is meant is theirs to say.

    `except_for` is a cluster whose entry may differ: the same command was cut off before.
    """
    expected = {entry.name: entry.model_dump() for entry in installation.entries}
    for other, member in installation.members.items():
        if member.registry is not None:
            found = {entry.name: entry.model_dump() for entry in member.registry.spec.clusters}
            if differing := sorted(
                key for key in (expected.keys() | found.keys()) - {except_for} if expected.get(key) != found.get(key)
            ):
                raise Refused(
                    f"The ClusterRegistry on {other} differs in {', '.join(differing)}; nothing was changed.\n"
                    f"  Make both equal: kubectl edit clusterregistry {names.REGISTRY_NAME}"
                )


async def _refuse_unprepared(access: Access) -> None:
    """Each thing that a worker would miss on the cluster, one line each."""
    try:
        problems = await _unprepared(access)
    except HublessError as err:
        problems = [str(err)]
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise Refused(f"{access.name} is not ready to take part; nothing was changed.\n{lines}")


async def _unprepared(access: Access) -> list[str]:
    rights = await missing(access, needed())
    if rights:
        shown = ", ".join(map(str, rights[:3])) + (f" and {len(rights) - 3} more" if len(rights) > 3 else "")
        return [f"the kubeconfig's user may not {shown}: kubectl apply -f deploy/rbac.yaml"]
    problems = []
    if await access.read(NAMESPACE, names.RAMEN_NAMESPACE) is None:
        problems.append(
            f"namespace {names.RAMEN_NAMESPACE} is missing: kubectl create namespace {names.RAMEN_NAMESPACE}"
        )
    lacking = [kind for kind in KINDS if await access.read(CRD, f"{kind.plural}.{kind.group}") is None]
    ours = [kind.kind for kind in lacking if kind not in (VOLUME_REPLICATION, VOLUME_REPLICATION_CLASS)]
    storage = [kind.kind for kind in lacking if kind in (VOLUME_REPLICATION, VOLUME_REPLICATION_CLASS)]
    if ours:
        problems.append(f"kinds are missing: {', '.join(ours)}: hubless crds | kubectl apply --server-side -f -")
    if storage:
        problems.append(f"kinds are missing: {', '.join(storage)}: install csi-addons")
    if await access.read(CRD, f"{PLACEMENT_DECISION.plural}.{PLACEMENT_DECISION.group}") is None:
        problems.append(f"kind {PLACEMENT_DECISION.kind} ({PLACEMENT_DECISION.group}) is missing: install its CRD")
    if await access.read(CONFIG_MAP, names.RAMEN_CONFIG_MAP, names.RAMEN_NAMESPACE) is None:
        problems.append(
            f"ConfigMap {names.RAMEN_NAMESPACE}/{names.RAMEN_CONFIG_MAP} is missing: install the dr-cluster operator"
        )
    return problems


async def _write_new(
    installation: Installation, name: str, uid: str, region: str, content: dict[str, Any], new: Access
) -> int:
    """Secrets before entries, the new cluster before the others: an entry never names a Secret that is not there."""
    entries = installation.entries
    known = next((entry for entry in entries if entry.name == name), None)
    entry = known.model_copy(deep=True) if known else RegisteredCluster(name=name)
    entry.kubeconfig_secret = entry.kubeconfig_secret or secret_name(name)
    entry.endpoint = str(content["clusters"][0]["cluster"]["server"])
    entry.cluster_uid = uid
    entry.region = region or entry.region
    entries = [entry if each.name == name else each for each in entries] if known else [*entries, entry]
    made = secret_body(entry.kubeconfig_secret, content)
    others = {other: member for other, member in installation.members.items() if other != name}
    changed = 0
    targets: list[tuple[str, Access]] = [(name, new)]
    targets += [(other, member.access) for other, member in others.items() if member.access is not None]
    for target, access in targets:
        secrets = [made]
        if target == name:
            secrets += [
                secret_body(member.entry.kubeconfig_secret, member.kubeconfig)
                for member in others.values()
                if member.kubeconfig is not None
            ]
        changed += await _written(target, access, secrets, entries)
    if not changed:
        console.success(f"{name} is in the registry of every cluster already; nothing to do")
    else:
        console.success(f"{name} is in the registry of {', '.join(target for target, _ in targets)}")
        console.tell(f"Look at it:   hubless cluster list\nIts worker:   HUBLESS_CLUSTER={name} hubless worker run")
    return exitcodes.DONE


async def _written(target: str, access: Access, secrets: list[dict[str, Any]], entries: list[RegisteredCluster]) -> int:
    """Number of objects that were changed on one cluster."""
    changed = 0
    try:
        for body in secrets:
            if await write_secret(access, body):
                console.made(f"Secret {names.RAMEN_NAMESPACE}/{body['metadata']['name']} on {target}")
                changed += 1
        if await write_registry(access, entries):
            console.made(f"ClusterRegistry on {target}")
            changed += 1
    except HublessError as err:
        raise Failed(f"{err}.\n  What was written stays; give the same command again when that is mended.") from None
    return changed


# --- rotate ----------------------------------------------------------------------------------------------------------


@app.command()
def rotate(cluster: Cluster, kubeconfig: File, context: Context = "", allow_unreachable: Absent = False) -> None:
    """Give the workers another kubeconfig for a cluster, on every cluster, without a restart.

    It is tested first: it has to reach the same cluster, with every right that a worker needs. What runs goes on with
    the old one for the second that the change takes.

    \b
    Examples:
      # a token that is about to expire
      hubless cluster rotate dr2 --kubeconfig new-dr2.yaml
    \b
      # while dr3 is away; the workers tell it when it returns
      hubless cluster rotate dr2 --kubeconfig new-dr2.yaml --allow-unreachable
    """
    run(_rotate(cluster, kubeconfig, context, allow_unreachable))


async def _rotate(name: str, file: Path, context: str, allow_unreachable: bool) -> int:
    content = read_kubeconfig(file)
    new = await connect(name, content)
    try:
        uid = await _identity(new, file)
        installation = await Installation.open(context)
        try:
            entry = _known(installation, name)
            if entry.cluster_uid != uid:
                raise Refused(f"{file} reaches another cluster (uid {uid}), not {name} (uid {entry.cluster_uid}).")
            await installation.reach_members()
            _refuse_absent(installation, name, allow_unreachable)
            _refuse_disagreement(installation, except_for=name)
            if rights := await missing(new, needed()):
                raise Refused(f"{file}: its user may not {rights[0]}.\n  kubectl apply -f deploy/rbac.yaml on {name}")
            body = secret_body(entry.kubeconfig_secret, content)
            entry.endpoint = str(content["clusters"][0]["cluster"]["server"])
            changed = 0
            for other, member in installation.members.items():
                access = new if other == name else member.access
                if access is not None:
                    changed += await _written(other, access, [body], installation.entries)
            console.success(f"{name} is reached by the new kubeconfig" if changed else "Nothing to do: it is in use")
            return exitcodes.DONE
        finally:
            await installation.close()
    finally:
        await new.close()


def _known(installation: Installation, name: str) -> RegisteredCluster:
    for entry in installation.entries:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in installation.entries) or "none"
    raise Refused(f"{name} is not a cluster of the registry ({known}).\n  See: hubless cluster list")


# --- remove ----------------------------------------------------------------------------------------------------------


@app.command()
def remove(cluster: Cluster, context: Context = "", allow_unreachable: Absent = False) -> None:
    """Take a cluster out of the registry of every cluster, with its Secret.

    Refused while an application is protected with it. Nothing on the cluster itself is deleted.

    \b
    Examples:
      # a cluster that was replaced
      hubless cluster remove dr3
    """
    run(_remove(cluster, context, allow_unreachable))


async def _remove(name: str, context: str, allow_unreachable: bool) -> int:
    installation = await Installation.open(context)
    try:
        entry = _known(installation, name)
        if installation.home_name() == name:
            raise Refused(f"Your kubeconfig reaches {name} itself.\n  Choose a cluster that stays: --context NAME")
        await installation.reach_members()
        _refuse_absent(installation, name, allow_unreachable)
        _refuse_disagreement(installation, except_for=name)
        staying = {other: member for other, member in installation.members.items() if other != name}
        used = sorted({line for member in installation.members.values() for line in await _uses(member, name)})
        if used:
            lines = "\n".join(f"  {line}" for line in used)
            raise Refused(f"{name} is in use; nothing was changed.\n{lines}\n  End it first: hubless unprotect NAME")
        left = [each for each in installation.entries if each.name != name]
        for other, member in staying.items():
            if member.access is None:
                continue
            await _written(other, member.access, [], left)
            try:
                if rest := await delete_secret(member.access, entry.kubeconfig_secret):
                    console.warning(rest)
            except HublessError as err:
                raise Failed(f"{err}.\n  Give the same command again when that is mended.") from None
        console.success(f"{name} is out of the registry of {', '.join(staying)}")
        console.tell(f"Stop its worker. Its own registry is left as it is: kubectl delete clusterregistry on {name}")
        return exitcodes.DONE
    finally:
        await installation.close()


async def _uses(member: Member, name: str) -> list[str]:
    """What on one cluster needs the cluster `name`; what cannot be read counts as a use."""
    where = member.entry.name
    if member.access is None:
        return []
    try:
        policies = await _listed(member.access, DRPOLICY)
        naming = {
            item["metadata"]["name"] for item in policies if name in (item.get("spec") or {}).get("drClusters", [])
        }
        vrgs = await _listed(member.access, VRG)
    except KindMissing:
        return []
    except HublessError as err:
        return [f"{where} does not say what uses {name}: {err}"]
    try:
        drpcs = await _listed(member.access, DRPC)
    except HublessError:
        drpcs = []  # workers need no right to list them; what is protected has VRGs as well
    lines = []
    for item in drpcs:
        policy = ((item.get("spec") or {}).get("drPolicyRef") or {}).get("name")
        if policy in naming:
            metadata = item["metadata"]
            lines.append(f"DRPC {metadata['namespace']}/{metadata['name']}, by DRPolicy {policy}")
    for item in vrgs:
        metadata = item["metadata"]
        annotated = str((metadata.get("annotations") or {}).get(names.CLUSTERS, ""))
        if name in annotated.split(","):
            lines.append(f"application {metadata['namespace']}/{metadata['name']} is protected on {annotated}")
    return lines


async def _listed(access: Access, kind: Kind) -> list[dict[str, Any]]:
    """All objects of a kind; a server that is still busy with a new kind gets a moment."""
    for _ in range(BUSY_TRIES):
        try:
            return (await access.list(kind))[0]
        except ServerBusy:
            await asyncio.sleep(1)
    return (await access.list(kind))[0]


# --- list ------------------------------------------------------------------------------------------------------------


@app.command("list")
def list_clusters(
    context: Context = "",
    form: Annotated[Format, typer.Option("--output", "-o", help="table, wide, json or yaml.")] = Format.TABLE,
) -> None:
    """List the clusters of the registry as the workers see them.

    Read from the ClusterRegistry of the cluster that your own kubeconfig reaches; needs no Temporal.

    \b
    Examples:
      # state of each cluster, since when
      hubless cluster list
    \b
      # for scripts
      hubless cluster list -o json
    """
    run(_list(context, form))


async def _list(context: str, form: Format) -> int:
    installation = await Installation.open(context)
    try:
        if installation.registry is None:
            raise Refused(f"There is no ClusterRegistry {names.REGISTRY_NAME} there.\n  Make it: hubless cluster add")
        lease = await installation.home.read(LEASE, names.WRITER_LEASE, names.RAMEN_NAMESPACE)
    except HublessError as err:
        raise Failed(f"{err}.") from None
    finally:
        await installation.close()
    status = installation.registry.status
    seen = {entry.name: entry for entry in status.clusters}
    confirmed = moment_of(((lease or {}).get("spec") or {}).get("renewTime"))
    rows = [(entry, seen.get(entry.name, ClusterHealth(name=entry.name))) for entry in installation.entries]
    if form in (Format.JSON, Format.YAML):
        console.result(output.text([_document(*row) for row in rows], form))
        return exitcodes.DONE
    wide = form is Format.WIDE
    header = ["NAME", "REGION", "STATE", "SINCE", "VERSION", "FLAPS", "LAST ERROR"]
    console.result(
        console.table(header + (["ENDPOINT", "WORKERS"] if wide else []), [_row(*row, wide) for row in rows])
    )
    if confirmed is None or datetime.now(UTC) - confirmed > STALE:
        when = f"since {clock(confirmed)} ({since(confirmed)})" if confirmed else "yet"
        console.warning(f"No worker confirmed this {when}: it may have changed. Start one: hubless worker run")
    for condition in status.conditions:
        if condition.status == "False":
            console.warning(condition.message)
    return exitcodes.DONE


def _row(entry: RegisteredCluster, health: ClusterHealth, wide: bool) -> list[str]:
    began = moment_of(health.since)
    row = [
        entry.name,
        entry.region or "-",
        health.state,
        since(began) if began else "-",
        health.version or "-",
        str(health.flaps),
        health.last_error or "-",
    ]
    return row + ([entry.endpoint or "-", ", ".join(health.workers) or "-"] if wide else [])


def _document(entry: RegisteredCluster, health: ClusterHealth) -> dict[str, Any]:
    return {
        "name": entry.name,
        "region": entry.region,
        "endpoint": entry.endpoint,
        "clusterUID": entry.cluster_uid,
        "kubeconfigSecret": entry.kubeconfig_secret,
        "state": health.state,
        "since": health.since or None,
        "version": health.version,
        "workers": list(health.workers),
        "flaps": health.flaps,
        "lastError": health.last_error,
    }
