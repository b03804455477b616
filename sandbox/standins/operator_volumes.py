"""Steps of a pass that concern one volume: PVC, PV and VolumeReplication, and their copies in the stores.

Each step reads the mirrors, makes at most the writes that are possible now, and notes what it found in the volume's
entry; whoever calls it decides about the VRG's conditions.
"""

from __future__ import annotations

import logging

from activities.access.protocol import Object
from ramen import kinds
from ramen.errors import AlreadyExists, Conflict, HublessError, NotFound
from ramen.kinds import Kind
from sandbox.standins import vrg_conditions as cond
from sandbox.standins import vrg_reconcile as rules
from sandbox.standins.operator_world import World
from sandbox.standins.runtime import Name
from sandbox.standins.vrg_conditions import Part

log = logging.getLogger(__name__)


class VolumeSteps:
    """State of one pass, and what it can do with a volume."""

    def __init__(self, world: World, vrg: Object) -> None:
        self.world = world
        self.mirrors = world.mirrors
        self.config = world.config()
        self.now = world.now()
        self.vrg = vrg
        """Working copy; its status is what the pass will write."""
        self.again = False
        """Another pass is wanted."""
        self.pvcs: list[Object] = []
        """PVCs in the VRG's scope, as last written."""
        self.classes: dict[Name, rules.Classes] = {}

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

    # --- primary ------------------------------------------------------------------------------------------------------

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
            await self._upload(pvc, item)
        except (Conflict, NotFound) as err:
            self._entry_ready(item, Part("False", "Progressing", str(err)))
            self.again = True

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

    # --- secondary, deletion ------------------------------------------------------------------------------------------

    async def _demote(self, pvc: Object) -> None:
        """Brings one PVC of a former primary one step further (vrg.md 2.4)."""
        namespace, name = pvc_name(pvc)
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

    async def _let_go(self, pvc: Object, primary: bool) -> None:
        namespace, name = pvc_name(pvc)
        vr = self.mirrors[kinds.VOLUME_REPLICATION].get(name, namespace)
        if vr is None:
            await self._release(pvc)
            return
        self.again = True
        if not primary and not rules.is_going(vr):
            self._classify(pvc)
            await self._demote(pvc)
            return
        if rules.is_going(vr) or rules.deletable(vr):
            await self._replication_gone(pvc)

    # --- both ---------------------------------------------------------------------------------------------------------

    async def _drive(self, pvc: Object, role: str, item: Object) -> Object | None:
        """Creates or updates the VolumeReplication; answers it only if it already says what is wanted.

        What storage makes of it comes as an event: waiting for it asks for no other pass, which also takes the
        back-off to its beginning (measured: the VRG reaches S3 one second after a promotion that took one).
        """
        wanted = rules.replication(self.vrg, pvc, self.classes[pvc_name(pvc)], role)
        namespace, name = pvc_name(pvc)
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

    def _classify(self, pvc: Object) -> None:
        """Finds the PVC's classes for later steps; raises `ClassifyError`."""
        storage, replication = self.mirrors[kinds.STORAGE_CLASS], self.mirrors[kinds.VOLUME_REPLICATION_CLASS]
        self.classes[pvc_name(pvc)] = rules.classify(self.vrg, pvc, storage.all(), replication.all())

    async def _replication_gone(self, pvc: Object) -> bool:
        """Deletes the PVC's VolumeReplication; True once it is really gone, which a later pass may find."""
        namespace, name = pvc_name(pvc)
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
        self.status["protectedPVCs"] = [item for item in self.entries if entry_name(item) != pvc_name(pvc)]

    async def _create(self, kind: Kind, body: Object) -> Object | None:
        """Creates the object; answers the one that is already there, if so."""
        try:
            self.mirrors[kind].remember(await self.world.access.create(kind, body))
        except AlreadyExists:
            return await self.world.access.read(kind, body["metadata"]["name"], body["metadata"].get("namespace"))
        return None

    async def _replace(self, kind: Kind, body: Object) -> Object:
        written = self.mirrors[kind].remember(await self.world.access.replace(kind, body))
        if kind is kinds.PVC:
            self.pvcs = [written if pvc_name(pvc) == pvc_name(written) else pvc for pvc in self.pvcs]
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
        old = next((item for item in listed if entry_name(item) == pvc_name(pvc)), None)
        item = rules.entry(pvc, self.classes.get(pvc_name(pvc)), old)
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


def pvc_name(pvc: Object) -> Name:
    """Namespace and name of a PVC."""
    return pvc["metadata"]["namespace"], pvc["metadata"]["name"]


def entry_name(item: Object) -> Name:
    """Namespace and name of the PVC that an item of `status.protectedPVCs` stands for."""
    return item["namespace"], item["name"]
