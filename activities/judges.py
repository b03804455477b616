"""What ends a wait: one judge per gate, asked twice.

`glance` looks at what the shared watch says, which is free and may be stale. Only when that holds, `verify` reads
from the API server, because conditions flap and a gate counts only if it is still true right before the wait ends
(D18). Both answer with the reason for going on waiting, or with nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from activities import looking
from activities.access.protocol import ClusterAccess, Object
from activities.contracts import AwaitVrg, Gate
from activities.waiting import object_key
from activities.witness import volume_key
from ramen import gates
from ramen.app import AppRef, Volume
from ramen.errors import VolumesMissing
from ramen.gates import Verdict, VRGRead
from ramen.kinds import PVC, VOLUME_REPLICATION
from ramen.model import parse_time
from ramen.names import OWNER_NAME, OWNER_NAMESPACE
from ramen.objects import PRIMARY, SECONDARY, VRG

RESTORE_GRACE_SECONDS = 5.0
"""How long a volume may be missing on a primary that reports ready: binding takes a moment, a lost one never comes."""

NO_REPLICATION = "no VolumeReplication"
"""Why a volume that the operator does not replicate, or not yet, lacks its proof."""

Rule = Callable[[VRGRead], Verdict]


class Judge:
    """A gate that the VRG alone answers."""

    follows_replications = False
    """Whether the wait wakes on VolumeReplications instead of the VRG."""

    def __init__(self, app: AppRef, cluster: str, rule: Rule) -> None:
        self.app, self.cluster, self._rule = app, cluster, rule
        self.gone: set[tuple[str, str]] = set()
        """Namespaces and names of volumes that the last `verify` held the gate for without, their PVCs being gone."""

    def glance(self, vrg: Object | None) -> str:
        """Why the gate does not hold by what the watch says; empty when it may."""
        verdict = self._rule(looking.judged(self.app, self.cluster, vrg))
        return "" if verdict.allowed else verdict.reason

    async def verify(self, access: ClusterAccess, vrg: Object | None) -> str:
        """Why the gate does not hold for a VRG that was read just now; empty when it holds."""
        return self.glance(vrg)


class ReadyJudge(Judge):
    """R1 on a VRG that is wanted primary, and every expected volume restored and bound (S3)."""

    def __init__(self, request: AwaitVrg, grace_seconds: float) -> None:
        super().__init__(request.app, request.cluster, ready_primary)
        self._volumes = request.volumes
        self._grace = grace_seconds
        self._missing_since: float | None = None

    def glance(self, vrg: Object | None) -> str:
        """See `Judge.glance`; a primary that is not ready any more gives missing volumes new time."""
        why = super().glance(vrg)
        if why:
            self._missing_since = None
        return why

    async def verify(self, access: ClusterAccess, vrg: Object | None) -> str:
        """See `Judge.verify`; raises VolumesMissing, naming them, once the grace is over."""
        why = self.glance(vrg)
        if why or not self._volumes:
            return why
        missing = await missing_volumes(access, self._volumes)
        if not missing:
            return ""
        now = time.monotonic()
        self._missing_since = self._missing_since or now
        if now - self._missing_since >= self._grace:
            raise VolumesMissing(
                f"{self.cluster} reports {self.app} ready, but these volumes were not restored there: "
                f"{', '.join(missing)}. The decision stays unpublished."
            )
        return f"{self.cluster} has not bound {looking.listed(missing)} yet."


class CleanedJudge(Judge):
    """R3 on an existing VRG, and no pod and no PVC of the application left (D6)."""

    def __init__(self, request: AwaitVrg) -> None:
        super().__init__(request.app, request.cluster, secondary)
        self._selector = request.pvc_selector
        self._claims = {volume.name for volume in request.volumes}

    async def verify(self, access: ClusterAccess, vrg: Object | None) -> str:
        """See `Judge.verify`."""
        why = self.glance(vrg)
        if why:
            return why
        claims, pods = await asyncio.gather(
            looking.select_pvcs(access, self.app.namespace, self._selector),
            looking.list_pods(access, self.app.namespace),
        )
        left = [claim["metadata"]["name"] for claim in claims]
        users = [pod["metadata"]["name"] for pod in looking.mounting(pods, self._claims | set(left))]
        parts = [f"pods {looking.listed(users)}"] if users else []
        parts += [f"PVCs {looking.listed(left)}"] if left else []
        return f"{self.cluster} still has {' and '.join(parts)} of {self.app}." if parts else ""


@dataclass
class _Syncs:
    """Sync times of one promoted volume since it was first seen by this wait; no sync yet is a time before all."""

    last: str | None = None
    advances: int = 0

    def take(self, text: str) -> None:
        if self.last is not None and text > self.last:
            self.advances += 1
        self.last = max(self.last or "", text)


@dataclass
class ReplicationProof:
    """Whether every volume has a sync that is known to have begun after its promotion (D16).

    Two advances of the sync time, seen on the promoted volume, prove it: the second sync began after the first one
    was reported. One is enough when it is dated after the promotion. The date alone proves nothing, because the array
    dates syncs and the cluster dates promotions: with an array whose clock is ahead, a sync of before the promotion,
    in the other direction, looks younger than it.
    """

    volumes: list[Volume]
    _syncs: dict[tuple[str, str, str], _Syncs] = field(default_factory=dict)

    def unproven(self, replications: list[Object]) -> dict[tuple[str, str], str]:
        """By namespace and name: the volumes that still lack the proof, and why."""
        by_volume = {volume_key(obj): obj for obj in replications}
        reasons = {(volume.namespace, volume.name): self._why(volume, by_volume) for volume in self.volumes}
        return {key: why for key, why in reasons.items() if why}

    def _why(self, volume: Volume, by_volume: dict[tuple[str, str], Object]) -> str:
        found = by_volume.get((volume.namespace, volume.name))
        if found is None:
            return NO_REPLICATION
        status, generation = found.get("status") or {}, found["metadata"].get("generation")
        promoted = next(
            (
                condition
                for condition in status.get("conditions") or []
                if condition.get("type") == "Completed"
                and condition.get("status") == "True"
                and condition.get("reason") == "Promoted"
                and condition.get("observedGeneration") == generation
            ),
            None,
        )
        if (found.get("spec") or {}).get("replicationState") != PRIMARY or promoted is None:
            return "not promoted"
        last = status.get("lastSyncTime") or ""
        syncs = self._syncs.setdefault((volume.namespace, volume.name, found["metadata"].get("uid", "")), _Syncs())
        syncs.take(last)
        if not last:
            return "no sync yet"
        synced, since = parse_time(last), parse_time(promoted.get("lastTransitionTime") or "")
        is_later = synced is not None and since is not None and synced > since
        if syncs.advances >= 2 or (syncs.advances == 1 and is_later):
            return ""
        return f"last sync {last}, {'waiting for the next one' if is_later else 'is not after its promotion'}"


class ReprotectedJudge(Judge):
    """The VRG is wanted primary and every volume has the proof of D16; no volumes, nothing to replicate.

    A volume whose PVC somebody removed meanwhile is not waited for; it is `gone`, and nothing was proven of it.
    """

    follows_replications = True

    def __init__(self, request: AwaitVrg, replications: Callable[[], list[Object]]) -> None:
        super().__init__(request.app, request.cluster, gates.exists_and_primary)
        self._proof = ReplicationProof(request.volumes)
        self._replications = replications

    def glance(self, vrg: Object | None) -> str:
        """See `Judge.glance`."""
        if why := super().glance(vrg):
            return why
        entries = ((vrg or {}).get("status") or {}).get("protectedPVCs") or []
        listed = {(entry.get("namespace") or self.app.namespace, entry["name"]) for entry in entries}
        left = self._proof.unproven(self._replications())
        # What the operator neither lists nor replicates may be gone; only the API server can say so.
        return self._text({key: why for key, why in left.items() if key in listed or why != NO_REPLICATION})

    async def verify(self, access: ClusterAccess, vrg: Object | None) -> str:
        """See `Judge.verify`."""
        self.gone = set()
        why = super().glance(vrg)
        if why or not self._proof.volumes:
            return why
        labels = f"{OWNER_NAME}={self.app.name},{OWNER_NAMESPACE}={self.app.namespace}"
        found, _ = await access.list(VOLUME_REPLICATION, self.app.namespace, labels=labels)
        left = self._proof.unproven(found)
        doubtful = {key for key, why in left.items() if why == NO_REPLICATION}
        if doubtful:
            namespaces = sorted({namespace for namespace, _ in doubtful})
            lists = await asyncio.gather(*(access.list(PVC, namespace) for namespace in namespaces))
            self.gone = doubtful - {object_key(claim) for claims, _ in lists for claim in claims}
        return self._text({key: why for key, why in left.items() if key not in self.gone})

    def _text(self, left: dict[tuple[str, str], str]) -> str:
        names = looking.listed([f"{name} ({why})" for (_, name), why in left.items()])
        return f"{self.cluster}: no sync since the promotion of {names}." if left else ""


def judge_of(
    request: AwaitVrg, replications: Callable[[], list[Object]], grace_seconds: float = RESTORE_GRACE_SECONDS
) -> Judge:
    """The judge of a request; `replications` gives the application's VolumeReplications as last seen."""
    match request.gate:
        case Gate.READY:
            return ReadyJudge(request, grace_seconds)
        case Gate.CLEANED:
            return CleanedJudge(request)
        case Gate.REPROTECTED:
            return ReprotectedJudge(request, replications)
        case _:
            return Judge(request.app, request.cluster, RULES[request.gate])


