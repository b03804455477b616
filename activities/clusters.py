"""Activities that read and write one cluster.

Each write reads its object first, checks the epoch against what it finds, and is guarded by the resourceVersion of
that read; after a 409 it reads and decides again (D14). What gives a role, places, or deletes asks in between whether
this attempt is still the one that counts (`attempts`). Nothing is decided here about what an application should do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from activities import attempts, contracts, decisions, looking
from activities.access.protocol import ClusterAccess, Object
from activities.attempts import StillCurrent
from activities.contracts import (
    ApplyVrg,
    AwaitVrg,
    ClusterHealth,
    DeleteVrg,
    DemoteResult,
    DemoteWitnessed,
    LastSeen,
    PublishDecision,
    ReadDecision,
    ReadVrg,
    RefreshVrg,
    ReleaseVrg,
    RemoveRestored,
    RequestUpload,
    StampEpoch,
    WriteVrg,
)
from activities.errors import implements
from activities.mirror import Mirror
from activities.waiting import SharedWatch
from activities.waits import Waits, WaitTimes, writing
from ramen import gates, names
from ramen.app import AppRef, Decision, Observed, Role
from ramen.desired import (
    Drawback,
    annotations_of,
    desired_vrg,
    merge,
    ordered_profiles,
    refreshed,
    released_annotations,
    same_profiles,
)
from ramen.epoch import Epoch, check_write
from ramen.errors import AlreadyExists, Conflict, NotFound, NotYet
from ramen.kinds import CONFIG_MAP, NAMESPACE, PLACEMENT_DECISION, PV, PVC, VRG, Kind

Result = TypeVar("Result")

TRIES = 5
"""Rounds of read and guarded write. The operator's own writes cost a round or two (vrg.md 5.3); five are a fault."""

VR_ARCHIVED = names.VRG_PREFIX + "vr-archived"
"""The operator's mark that a PVC or PV is in S3; it uploads again what lacks it (vrg.md 2.2 step 7)."""

SilentProfiles = Callable[[Collection[str]], Awaitable[set[str]]]
"""Those S3 profiles whose store does not answer now; quick, for it is on the way of a promotion (S9)."""


class Clusters(Protocol):
    """What activities need of the worker's clusters."""

    @property
    def own(self) -> str:
        """Name of the cluster that the worker belongs to."""
        ...

    def names(self) -> list[str]:
        """All clusters known, the own one first."""
        ...

    def access(self, name: str) -> ClusterAccess:
        """The client of a cluster; raises GateClosed while the cluster does not answer this worker."""
        ...

    def watch(self, name: str) -> SharedWatch:
        """The one watch of a cluster in this process; raises GateClosed for a cluster that is not known."""
        ...

    def health(self) -> list[ClusterHealth]:
        """What this worker knows of every cluster."""
        ...


