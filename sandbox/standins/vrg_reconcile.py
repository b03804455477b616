"""What the dr-cluster operator decides about a VRG and its volumes, free of any client. Pure.

Async VolumeReplication only: no VolSync, no Metro, no consistency groups, no kube-object protection. Functions take
objects as JSON and return new ones; they never change their arguments.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ramen import names
from ramen.errors import HublessError
from sandbox.standins.vrg_conditions import Part, find

Object = dict[str, Any]

OPS_NAMESPACE = "ramen-ops"
"""The admin namespace where nothing else is configured (vrg.md 6.2)."""

RETAINED = names.VRG_PREFIX + "vr-retained"
PROTECTED = names.VRG_PREFIX + "vr-protected"
ARCHIVED = names.VRG_PREFIX + "vr-archived"
DRY_RUN = names.DRPC_PREFIX + "test-failover-dryrun"
DEFAULT_CLASS = "replication.storage.openshift.io/is-default-class"

MARKS = (RETAINED, PROTECTED, ARCHIVED)


class ClassifyError(HublessError):
    """A PVC that no scheme can protect; one is enough to fail the whole list (vrg.md 1.6)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# --- The spec ---------------------------------------------------------------------------------------------------------


def spec_error(vrg: Object, ops_namespace: str = OPS_NAMESPACE) -> str | None:
    """Why the operator refuses this spec, in the order of its checks; None if it does not (vrg.md 1.1)."""
    spec = vrg["spec"]
    if spec.get("replicationState") not in ("primary", "secondary"):
        return f"replicationState {spec.get('replicationState')!r} is neither primary nor secondary"
    if spec.get("async") is None and spec.get("sync") is None:
        return "neither async nor sync is present"
    if spec.get("async") is None:
        return "this stand-in plays async only"
    if spec.get("protectedNamespaces") and vrg["metadata"]["namespace"] != ops_namespace:
        return f"protectedNamespaces is allowed in namespace {ops_namespace} only"
    return None


def normal_form(spec: Object) -> Object:
    """The spec as a typed Go client writes it back, which may cost one generation (vrg.md 1.3)."""
    result = copy.deepcopy(spec)
    for flag in ("prepareForFinalSync", "runFinalSync", "dryRun"):
        if result.get(flag) is False:
            del result[flag]
    volsync = result.setdefault("volSync", {})
    if volsync.get("disabled") is False:
        del volsync["disabled"]
    if result.get("async") is not None:
        for selector in ("replicationClassSelector", "volumeSnapshotClassSelector", "volumeGroupSnapshotClassSelector"):
            result["async"].setdefault(selector, {})
    return result


def matches(selector: Object | None, labels: Object | None) -> bool:
    """Kubernetes' label selector; an empty one matches everything."""
    selector, labels = selector or {}, labels or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or ():
        key, values = rule["key"], rule.get("values") or []
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[rule["operator"]]
        if not holds:
            return False
    return True


def namespaces(vrg: Object) -> list[str]:
    """Namespaces whose PVCs the VRG protects."""
    return list(vrg["spec"].get("protectedNamespaces") or [vrg["metadata"]["namespace"]])


def selects(vrg: Object, pvc: Object) -> bool:
    """Is the PVC in the VRG's scope, by namespace and label (vrg.md 1.6 step 1)."""
    labels = pvc["metadata"].get("labels") or {}
    if pvc["metadata"]["namespace"] not in namespaces(vrg):
        return False
    volsync = not (vrg["spec"].get("volSync") or {}).get("disabled")
    foreign = labels.get("app.kubernetes.io/created-by") == "volsync" or labels.get(names.CREATED_BY_RAMEN) == "true"
    return matches(vrg["spec"].get("pvcSelector"), labels) and not (volsync and foreign)


def auto_resync(vrg: Object) -> bool:
    """`spec.autoResync` of a VolumeReplication that is demoted (vrg.md 2.4)."""
    annotations = vrg["metadata"].get("annotations") or {}
    return vrg["spec"].get("action") == "Failover" or annotations.get(DRY_RUN) == "true"


