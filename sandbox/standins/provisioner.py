"""PersistentVolumes of the array on one cluster, made and removed as a CSI external-provisioner does.

Binding is left to the real kube-controller-manager, for new volumes and for those that the dr-cluster operator
restored. A released volume whose reclaim policy says Delete is deleted, whatever it holds.
"""

from __future__ import annotations

import logging
from typing import Literal

from activities.access.protocol import ClusterAccess, Object
from ramen.errors import AlreadyExists
from ramen.kinds import PV
from ramen.names import OWNER_NAME, OWNER_NAMESPACE
from sandbox.application import APPLICATION
from sandbox.ledger import Claim
from sandbox.standins.csi_addons import BACK_OFF, Mirrors
from sandbox.standins.runtime import Mirror, Next, WorkQueue
from sandbox.standins.storage import Storage

log = logging.getLogger(__name__)

DRIVER = "array.sandbox.hubless.io"
"""Name of the CSI driver, hence of the provisioner in the StorageClass."""

PROVISIONER_ANNOTATION = "volume.kubernetes.io/storage-provisioner"
"""Set by the kube-controller-manager on a PVC that waits for a provisioner outside of it."""

_Key = tuple[Literal["provision", "reclaim"], str, str]


class Provisioner:
    """The controller of one cluster; it also tells the ledger which claims are bound to which volumes."""

    def __init__(self, access: ClusterAccess, storage: Storage, mirrors: Mirrors, classes: Mirror) -> None:
        self.queue: WorkQueue[_Key] = WorkQueue(self._reconcile, BACK_OFF)
        self._access = access
        self._cluster = access.name
        self._storage = storage
        self._mirrors = mirrors
        self._classes = classes
        self._told: dict[tuple[str, str], Claim] = {}

    def claim_changed(self, before: Object | None, after: Object | None) -> None:
        """For the mirror of PVCs."""
        body = after or before
        if body is None:
            return
        meta = body["metadata"]
        self._tell(body, gone=after is None)
        if after is not None and meta.get("annotations", {}).get(PROVISIONER_ANNOTATION) == DRIVER:
            self.queue.add(("provision", meta["namespace"], meta["name"]))

    def volume_changed(self, before: Object | None, after: Object | None) -> None:
        """For the mirror of PVs."""
        if after is None:
            return
        self.queue.add(("reclaim", "", after["metadata"]["name"]))
        reference = after["spec"].get("claimRef") or {}
        claim = self._mirrors.claims.get(reference.get("name", ""), reference.get("namespace", ""))
        if claim is not None:
            self._tell(claim, gone=False)

    async def _reconcile(self, key: _Key) -> Next:
        if not self._storage.answers(self._cluster):
            return "back-off"
        task, namespace, name = key
        return await (self._provision(namespace, name) if task == "provision" else self._reclaim(name))

    async def _provision(self, namespace: str, name: str) -> Next:
        claim = self._mirrors.claims.get(name, namespace)
        if claim is None or claim["spec"].get("volumeName") or claim["metadata"].get("deletionTimestamp"):
            return None
        volume_name = f"pvc-{claim['metadata']['uid']}"
        if self._mirrors.volumes.get(volume_name) is not None:
            return None
        storage_class = self._classes.get(claim["spec"].get("storageClassName", ""))
        if storage_class is None:
            return "back-off"
        handle = f"array-{claim['metadata']['uid']}"
        self._storage.provision(handle, self._cluster)
        spec = claim["spec"]
        body: Object = {
            "metadata": {"name": volume_name, "annotations": {"pv.kubernetes.io/provisioned-by": DRIVER}},
            "spec": {
                "accessModes": spec["accessModes"],
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": namespace,
                    "name": name,
                    "uid": claim["metadata"]["uid"],
                    "resourceVersion": claim["metadata"]["resourceVersion"],
                },
                "csi": {"driver": DRIVER, "volumeHandle": handle},
                "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
                "storageClassName": storage_class["metadata"]["name"],
                "volumeMode": spec.get("volumeMode", "Filesystem"),
            },
        }
        try:
            self._mirrors.volumes.remember(await self._access.create(PV, body))
        except AlreadyExists:
            # Made by a pass whose answer was lost; the watch will bring it.
            return None
        return None

    async def _reclaim(self, name: str) -> Next:
        volume = self._mirrors.volumes.get(name)
        if volume is None or volume["metadata"].get("deletionTimestamp"):
            return None
        spec = volume["spec"]
        if spec.get("csi", {}).get("driver") != DRIVER or spec.get("persistentVolumeReclaimPolicy") != "Delete":
            return None
        if volume.get("status", {}).get("phase") != "Released":
            return None
        self._storage.destroy(spec["csi"]["volumeHandle"], self._cluster)
        await self._access.delete(PV, name, uid=volume["metadata"]["uid"])
        return None

    def _tell(self, claim: Object, *, gone: bool) -> None:
        """Tells the ledger about the binding of an application's PVC when it is news."""
        meta = claim["metadata"]
        labels = meta.get("labels") or {}
        application = labels.get(APPLICATION)
        handle = self._mirrors.handle(meta["namespace"], meta["name"])
        if application is None or (handle is None and not gone):
            return
        owner = f"{labels[OWNER_NAMESPACE]}/{labels[OWNER_NAME]}" if OWNER_NAME in labels else ""
        key = (meta["namespace"], meta["name"])
        told = self._told.get(key)
        if not owner and told is not None:
            # The marks of the operator go with the demotion; who protected the volume stays true.
            owner = told.owner
        news = Claim(self._storage.now(), self._cluster, *key, application, "" if gone else handle or "", owner)
        if told is None or (told.application, told.handle, told.owner) != (news.application, news.handle, news.owner):
            self._told[key] = news
            self._storage.ledger.add_claim(news)