class ClusterActivities:
    """All activities of a cluster's queues."""

    def __init__(
        self,
        clusters: Clusters,
        mirror: Mirror,
        silent_profiles: SilentProfiles,
        times: WaitTimes | None = None,
        still_current: StillCurrent = attempts.still_current,
    ) -> None:
        self._clusters = clusters
        self._silent_profiles = silent_profiles
        self._still_current = still_current
        self._waits = Waits(clusters.access, clusters.watch, mirror, times or WaitTimes())

    # --- reads -------------------------------------------------------------------------------------------------------

    @implements(contracts.read_vrg)
    async def read_vrg(self, request: ReadVrg) -> Observed:
        """See the contract."""
        return await looking.look(self._clusters.access(request.cluster), request.app, request.cluster)

    @implements(contracts.last_seen)
    async def last_seen(self, request: LastSeen) -> Observed:
        """See the contract; never asks the cluster. Reachable only while the watch is live (D10)."""
        vrgs = self._clusters.watch(request.cluster).vrgs
        if not vrgs.live:
            await asyncio.sleep(request.grace_seconds)
        found, _ = vrgs.latest((request.app.namespace, request.app.name))
        return looking.observed(
            request.cluster,
            found[0] if found else None,
            reachable=vrgs.live,
            error=vrgs.error if vrgs.lists else f"{request.cluster} was never seen by this worker",
        )

    @implements(contracts.read_decision)
    async def read_decision(self, request: ReadDecision) -> Decision:
        """See the contract."""
        access = self._clusters.access(request.cluster)
        name = names.placement_decision_name(request.placement)
        return decisions.read(await access.read(PLACEMENT_DECISION, name, request.app.namespace))

    @implements(contracts.cluster_health)
    async def cluster_health(self, cluster: str) -> ClusterHealth:
        """See the contract."""
        name = cluster or self._clusters.own
        known = next((health for health in self._clusters.health() if health.cluster == name), None)
        return known or ClusterHealth(
            cluster=name, reachable=False, error=f"{name} is not in the ClusterRegistry that this worker reads"
        )

    @implements(contracts.list_health)
    async def list_health(self) -> list[ClusterHealth]:
        """See the contract."""
        return self._clusters.health()

    # --- the VRG -----------------------------------------------------------------------------------------------------

    @implements(contracts.stamp_epoch)
    async def stamp_epoch(self, request: StampEpoch) -> Observed:
        """See the contract."""
        app, cluster = request.app, request.cluster
        access = self._clusters.access(cluster)
        wanted = {names.EPOCH: str(request.epoch), names.ACTION: request.action}
        if request.clusters:
            wanted[names.CLUSTERS] = ",".join(request.clusters)

        async def stamp() -> Observed:
            vrg = await looking.read_vrg(access, app)
            if vrg is None:
                tombstone = await self._check_tombstone(access, app, cluster, request.epoch)
                return looking.observed(cluster, None, tombstone=tombstone)
            await self._check_vrg(access, app, cluster, vrg, request.epoch)
            if wanted.items() <= annotations_of(vrg).items():
                return looking.observed(cluster, vrg)
            return looking.observed(cluster, await _annotate(access, VRG, vrg, wanted))

        return await _deciding_again(stamp, looking.what(app, cluster))

    @implements(contracts.write_vrg)
    async def write_vrg(self, request: WriteVrg) -> Observed:
        """See the contract."""
        return await self._write(request)

    @implements(contracts.refresh_vrg)
    async def refresh_vrg(self, request: RefreshVrg) -> Observed:
        """See the contract; the role is nobody's business here, so a VRG of whatever role keeps it."""
        app, cluster = request.app.ref, request.cluster
        access = self._clusters.access(cluster)

        async def refresh() -> Observed:
            vrg = await looking.read_vrg(access, app)
            if vrg is None:
                return looking.observed(cluster, None)
            await self._check_vrg(access, app, cluster, vrg, request.epoch)
            body = refreshed(vrg, request.app.peer_classes)
            return looking.observed(cluster, await access.replace(VRG, body) if body else vrg)

        return await _deciding_again(refresh, looking.what(app, cluster))

    @implements(contracts.delete_vrg)
    async def delete_vrg(self, request: DeleteVrg) -> None:
        """See the contract."""
        app, cluster = request.app, request.cluster
        access = self._clusters.access(cluster)

        async def delete() -> None:
            vrg = await looking.read_vrg(access, app)
            check_write(request.epoch, Epoch.of(vrg), looking.what(app, cluster))
            await self._still_current()
            await self._leave_tombstone(access, app, cluster, request.epoch)
            if vrg is not None and not vrg["metadata"].get("deletionTimestamp"):
                await _delete(access, VRG, vrg)

        await _deciding_again(delete, looking.what(app, cluster))

    @implements(contracts.release_vrg)
    async def release_vrg(self, request: ReleaseVrg) -> None:
        """See the contract; one annotation write, so spec and generation stay as they are."""
        app, cluster = request.app, request.cluster
        access = self._clusters.access(cluster)
        wanted = released_annotations(request.epoch)

        async def release() -> None:
            vrg = await looking.read_vrg(access, app)
            check_write(request.epoch, Epoch.of(vrg), looking.what(app, cluster))
            await self._still_current()
            await self._leave_tombstone(access, app, cluster, request.epoch)
            if vrg is not None and {key: annotations_of(vrg).get(key) for key in wanted} != wanted:
                await _annotate(access, VRG, vrg, wanted)

        await _deciding_again(release, looking.what(app, cluster))

    @implements(contracts.await_vrg, beats=False)
    async def await_vrg(self, request: AwaitVrg) -> Observed:
        """See the contract."""
        return await self._waits.await_vrg(request)

    @implements(contracts.apply_vrg, beats=False)
    async def apply_vrg(self, request: ApplyVrg) -> Observed:
        """See the contract; a retry writes nothing when the first attempt did, and goes on waiting."""
        async with writing(request.wait.cluster):
            await self._write(request.write)
        return await self._waits.await_vrg(request.wait)

    @implements(contracts.demote_witnessed, beats=False)
    async def demote_witnessed(self, request: DemoteWitnessed) -> DemoteResult:
        """See the contract."""
        return await self._waits.demote_witnessed(request, self._write)

    # --- around it ---------------------------------------------------------------------------------------------------

    @implements(contracts.ensure_namespace)
    async def ensure_namespace(self, request: ReadVrg) -> None:
        """See the contract; raises NotYet while the namespace is terminating."""
        await self._ensure_namespace(self._clusters.access(request.cluster), request.app.namespace, request.cluster)

    @implements(contracts.publish_decision)
    async def publish_decision(self, request: PublishDecision) -> None:
        """See the contract."""
        access = self._clusters.access(request.cluster)
        metadata = decisions.metadata(request.app, request.epoch)
        unseen = decisions.without_placement(metadata)
        entries = decisions.entries(request.decision)
        namespace, name = metadata["namespace"], metadata["name"]
        what = f"PlacementDecision {namespace}/{name} on {request.cluster}"

        async def publish() -> None:
            found = await access.read(PLACEMENT_DECISION, name, namespace)
            check_write(request.epoch, Epoch.of(found), what)
            if found is None:
                await self._require(access, request)
                await self._ensure_namespace(access, namespace, request.cluster)
                try:
                    found = await access.create(PLACEMENT_DECISION, {"metadata": unseen}, namespace)
                except AlreadyExists as err:
                    raise Conflict(f"{what} was made meanwhile") from err
            elif decisions.lacks(found, unseen):
                await self._require(access, request)
                found = await access.patch(PLACEMENT_DECISION, name, _guarded(found, unseen), namespace)
            if ((found.get("status") or {}).get("decisions") or []) != entries:
                await self._require(access, request)
                await self._still_current()
                status = {**_guarded(found, {}), "status": {"decisions": entries}}
                found = await access.patch(PLACEMENT_DECISION, name, status, namespace, subresource="status")
            if decisions.lacks(found, metadata):
                await access.patch(PLACEMENT_DECISION, name, _guarded(found, metadata), namespace)

        await _deciding_again(publish, what)

    @implements(contracts.remove_restored)
    async def remove_restored(self, request: RemoveRestored) -> list[str]:
        """See the contract; raises NotYet before the VRG accepted Secondary at this epoch."""
        app, cluster = request.app, request.cluster
        access = self._clusters.access(cluster)
        removed: set[str] = set()

        async def remove() -> None:
            claims = await looking.select_pvcs(access, app.namespace, app.pvc_selector)
            restored = [claim for claim in claims if names.RESTORED_BY_RAMEN in annotations_of(claim)]
            for claim in restored:
                if claim["metadata"].get("deletionTimestamp"):
                    continue
                vrg = await looking.read_vrg(access, app.ref)
                self._require_epoch(app.ref, cluster, vrg, request.epoch)
                _allow(gates.accepted_role(looking.judged(app.ref, cluster, vrg)))
                await self._still_current()
                await _delete(access, PVC, claim)
                removed.add(claim["metadata"]["name"])

        await _deciding_again(remove, f"restored PVCs of {app.ref} on {cluster}")
        return sorted(removed)

    @implements(contracts.request_upload)
    async def request_upload(self, request: RequestUpload) -> None:
        """See the contract; only a VRG that is wanted primary at this epoch is asked, else NotYet."""
        app, cluster = request.app, request.cluster
        access = self._clusters.access(cluster)

        async def primary() -> Object:
            vrg = await looking.read_vrg(access, app.ref)
            self._require_epoch(app.ref, cluster, vrg, request.epoch)
            _allow(gates.exists_and_primary(looking.judged(app.ref, cluster, vrg)))
            return vrg or {}

        async def unmark() -> None:
            await primary()
            for volume in request.volumes:
                claim = await access.read(PVC, volume.name, volume.namespace)
                if claim is None:
                    continue
                await _unmark(access, PVC, claim)
                pv = await access.read(PV, str((claim.get("spec") or {}).get("volumeName") or volume.pv))
                if pv is not None and (pv.get("spec") or {}).get("claimRef", {}).get("name") == volume.name:
                    await _unmark(access, PV, pv)

        async def wake() -> None:
            # Marks gone, the operator has to look: a PV's annotation wakes nobody (vrg.md 1.2).
            await _annotate(access, VRG, await primary(), {names.UPLOAD_REQUESTED: datetime.now(UTC).isoformat()})

        await _deciding_again(unmark, looking.what(app.ref, cluster))
        await _deciding_again(wake, looking.what(app.ref, cluster))

    # --- how it is done ----------------------------------------------------------------------------------------------

    async def _write(self, request: WriteVrg) -> Observed:
        app, cluster, epoch = request.app.ref, request.cluster, request.wanted.epoch
        access = self._clusters.access(cluster)
        what = looking.what(app, cluster)

        async def write() -> Observed:
            vrg = await looking.read_vrg(access, app)
            if vrg is None:
                tombstone = await self._check_tombstone(access, app, cluster, epoch)
                if request.only_existing:
                    return looking.observed(cluster, None, tombstone=tombstone)
                await self._ensure_namespace(access, app.namespace, cluster)
            elif vrg["metadata"].get("deletionTimestamp") and request.wanted.role is Role.PRIMARY:
                raise NotYet(f"{what} is being deleted; it can be made Primary when it is gone.")
            if vrg is not None:
                await self._check_vrg(access, app, cluster, vrg, epoch)
            body = await self._body(request, vrg)
            if body is None:
                return looking.observed(cluster, vrg)
            await self._still_current()
            if vrg is not None:
                return looking.observed(cluster, await access.replace(VRG, body))
            # Asking the stores took time in which another action may have left its tombstone (D14).
            await self._check_tombstone(access, app, cluster, epoch)
            try:
                return looking.observed(cluster, await access.create(VRG, body, app.namespace))
            except AlreadyExists as err:
                raise Conflict(f"{what} was made meanwhile") from err

        return await _deciding_again(write, what)

    async def _body(self, request: WriteVrg, vrg: Object | None) -> Object | None:
        """The object to write, or None when nothing would change.

        Another order of S3 profiles alone is no reason to write, unless the first one, from which the operator of a
        primary restores and at which it stops uploading, has a drawback (S9).
        """

        def desired(profiles: list[str]) -> Object:
            known = request.volumes or ([] if request.no_volumes else None)
            return desired_vrg(request.app, request.cluster, request.wanted, profiles, vrg, request.decision, known)

        by_default = desired(ordered_profiles(request.app, request.cluster, {}))
        present: list[str] = ((vrg or {}).get("spec") or {}).get("s3Profiles") or []
        kept = desired(present) if vrg is not None and same_profiles(vrg, by_default) else by_default
        changed = merge(vrg, kept)
        if request.wanted.role is not Role.PRIMARY:
            return changed
        if changed is not None and vrg is not None and not request.wanted.asks_final_sync:
            await self._check_no_pvc_leaves(request, vrg)
        # A store that was silent when the action began is not asked again: that would cost another second (D15).
        known = {profile for profile, drawback in request.drawbacks.items() if drawback is Drawback.SILENT}
        asked = set(by_default["spec"]["s3Profiles"]) - known
        silent = dict.fromkeys(await self._silent_profiles(asked), Drawback.SILENT)
        wrong = {**request.drawbacks, **silent}
        if changed is None and (not present or present[0] not in wrong):
            return None
        return merge(vrg, desired(ordered_profiles(request.app, request.cluster, wrong)))

    async def _check_no_pvc_leaves(self, request: WriteVrg, vrg: Object) -> None:
        """Raises NotYet naming the PVCs in deletion over which the VRG may not become an ordinary primary (S3)."""
        app, cluster = request.app, request.cluster
        claims = await looking.select_pvcs(self._clusters.access(cluster), app.namespace, app.pvc_selector)
        leaving = [claim["metadata"]["name"] for claim in claims if claim["metadata"].get("deletionTimestamp")]
        _allow(gates.may_become_ordinary_primary(looking.judged(app.ref, cluster, vrg), leaving))

    async def _check_vrg(self, access: ClusterAccess, app: AppRef, cluster: str, vrg: Object, epoch: Epoch) -> None:
        """Refuses a write to a VRG of a newer epoch; one that a hub made carries none, and then the tombstone counts
        that we left when the application was given back (S1)."""
        found = Epoch.of(vrg)
        check_write(epoch, found, looking.what(app, cluster))
        if found is None:
            await self._check_tombstone(access, app, cluster, epoch)

    async def _check_tombstone(self, access: ClusterAccess, app: AppRef, cluster: str, epoch: Epoch) -> Epoch | None:
        found = Epoch.of(await looking.read_tombstone(access, app))
        check_write(epoch, found, f"the tombstone of {app} on {cluster}")
        return found

    async def _leave_tombstone(self, access: ClusterAccess, app: AppRef, cluster: str, epoch: Epoch) -> None:
        namespace = await access.read(NAMESPACE, app.namespace)
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            return  # nothing can be kept there; S3 keeps the epoch
        tombstone = await looking.read_tombstone(access, app)
        check_write(epoch, Epoch.of(tombstone), f"the tombstone of {app} on {cluster}")
        stamp = {names.EPOCH: str(epoch)}
        if tombstone is None:
            body = {"metadata": {"name": names.tombstone_name(app.name), "annotations": stamp}}
            try:
                await access.create(CONFIG_MAP, body, app.namespace)
            except AlreadyExists as err:
                raise Conflict(f"the tombstone of {app} on {cluster} was made meanwhile") from err
        elif Epoch.of(tombstone) != epoch:
            await _annotate(access, CONFIG_MAP, tombstone, stamp)

    async def _ensure_namespace(self, access: ClusterAccess, name: str, cluster: str) -> None:
        found = await access.read(NAMESPACE, name)
        if found is None:
            try:
                await access.create(NAMESPACE, {"metadata": {"name": name}})
            except AlreadyExists:
                return
        elif found["metadata"].get("deletionTimestamp"):
            raise NotYet(f"namespace {name} on {cluster} is terminating; it can be used again when it is gone.")

    async def _require(self, access: ClusterAccess, request: PublishDecision) -> None:
        """The preconditions of a decision, on a VRG that is read now (S6, D18)."""
        app, is_cleared = request.app.ref, request.decision.cluster is None
        if not (request.require_accepted_secondary or request.require_primary or is_cleared):
            return
        vrg = await looking.read_vrg(access, app)
        read = looking.judged(app, request.cluster, vrg)
        if request.require_primary:
            self._require_epoch(app, request.cluster, vrg, request.epoch)
            _allow(gates.exists_and_primary(read))
            _allow(gates.ready(read))
        if request.require_accepted_secondary:
            check_write(request.epoch, Epoch.of(vrg), looking.what(app, request.cluster))
            _allow(gates.accepted_role(read))
        if is_cleared:
            check_write(request.epoch, Epoch.of(vrg), looking.what(app, request.cluster))
            _allow(gates.may_be_unplaced(read))

    @staticmethod
    def _require_epoch(app: AppRef, cluster: str, vrg: Object | None, epoch: Epoch) -> None:
        what = looking.what(app, cluster)
        check_write(epoch, Epoch.of(vrg), what)
        if Epoch.of(vrg) != epoch:
            raise NotYet(f"{what} does not carry epoch {epoch.number} yet.")


