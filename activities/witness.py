"""The witness of a final sync: per volume, that it was seen demoted and in sync (S4).

The proof lasts milliseconds, because the operator deletes a VolumeReplication as soon as it is in that state, and
what remains afterwards (`DataProtected` True/`Unused`) says the same whether or not anything was ever in sync
(vrg.md 2.4). So every process watches the VolumeReplications of all applications all the time and remembers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from activities.access.protocol import Object
from ramen.app import AppRef
from ramen.names import OWNER_NAME, OWNER_NAMESPACE

CAPACITY = 20_000
"""Remembered volumes per cluster: a thousand applications with twenty volumes each."""


@dataclass(frozen=True)
class Seen:
    """One volume that was in sync, by the VolumeReplication that said so."""

    uid: str
    app: AppRef
    at: datetime


class WitnessLatch:
    """Remembers in-sync demotions until the volume is primary again, or the stream of events had a gap.

    A fact of an earlier demotion must never stand for a later one. Between the two the volume is primary, and the
    continuous stream shows that; after a gap everything that is not in the new list is forgotten instead.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[tuple[str, str], Seen] = OrderedDict()

    def listed(self, replications: list[Object]) -> None:
        """A list follows a gap: keeps only what the same VolumeReplications still stand for."""
        present = {obj["metadata"].get("uid") for obj in replications if in_sync_as_secondary(obj)}
        for key in [key for key, seen in self._seen.items() if seen.uid not in present]:
            del self._seen[key]

    def changed(self, old: Object | None, new: Object | None) -> None:
        """Takes one version of a VolumeReplication; its deletion changes nothing, the proof outlives the object."""
        if new is None:
            return
        app, key = _owner(new), volume_key(new)
        if in_sync_as_secondary(new):
            if key not in self._seen or self._seen[key].uid != new["metadata"].get("uid"):
                uid = new["metadata"].get("uid", "")
                self._seen[key] = Seen(uid, app, datetime.now(UTC))
                while len(self._seen) > self._capacity:
                    self._seen.popitem(last=False)
        elif (new.get("spec") or {}).get("replicationState") != "secondary":
            self._seen.pop(key, None)

    def forget(self, app: AppRef) -> None:
        """Called before a demotion is written: whatever was seen of the application belongs to an earlier one."""
        for key in [key for key, seen in self._seen.items() if seen.app == app]:
            del self._seen[key]

    def of(self, app: AppRef) -> dict[tuple[str, str], datetime]:
        """The application's volumes (namespace, name) that were seen in sync, with the time."""
        return {key: seen.at for key, seen in self._seen.items() if seen.app == app}


def in_sync_as_secondary(replication: Object) -> bool:
    """Whether a VolumeReplication proves a complete final sync, all of it at its present generation (vrg.md 6.6).

    Spec secondary, state Secondary, Completed True, Degraded False, Resyncing False or not reported.
    """
    status = replication.get("status") or {}
    generation = replication["metadata"].get("generation")
    if (replication.get("spec") or {}).get("replicationState") != "secondary":
        return False
    if status.get("state") != "Secondary" or generation is None or status.get("observedGeneration") != generation:
        return False
    found = {condition.get("type"): condition for condition in status.get("conditions") or []}

    def is_at_generation(kind: str, value: str) -> bool:
        condition = found.get(kind, {})
        return bool(condition.get("status") == value and condition.get("observedGeneration") == generation)

    resyncing = "Resyncing" in found and not is_at_generation("Resyncing", "False")
    return is_at_generation("Completed", "True") and is_at_generation("Degraded", "False") and not resyncing


def _owner(replication: Object) -> AppRef:
    labels = replication["metadata"].get("labels") or {}
    return AppRef(namespace=labels.get(OWNER_NAMESPACE, ""), name=labels.get(OWNER_NAME, ""))


def volume_key(replication: Object) -> tuple[str, str]:
    """Namespace and name of the PVC that a VolumeReplication is about (vrg.md 2.2)."""
    source = (replication.get("spec") or {}).get("dataSource") or {}
    metadata = replication["metadata"]
    return metadata.get("namespace", ""), source.get("name") or metadata["name"]
