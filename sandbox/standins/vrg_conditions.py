"""Conditions, state and sync times of a VRG's status, computed from the entries of its volumes. Pure.

Conditions and `state` are never set to a wished value: parts are computed in a pass, merged, stamped with the
generation they were computed for, and `state` follows from what stands there (vrg.md 1.5.2, 1.5.3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Object = dict[str, Any]
Truth = Literal["True", "False", "Unknown"]

DATA_READY = "DataReady"
DATA_PROTECTED = "DataProtected"
CLUSTER_DATA_READY = "ClusterDataReady"
KUBE_OBJECTS_READY = "KubeObjectsReady"
CLUSTER_DATA_PROTECTED = "ClusterDataProtected"
AUTO_CLEANUP = "AutoCleanup"
NO_CONFLICT = "NoClusterDataConflict"
HOOKS_READY = "HooksReady"

INITIAL = (
    DATA_READY,
    DATA_PROTECTED,
    CLUSTER_DATA_READY,
    KUBE_OBJECTS_READY,
    CLUSTER_DATA_PROTECTED,
    AUTO_CLEANUP,
    NO_CONFLICT,
    HOOKS_READY,
)
"""Created as Unknown on first sight of a VRG, in this order; later added only if missing (vrg.md 1.5.3)."""

UNUSED = "Unused"
NO_VOLSYNC = "no volume uses VolSync"
"""Text of the part that the real operator adds for the scheme this stand-in does not play."""


@dataclass(frozen=True)
class Part:
    """One opinion about a condition; several are merged into the one that is shown."""

    status: Truth
    reason: str
    message: str


VOLSYNC_UNUSED = Part("True", UNUSED, NO_VOLSYNC)


def find(conditions: Sequence[Object] | None, kind: str) -> Object | None:
    """The condition of that type, or None."""
    return next((item for item in conditions or () if item["type"] == kind), None)


def is_true(conditions: Sequence[Object] | None, kind: str, generation: int) -> bool:
    """True only if the condition says True for exactly this generation (vrg.md 1.5.2 rule 3)."""
    found = find(conditions, kind)
    return found is not None and found["status"] == "True" and found.get("observedGeneration") == generation


def stamp(conditions: list[Object], kind: str, part: Part, generation: int, now: str) -> None:
    """Sets a condition in place; the transition time moves with the status or the generation (vrg.md 1.5.3)."""
    found = find(conditions, kind)
    if found is None:
        found = {"type": kind, "lastTransitionTime": now}
        conditions.append(found)
    elif found["status"] != part.status or found.get("observedGeneration") != generation:
        found["lastTransitionTime"] = now
    found.update(status=part.status, reason=part.reason, message=part.message, observedGeneration=generation)


def initialise(conditions: list[Object], generation: int, now: str) -> None:
    """Adds those of the eight conditions that are missing, as Unknown."""
    for kind in INITIAL:
        if find(conditions, kind) is None:
            stamp(conditions, kind, Part("Unknown", "Initializing", "not processed yet"), generation, now)


def merge(parts: Sequence[Part]) -> Part:
    """One condition of several parts: False beats Unknown beats True; `Unused` yields to any other reason."""
    for status in ("False", "Unknown", "True"):
        winners = [part for part in parts if part.status == status]
        if winners:
            telling = [part for part in winners if part.reason != UNUSED] or winners
            return Part(telling[0].status, telling[0].reason, ". ".join(part.message for part in telling))
    raise ValueError("no part to merge")


# --- From the entries of the volumes to the VRG's conditions ----------------------------------------------------------


def data_ready(entries: Sequence[Object], volumes: int, primary: bool) -> Part:
    """May the data be used (primary), is the demotion accepted (secondary); `volumes` counts the PVCs in scope.

    PVCs without an entry count as an error: right after a restore, and when a demoted PVC outlives its entry
    (vrg.md 5.2 rows 8e, 10a).
    """
    if not volumes:
        return Part("True", UNUSED, "no volume is protected by VolumeReplication")
    found = [find(entry.get("conditions"), DATA_READY) for entry in entries]
    if any(item is not None and item["reason"] == "Progressing" for item in found):
        return Part("False", "Progressing", "volumes are being made ready")
    if not found or any(item is None or item["status"] != "True" for item in found):
        return Part("False", "Error", "volumes are not ready")
    if primary:
        return Part("True", "Ready", "volumes are ready for use")
    return Part("True", "Replicating", "volumes are demoted and replicating")


def data_protected(entries: Sequence[Object], volumes: int) -> Part:
    """Does the peer hold current data; False/Replicating is the healthy state of a primary (vrg.md 1.5.3)."""
    if not volumes:
        return Part("True", UNUSED, "no volume is protected by VolumeReplication")
    reasons = [(find(entry.get("conditions"), DATA_PROTECTED) or {}).get("reason") for entry in entries]
    if any(reason not in ("Replicating", "DataProtected") for reason in reasons):
        return Part("False", "Error", "not all volumes are ready")
    if "Replicating" in reasons:
        return Part("False", "Replicating", "volumes are replicating")
    return Part("True", "DataProtected", "the peer holds the data of all volumes")


def cluster_data_protected(entries: Sequence[Object], volumes: int) -> Part:
    """Are PV and PVC objects of a primary in all stores; a failure beats an upload that has not begun."""
    if not volumes:
        return Part("True", UNUSED, "no volume needs its objects stored")
    found = [find(entry.get("conditions"), CLUSTER_DATA_PROTECTED) for entry in entries]
    failed = [item for item in found if item is not None and item["reason"] not in ("Uploaded", "Uploading")]
    if failed:
        return Part("False", failed[0]["reason"], "objects of at least one volume are not protected")
    if any(item is None or item["reason"] != "Uploaded" for item in found):
        return Part("False", "Uploading", "objects of at least one volume are being protected")
    return Part("True", "Uploaded", "objects of all volumes are protected")


def state_of(spec: Object, conditions: Sequence[Object], generation: int) -> str:
    """`status.state` by the table of vrg.md 1.5.2."""
    if not is_true(conditions, DATA_READY, generation):
        return "Unknown"
    if spec["replicationState"] == "primary":
        return "Primary"
    if spec.get("action") == "Relocate" and not is_true(conditions, DATA_PROTECTED, generation):
        return "Unknown"
    return "Secondary"


# --- Sync times -------------------------------------------------------------------------------------------------------

GROUP_FIELDS = ("lastGroupSyncTime", "lastGroupSyncDuration", "lastGroupSyncBytes")
SYNC_FIELDS = ("lastSyncTime", "lastSyncDuration", "lastSyncBytes")


def group_sync(entries: Sequence[Object]) -> Object:
    """Group fields: oldest time, longest duration, sum of bytes; none of them if a volume never synced."""
    if not entries or any(not entry.get("lastSyncTime") for entry in entries):
        return {}
    group: Object = {"lastGroupSyncTime": min(entry["lastSyncTime"] for entry in entries)}
    durations = [entry["lastSyncDuration"] for entry in entries if entry.get("lastSyncDuration")]
    if durations:
        group["lastGroupSyncDuration"] = max(durations, key=duration_seconds)
    sizes = [entry["lastSyncBytes"] for entry in entries if entry.get("lastSyncBytes") is not None]
    if sizes:
        group["lastGroupSyncBytes"] = sum(sizes)
    return group


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def duration_seconds(text: str) -> float:
    """Seconds of a Go duration such as `1m2.5s`; 0 for anything else."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|us|µs|ns|h|m|s)", text))
