"""The status of a DRPC copy: the workflow's facts merged with what follows from the VRGs (S16); pure.

Condition lists are atomic in Ramen's CRD and a printer column reads PeerReady by its place, so the whole status is
built here, in one piece and in Ramen's order, and written by one worker per cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ramen import conditions
from ramen.conditions import FALSE, TRUE, UNKNOWN, Condition, DRPCCondition, Reason, VRGCondition
from ramen.drpc_edits import Do, Entity, Known, Step
from ramen.epoch import Epoch
from ramen.gates import Unknown, VRGRead
from ramen.model import format_time, parse_time
from ramen.objects import PRIMARY, VRG
from ramen.phases import FINAL, Phase, Progression
from ramen.protected import protected_condition
from workflows.inputs import StatusView

EDIT_ACCEPTED = "hubless.io/EditAccepted"
"""Condition of ours behind Ramen's three: whether the last edit on this cluster was accepted, and if not, why."""

Seen = Mapping[str, dict[str, Any] | None]
"""By cluster: the VRG, None where there is surely none; a cluster out of sight is left out (D10)."""


@dataclass(frozen=True)
class Isolation:
    """This worker reaches nobody: neither Temporal nor a peer nor a store."""

    last_confirmed: datetime | None
    """None when nobody was ever reached by this process: what the copy says is as old as its last update."""


def build(
    obj: dict[str, Any],
    known: Known,
    view: StatusView | None,
    seen: Seen,
    step: Step,
    isolation: Isolation | None,
    now: datetime,
) -> dict[str, Any]:
    """The status that the object should have now; equal to the present one when there is nothing to say.

    `lastUpdateTime` moves only together with something else, so that an idle application is not written.
    """
    old = dict(obj.get("status") or {})
    generation = obj["metadata"].get("generation")
    listed = [Condition.model_validate(each) for each in old.get("conditions") or []]
    if view is not None and step.do is not Do.REFUSE and not _is_outdated(old, view):
        new = _facts(old, view, seen)
        wanted = _conditions(view, seen, generation)
    else:
        new, wanted = dict(old), [*listed]
        _unknown_or_new(wanted, known, step, generation)
    if isolation is not None:
        _isolate(wanted, new, isolation, generation)
    elif view is not None and known.entity is Entity.UNKNOWN:
        _doubt(wanted, listed, view, seen, generation)
    edit = _edit(listed, old, new, step, generation)
    wanted = [each for each in wanted if each.type != EDIT_ACCEPTED] + ([edit] if edit is not None else [])
    merged = [each for each in listed if any(each.type == item.type for item in wanted)]
    for each in wanted:
        conditions.set_condition(merged, each.model_copy(), now)
    order = [*DRPCCondition, EDIT_ACCEPTED]
    merged.sort(key=lambda each: order.index(each.type) if each.type in order else len(order))
    new["conditions"] = [each.model_dump(mode="json") for each in merged]
    new["observedGeneration"] = generation
    new = {key: value for key, value in new.items() if value not in (None, "", {})}
    if _comparable(new) != _comparable(old):
        new["lastUpdateTime"] = format_time(now)
    else:
        return old
    return new


