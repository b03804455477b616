"""The DRPC object that people and tools read, in Ramen's shape, built from what the entity knows.

Ramen's columns read `.status.conditions[1]` as PeerReady, so the order Available, PeerReady, Protected is part of
the shape (drpc.md 1.1). What Ramen has no field for stands under the one extra key `hubless`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ramen.app import ActionKind
from ramen.kinds import DRPC
from workflows.inputs import ActionRecord, AppState, Outcome
from workflows.state import clock, running

FINAL = {ActionKind.DEPLOY: "Deployed", ActionKind.FAILOVER: "FailedOver", ActionKind.RELOCATE: "Relocated"}
PROGRESSING = {
    ActionKind.DEPLOY: "Deploying",
    ActionKind.FAILOVER: "FailingOver",
    ActionKind.RELOCATE: "Relocating",
    ActionKind.UNPROTECT: "Deleting",
}
RELEASED = "Released"
"""Said in the mirror only, of an application that was given back: no DRPC is left that could show it."""
SPEC_ACTION = {ActionKind.FAILOVER: "Failover", ActionKind.RELOCATE: "Relocate"}


def rfc3339(at: datetime | None) -> str | None:
    """Kubernetes' form of a time, to the second."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at else None


def phase(state: AppState) -> str:
    """Ramen's phase; FailedOver is said when the application serves, not before (drpc.md 1.5, D6)."""
    action = state.action
    if action is None:
        return ""
    if action.kind is ActionKind.RELEASE and action.outcome is Outcome.DONE:
        return RELEASED
    # One that was superseded while its decision went out has moved the application all the same.
    has_moved = action.kind in SPEC_ACTION and state.decision.cluster == action.target
    is_stopped = action.outcome in (Outcome.ABORTED, Outcome.SUPERSEDED) and not has_moved
    if is_stopped or action.kind is ActionKind.RELEASE:
        earlier = [r for r in state.history if r.outcome is Outcome.DONE and r.kind in FINAL]
        return FINAL[earlier[-1].kind] if earlier else ""
    if action.outcome is None:
        return PROGRESSING.get(action.kind, "")
    return FINAL.get(action.kind, "Deleting")


def progression(state: AppState) -> str:
    """Ramen's progression for the stages that Hubless has."""
    action = state.action
    if action is None:
        return ""
    if action.outcome is None:
        return {
            ActionKind.DEPLOY: "CreatingMW",
            ActionKind.FAILOVER: "FailingOverToCluster",
            ActionKind.RELOCATE: "EnsuringVolumesAreSecondary",
            ActionKind.UNPROTECT: "Deleting",
        }.get(action.kind, "")
    if state.superseded or state.interrupted:
        return "Paused"
    if action.kind is ActionKind.RELEASE:
        return "Completed"
    return "Completed" if action.reprotected_at or action.cleaned_at else "Cleaning Up"


def was_given_back(stored: dict[str, Any] | None) -> bool:
    """Whether the state that a store has is that of an application which a hub drives by now."""
    return (stored or {}).get("phase") == RELEASED


def conditions(state: AppState, now: datetime) -> list[dict[str, Any]]:
    """Available, PeerReady, Protected, in this order."""
    action = state.action
    busy = running(state) is not None
    cleaned = bool(action and (action.cleaned_at or action.reprotected_at)) and not state.debts
    proven = bool(state.protected) and not state.debts and not busy
    at = rfc3339((action and (action.serving_at or action.requested_at)) or now)

    def condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
        return {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": state.drpc_generation,
            "lastTransitionTime": at,
        }

    name = phase(state) or "Initiating"
    if state.superseded:
        available = condition("Available", "Unknown", "Superseded", state.superseded)
    elif state.interrupted:
        available = condition("Available", "Unknown", "Interrupted", state.interrupted)
    elif busy:
        available = condition("Available", "False", name, f"{action.kind.value if action else ''} runs")
    else:
        available = condition("Available", "True", name, "Completed")
    waiting = ", ".join(debt.cluster for debt in state.debts)
    peer = (
        condition("PeerReady", "True", "Success", "Ready")
        if cleaned and not busy
        else condition(
            "PeerReady", "False", "NotStarted" if busy else "Progressing", f"waiting for {waiting or 'the peer'}"
        )
    )
    home = state.decision.cluster or ""
    protected = (
        condition("Protected", "True", "Protected", f"{home} is protected: every volume was replicated")
        if proven
        else condition("Protected", "False", "Progressing", f"a loss of {home} now would lose data")
    )
    return [available, peer, protected]


