"""Which storage classes of two clusters belong together, and how their volumes are replicated (drpc.md 4.4).

Classes are told apart by labels that storage vendors and administrators put on them, never by guessing: a class
without `storageid` takes no part in DR, and two classes are peers only where the labels of both sides fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from ramen import names
from ramen.parts import PeerClass

Object = dict[str, Any]


@dataclass(frozen=True)
class Classes:
    """All classes of one cluster, as its API server serves them; `cluster_id` is the UID of its kube-system."""

    cluster: str
    cluster_id: str
    storage: Sequence[Object] = ()
    snapshot: Sequence[Object] = ()
    replication: Sequence[Object] = ()
    group_replication: Sequence[Object] = ()
    group_snapshot: Sequence[Object] = ()

    def storage_class(self, name: str) -> Object | None:
        """The StorageClass of that name that takes part in DR, or None."""
        return next((each for each in self.dr_storage if _name(each) == name), None)

    @property
    def dr_storage(self) -> list[Object]:
        """StorageClasses that take part in DR: those with a storageid."""
        return [each for each in self.storage if _label(each, names.STORAGE_ID)]


@dataclass(frozen=True)
class Peers:
    """What was found: peer classes of sync DR (shared storage) and of async DR (replicated at an interval)."""

    sync: list[PeerClass] = field(default_factory=list)
    async_: list[PeerClass] = field(default_factory=list)


def discover(clusters: Sequence[Classes], interval: str) -> Peers:
    """Peer classes of every pair of these clusters, in the order of the first one's StorageClasses."""
    found = Peers()
    for first, second in combinations(clusters, 2):
        for one in first.dr_storage:
            other = second.storage_class(_name(one))
            if other is None:
                continue
            if _label(one, names.STORAGE_ID) == _label(other, names.STORAGE_ID):
                found.sync.append(_sync_peer(first, second, one))
            elif interval and (peer := _async_peer(_Pair(first, second, one, other, interval))):
                found.async_.append(peer)
    return found


def update(known: Iterable[PeerClass], found: Iterable[PeerClass]) -> list[PeerClass]:
    """`found` in the order of `known`, new ones at the end: a list that changes place changes nothing else."""
    rest = list(found)
    kept = []
    for old in known:
        match = next((new for new in rest if _is_same(old, new)), None)
        if match is not None:
            rest.remove(match)
            kept.append(match)
    return kept + rest


def unmatched(first: Classes, second: Classes, interval: str) -> list[str]:
    """One line for each StorageClass of either cluster that has no peer: which label or class is missing where."""
    found = discover([first, second], interval)
    matched = {peer.storage_class_name for peer in (*found.sync, *found.async_)}
    lines = []
    for here, there in ((first, second), (second, first)):
        for one in here.dr_storage:
            name = _name(one)
            if name in matched:
                continue
            other = there.storage_class(name)
            if other is None:
                unlabelled = any(_name(each) == name for each in there.storage)
                what = f"has no label {names.STORAGE_ID}" if unlabelled else "does not exist"
                lines.append(f"StorageClass {name} of {here.cluster} {what} on {there.cluster}")
            elif here is first:
                lines.append(_why_not(_Pair(first, second, one, other, interval)))
    return lines


# --- one pair of StorageClasses of the same name -------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    first: Classes
    second: Classes
    one: Object
    other: Object
    interval: str

    @property
    def sides(self) -> tuple[tuple[Classes, Object], tuple[Classes, Object]]:
        return (self.first, self.one), (self.second, self.other)


def _sync_peer(first: Classes, second: Classes, one: Object) -> PeerClass:
    return PeerClass(
        storage_class_name=_name(one),
        storage_id=[_label(one, names.STORAGE_ID)],
        cluster_ids=[first.cluster_id, second.cluster_id],
    )


def _async_peer(pair: _Pair) -> PeerClass | None:
    offloaded = [_is_offloaded(storage) for _, storage in pair.sides]
    if offloaded[0] != offloaded[1]:
        return None
    group = _common(*(_group_ids(classes, storage, pair.interval) for classes, storage in pair.sides))
    peer = PeerClass(
        storage_class_name=_name(pair.one),
        storage_id=[_label(storage, names.STORAGE_ID) for _, storage in pair.sides],
        cluster_ids=[pair.first.cluster_id, pair.second.cluster_id],
    )
    if offloaded[0]:
        if not group:
            return None
        is_global = all(_is_global(classes, storage, pair.interval, group) for classes, storage in pair.sides)
        everywhere = {"global_": True} if is_global else {}
        return peer.model_copy(update={"groupreplication_id": group, "grouping": True, "offloaded": True, **everywhere})
    replication = _common(*(_replication_ids(classes, storage, pair.interval) for classes, storage in pair.sides))
    if replication:
        grouped = {"groupreplication_id": group, "grouping": True} if group else {}
        return peer.model_copy(update={"replication_id": replication, **grouped})
    # Without a replication ID the volumes are copied by VolSync from snapshots.
    if all(_can_snapshot(classes.group_snapshot, storage) for classes, storage in pair.sides):
        return peer.model_copy(update={"grouping": True})
    if all(_can_snapshot(classes.snapshot, storage) for classes, storage in pair.sides):
        return peer
    return None