def is_routine(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether only figures of the running replication moved, which may be written a little later."""

    def rest(status: dict[str, Any]) -> dict[str, Any]:
        routine = ("lastGroupSyncTime", "lastGroupSyncDuration", "lastGroupSyncBytes", "lastUpdateTime")
        return {key: value for key, value in status.items() if key not in routine}

    return rest(old) == rest(new)


def _comparable(status: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key != "lastUpdateTime"}


def _is_outdated(old: dict[str, Any], view: StatusView) -> bool:
    """A workflow that knows less than the copy, as one of a restored database does, has nothing to say (S16)."""
    written, told = (old.get("hubless") or {}).get("epoch"), view.hubless.get("epoch")
    return isinstance(written, int) and isinstance(told, int) and told < written


# --- facts ---------------------------------------------------------------------------------------------------------


def _facts(old: dict[str, Any], view: StatusView, seen: Seen) -> dict[str, Any]:
    told = dict(view.drpc.get("status") or {})
    told.pop("conditions", None)
    new = {key: value for key, value in told.items() if key not in ("lastUpdateTime", "observedGeneration")}
    new["progression"] = progression(view, seen)
    new |= _replication(old, view, seen)
    if "lastUpdateTime" in old:
        new["lastUpdateTime"] = old["lastUpdateTime"]
    new["hubless"] = _hubless(view)
    return new


def _hubless(view: StatusView) -> dict[str, Any]:
    state, action = view.state, view.state.action
    given: dict[str, Any] = {
        "servesOn": state.decision.cluster or "",
        "previousCluster": state.decision.previous or "",
        "retainedClusters": state.decision.retained,
        "epoch": state.epoch.number if state.epoch else None,
        "action": action.kind.value if action else "",
    }
    if action:
        waits = ", ".join(f"{debt.cluster} since {format_time(debt.since)}" for debt in state.debts)
        for name, at in (
            ("serving", action.serving_at),
            ("cleaned", action.cleaned_at),
            ("reprotected", action.reprotected_at),
        ):
            fact: dict[str, Any] = {"holds": at is not None}
            if at is not None:
                fact["since"] = format_time(at)
            elif waits and name != "serving":
                fact["detail"] = f"waiting for {waits}"
            given[name] = fact
    return {key: value for key, value in given.items() if value not in (None, "", [])}


def status_cluster(view: StatusView) -> str:
    """The cluster whose VRG the status is about (drpc.md 2.8): the decision's, before it the one that is left."""
    state = view.state
    if state.decision.cluster:
        return state.decision.cluster
    if state.action and (state.action.source or state.action.target):
        return state.action.source or state.action.target
    return state.app.preferred_cluster if state.app else ""


def _replication(old: dict[str, Any], view: StatusView, seen: Seen) -> dict[str, Any]:
    """What is copied from the VRG; the last sync time stays known when the cluster is out of sight."""
    times = ("lastGroupSyncTime", "lastGroupSyncDuration", "lastGroupSyncBytes", "lastKubeObjectProtectionTime")
    vrg = seen.get(status_cluster(view))
    kept = {name: old[name] for name in times if name in old}
    if vrg is None:
        return kept
    status, metadata = vrg.get("status") or {}, vrg["metadata"]
    synced = {name: status[name] for name in times[:3] if status.get(name) is not None}
    moved_to = (old.get("hubless") or {}).get("servesOn") != view.state.decision.cluster
    if synced.get(times[0]) or moved_to:
        # They belong together. A side that has just been promoted has copied nothing yet, whatever the other one had.
        kept = {name: at for name, at in kept.items() if name not in times[:3]} | synced
    capture = ((status.get("kubeObjectProtection") or {}).get("captureToRecoverFrom") or {}).get("endTime")
    if capture:
        kept[times[3]] = capture
    meta = {
        "kind": "VolumeReplicationGroup",
        "name": metadata["name"],
        "namespace": metadata.get("namespace", ""),
        "generation": metadata.get("generation", 0),
        "protectedpvcs": [pvc.get("name", "") for pvc in status.get("protectedPVCs") or []],
    }
    groups = status.get("pvcgroups")
    if groups:
        meta["pvcgroups"] = groups
    kept["resourceConditions"] = {"resourceMeta": meta, "conditions": status.get("conditions") or []}
    return kept


def progression(view: StatusView, seen: Seen) -> str:
    """Ramen's progression (drpc.md 1.6); while an action runs its finer steps are read off the VRGs."""
    action = view.state.action
    told = str((view.drpc.get("status") or {}).get("progression", ""))
    if action is None or action.outcome is not None:
        return told
    target = _vrg(seen, action.target)
    if target is not None and target.spec.replication_state == PRIMARY and told != Progression.DELETING:
        ready = conditions.is_met(target.status.conditions, VRGCondition.CLUSTER_DATA_READY, target.metadata.generation)
        promoted = Epoch.of(seen.get(action.target)) == view.state.epoch
        if promoted and action.kind.value != "Deploy":
            return Progression.WAIT_FOR_READINESS if ready else Progression.WAITING_FOR_RESOURCE_RESTORE
    source = _vrg(seen, action.source)
    if action.kind.value == "Relocate" and source is not None:
        if source.spec.replication_state != PRIMARY:
            return Progression.ENSURING_VOLUMES_ARE_SECONDARY
        if source.spec.run_final_sync:
            done = source.status.final_sync_complete
            return Progression.FINAL_SYNC_COMPLETE if done else Progression.RUNNING_FINAL_SYNC
        return Progression.PREPARING_FINAL_SYNC
    return told


def _vrg(seen: Seen, cluster: str) -> VRG | None:
    found = seen.get(cluster)
    return VRG.of(found) if found is not None else None


# --- conditions ----------------------------------------------------------------------------------------------------


def _conditions(view: StatusView, seen: Seen, generation: int | None) -> list[Condition]:
    """Available and PeerReady as the workflow knows them; Protected where both the VRG and the proof say so (D16)."""
    told = [Condition.model_validate(each) for each in (view.drpc.get("status") or {}).get("conditions") or []]
    wanted = [each.model_copy(update={"observed_generation": generation}) for each in told]
    cluster, ref = status_cluster(view), view.state
    vrg = seen.get(cluster)
    read = VRGRead(
        cluster, ref.namespace, ref.name, Unknown() if cluster not in seen else (VRG.of(vrg) if vrg else None)
    )
    found = protected_condition(read, generation)
    for index, each in enumerate(wanted):
        if each.type == DRPCCondition.PROTECTED and (found.status != TRUE or each.status == TRUE):
            wanted[index] = found
        if each.type == DRPCCondition.AVAILABLE and each.status == TRUE and not _is_primary(read):
            message = f"it was decided that {cluster} serves, and its VRG is not Primary"
            _put(wanted, DRPCCondition.AVAILABLE, UNKNOWN, Reason.PROGRESSING, message, generation)
    return wanted


def _is_primary(read: VRGRead) -> bool:
    """Whether a VRG is wanted Primary, as far as it can be seen."""
    if isinstance(read.vrg, Unknown):
        return True
    return read.vrg is not None and read.vrg.spec.replication_state == PRIMARY


def _unknown_or_new(wanted: list[Condition], known: Known, step: Step, generation: int | None) -> None:
    """Conditions of an object whose workflow says nothing: a new one that was refused, or one that nobody drives."""
    if step.do is Do.REFUSE:
        _put(wanted, DRPCCondition.AVAILABLE, FALSE, Reason.ERROR, step.message, generation)
    elif step.do is Do.WAIT and known.entity in (Entity.ABSENT, Entity.UNPROTECTED):
        _put(wanted, DRPCCondition.AVAILABLE, UNKNOWN, Reason.PAUSED, step.message, generation)
    elif not wanted:
        _put(wanted, DRPCCondition.AVAILABLE, UNKNOWN, Reason.INITIATING, "Initialization", generation)
    for kind in (DRPCCondition.PEER_READY, DRPCCondition.PROTECTED):
        if conditions.find(wanted, kind) is None:
            _put(wanted, kind, FALSE, Reason.UNKNOWN, "Initialization", generation)


def _isolate(wanted: list[Condition], status: dict[str, Any], isolation: Isolation, generation: int | None) -> None:
    present = conditions.find(wanted, DRPCCondition.AVAILABLE)
    if isolation.last_confirmed is None and present is not None and present.reason == Reason.ISOLATED:
        return
    at = f"{isolation.last_confirmed:%H:%M:%S}" if isolation.last_confirmed else _clock(status)
    epoch = (status.get("hubless") or {}).get("epoch")
    message = f"last confirmed {at}, epoch {epoch or 'not known'}; may have been failed over since"
    _put(wanted, DRPCCondition.AVAILABLE, UNKNOWN, Reason.ISOLATED, message, generation)


def _doubt(
    wanted: list[Condition], listed: list[Condition], view: StatusView, seen: Seen, generation: int | None
) -> None:
    """What the workflow said before it stopped answering here is not repeated against what is seen (S16)."""
    epochs = {cluster: epoch.number for cluster, vrg in seen.items() if (epoch := Epoch.of(vrg))}
    newest = max(epochs, key=lambda cluster: epochs[cluster], default="")
    mine = view.state.epoch.number if view.state.epoch else 0
    if newest and epochs[newest] > mine:
        message = (
            f"epoch {epochs[newest]} was seen on {newest}; Temporal does not answer here, and this copy is of {mine}"
        )
        _put(wanted, DRPCCondition.AVAILABLE, UNKNOWN, Reason.ISOLATED, message, generation)
        return
    present = conditions.find(listed, DRPCCondition.AVAILABLE)
    known = view.state.app.cluster_names if view.state.app else []
    if present is not None and present.reason == Reason.ISOLATED and not set(known) <= set(seen):
        _put(wanted, DRPCCondition.AVAILABLE, UNKNOWN, Reason.ISOLATED, present.message, generation)


def _clock(status: dict[str, Any]) -> str:
    moment = parse_time(str(status.get("lastUpdateTime") or ""))
    return f"{moment:%H:%M:%S}" if moment else "never"


def _put(wanted: list[Condition], kind: str, status: str, reason: str, message: str, generation: int | None) -> None:
    new = Condition(type=kind, status=status, reason=reason, message=message, observed_generation=generation)
    wanted[:] = [each for each in wanted if each.type != kind]
    wanted.append(new)


def _edit(
    listed: list[Condition], old: dict[str, Any], new: dict[str, Any], step: Step, generation: int | None
) -> Condition | None:
    """Our fourth condition: a refusal stays until the application moves on or another edit is accepted."""

    def condition(status: str, reason: str, message: str) -> Condition:
        return Condition(
            type=EDIT_ACCEPTED, status=status, reason=reason, message=message, observed_generation=generation
        )

    if step.do in (Do.RESTORE, Do.MAKE_AGAIN):
        return condition(FALSE, "Refused", step.message)
    if step.do is Do.WAIT:
        return condition(UNKNOWN, "Waiting", step.message)
    present = conditions.find(listed, EDIT_ACCEPTED)
    if present is None:
        return None
    moved = (old.get("hubless") or {}).get("epoch") != (new.get("hubless") or {}).get("epoch")
    if moved or present.status == UNKNOWN:
        return None
    return present.model_copy(update={"observed_generation": generation})


# --- events --------------------------------------------------------------------------------------------------------

PHASE_EVENTS: dict[str, tuple[str, str]] = {
    Phase.DEPLOYING: ("Normal", "DRPCDeploying"),
    Phase.DEPLOYED: ("Normal", "DRPCDeploySuccess"),
    Phase.FAILING_OVER: ("Warning", "DRPCFailingOver"),
    Phase.FAILED_OVER: ("Normal", "DRPCFailoverSuccess"),
    Phase.RELOCATING: ("Normal", "DRPCRelocating"),
    Phase.RELOCATED: ("Normal", "DRPCRelocationSuccess"),
    Phase.DELETING: ("Normal", "DRPCDeleting"),
}
"""Type and reason of the event of a phase (drpc.md 1.8); the other phases have none."""


def phase_event(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, str, str] | None:
    """Type, reason and message of the event of a transition that was just stored."""
    phase = str(new.get("phase", ""))
    if phase == old.get("phase", "") or phase not in PHASE_EVENTS:
        return None
    if not old.get("phase") and phase in FINAL:
        return None  # a copy that was just made: the transition was long ago
    kind, reason = PHASE_EVENTS[phase]
    facts = new.get("hubless") or {}
    where = f", serves on {facts['servesOn']}" if facts.get("servesOn") else ""
    return kind, reason, f"{phase}, epoch {facts.get('epoch', 'none')}{where}"
