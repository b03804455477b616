"""VolumeReplication objects of one cluster, reconciled as the csi-addons controller does.

What it writes, in which order, follows `vrg.md` 6.6 and the recordings of the real operator: finalizers first, then
one status per step, so that a demotion shows "completed, degraded, not resyncing" before it shows anything better.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from activities.access.protocol import ClusterAccess, Object
from ramen.errors import Conflict, NotFound
from ramen.kinds import PVC, VOLUME_REPLICATION
from sandbox.standins.runtime import Mirror, Name, Next, WorkQueue, growing, name_of
from sandbox.standins.storage import Storage
from sandbox.standins.volumes import Health, Role

log = logging.getLogger(__name__)

VR_FINALIZER = "replication.storage.openshift.io"
PVC_FINALIZER = "replication.storage.openshift.io/pvc-protection"
PVC_ANNOTATION = "replication.storage.openshift.io/volume-replication-name"

BACK_OFF = growing(0.1, 5.0, 0.1)
"""Seconds between attempts that failed: conflicts with the operator's writes pass at once, dead servers do not."""

Condition = tuple[str, str, str]
"""Type, status, reason."""

PROMOTED: list[Condition] = [
    ("Completed", "True", "Promoted"),
    ("Degraded", "False", "Healthy"),
    ("Resyncing", "False", "NotResyncing"),
]
NOT_PROMOTED: list[Condition] = [
    ("Completed", "False", "FailedToPromote"),
    ("Degraded", "False", "Healthy"),
    ("Resyncing", "False", "NotResyncing"),
]
DEMOTED: list[Condition] = [
    ("Completed", "True", "Demoted"),
    ("Degraded", "True", "VolumeDegraded"),
    ("Resyncing", "False", "NotResyncing"),
]
RESYNCING: list[Condition] = [
    ("Completed", "True", "Demoted"),
    ("Degraded", "True", "VolumeDegraded"),
    ("Resyncing", "True", "ResyncTriggered"),
]
IN_SYNC: list[Condition] = [
    ("Completed", "True", "Demoted"),
    ("Degraded", "False", "Healthy"),
    ("Resyncing", "False", "NotResyncing"),
]


@dataclass(frozen=True)
class Delays:
    """Seconds that the controller and its storage take; the values of the recordings, zero allowed everywhere."""

    promote: float = 1.0
    demote: float = 1.0
    before_resync: float = 15.0
    """From the report of a degraded secondary to the request that copies it anew (design 10)."""
    disable: float = 1.0

    def scaled(self, factor: float) -> Delays:
        """All of them, times a factor."""
        return Delays(self.promote * factor, self.demote * factor, self.before_resync * factor, self.disable * factor)


@dataclass(frozen=True)
class Mirrors:
    """Local copies of what the array looks at on one cluster."""

    claims: Mirror
    volumes: Mirror
    replications: Mirror

    def handle(self, namespace: str, claim: str) -> str | None:
        """CSI volume handle behind a bound PVC, or None."""
        pvc = self.claims.get(claim, namespace)
        if pvc is None or pvc.get("status", {}).get("phase") != "Bound":
            return None
        volume = self.volumes.get(pvc["spec"].get("volumeName", ""))
        found: str | None = volume["spec"].get("csi", {}).get("volumeHandle") if volume else None
        return found


