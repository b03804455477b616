"""`hubless mirror show`: what lies in the stores, for the day when nobody else can say it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ramen import mirrorview, names
from ramen.app import AppRef
from ramen.mirrorview import StoreCopy
from ramen.s3layout import ClusterStatusDocument, HistoryDocument, LockDocument
from ramen.words import counted
from starter import complete, console, exitcodes, mirrored, output
from starter.durations import clock, precise, since
from starter.failures import Refused
from starter.installation import Installation
from starter.mirrored import MirrorSeen, Store
from starter.options import Context
from starter.output import Format
from starter.run import run

app = typer.Typer(help="What the workers left in the stores.", no_args_is_help=True, rich_markup_mode=None)

HEADER = ("NAMESPACE", "NAME", "EPOCH", "ACTION", "PHASE", "DECISION", "LOCK", "WRITTEN", "STORES")

BUCKET = "HUBLESS_COORDINATION_BUCKET"
"""The variable by which the workers are told the bucket too."""


@app.callback()
def _mirror() -> None:
    """What the workers left in the stores: epochs, lock, state, decision and history of every application."""


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", help="Name of the application; all without it.", autocompletion=complete.applications
        ),
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Namespace of the application.")
    ] = "",
    context: Context = "",
    form: Annotated[Format, typer.Option("--output", "-o", help="table, json or yaml.")] = Format.TABLE,
) -> None:
    """Show what each store holds of an application, and where the stores disagree.

    Needs no Temporal and no worker: it finds the stores as a worker does, by the cluster that your own kubeconfig
    reaches and the Secrets there, and reads them with the keys there. It changes nothing. Exit code 1 when a store
    could not be read, a document is broken, or the stores disagree.

    \b
    Examples:
      # every application, one line each
      hubless mirror show
    \b
      # one application, store by store; dr1 is lost, so by way of dr2
      hubless mirror show shop -n web --context dr2
    \b
      # for a script
      hubless mirror show shop -n web -o json | jq '.applications[0].disagreements'
    """
    run(_show(name, namespace, context, form))


async def _show(name: str, namespace: str, context: str, form: Format) -> int:
    if name and not namespace:
        raise Refused(f"In which namespace is {name}? hubless mirror show {name} -n NAMESPACE")
    wanted = AppRef(namespace=namespace, name=name) if name else None
    installation = await Installation.open(context)
    try:
        await installation.reach_members()
        stores = await mirrored.profiles(installation)
    finally:
        await installation.close()
    seen = await mirrored.read(stores, os.environ.get(BUCKET) or names.COORDINATION_BUCKET, wanted)
    if wanted and seen.stores and not seen.silent and all(copy.is_empty for copy in seen.applications[wanted].values()):
        raise Refused(f"No store knows {name} in namespace {namespace}.\n  See what they know: hubless mirror show")
    if namespace:
        seen.applications = {each: held for each, held in seen.applications.items() if each.namespace == namespace}
    if form in (Format.JSON, Format.YAML):
        console.result(output.text(document(seen, with_history=bool(wanted)), form))
    else:
        console.result("\n".join(one(wanted, seen) if wanted else everything(seen)))
        for problem in seen.problems:
            console.warning(problem)
    return code(seen)


def code(seen: MirrorSeen) -> int:
    """1 when what is shown may be less than what there is, or contradicts itself."""
    broken = seen.silent or seen.problems or seen.unreadable or not seen.stores
    differs = any(
        mirrorview.disagreements(held) or any(copy.unreadable for copy in held.values())
        for held in seen.applications.values()
    )
    return exitcodes.FAILED if broken or differs else exitcodes.DONE


# --- for people ------------------------------------------------------------------------------------------------------


def everything(seen: MirrorSeen) -> list[str]:
    """One line per application, then the clusters, then what could not be read."""
    lines = []
    if seen.applications:
        lines.append(console.table(HEADER, [_row(each, held) for each, held in sorted_by_place(seen)]))
    elif len(seen.silent) < len(seen.stores):
        lines.append(f"No application in {_answered(seen)}.")
    for each, held in sorted_by_place(seen):
        lines += [f"⚠ {each}: {line}." for line in mirrorview.disagreements(held)]
        for profile, copy in held.items():
            lines += [f"✗ {profile} holds {key}, which cannot be read: {why}" for key, why in copy.unreadable.items()]
    return [*lines, *_clusters(seen), *_stores(seen)]


def one(wanted: AppRef, seen: MirrorSeen) -> list[str]:
    """All that each store holds of one application."""
    held = seen.applications.get(wanted, {})
    lines = [f"{wanted.name} ({wanted.namespace}) in {counted(len(seen.stores), 'store')}"]
    for store in seen.stores:
        if store.profile in held:
            lines += ["", f"{store.profile} ({store.endpoint})", *_copy(held[store.profile])]
    disagreeing = mirrorview.disagreements(held)
    lines += ["", *(f"⚠ The stores disagree: {line}." for line in disagreeing)] if disagreeing else []
    return [*lines, *_clusters(seen), *_stores(seen)]


def sorted_by_place(seen: MirrorSeen) -> list[tuple[AppRef, dict[str, StoreCopy]]]:
    """The applications in an order that never changes."""
    return sorted(seen.applications.items(), key=lambda each: (each[0].namespace, each[0].name))


def _answered(seen: MirrorSeen) -> str:
    return ", ".join(store.profile for store in seen.stores if not store.error)


def _row(app: AppRef, held: Mapping[str, StoreCopy]) -> list[str]:
    now = mirrorview.newest(held)
    stores = [profile for profile, copy in sorted(held.items()) if not copy.is_empty]
    return [
        app.namespace,
        app.name,
        str(now.claimed) if now.claimed is not None else "-",
        now.claim.action if now.claim else "-",
        _phase(now),
        (now.decision.cluster or "nowhere") if now.decision else "-",
        _lock_state(now.lock) if now.lock else "-",
        f"{since(now.state.written_at)} ago" if now.state else "-",
        ", ".join(stores),
    ]


def _phase(copy: StoreCopy) -> str:
    if copy.state:
        return copy.state.phase or "-"
    return "not held" if copy.claimed is not None else "-"


def _lock_state(lock: LockDocument) -> str:
    return "expired" if lock.expires <= datetime.now(UTC) else "held"


def _copy(copy: StoreCopy) -> list[str]:
    if copy.is_empty:
        return ["  holds nothing of it"]
    lines = [f"  {label:<10}{text}" for label, text in _facts(copy)]
    for index, done in enumerate(copy.history):
        lines.append(f"  {'History' if index == 0 else '':<10}{_done(done)}")
    return [*lines, *(f"  ✗ {key} cannot be read: {why}" for key, why in copy.unreadable.items())]


def _facts(copy: StoreCopy) -> list[tuple[str, str]]:
    facts = []
    if claim := copy.claim:
        by = f" by {claim.holder}" if claim.holder else ""
        facts.append(("Epoch", f"{claim.number}, {claim.action}, claimed {clock(claim.claimed_at)}{by}"))
    elif copy.claimed is not None:
        facts.append(("Epoch", f"{copy.claimed}, its claim cannot be read"))
    else:
        facts.append(("Epoch", "none claimed"))
    if copy.lock or not copy.is_broken("lock"):
        facts.append(("Lock", _lock(copy.lock) if copy.lock else "free"))
    if state := copy.state:
        words = [state.phase or "no phase", *([state.progression] if state.progression else [])]
        facts.append(("State", f"{', '.join(words)}, epoch {state.epoch.number}, written {clock(state.written_at)}"))
    elif not copy.is_broken("state"):
        facts.append(("State", "none: no workflow holds it" if copy.claimed is not None else "none"))
    if decision := copy.decision:
        previous = f", previous {decision.previous}" if decision.previous else ""
        retained = f", retained {', '.join(decision.retained)}" if decision.retained else ""
        facts.append(
            ("Decision", f"{decision.cluster or 'nowhere'}{previous}{retained}, epoch {decision.epoch.number}")
        )
    return facts


def _lock(lock: LockDocument) -> str:
    state = _lock_state(lock)
    until = f"until {clock(lock.expires)}" if state == "held" else f"at {clock(lock.expires)} by this machine's clock"
    workflow = f", workflow {lock.workflow_id}" if lock.workflow_id else ""
    return f"{state} {until}, holder {lock.holder}{workflow}, epoch {lock.epoch.number}"


def _done(done: HistoryDocument) -> str:
    times = " to ".join(clock(at) for at in (done.started_at, done.finished_at) if at)
    facts = ", ".join(f"{fact} {precise(seconds)}" for fact, seconds in done.times.items())
    result = done.result.removesuffix(": ").rstrip(".")
    return f"{done.epoch.number} {done.action}: " + ", ".join(part for part in (result, times, facts) if part)


def _clusters(seen: MirrorSeen) -> list[str]:
    if not seen.clusters:
        return []
    width = max(len(each.cluster) for each in seen.clusters)
    return ["", *(f"{each.cluster:<{width}}   {_cluster(each)}" for each in seen.clusters)]


def _cluster(each: ClusterStatusDocument) -> str:
    operator = f"operator {each.operator_version}" if each.operator_version else "operator version not known"
    version = f"Kubernetes {each.api_server_version}" if each.api_server_version else "Kubernetes version not known"
    answers = "" if each.reachable else f", which did not answer since {clock(each.last_seen)}"
    told = f"reported {clock(each.told_at)} ({since(each.told_at)} ago) by {each.worker}{answers}"
    return f"{told}; {version}, {operator}"


def _stores(seen: MirrorSeen) -> list[str]:
    lines = [f"✗ Store {store.profile} is silent: {store.error}" for store in seen.silent]
    if not seen.stores:
        lines.append("✗ No cluster in reach knows a store")
    for profile, broken in seen.unreadable.items():
        lines += [f"✗ {profile} holds {key}, which cannot be read: {why}" for key, why in broken.items()]
    return ["", *lines] if lines else []


# --- for machines ----------------------------------------------------------------------------------------------------


def document(seen: MirrorSeen, with_history: bool) -> dict[str, Any]:
    """What was read, in an order of keys that never changes; a history that was not read is null and not empty."""
    plain: dict[str, Any] = output.normal(
        {
            "stores": [_store_document(store) for store in seen.stores],
            "clusters": [
                {
                    "name": each.cluster,
                    "reachable": each.reachable,
                    "lastSeen": each.last_seen,
                    "reportedAt": each.told_at,
                    "apiServerVersion": each.api_server_version,
                    "operatorVersion": each.operator_version,
                    "worker": each.worker,
                }
                for each in seen.clusters
            ],
            "applications": [
                {
                    "namespace": each.namespace,
                    "name": each.name,
                    "stores": {profile: _copy_document(held[profile], with_history) for profile in sorted(held)},
                    "disagreements": mirrorview.disagreements(held),
                }
                for each, held in sorted_by_place(seen)
            ],
            "unreadable": [
                {"store": profile, "key": key, "error": why}
                for profile, broken in sorted(seen.unreadable.items())
                for key, why in broken.items()
            ],
            "problems": seen.problems,
        }
    )
    return plain


def _store_document(store: Store) -> dict[str, Any]:
    return {
        "profile": store.profile,
        "endpoint": store.endpoint or None,
        "answers": not store.error,
        "error": store.error or None,
    }


def _copy_document(copy: StoreCopy, with_history: bool) -> dict[str, Any]:
    claim, lock, state, decision = copy.claim, copy.lock, copy.state, copy.decision
    return {
        "newestEpoch": copy.claimed,
        "claim": claim
        and {
            "epoch": claim.number,
            "token": claim.token,
            "action": claim.action,
            "holder": claim.holder,
            "claimedAt": claim.claimed_at,
        },
        "lock": lock
        and {
            "holder": lock.holder,
            "workflowId": lock.workflow_id,
            "epoch": lock.epoch.number,
            "acquiredAt": lock.acquired,
            "expiresAt": lock.expires,
            "expired": _lock_state(lock) == "expired",
        },
        "state": state
        and {
            "phase": state.phase,
            "progression": state.progression,
            "epoch": state.epoch.number,
            "writtenAt": state.written_at,
        },
        "decision": decision
        and {
            "cluster": decision.cluster,
            "previous": decision.previous,
            "retained": decision.retained,
            "epoch": decision.epoch.number,
            "decidedAt": decision.decided_at,
        },
        "history": [
            {
                "epoch": done.epoch.number,
                "action": done.action,
                "result": done.result,
                "requester": done.requester,
                "reason": done.reason,
                "startedAt": done.started_at,
                "finishedAt": done.finished_at,
                "times": done.times,
            }
            for done in copy.history
        ]
        if with_history
        else None,
        "unreadable": [{"key": key, "error": why} for key, why in copy.unreadable.items()],
    }