async def missing_volumes(access: ClusterAccess, expected: list[Volume]) -> list[str]:
    """Names of expected volumes that are not bound on the cluster, or bound to another PV than the known one."""
    namespaces = sorted({volume.namespace for volume in expected})
    lists = await asyncio.gather(*(access.list(PVC, namespace) for namespace in namespaces))
    bound = {(v.namespace, v.name): v.pv for claims, _ in lists for v in looking.bound_volumes(claims)}
    missing = []
    for volume in expected:
        pv = bound.get((volume.namespace, volume.name))
        if pv is None:
            missing.append(volume.name)
        elif volume.pv and pv != volume.pv:
            missing.append(f"{volume.name} (bound to {pv} instead of {volume.pv})")
    return missing


async def users_of(access: ClusterAccess, app: AppRef, vrg: Object) -> str:
    """Names of the pods that keep the operator from demoting, as the end of a sentence; empty when it names none."""
    status = vrg.get("status") or {}
    entries = list(status.get("protectedPVCs") or [])
    texts = [
        str(condition.get("message", ""))
        for holder in (status, *entries)
        for condition in holder.get("conditions") or []
        if condition.get("type") == "DataReady" and condition.get("status") == "False"
    ]
    if not any("use" in text.lower() for text in texts):
        return ""
    selector = (vrg.get("spec") or {}).get("pvcSelector") or {}
    claims, pods = await asyncio.gather(
        looking.select_pvcs(access, app.namespace, selector), looking.list_pods(access, app.namespace)
    )
    wanted = {claim["metadata"]["name"] for claim in claims} | {entry["name"] for entry in entries}
    using = [pod["metadata"]["name"] for pod in looking.mounting(pods, wanted)]
    return f" Still used by pods {looking.listed(using)}." if using else ""


