"""One pass of the dr-cluster operator over one VRG: reads from the mirrors, writes to the API server and the stores.

The order of the steps, and which of them a pass reaches, is that of vrg.md 2.0. A pass changes only the conditions
it reaches, writes status at most once, and asks for another pass instead of waiting.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from activities.access.protocol import ClusterAccess, Object
from ramen import kinds, names
from ramen.errors import AlreadyExists, Conflict, HublessError, NotFound
from ramen.kinds import Kind
from sandbox.standins import operator_store as store
from sandbox.standins import vrg_conditions as cond
from sandbox.standins import vrg_reconcile as rules
from sandbox.standins.operator_store import Config, Stores
from sandbox.standins.runtime import Mirror, Name, Next
from sandbox.standins.vrg_conditions import Part

log = logging.getLogger(__name__)

WATCHED: tuple[Kind, ...] = (
    kinds.VRG,
    kinds.PVC,
    kinds.PV,
    kinds.VOLUME_REPLICATION,
    kinds.VOLUME_REPLICATION_CLASS,
    kinds.STORAGE_CLASS,
    kinds.POD,
    kinds.VOLUME_ATTACHMENT,
)
"""Kinds that a pass reads, from all namespaces."""

CONFIGURED: tuple[Kind, ...] = (kinds.CONFIG_MAP, kinds.SECRET)
"""Kinds that a pass reads from the operator's namespace."""


def utc_now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class World:
    """What all passes of one operator share."""

    access: ClusterAccess
    mirrors: dict[Kind, Mirror]
    """One for each kind of `WATCHED` and `CONFIGURED`."""
    now: Callable[[], str] = utc_now
    uploaded: dict[Name, str] = field(default_factory=dict)
    """resourceVersion of each VRG that this process uploaded last; empty after a restart (vrg.md 3.3)."""
    make_bucket: store.Connect = store.connect

    def __post_init__(self) -> None:
        self.stores = Stores(self._secret, self.make_bucket)
        self._parsed: tuple[Object | None, Config] = (None, Config())

    def config(self) -> Config:
        """The configuration as it is now; parsed again only when the ConfigMap changed."""
        found = self.mirrors[kinds.CONFIG_MAP].get(names.RAMEN_CONFIG_MAP, names.RAMEN_NAMESPACE)
        if found is not self._parsed[0]:
            self._parsed = (found, store.parse_config(found))
        return self._parsed[1]

    async def _secret(self, namespace: str, name: str) -> Object | None:
        if namespace == names.RAMEN_NAMESPACE:
            return self.mirrors[kinds.SECRET].get(name, namespace)
        return await self.access.read(kinds.SECRET, name, namespace)


async def reconcile(world: World, key: Name) -> Next:
    """One pass over the VRG of that namespace and name.

    Answers "back-off" when another pass is needed, None when only an event can bring news. Raises what the API server
    raises; the caller counts that as "back-off".
    """
    vrg = world.mirrors[kinds.VRG].get(key[1], key[0])
    if vrg is None:
        world.uploaded.pop(key, None)
        return None
    return await _Pass(world, copy.deepcopy(vrg)).run()