def _guarded(found: Object, metadata: Object) -> Object:
    """A patch of metadata that only the very version that was read accepts."""
    return {"metadata": {**metadata, "resourceVersion": found["metadata"]["resourceVersion"]}}


def _allow(verdict: gates.Verdict) -> None:
    if not verdict.allowed:
        raise NotYet(verdict.reason)


async def _deciding_again(step: Callable[[], Awaitable[Result]], what: str) -> Result:
    """Runs `step`, which reads and then writes, again while its object changes in between."""
    for attempt in range(TRIES):
        try:
            return await step()
        except (Conflict, NotFound) as err:
            last = err
            # Lets a burst of the operator's own writes pass; nothing before the second conflict.
            await asyncio.sleep(0.02 * attempt)
    raise Conflict(f"{what} changed {TRIES} times between read and write: {last}") from last


async def _annotate(access: ClusterAccess, kind: Kind, obj: Object, wanted: Mapping[str, str | None]) -> Object:
    """Sets annotations (None removes one) on the very version that was read; raises Conflict for a later one."""
    metadata = obj["metadata"]
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": wanted}}
    return await access.patch(kind, metadata["name"], patch, metadata.get("namespace"))


async def _unmark(access: ClusterAccess, kind: Kind, obj: Object) -> None:
    if VR_ARCHIVED in annotations_of(obj):
        await _annotate(access, kind, obj, {VR_ARCHIVED: None})


async def _delete(access: ClusterAccess, kind: Kind, obj: Object) -> None:
    """Deletes exactly the version that was read (S7)."""
    metadata = obj["metadata"]
    await access.delete(
        kind,
        metadata["name"],
        metadata.get("namespace"),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
    )