# --- Rules on one VRG beside those of ramen.gates ---------------------------------------------------------------------


def ready_primary(read: VRGRead) -> Verdict:
    """R1 on a VRG that is wanted primary: a state of before a demotion must not pass for the promotion's."""
    if isinstance(read.vrg, VRG) and read.vrg.spec.replication_state != PRIMARY:
        return Verdict(False, f"{read} is wanted {read.vrg.spec.replication_state}, not {PRIMARY}.")
    if isinstance(read.vrg, VRG) and read.vrg.is_being_deleted:
        return Verdict(False, f"{read} is being deleted.")
    return gates.ready(read)


def secondary(read: VRGRead) -> Verdict:
    """R3 without its allowance for a VRG that is not there: absence proves no demotion (D10)."""
    if not isinstance(read.vrg, VRG):
        return Verdict(False, f"{read.cluster} has no VRG {read.namespace}/{read.name}.")
    if read.vrg.spec.replication_state != SECONDARY:
        return Verdict(False, f"{read} is wanted {read.vrg.spec.replication_state}, not {SECONDARY}.")
    return gates.is_secondary(read)


def final_sync_prepared(read: VRGRead) -> Verdict:
    """`prepareForFinalSyncComplete`, which has no generation of its own and may be left from earlier (vrg.md 2.6)."""
    vrg = read.vrg
    if not isinstance(vrg, VRG) or not vrg.spec.prepare_for_final_sync:
        return Verdict(False, f"{read} is not asked to prepare its final sync.")
    done = vrg.has_observed_spec and vrg.status.prepare_for_final_sync_complete
    return Verdict(done, f"{read} {'has' if done else 'has not yet'} prepared its final sync.")


def final_sync_complete(read: VRGRead) -> Verdict:
    """`finalSyncComplete` of a VRG that is asked for it, at its generation (vrg.md 2.6)."""
    vrg = read.vrg
    if not isinstance(vrg, VRG) or not vrg.spec.run_final_sync:
        return Verdict(False, f"{read} is not asked to run its final sync.")
    done = vrg.has_observed_spec and vrg.status.final_sync_complete
    return Verdict(done, f"{read} {'has' if done else 'has not yet'} completed its final sync.")


def deleted(read: VRGRead) -> Verdict:
    """The API server says that there is no VRG."""
    return Verdict(read.vrg is None, f"{read} is {'gone' if read.vrg is None else 'still there'}.")


RULES: dict[Gate, Rule] = {
    Gate.ACCEPTED_SECONDARY: gates.accepted_role,
    Gate.SECONDARY: secondary,
    Gate.FINAL_SYNC_PREPARED: final_sync_prepared,
    Gate.FINAL_SYNC_COMPLETE: final_sync_complete,
    Gate.DELETED: deleted,
}
"""Gates that the VRG alone answers."""
