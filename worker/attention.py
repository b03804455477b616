"""Which applications need their workflow's attention, judged from the VRGs alone (S8).

Pure functions. What is wanted of each cluster is known to the entity only; but whatever it decided is stamped on the
VRGs, so VRGs that disagree with each other show that something decided has not been carried out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ramen import names
from ramen.app import Role
from ramen.desired import lacks_classes
from ramen.epoch import Epoch

Object = dict[str, Any]

Seen = Mapping[str, Object | None]
"""By cluster: the VRG, or None where it surely does not exist. A cluster out of reach is left out (D10)."""


def clusters_of(vrg: Object) -> list[str]:
    """The clusters of the application's policy, as stamped on its VRG; empty for a VRG that is not ours."""
    return [name for name in _annotation(vrg, names.CLUSTERS).split(",") if name]


def needs_attention(seen: Seen) -> str | None:
    """Why the entity should look at an application, in one line; None while its VRGs agree."""
    present = {cluster: vrg for cluster, vrg in sorted(seen.items()) if vrg is not None}
    epochs = {cluster: epoch for cluster, vrg in present.items() if (epoch := Epoch.of(vrg))}
    if not epochs:
        return None  # nobody's VRGs, or those of a hub: not ours to judge
    newest = max(epochs.values(), key=lambda epoch: epoch.number)
    return (
        _epoch_differs(present, epochs, newest)
        or _is_missing(seen, present)
        or _role_differs(present, complete=set(clusters_of_any(present)) <= set(seen))
        or _volumes_differ(present)
    )


def lacks_policy_classes(seen: Seen, policies: Iterable[Object]) -> str | None:
    """Which VRGs lack peer classes that their policy got since, in one line; None when none does (drpc.md 2.5)."""
    known = list(policies)
    behind = [
        cluster for cluster, vrg in sorted(seen.items()) if vrg and clusters_of(vrg) and lacks_classes(vrg, known)
    ]
    return f"the policy has new peer classes for the VRG on {' and '.join(behind)}" if behind else None


def clusters_of_any(present: Mapping[str, Object]) -> list[str]:
    """All clusters that any of the VRGs is stamped with, without repetition."""
    return sorted({name for vrg in present.values() for name in clusters_of(vrg)})


def _epoch_differs(present: Mapping[str, Object], epochs: Mapping[str, Epoch], newest: Epoch) -> str | None:
    for cluster in present:
        epoch = epochs.get(cluster)
        if epoch is None:
            return f"the VRG on {cluster} carries no epoch, the newest is {newest.number}"
        if epoch.number < newest.number:
            return f"the VRG on {cluster} is of epoch {epoch.number}, the newest is {newest.number}"
        if epoch != newest:
            return f"two different actions claimed epoch {newest.number}"
    return None


def _is_missing(seen: Seen, present: Mapping[str, Object]) -> str | None:
    for cluster in clusters_of_any(present):
        if cluster in seen and seen[cluster] is None:
            return f"{cluster} has no VRG"
    for cluster, vrg in present.items():
        if vrg["metadata"].get("deletionTimestamp"):
            return f"the VRG on {cluster} is being deleted"
    return None


def _role_differs(present: Mapping[str, Object], complete: bool) -> str | None:
    primaries = [cluster for cluster, vrg in present.items() if _role(vrg) == Role.PRIMARY]
    if len(primaries) > 1:
        return f"{' and '.join(primaries)} are both Primary"
    if not primaries:
        return "no cluster is Primary" if complete else None
    decided = _annotation(present[primaries[0]], names.DECISION)
    if decided and decided != primaries[0]:
        return f"{primaries[0]} is Primary, but {decided} was decided for"
    return None


def _volumes_differ(present: Mapping[str, Object]) -> str | None:
    """A volume that came or went since the peer's VRG was told; only a settled primary is believed."""
    primary = next((cluster for cluster, vrg in present.items() if _role(vrg) == Role.PRIMARY), None)
    if primary is None or not _is_settled(present[primary]):
        return None
    status = present[primary].get("status") or {}
    now = {(pvc.get("namespace", ""), pvc.get("name", "")) for pvc in status.get("protectedPVCs") or []}
    for cluster, vrg in present.items():
        told = _told_volumes(vrg)
        if cluster == primary or told == now:
            continue
        changed = ", ".join(sorted(f"{'+' if item in now else '-'}{item[1]}" for item in told ^ now))
        return f"the volumes protected on {primary} changed since {cluster} was told: {changed}"
    return None


def _is_settled(vrg: Object) -> bool:
    status = vrg.get("status") or {}
    return status.get("state") == "Primary" and status.get("observedGeneration") == vrg["metadata"].get("generation")


def _told_volumes(vrg: Object) -> set[tuple[str, str]]:
    """What the peer was told; nothing is written for an application that had no volumes, which may come later (S3)."""
    text = _annotation(vrg, names.VOLUMES)
    if not text:
        return set()
    try:
        return {(item["namespace"], item["name"]) for item in json.loads(text)}
    except (ValueError, TypeError, KeyError):
        return set()  # unreadable is as good as outdated


def _role(vrg: Object) -> str:
    return str((vrg.get("spec") or {}).get("replicationState", ""))


def _annotation(vrg: Object, name: str) -> str:
    return str((vrg["metadata"].get("annotations") or {}).get(name, ""))