def _why_not(pair: _Pair) -> str:
    """Why two StorageClasses of one name are no peers, in one clause."""
    name = f"StorageClass {_name(pair.one)}"
    where = f"{pair.first.cluster} and {pair.second.cluster}"
    if not pair.interval:
        ids = " and ".join(_label(storage, names.STORAGE_ID) for _, storage in pair.sides)
        return f"{name} lies on two storages ({ids}), which needs a policy with a schedulingInterval"
    offloaded = [classes.cluster for classes, storage in pair.sides if _is_offloaded(storage)]
    if len(offloaded) == 1:
        return f"{name} has the label {names.OFFLOADED} on {offloaded[0]} only"
    if offloaded:
        return f"{name} is offloaded, and no VolumeGroupReplicationClasses of {where} share a groupreplicationid"
    found = [_replication_ids(classes, storage, pair.interval) for classes, storage in pair.sides]
    if all(found):
        shown = [f"{', '.join(ids)} on {classes.cluster}" for ids, (classes, _) in zip(found, pair.sides, strict=True)]
        return f"{name}: the {names.REPLICATION_ID} of its VolumeReplicationClasses differ: {'; '.join(shown)}"
    lacking = [classes.cluster for ids, (classes, _) in zip(found, pair.sides, strict=True) if not ids]
    details = [_why_no_replication(classes, storage, pair.interval) for classes, storage in pair.sides]
    return (
        f"{name}: {' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no VolumeReplicationClass for it"
        f" with schedulingInterval {pair.interval} ({'; '.join(filter(None, details))})"
    )


def _why_no_replication(classes: Classes, storage: Object, interval: str) -> str:
    if _replication_ids(classes, storage, interval):
        return ""
    storage_id, provisioner = _label(storage, names.STORAGE_ID), str(storage.get("provisioner", ""))
    related = [each for each in classes.replication if _spec(each).get("provisioner") == provisioner]
    if not related:
        return f"{classes.cluster} has none of provisioner {provisioner}"
    faults = []
    for each in related:
        if _label(each, names.STORAGE_ID) != storage_id:
            faults.append(f"{_name(each)} has {names.STORAGE_ID} {_label(each, names.STORAGE_ID) or '(none)'}")
        elif _interval(each) != interval:
            faults.append(f"{_name(each)} has schedulingInterval {_interval(each) or '(none)'}")
        else:
            faults.append(f"{_name(each)} has no label {names.REPLICATION_ID}")
    return f"{classes.cluster}: {', '.join(faults)}, wanted {names.STORAGE_ID} {storage_id}"


# --- labels and parameters -----------------------------------------------------------------------------------------


def _fits(replication_class: Object, storage: Object, interval: str) -> bool:
    """Whether a (group) replication class replicates the volumes of a StorageClass at that interval."""
    return (
        _label(replication_class, names.STORAGE_ID) == _label(storage, names.STORAGE_ID)
        and _interval(replication_class) == interval
        and _spec(replication_class).get("provisioner") == storage.get("provisioner")
    )


def _replication_ids(classes: Classes, storage: Object, interval: str) -> list[str]:
    fitting = [each for each in classes.replication if _fits(each, storage, interval)]
    return [found for each in fitting if (found := _label(each, names.REPLICATION_ID))]


def _group_classes(classes: Classes, storage: Object, interval: str) -> list[Object]:
    chosen = _label(storage, names.GROUP_REPLICATION_ID)
    return [
        each
        for each in classes.group_replication
        if _fits(each, storage, interval) and chosen in ("", _label(each, names.GROUP_REPLICATION_ID))
    ]


def _group_ids(classes: Classes, storage: Object, interval: str) -> list[str]:
    found = _group_classes(classes, storage, interval)
    return [group for each in found if (group := _label(each, names.GROUP_REPLICATION_ID))]


def _is_global(classes: Classes, storage: Object, interval: str, group: str) -> bool:
    return any(
        _label(each, names.GLOBAL) == "true"
        for each in _group_classes(classes, storage, interval)
        if _label(each, names.GROUP_REPLICATION_ID) == group
    )


def _can_snapshot(snapshot_classes: Sequence[Object], storage: Object) -> bool:
    return any(
        _label(each, names.STORAGE_ID) == _label(storage, names.STORAGE_ID)
        and each.get("driver") == storage.get("provisioner")
        for each in snapshot_classes
    )


def _is_offloaded(storage: Object) -> bool:
    """The label counts by its presence, whatever its value."""
    return names.OFFLOADED in (storage["metadata"].get("labels") or {})


def _common(first: list[str], second: list[str]) -> str:
    return next((each for each in first if each in second), "")


def _is_same(old: PeerClass, new: PeerClass) -> bool:
    groups = (old.groupreplication_id, new.groupreplication_id)
    return (
        old.storage_class_name == new.storage_class_name
        and set(old.cluster_ids) == set(new.cluster_ids)
        and (not all(groups) or groups[0] == groups[1])
    )


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _label(obj: Object, label: str) -> str:
    return str((obj["metadata"].get("labels") or {}).get(label) or "")


def _spec(obj: Object) -> dict[str, Any]:
    spec: dict[str, Any] = obj.get("spec") or {}
    return spec


def _interval(replication_class: Object) -> str:
    return str((_spec(replication_class).get("parameters") or {}).get("schedulingInterval") or "")