class _Pass:
    """State of one pass: a working copy of the VRG, and whether another pass is wanted."""

    def __init__(self, world: World, vrg: Object) -> None:
        self.world = world
        self.mirrors = world.mirrors
        self.config = world.config()
        self.now = world.now()
        self.vrg = vrg
        self.before = copy.deepcopy(vrg.get("status") or {})
        self.again = False
        self.pvcs: list[Object] = []
        self.classes: dict[Name, rules.Classes] = {}

    # --- shortcuts ----------------------------------------------------------------------------------------------------

    @property
    def key(self) -> Name:
        return self.vrg["metadata"]["namespace"], self.vrg["metadata"]["name"]

    @property
    def spec(self) -> Object:
        spec: Object = self.vrg["spec"]
        return spec

    @property
    def status(self) -> Object:
        status: Object = self.vrg.setdefault("status", {})
        return status

    @property
    def conditions(self) -> list[Object]:
        found: list[Object] = self.status.setdefault("conditions", [])
        return found

    @property
    def generation(self) -> int:
        return int(self.vrg["metadata"]["generation"])

    @property
    def profiles(self) -> list[str]:
        return list(self.spec.get("s3Profiles") or [])

    @property
    def entries(self) -> list[Object]:
        return list(self.status.get("protectedPVCs") or [])

    @property
    def final_sync(self) -> bool:
        return bool(self.spec.get("prepareForFinalSync") or self.spec.get("runFinalSync"))

    def stamp(self, kind: str, *parts: Part) -> None:
        cond.stamp(self.conditions, kind, cond.merge(parts), self.generation, self.now)

    # --- the pass -----------------------------------------------------------------------------------------------------

    async def run(self) -> Next:
        cond.initialise(self.conditions, self.generation, self.now)
        error = rules.spec_error(self.vrg, self.config.ops_namespace)
        if error is not None:
            self.stamp(cond.DATA_READY, Part("False", "Error", error))
            await self._write_status()
            return None
        if rules.is_going(self.vrg):
            return await self._delete()
        if not self._list_volumes():
            await self._write_status()
            return "back-off"
        if names.VRG_FINALIZER not in (self.vrg["metadata"].get("finalizers") or ()):
            await self._add_finalizer()
        if self.spec["replicationState"] == "primary":
            await self._as_primary()
        else:
            await self._as_secondary()
        await self._write_status()
        return "back-off" if self.again else None

    def _list_volumes(self) -> bool:
        """Fills `pvcs` and `classes`; False, with DataReady False, when a PVC cannot be classified."""
        for namespace in rules.namespaces(self.vrg):
            for pvc in self.mirrors[kinds.PVC].within(namespace):
                if rules.selects(self.vrg, pvc):
                    self.pvcs.append(pvc)
        for pvc in self.pvcs:
            try:
                self.classes[_name(pvc)] = rules.classify(
                    self.vrg,
                    pvc,
                    self.mirrors[kinds.STORAGE_CLASS].all(),
                    self.mirrors[kinds.VOLUME_REPLICATION_CLASS].all(),
                )
            except rules.ClassifyError as err:
                item = self._entry(pvc)
                part = Part("Unknown", err.reason, str(err))
                cond.stamp(item["conditions"], cond.DATA_READY, part, self.generation, self.now)
                self.stamp(cond.DATA_READY, Part("False", "Error", f"failed to process list of PVCs: {err}"))
                return False
        return True

    async def _add_finalizer(self) -> None:
        """Whole-object update: the first touch also rewrites the spec into its normal form (vrg.md 1.3)."""
        body = copy.deepcopy(self.vrg)
        body["metadata"].setdefault("finalizers", []).append(names.VRG_FINALIZER)
        body["spec"] = rules.normal_form(body["spec"])
        written = self.mirrors[kinds.VRG].remember(await self.world.access.replace(kinds.VRG, body))
        self.vrg["metadata"] = copy.deepcopy(written["metadata"])
        self.vrg["spec"] = copy.deepcopy(written["spec"])
        for item in self.conditions:
            if item["reason"] == "Initializing":
                item["observedGeneration"] = self.generation

    async def _write_status(self) -> None:
        """Writes the status if it differs; `state` and the time of the write are set here and nowhere else."""
        status = self.status
        status["observedGeneration"] = self.generation
        status["state"] = cond.state_of(self.spec, self.conditions, self.generation)
        status.setdefault("kubeObjectProtection", {})
        if not status.get("protectedPVCs"):
            status.pop("protectedPVCs", None)
        if status == self.before:
            return
        status["lastUpdateTime"] = self.now
        written = await self.world.access.replace(kinds.VRG, self.vrg, "status")
        self.mirrors[kinds.VRG].remember(written)

    def _common_conditions(self, conflict: Part | None = None) -> None:
        self.stamp(cond.NO_CONFLICT, conflict or Part("True", "NoConflictDetected", "no conflicting resource"))
        self.stamp(cond.AUTO_CLEANUP, Part("False", cond.UNUSED, "only virtual machines are cleaned up automatically"))
        for name in cond.GROUP_FIELDS:
            self.status.pop(name, None)
        self.status.update(cond.group_sync(self.entries))

    # --- primary ------------------------------------------------------------------------------------------------------

    async def _as_primary(self) -> None:
        if not await self._restored():
            return
        await self._drop_deselected()
        for pvc in self.pvcs:
            await self._protect(pvc)
        self._drop_stale_entries()
        self._primary_conditions()
        if self.spec.get("prepareForFinalSync"):
            self.status["prepareForFinalSyncComplete"] = True
        self.status.pop("finalSyncComplete", None)
        if self.spec.get("runFinalSync"):
            self.status["finalSyncComplete"] = True
        if not cond.is_true(self.conditions, cond.DATA_READY, self.generation):
            return
        kube = cond.find(self.conditions, cond.KUBE_OBJECTS_READY) or {}
        restored = kube.get("reason") == "KubeObjectsRestored"
        self.stamp(cond.KUBE_OBJECTS_READY, Part("True", "KubeObjectsRestored", "no kube objects to restore"))
        if not restored:
            # The pass that settles the kube objects ends there; the VRG is uploaded by the next one (vrg.md 2.0).
            self.again = True
            return
        await self._upload_group()

    def _primary_conditions(self, *more: Part) -> None:
        volumes = rules.counted(self.pvcs)
        self.stamp(cond.DATA_READY, cond.VOLSYNC_UNUSED, cond.data_ready(self.entries, volumes, primary=True))
        self.stamp(cond.DATA_PROTECTED, cond.VOLSYNC_UNUSED, cond.data_protected(self.entries, volumes))
        cluster_data = cond.cluster_data_protected(self.entries, volumes)
        self.stamp(cond.CLUSTER_DATA_PROTECTED, cond.VOLSYNC_UNUSED, cluster_data, *more)
        self._common_conditions()

    async def _restored(self) -> bool:
        """Restores PVs and PVCs if ClusterDataReady asks for it; False when the pass ends here (vrg.md 2.5)."""
        found = cond.find(self.conditions, cond.CLUSTER_DATA_READY) or {}
        if self.final_sync or found.get("reason") == "Restored":
            self.stamp(cond.CLUSTER_DATA_READY, Part("True", "Restored", "restored before"))
            return True
        try:
            count = await self._restore()
        except HublessError as err:
            self.stamp(cond.CLUSTER_DATA_READY, Part("False", "Error", str(err)))
            self.again = True
            return False
        message = f"{count} PVs and PVCs restored" if count else "nothing to restore"
        self.stamp(cond.CLUSTER_DATA_READY, Part("True", "Restored", message))
        if not count:
            return True
        self.pvcs = [pvc for ns in rules.namespaces(self.vrg) for pvc in self._selected(ns)]
        self._primary_conditions()
        self.again = True
        return False

    def _selected(self, namespace: str) -> Iterator[Object]:
        return (pvc for pvc in self.mirrors[kinds.PVC].within(namespace) if rules.selects(self.vrg, pvc))

    async def _restore(self) -> int:
        """Number of PVs restored from the first profile that works; raises when none does."""
        if not self.profiles:
            raise store.StoreError("no s3Profiles configured")
        failure: HublessError | None = None
        for profile in self.profiles:
            if profile == store.NO_STORE:
                continue
            try:
                pvs, pvcs = await self.world.stores.volumes(self.config, profile, *self.key)
                failure = None
                if len(pvs) != len(pvcs):
                    log.warning("%s/%s: %d PVs but %d PVCs in S3 profile %s", *self.key, len(pvs), len(pvcs), profile)
                    continue
                await self._create_restored(pvs, pvcs)
            except HublessError as err:
                failure = err
                continue
            return len(pvs)
        if failure is not None:
            raise failure
        return 0

    async def _create_restored(self, pvs: list[Object], pvcs: list[Object]) -> None:
        conflict = store.split_brain(pvs)
        if conflict:
            raise store.StoreError(conflict)
        for pv in pvs:
            storage_class = self.mirrors[kinds.STORAGE_CLASS].get(pv["spec"].get("storageClassName") or "")
            wanted = store.pv_to_create(pv, storage_class)
            existing = await self._create(kinds.PV, wanted)
            if existing is not None:
                reference = existing["spec"].get("claimRef") or {}
                claim = self.mirrors[kinds.PVC].get(reference.get("name", ""), reference.get("namespace", ""))
                _raise(store.pv_obstacle(existing, wanted, claim))
        for pvc in pvcs:
            wanted = store.pvc_to_create(pvc)
            existing = await self._create(kinds.PVC, wanted)
            if existing is not None:
                _raise(store.pvc_obstacle(existing, wanted))

    async def _create(self, kind: Kind, body: Object) -> Object | None:
        """Creates the object; answers the one that is already there, if so."""
        try:
            self.mirrors[kind].remember(await self.world.access.create(kind, body))
        except AlreadyExists:
            return await self.world.access.read(kind, body["metadata"]["name"], body["metadata"].get("namespace"))
        return None

    async def _drop_deselected(self) -> None:
        """Unprotects PVCs that carry this VRG's owner labels but no longer match its selector."""
        selected = {_name(pvc) for pvc in self.pvcs}
        for namespace in rules.namespaces(self.vrg):
            for pvc in self.mirrors[kinds.PVC].within(namespace):
                if rules.owner_of(pvc) == self.key and _name(pvc) not in selected and not self.final_sync:
                    await self._abandon(pvc)

    async def _protect(self, pvc: Object) -> None:
        """Brings one PVC of a primary forward by as many steps as are possible now (vrg.md 2.2)."""
        if rules.is_going(pvc):
            if rules.has_finalizer(pvc) and not self.final_sync:
                await self._abandon(pvc)
            return
        item = self._entry(pvc)
        if (pvc.get("status") or {}).get("phase") != "Bound":
            self._entry_ready(item, Part("False", "Progressing", "PVC not bound yet"))
            return
        owner = rules.owner_of(pvc)
        if owner is not None and owner != self.key:
            self._entry_ready(item, Part("False", "Error", f"PVC belongs to VRG {owner[0]}/{owner[1]}"))
            self.again = True
            return
        try:
            pvc = await self._mark(pvc)
            await self._promote(pvc, item)
        except (Conflict, NotFound) as err:
            self._entry_ready(item, Part("False", "Progressing", str(err)))
            self.again = True
            return
        await self._upload(pvc, item)

    async def _mark(self, pvc: Object) -> Object:
        if rules.annotation(pvc, rules.PROTECTED) == "protected":
            return pvc
        if rules.owner_of(pvc) is None or not rules.has_finalizer(pvc):
            pvc = await self._replace(kinds.PVC, rules.claimed(pvc, self.vrg))
        kept = rules.retained(await self._volume(pvc))
        if kept is not None:
            await self._replace(kinds.PV, kept)
        return await self._replace(kinds.PVC, rules.annotated(pvc, rules.PROTECTED, "protected"))

    async def _promote(self, pvc: Object, item: Object) -> None:
        vr = await self._drive(pvc, "primary", item)
        if vr is None:
            return
        result = rules.outcome(vr, "primary")
        self._entry_ready(item, result.ready)
        if result.protected is not None:
            cond.stamp(item["conditions"], cond.DATA_PROTECTED, result.protected, self.generation, self.now)
        for name in cond.SYNC_FIELDS:
            item.pop(name, None)
            if (vr.get("status") or {}).get(name) is not None:
                item[name] = vr["status"][name]

    async def _drive(self, pvc: Object, role: str, item: Object) -> Object | None:
        """Creates or updates the VolumeReplication; answers it only if it already says what is wanted.

        What storage makes of it comes as an event: waiting for it asks for no other pass, which also takes the
        back-off to its beginning (measured: the VRG reaches S3 one second after a promotion that took one).
        """
        wanted = rules.replication(self.vrg, pvc, self.classes[_name(pvc)], role)
        namespace, name = _name(pvc)
        existing = self.mirrors[kinds.VOLUME_REPLICATION].get(name, namespace)
        if existing is None:
            await self._create(kinds.VOLUME_REPLICATION, wanted)
            self._entry_ready(item, Part("False", "Progressing", "VolumeReplication created"))
            return None
        if rules.is_going(existing):
            self.again = True
            return None
        changed = {key: wanted["spec"][key] for key in ("replicationState", "autoResync")}
        if any(existing["spec"].get(key) != value for key, value in changed.items()):
            await self._replace(kinds.VOLUME_REPLICATION, {**existing, "spec": {**existing["spec"], **changed}})
            self._entry_ready(item, Part("False", "Progressing", "VolumeReplication updated"))
            return None
        return existing

    async def _upload(self, pvc: Object, item: Object) -> None:
        """Puts PV and PVC into the stores unless the archive annotations say that they are there (vrg.md 2.2)."""
        if self.spec.get("dryRun"):
            return
        pv = await self._volume(pvc)
        part = Part("True", "Uploaded", "objects of the volume are in all stores")
        if not rules.is_archived(pvc, pv):
            part = await self._archive(pvc, pv) or part
        cond.stamp(item["conditions"], cond.CLUSTER_DATA_PROTECTED, part, self.generation, self.now)
        self.again = self.again or part.status != "True"

    async def _archive(self, pvc: Object, pv: Object) -> Part | None:
        """Uploads and notes it on both objects; answers what went wrong, if anything."""
        try:
            await self.world.stores.upload_volume(self.config, self.profiles, self.vrg, pv, pvc)
        except HublessError as err:
            return Part("False", "UploadError", str(err))
        try:
            await self._replace(kinds.PVC, rules.annotated(pvc, rules.ARCHIVED, rules.archive_mark(pvc)))
            await self._replace(kinds.PV, rules.annotated(pv, rules.ARCHIVED, rules.pv_archive_mark(pv)))
        except (Conflict, NotFound) as err:
            return Part("False", "AnnotationFailed", str(err))
        return None

    async def _abandon(self, pvc: Object) -> None:
        """A PVC that the application deleted, or that lost its label: stored copies go, then every mark."""
        if not self.config.unprotect_volumes:
            return
        try:
            await self.world.stores.delete_volume(self.config, self.profiles, self.vrg, pvc)
        except HublessError as err:
            log.info("%s/%s: stored copies of %s stay: %s", *self.key, pvc["metadata"]["name"], err)
            self.again = True
            return
        if await self._replication_gone(pvc):
            await self._release(pvc)

    async def _upload_group(self) -> None:
        """Uploads the VRG as it was before this pass's status write (vrg.md 3.3)."""
        version = self.vrg["metadata"]["resourceVersion"]
        if self.spec.get("dryRun") or self.world.uploaded.get(self.key) == version:
            return
        try:
            if not await self.world.stores.upload_group(self.config, self.profiles, self.vrg):
                return
        except HublessError as err:
            part = Part("False", "VolumeReplicationGroupObjectCaptureError", str(err))
            self.again = True
        else:
            part = Part("True", "Uploaded", "VRG object protected")
            self.world.uploaded[self.key] = version
        self._primary_conditions(part)

    # --- secondary ----------------------------------------------------------------------------------------------------

    async def _as_secondary(self) -> None:
        had_state = self.before.get("state")
        for flag in ("prepareForFinalSyncComplete", "finalSyncComplete"):
            self.status.pop(flag, None)
        for pvc in list(self.pvcs):
            if rules.has_finalizer(pvc):
                await self._demote(pvc)
        self._drop_stale_entries()
        settled = all(
            (cond.find(self.conditions, kind) or {}).get("reason") == cond.UNUSED
            for kind in (cond.CLUSTER_DATA_READY, cond.KUBE_OBJECTS_READY)
        )
        self.stamp(cond.CLUSTER_DATA_READY, Part("True", cond.UNUSED, "a secondary restores nothing"))
        self.stamp(cond.KUBE_OBJECTS_READY, Part("True", cond.UNUSED, "a secondary restores nothing"))
        if not settled:
            # This alone is written; the next pass computes the rest (vrg.md 2.0).
            for name in cond.GROUP_FIELDS:
                self.status.pop(name, None)
            self.again = True
            return
        volumes = len(self.pvcs)
        self.stamp(cond.DATA_READY, cond.VOLSYNC_UNUSED, cond.data_ready(self.entries, volumes, primary=False))
        self.stamp(cond.DATA_PROTECTED, cond.VOLSYNC_UNUSED, cond.data_protected(self.entries, volumes))
        self.stamp(cond.CLUSTER_DATA_PROTECTED, Part("True", cond.UNUSED, "a secondary stores nothing"))
        # A PVC that is not (or no longer) handled is an error that the operator looks at again (vrg.md 1.5.3).
        self.again = self.again or volumes > len(self.entries)
        conflict = None
        if volumes and had_state == "Secondary":
            conflict = Part("False", "ClusterDataConflictSecondary", "a PVC of the application is on this cluster")
        self._common_conditions(conflict)

    async def _demote(self, pvc: Object) -> None:
        """Brings one PVC of a former primary one step further (vrg.md 2.4)."""
        namespace, name = _name(pvc)
        item = self._entry(pvc)
        vr = self.mirrors[kinds.VOLUME_REPLICATION].get(name, namespace)
        if vr is None:
            await self._release(pvc)
            return
        if rules.is_going(vr):
            self.again = True
            return
        pods, attachments = self.mirrors[kinds.POD].within(namespace), self.mirrors[kinds.VOLUME_ATTACHMENT].all()
        obstacle = rules.demotion_obstacle(self.vrg, pvc, pods, attachments)
        if obstacle is not None:
            self._entry_ready(item, Part("False", "Progressing", obstacle))
            self.again = True
            return
        vr = await self._drive(pvc, "secondary", item)
        if vr is None:
            return
        result = rules.outcome(vr, "secondary")
        self._entry_ready(item, result.ready)
        if result.protected is not None:
            cond.stamp(item["conditions"], cond.DATA_PROTECTED, result.protected, self.generation, self.now)
        if result.observed:
            for field_name in cond.SYNC_FIELDS:
                item.pop(field_name, None)
        if result.accepted:
            await self._replication_gone(pvc)

    # --- deletion -----------------------------------------------------------------------------------------------------

    async def _delete(self) -> Next:
        """Cleans up and lets the VRG go; writes no status, whatever happens (vrg.md 2.8)."""
        finalizers = self.vrg["metadata"].get("finalizers") or []
        if names.VRG_FINALIZER not in finalizers:
            return None
        primary = self.spec["replicationState"] == "primary"
        for pvc in self._owned():
            await self._let_go(pvc, primary)
        if self.again:
            return "back-off"
        if primary:
            await self.world.stores.purge(self.config, self.profiles, *self.key)
        body = copy.deepcopy(self.vrg)
        body["metadata"]["finalizers"] = [item for item in finalizers if item != names.VRG_FINALIZER]
        await self.world.access.replace(kinds.VRG, body)
        self.world.uploaded.pop(self.key, None)
        return None

    def _owned(self) -> Iterator[Object]:
        """PVCs of this VRG: taken from owner labels and finalizer, not from the spec, which may have changed."""
        for namespace in rules.namespaces(self.vrg):
            for pvc in self.mirrors[kinds.PVC].within(namespace):
                if rules.owner_of(pvc) == self.key and rules.has_finalizer(pvc):
                    yield pvc

    async def _let_go(self, pvc: Object, primary: bool) -> None:
        namespace, name = _name(pvc)
        vr = self.mirrors[kinds.VOLUME_REPLICATION].get(name, namespace)
        if vr is None:
            await self._release(pvc)
            return
        self.again = True
        if not primary and not rules.is_going(vr):
            self.classes[_name(pvc)] = rules.classify(
                self.vrg,
                pvc,
                self.mirrors[kinds.STORAGE_CLASS].all(),
                self.mirrors[kinds.VOLUME_REPLICATION_CLASS].all(),
            )
            await self._demote(pvc)
            return
        if rules.is_going(vr) or rules.deletable(vr):
            await self._replication_gone(pvc)

    # --- volumes ------------------------------------------------------------------------------------------------------

    async def _replication_gone(self, pvc: Object) -> bool:
        """Deletes the PVC's VolumeReplication; True once it is really gone, which a later pass may find."""
        namespace, name = _name(pvc)
        vr = self.mirrors[kinds.VOLUME_REPLICATION].get(name, namespace)
        if vr is None:
            return True
        self.again = True
        if not rules.is_going(vr):
            await self.world.access.delete(kinds.VOLUME_REPLICATION, name, namespace, uid=vr["metadata"]["uid"])
        return False

    async def _release(self, pvc: Object) -> None:
        """Removes all marks from PV and PVC, and the PVC's entry; Kubernetes may now delete both."""
        pv = self.mirrors[kinds.PV].get(pvc["spec"].get("volumeName") or "")
        try:
            if pv is not None:
                await self._replace(kinds.PV, rules.released_pv(pv))
            await self._replace(kinds.PVC, rules.released_pvc(pvc))
        except NotFound:
            log.info("%s/%s: PVC %s was gone already", *self.key, pvc["metadata"]["name"])
        except Conflict as err:
            log.info("%s", err)
            self.again = True
            return
        self.status["protectedPVCs"] = [item for item in self.entries if _entry_name(item) != _name(pvc)]

    async def _replace(self, kind: Kind, body: Object) -> Object:
        written = self.mirrors[kind].remember(await self.world.access.replace(kind, body))
        if kind is kinds.PVC:
            self.pvcs = [written if _name(pvc) == _name(written) else pvc for pvc in self.pvcs]
        return written

    async def _volume(self, pvc: Object) -> Object:
        """The PV of a bound PVC; raises `NotFound` when it does not exist."""
        name = pvc["spec"].get("volumeName") or ""
        found = self.mirrors[kinds.PV].get(name) or await self.world.access.read(kinds.PV, name)
        if found is None:
            raise NotFound(f"PV {name} of PVC {pvc['metadata']['name']} does not exist")
        return found

    def _entry(self, pvc: Object) -> Object:
        """The PVC's item in `status.protectedPVCs`, brought up to date in place or appended."""
        listed: list[Object] = self.status.setdefault("protectedPVCs", [])
        old = next((item for item in listed if _entry_name(item) == _name(pvc)), None)
        item = rules.entry(pvc, self.classes.get(_name(pvc)), old)
        if old is None:
            listed.append(item)
            return item
        old.clear()
        old.update(item)
        return old

    def _drop_stale_entries(self) -> None:
        """Removes entries whose PVC does not exist any more."""
        claims = self.mirrors[kinds.PVC]
        self.status["protectedPVCs"] = [item for item in self.entries if claims.get(item["name"], item["namespace"])]

    def _entry_ready(self, item: Object, part: Part) -> None:
        cond.stamp(item["conditions"], cond.DATA_READY, part, self.generation, self.now)


def _name(pvc: Object) -> Name:
    return pvc["metadata"]["namespace"], pvc["metadata"]["name"]


def _entry_name(item: Object) -> Name:
    return item["namespace"], item["name"]


def _raise(obstacle: str | None) -> None:
    if obstacle is not None:
        raise store.StoreError(obstacle)