class Replication:
    """The controller of one cluster."""

    def __init__(
        self, access: ClusterAccess, storage: Storage, mirrors: Mirrors, delays: Delays, clock: Callable[[], float]
    ) -> None:
        self.queue: WorkQueue[Name] = WorkQueue(self._reconcile, BACK_OFF)
        self._access = access
        self._cluster = access.name
        self._storage = storage
        self._mirrors = mirrors
        self._delays = delays
        self._clock = clock
        self._handles: dict[Name, str] = {}
        self._keys: dict[str, Name] = {}
        self._begun: dict[tuple[Name, str, object], float] = {}

    def changed(self, before: Object | None, after: Object | None) -> None:
        """For the mirror of VolumeReplications."""
        body = after or before
        if body is not None:
            self.queue.add(name_of(body))

    def claim_changed(self, namespace: str, claim: str) -> None:
        """Wakes the VolumeReplication whose source a PVC is."""
        for body in self._mirrors.replications.within(namespace):
            if body["spec"]["dataSource"]["name"] == claim:
                self.queue.add(name_of(body))

    def volume_changed(self, handle: str) -> None:
        """Wakes the VolumeReplication of a volume."""
        key = self._keys.get(handle)
        if key is not None:
            self.queue.add(key)

    def wake_all(self) -> None:
        """Wakes all of them, after other faults came into force."""
        self.queue.add_all(name_of(body) for body in self._mirrors.replications.all())

    async def _reconcile(self, key: Name) -> Next:
        body = self._mirrors.replications.get(key[1], key[0])
        if body is None:
            self._forget(key)
            return None
        if not self._storage.answers(self._cluster):
            return None
        handle = self._mirrors.handle(key[0], body["spec"]["dataSource"]["name"]) or self._handles.get(key)
        if handle is not None:
            self._handles[key] = handle
            self._keys[handle] = key
        if body["metadata"].get("deletionTimestamp"):
            return await self._release(key, body, handle)
        if handle is None:
            return None
        await self._hold(body)
        if body["spec"]["replicationState"] == "primary":
            return await self._promote(key, body, handle)
        return await self._demote(key, body, handle)

    async def _promote(self, key: Name, body: Object, handle: str) -> Next:
        if self._storage.side(handle, self._cluster).role is not Role.PRIMARY:
            fault = self._storage.faults.promotion.get(self._cluster)
            if fault == "fail":
                await self._report(body, NOT_PROMOTED, "Unknown", "failed to promote volume")
            if fault is not None:
                return None
            rest = self._rest(key, "promote", body["metadata"]["generation"], self._delays.promote)
            if rest > 0:
                return rest
            self._storage.promote(handle, self._cluster)
        volume = self._storage.volume(handle)
        sync = volume.last_sync if volume is not None and volume.author == self._cluster else None
        times: dict[str, str | None] = {"lastSyncTime": None, "lastSyncDuration": None}
        if sync is not None:
            times = {
                "lastSyncTime": _time(sync.started + self._storage.faults.array_clock),
                "lastSyncDuration": f"{round(sync.completed - sync.started)}s",
            }
        await self._report(body, PROMOTED, "Primary", "volume is marked primary", times)
        return None

    async def _demote(self, key: Name, body: Object, handle: str) -> Next:
        generation = body["metadata"]["generation"]
        if self._storage.side(handle, self._cluster).writable:
            if self._cluster in self._storage.faults.demotion:
                return None
            rest = self._rest(key, "demote", generation, self._delays.demote)
            if rest > 0:
                return rest
            self._storage.demote(handle, self._cluster)
        if not _demoted(body):
            body = await self._report(body, DEMOTED, "Secondary", "volume is marked secondary and is degraded")
        volume, side = self._storage.volume(handle), self._storage.side(handle, self._cluster)
        if volume is not None and volume.in_sync(self._cluster):
            no_times: dict[str, str | None] = {"lastSyncTime": None, "lastSyncDuration": None}
            await self._report(body, IN_SYNC, "Secondary", "volume is marked secondary", no_times)
            return None
        if side.health is Health.DIVERGED:
            await self._report(body, DEMOTED, "Secondary", "volume is marked secondary and is degraded")
            if not body["spec"].get("autoResync"):
                return None
            rest = self._rest(key, "resync", generation, self._delays.before_resync)
            if rest > 0:
                return rest
            if not self._storage.resync(handle, self._cluster):
                return None
            side = self._storage.side(handle, self._cluster)
        if side.health is Health.COPYING:
            await self._report(body, RESYNCING, "Secondary", "volume is degraded")
        return None

    async def _hold(self, body: Object) -> None:
        """Puts the controller's marks on the VolumeReplication and on its PVC."""
        await self._mark(self._mirrors.replications, body, VR_FINALIZER, present=True)
        namespace, name = name_of(body)
        claim = self._mirrors.claims.get(body["spec"]["dataSource"]["name"], namespace)
        if claim is not None and not claim["metadata"].get("deletionTimestamp"):
            # A new finalizer on an object in deletion is refused by the API server.
            await self._mark(self._mirrors.claims, claim, PVC_FINALIZER, present=True, annotation=name)

    async def _release(self, key: Name, body: Object, handle: str | None) -> Next:
        if VR_FINALIZER not in body["metadata"].get("finalizers", []):
            return None
        rest = self._rest(key, "disable", body["metadata"]["uid"], self._delays.disable)
        if rest > 0:
            return rest
        if handle is not None:
            self._storage.disable(handle, self._cluster)
        claim = self._mirrors.claims.get(body["spec"]["dataSource"]["name"], key[0])
        if claim is not None:
            await self._mark(self._mirrors.claims, claim, PVC_FINALIZER, present=False)
        await self._mark(self._mirrors.replications, body, VR_FINALIZER, present=False)
        return None

    async def _mark(
        self, mirror: Mirror, body: Object, finalizer: str, *, present: bool, annotation: str | None = None
    ) -> None:
        """Adds or removes a finalizer and the PVC's annotation, under the resourceVersion that was seen."""
        meta = body["metadata"]
        held = meta.get("finalizers") or []
        if (finalizer in held) is present:
            return
        changes: dict[str, Any] = {
            "resourceVersion": meta["resourceVersion"],
            "finalizers": [*held, finalizer] if present else [name for name in held if name != finalizer],
        }
        if mirror.kind is PVC:
            changes["annotations"] = {PVC_ANNOTATION: annotation}
        try:
            answer = await self._access.patch(
                mirror.kind, meta["name"], {"metadata": changes}, namespace=meta["namespace"]
            )
        except NotFound:
            return
        if answer["metadata"].get("finalizers") or not meta.get("deletionTimestamp"):
            mirror.remember(answer)

    async def _report(
        self,
        body: Object,
        conditions: list[Condition],
        state: str,
        message: str,
        times: dict[str, str | None] | None = None,
    ) -> Object:
        """Writes a status unless it is there already; returns the object as it is now.

        `times` are fields to set, or to remove where None; without it they stay as they are.
        """
        namespace, name = name_of(body)
        body = self._mirrors.replications.get(name, namespace) or body
        generation, status = body["metadata"]["generation"], body.get("status") or {}
        former = {entry["type"]: entry for entry in status.get("conditions") or []}
        now = _time(self._clock())
        written = []
        for kind, value, reason in conditions:
            old = former.get(kind)
            since = old["lastTransitionTime"] if old is not None and old["status"] == value else now
            written.append(
                {
                    "type": kind,
                    "status": value,
                    "reason": reason,
                    "message": message,
                    "observedGeneration": generation,
                    "lastTransitionTime": since,
                }
            )
        wanted: dict[str, Any] = {
            "conditions": written,
            "state": state,
            "message": message,
            "observedGeneration": generation,
            **(times or {}),
        }
        if all(status.get(field) == value for field, value in wanted.items()):
            return body
        try:
            answer = await self._access.patch(
                VOLUME_REPLICATION, name, {"status": wanted}, namespace=namespace, subresource="status"
            )
        except (NotFound, Conflict):
            return body
        return self._mirrors.replications.remember(answer)

    def _rest(self, key: Name, step: str, occasion: object, seconds: float) -> float:
        """Seconds that a delay still lasts; it begins when it is first asked for on this occasion."""
        begun = self._begun.setdefault((key, step, occasion), time.monotonic())
        return begun + seconds - time.monotonic()

    def _forget(self, key: Name) -> None:
        handle = self._handles.pop(key, None)
        if handle is not None:
            self._keys.pop(handle, None)
        for begun in [begun for begun in self._begun if begun[0] == key]:
            del self._begun[begun]


def _demoted(body: Object) -> bool:
    """Whether the status says at the object's generation that the demotion is completed."""
    return any(
        (entry["type"], entry["status"], entry["reason"]) == ("Completed", "True", "Demoted")
        and entry.get("observedGeneration") == body["metadata"]["generation"]
        for entry in (body.get("status") or {}).get("conditions") or []
    )


def _time(moment: float) -> str:
    """Whole seconds, rounded down, as Kubernetes writes times: a sync is never reported as younger than it is."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