# --- Classes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Classes:
    """StorageClass and VolumeReplicationClass of a PVC."""

    storage: Object
    replication: Object


def _labels(body: Object) -> Object:
    return body["metadata"].get("labels") or {}


def classify(
    vrg: Object, pvc: Object, storage_classes: Iterable[Object], replication_classes: Iterable[Object]
) -> Classes:
    """Finds the classes that protect the PVC; raises `ClassifyError` (vrg.md 1.6)."""
    spec = vrg["spec"]["async"]
    where = f"{pvc['metadata']['namespace']}/{pvc['metadata']['name']}"
    name = pvc["spec"].get("storageClassName")
    storage = next((item for item in storage_classes if item["metadata"]["name"] == name), None)
    if storage is None:
        raise ClassifyError("Error", f"StorageClass {name!r} of PVC {where} is missing")
    wanted = {names.REPLICATION_ID: _labels(storage).get(names.REPLICATION_ID)}
    peers = spec.get("peerClasses") or []
    if peers:
        storage_id = _labels(storage).get(names.STORAGE_ID)
        if not storage_id:
            raise ClassifyError("StorageIDNotFound", f"StorageClass {name} lacks label {names.STORAGE_ID}")
        peer = next(
            (p for p in peers if p.get("storageClassName") == name and storage_id in (p.get("storageID") or [])), None
        )
        if peer is None:
            raise ClassifyError("PeerClassNotFound", f"no peerClass fits StorageClass {name} ({storage_id})")
        if not peer.get("replicationID"):
            raise ClassifyError("PeerClassNotFound", f"the peerClass of {name} has no replicationID")
        wanted = {names.STORAGE_ID: storage_id, names.REPLICATION_ID: peer["replicationID"]}
    fitting = [
        item
        for item in replication_classes
        if matches(spec.get("replicationClassSelector"), _labels(item))
        and item["spec"].get("provisioner") == storage.get("provisioner")
        and (item["spec"].get("parameters") or {}).get("schedulingInterval") == spec["schedulingInterval"]
        and all(_labels(item).get(key) == value for key, value in wanted.items())
    ]
    if len(fitting) > 1:
        fitting = [i for i in fitting if (i["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"]
    if len(fitting) != 1:
        raise ClassifyError("PeerClassNotFound", f"{len(fitting)} VolumeReplicationClasses fit PVC {where}, not one")
    return Classes(storage, fitting[0])


def _identity(labels: Object, key: str) -> Object:
    modes = labels.get(names.MAINTENANCE_MODES)
    return {"id": labels.get(key) or "", **({"modes": modes.split(",")} if modes else {})}


def entry(pvc: Object, classes: Classes | None, old: Object | None) -> Object:
    """The PVC's item of `status.protectedPVCs`; conditions and sync times of the old item stay (vrg.md 1.4)."""
    meta, spec = pvc["metadata"], pvc["spec"]
    item: Object = {**(old or {}), "namespace": meta["namespace"], "name": meta["name"]}
    if classes is not None:
        storage = _labels(classes.storage)
        item["csiProvisioner"] = classes.storage.get("provisioner")
        item["storageID"] = _identity(storage, names.STORAGE_ID)
        item["replicationID"] = _identity(_labels(classes.replication), names.REPLICATION_ID)
    item["storageClassName"] = spec.get("storageClassName")
    item["labels"] = dict(meta.get("labels") or {})
    item["accessModes"] = list(spec.get("accessModes") or [])
    item["resources"] = copy.deepcopy(spec.get("resources") or {})
    item["volumeMode"] = spec.get("volumeMode", "Filesystem")
    item["conditions"] = copy.deepcopy(item.get("conditions") or [])
    return item


# --- VolumeReplication ------------------------------------------------------------------------------------------------


def replication(vrg: Object, pvc: Object, classes: Classes, role: str) -> Object:
    """The VolumeReplication of a PVC: same name and namespace, owned by the VRG (vrg.md 2.2 step 6)."""
    meta, owner = pvc["metadata"], vrg["metadata"]
    body: Object = {
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": {
                names.CREATED_BY_RAMEN: "true",
                names.OWNER_NAME: owner["name"],
                names.OWNER_NAMESPACE: owner["namespace"],
            },
        },
        "spec": {
            "volumeReplicationClass": classes.replication["metadata"]["name"],
            "replicationState": role,
            "replicationHandle": "",
            "autoResync": role == "secondary" and auto_resync(vrg),
            "dataSource": {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": meta["name"]},
        },
    }
    if owner["namespace"] == meta["namespace"]:
        body["metadata"]["ownerReferences"] = [
            {
                "apiVersion": vrg["apiVersion"],
                "kind": vrg["kind"],
                "name": owner["name"],
                "uid": owner["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    return body


@dataclass(frozen=True)
class Outcome:
    """What a VolumeReplication's status means for its volume; `protected` None leaves that condition alone."""

    accepted: bool
    ready: Part
    protected: Part | None
    observed: bool
    """The status belongs to the present spec, so its sync times count."""


def outcome(vr: Object, role: Literal["primary", "secondary"]) -> Outcome:
    """Reads a VolumeReplication by the table of vrg.md 6.6."""
    generation = vr["metadata"]["generation"]
    status = vr.get("status") or {}
    if status.get("observedGeneration") != generation:
        return Outcome(False, Part("False", "Progressing", "VolumeReplication not observed yet"), None, False)

    def says(kind: str, value: str) -> bool:
        found = find(status.get("conditions"), kind)
        return found is not None and found["status"] == value and found.get("observedGeneration") == generation

    def failed(message: str) -> Outcome:
        detail = status.get("message")
        part = Part("False", "Error", f"{message}: {detail}" if detail else message)
        return Outcome(False, part, part, True)

    if role == "primary" and says("Validated", "False"):
        return failed("prerequisites of the promotion are not met")
    if not says("Completed", "True"):
        return failed(f"VolumeReplication did not become {role}")
    if role == "primary":
        ready = Part("True", "Ready", "volume is promoted")
        return Outcome(True, ready, Part("False", "Replicating", "volume is replicating"), True)
    if says("Degraded", "True") and says("Resyncing", "True"):
        message = "volume is resynchronising"
        return Outcome(True, Part("True", "Replicating", message), Part("False", "Replicating", message), True)
    if says("Degraded", "False") and says("Resyncing", "False") and status.get("state") == "Secondary":
        message = "volume is demoted and in sync"
        return Outcome(True, Part("True", "Replicated", message), Part("True", "DataProtected", message), True)
    return failed("volume is degraded and does not resynchronise")


def deletable(vr: Object) -> bool:
    """May a primary's VolumeReplication go with its VRG: promoted, or refused at validation (vrg.md 2.8 step 4)."""
    if outcome(vr, "primary").accepted:
        return True
    found = find((vr.get("status") or {}).get("conditions"), "Validated")
    generation = vr["metadata"]["generation"]
    return found is not None and found["status"] == "False" and found.get("observedGeneration") == generation


def demotion_obstacle(vrg: Object, pvc: Object, pods: Iterable[Object], attachments: Iterable[Object]) -> str | None:
    """Why the PVC must not be demoted yet; None if it may (vrg.md 2.4)."""
    name = pvc["metadata"]["name"]
    if vrg["spec"].get("action") != "Failover" and "deletionTimestamp" not in pvc["metadata"]:
        return "not demoted, as the PVC is not deleted"
    for pod in pods:
        for volume in pod["spec"].get("volumes") or ():
            if (volume.get("persistentVolumeClaim") or {}).get("claimName") == name:
                return f"not demoted, as pod {pod['metadata']['name']} uses the PVC"
    for item in attachments:
        if (item["spec"].get("source") or {}).get("persistentVolumeName") == pvc["spec"].get("volumeName"):
            return f"not demoted, as VolumeAttachment {item['metadata']['name']} names the PV"
    return None


# --- Marks on PVC and PV ----------------------------------------------------------------------------------------------


def owner_of(pvc: Object) -> tuple[str, str] | None:
    """Namespace and name of the VRG that owns the PVC by its labels."""
    labels = _labels(pvc)
    if names.OWNER_NAME not in labels:
        return None
    return labels.get(names.OWNER_NAMESPACE, ""), labels[names.OWNER_NAME]


def has_finalizer(pvc: Object) -> bool:
    """Does the PVC carry the operator's finalizer."""
    return names.PVC_FINALIZER in (pvc["metadata"].get("finalizers") or ())


def is_going(body: Object) -> bool:
    """Is the object being deleted."""
    return "deletionTimestamp" in body["metadata"]


def annotation(body: Object, key: str) -> str | None:
    """Value of an annotation, or None."""
    value = (body["metadata"].get("annotations") or {}).get(key)
    return None if value is None else str(value)


def annotated(body: Object, key: str, value: str) -> Object:
    """The object with one more annotation."""
    result = copy.deepcopy(body)
    result["metadata"].setdefault("annotations", {})[key] = value
    return result


def claimed(pvc: Object, vrg: Object) -> Object:
    """The PVC with the VRG's owner labels and the operator's finalizer (vrg.md 2.2 steps 2 and 3)."""
    result = copy.deepcopy(pvc)
    labels = result["metadata"].setdefault("labels", {})
    labels[names.OWNER_NAME] = vrg["metadata"]["name"]
    labels[names.OWNER_NAMESPACE] = vrg["metadata"]["namespace"]
    if not has_finalizer(result):
        result["metadata"].setdefault("finalizers", []).append(names.PVC_FINALIZER)
    return result


def retained(pv: Object) -> Object | None:
    """The PV with policy Retain and the note that the operator set it; None if it is retained already."""
    if pv["spec"].get("persistentVolumeReclaimPolicy") == "Retain":
        return None
    result = annotated(pv, RETAINED, "retained")
    result["spec"]["persistentVolumeReclaimPolicy"] = "Retain"
    return result


def _unmarked(body: Object) -> Object:
    result = copy.deepcopy(body)
    annotations = result["metadata"].get("annotations") or {}
    result["metadata"]["annotations"] = {key: value for key, value in annotations.items() if key not in MARKS}
    return result


def released_pv(pv: Object) -> Object:
    """The PV without marks; policy Delete again if the operator had retained it (vrg.md 2.4)."""
    result = _unmarked(pv)
    if annotation(pv, RETAINED) is not None:
        result["spec"]["persistentVolumeReclaimPolicy"] = "Delete"
    return result


def released_pvc(pvc: Object) -> Object:
    """The PVC without marks, owner labels and finalizer."""
    result = _unmarked(pvc)
    labels = _labels(pvc)
    result["metadata"]["labels"] = {
        key: value for key, value in labels.items() if key not in (names.OWNER_NAME, names.OWNER_NAMESPACE)
    }
    finalizers = result["metadata"].get("finalizers") or []
    result["metadata"]["finalizers"] = [item for item in finalizers if item != names.PVC_FINALIZER]
    return result


def archive_mark(pvc: Object) -> str:
    """Value of the PVC's archive annotation: changes with its spec (vrg.md 2.2 step 7)."""
    return hashlib.sha256(json.dumps(pvc["spec"], sort_keys=True).encode()).hexdigest()


def pv_archive_mark(pv: Object) -> str:
    """Value of the PV's archive annotation: changes with its generation."""
    return f"archiveV1-{pv['metadata'].get('generation', 0)}"


def is_archived(pvc: Object, pv: Object) -> bool:
    """Are both objects in the stores as they are now."""
    return annotation(pvc, ARCHIVED) == archive_mark(pvc) and annotation(pv, ARCHIVED) == pv_archive_mark(pv)


def counted(pvcs: Sequence[Object]) -> int:
    """PVCs that count for a primary's conditions: those in deletion without our finalizer are done with."""
    return sum(1 for pvc in pvcs if has_finalizer(pvc) or not is_going(pvc))