def is_leaving(state: AppState) -> bool:
    """Whether the application is being unprotected or given back to a hub, or was."""
    action = state.action
    leaves = action is not None and action.kind in (ActionKind.UNPROTECT, ActionKind.RELEASE)
    return leaves and action is not None and action.outcome in (None, Outcome.DONE)


def copy_spec(state: AppState) -> dict[str, Any]:
    """The spec that the DRPC has on every cluster: the application, and the last move that was not taken back.

    A relocate goes to `preferredCluster` (drpc.md 1.2), so a relocate asked for elsewhere shows there.
    """
    app = state.app
    if app is None:
        return {}
    spec: dict[str, Any] = {
        "placementRef": {"kind": "Placement", "name": app.placement},
        "drPolicyRef": {"name": app.policy},
        "preferredCluster": app.preferred_cluster,
        "pvcSelector": app.pvc_selector,
    }
    done = [*state.history, *([state.action] if running(state) and state.action else [])]
    for record in done:
        if record.kind not in SPEC_ACTION or record.outcome is Outcome.ABORTED:
            continue
        spec["action"] = SPEC_ACTION[record.kind]
        spec["failoverCluster" if record.kind is ActionKind.FAILOVER else "preferredCluster"] = record.target
    return spec


def drpc(state: AppState, now: datetime) -> dict[str, Any]:
    """The DRPlacementControl object of the application (drpc.md 1.2, 1.3)."""
    app = state.app
    action = state.action
    spec = copy_spec(state)
    status: dict[str, Any] = {
        "phase": phase(state),
        "progression": progression(state),
        "observedGeneration": state.drpc_generation,
        "conditions": conditions(state, now),
        "lastUpdateTime": rfc3339(now),
    }
    if app:
        status["preferredDecision"] = {"clusterName": app.preferred_cluster, "clusterNamespace": app.preferred_cluster}
    if action:
        status["actionStartTime"] = rfc3339(action.requested_at)
        if action.serving_at and action.requested_at:
            status["actionDuration"] = f"{(action.serving_at - action.requested_at).total_seconds():.0f}s"
    return {
        "apiVersion": DRPC.api_version,
        "kind": DRPC.kind,
        "metadata": {
            "name": state.name,
            "namespace": state.namespace,
            "generation": state.drpc_generation,
            **({"uid": app.uid} if app else {}),
        },
        "spec": spec,
        "status": {key: value for key, value in status.items() if value not in (None, "")},
    }


def action_view(action: ActionRecord | None) -> dict[str, Any] | None:
    """The action as the `hubless` key shows it; `waiting` is filled in by who can ask the running child."""
    if action is None:
        return None
    return {
        "kind": action.kind.value,
        "workflowId": action.workflow_id,
        "requestedAt": rfc3339(action.requested_at),
        "servingAt": rfc3339(action.serving_at),
        "cleanedAt": rfc3339(action.cleaned_at),
        "reprotectedAt": rfc3339(action.reprotected_at),
        "dataAsOf": rfc3339(action.data_as_of),
        "waiting": None,
        "pointOfNoReturnPassed": action.point_of_no_return_passed,
    }


def hubless(state: AppState) -> dict[str, Any]:
    """What Hubless knows beside Ramen's fields."""
    return {
        "epoch": state.epoch.number if state.epoch else None,
        "decision": {"cluster": state.decision.cluster, "retained": state.decision.retained},
        "action": action_view(state.action),
        "chosen": state.app.placement_reason if state.app and state.app.placement_reason else None,
        "debts": [{"cluster": debt.cluster, "wants": debt.wants, "since": rfc3339(debt.since)} for debt in state.debts],
    }


def page(state: AppState) -> str:
    """The entity's page in Temporal Web as Markdown: what is wanted of each cluster and what it owes."""
    lines = [f"### {state.namespace}/{state.name}", ""]
    epoch = state.epoch.number if state.epoch else "-"
    lines.append(f"Serves on **{state.decision.cluster or 'no cluster'}**, epoch {epoch}")
    if state.app and state.app.placement_reason:
        lines.append(f"{state.app.preferred_cluster} was chosen: {state.app.placement_reason}")
    if state.superseded:
        lines.append(f"**Stopped:** {state.superseded}")
    if state.interrupted:
        lines.append(f"**Needs you:** {state.interrupted}")
    if state.action:
        lines.append(f"Last action: {state.action.kind.value} ({state.action.workflow_id})")
    lines += ["", "| Cluster | Wanted | Epoch | Owes |", "|---|---|---|---|"]
    for cluster, want in state.wanted.items():
        owes = next((f"{debt.wants} since {clock(debt.since)}" for debt in state.debts if debt.cluster == cluster), "")
        lines.append(f"| {cluster} | {want.role} | {want.epoch.number} | {owes} |")
    return "\n".join(lines)
