"""One pass of the dr-cluster operator over one VRG: which steps, in which order, with which conditions.

The order of the steps, and which of them a pass reaches, is that of vrg.md 2.0. A pass changes only the conditions
it reaches, writes status at most once, and asks for another pass instead of waiting.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator

from activities.access.protocol import Object
from ramen import kinds, names
from ramen.errors import HublessError
from sandbox.standins import operator_store as store
from sandbox.standins import vrg_conditions as cond
from sandbox.standins import vrg_reconcile as rules
from sandbox.standins.operator_volumes import VolumeSteps, pvc_name
from sandbox.standins.operator_world import World
from sandbox.standins.runtime import Name, Next
from sandbox.standins.vrg_conditions import Part

log = logging.getLogger(__name__)


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


class _Pass(VolumeSteps):
    """One pass: the course of a primary, of a secondary and of a deletion."""

    def __init__(self, world: World, vrg: Object) -> None:
        super().__init__(world, vrg)
        self.before = copy.deepcopy(vrg.get("status") or {})

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
        self.pvcs = self._selected()
        for pvc in self.pvcs:
            try:
                self._classify(pvc)
            except rules.ClassifyError as err:
                item = self._entry(pvc)
                part = Part("Unknown", err.reason, str(err))
                cond.stamp(item["conditions"], cond.DATA_READY, part, self.generation, self.now)
                self.stamp(cond.DATA_READY, Part("False", "Error", f"failed to process list of PVCs: {err}"))
                return False
        return True

    def _in_reach(self) -> Iterator[Object]:
        """All PVCs of the namespaces that the VRG protects."""
        for namespace in rules.namespaces(self.vrg):
            yield from self.mirrors[kinds.PVC].within(namespace)

    def _selected(self) -> list[Object]:
        return [pvc for pvc in self._in_reach() if rules.selects(self.vrg, pvc)]

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

    def stamp(self, kind: str, *parts: Part) -> None:
        cond.stamp(self.conditions, kind, cond.merge(parts), self.generation, self.now)

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

    async def _drop_deselected(self) -> None:
        """Unprotects PVCs that carry this VRG's owner labels but no longer match its selector."""
        selected = {pvc_name(pvc) for pvc in self.pvcs}
        for pvc in self._in_reach():
            if rules.owner_of(pvc) == self.key and pvc_name(pvc) not in selected and not self.final_sync:
                await self._abandon(pvc)

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

    # --- restore ------------------------------------------------------------------------------------------------------

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
        self.pvcs = self._selected()
        self._primary_conditions()
        self.again = True
        return False

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

    def _owned(self) -> list[Object]:
        """PVCs of this VRG: taken from owner labels and finalizer, not from the selector, which may have changed."""
        return [pvc for pvc in self._in_reach() if rules.owner_of(pvc) == self.key and rules.has_finalizer(pvc)]


def _raise(obstacle: str | None) -> None:
    if obstacle is not None:
        raise store.StoreError(obstacle)
