"""Every name that Hubless spells: workflow IDs, task queues, annotations, labels, S3 keys, exit words.

Ramen's own names come from `drpc.md` 1.4 and `vrg.md` 1.2, 3.2; ours carry the prefix `hubless.io/`.
"""

from __future__ import annotations

# --- Temporal -----------------------------------------------------------------------------------------------------

CONTROL_QUEUE = "hubless.control"
"""Workflows, and activities that touch stores only: served by every worker."""

TEMPORAL_NAMESPACE = "hubless"
"""Namespace used where nothing else is configured (sandbox, docker-compose)."""


def cluster_queue(cluster: str) -> str:
    """Task queue of the short reads and writes of one cluster (D2)."""
    return f"hubless.cluster.{cluster}"


def wait_queue(cluster: str) -> str:
    """Task queue of the waits on one cluster: a thousand of them must not starve writes (S12)."""
    return f"hubless.cluster.{cluster}.waits"


def own_queue(cluster: str) -> str:
    """Task queue that only the cluster's own worker serves: what it can do from where it runs."""
    return f"hubless.worker.{cluster}"


def entity_id(namespace: str, name: str) -> str:
    """Workflow ID of an application: the lock (D1)."""
    return f"drpc/{namespace}/{name}"


def action_id(namespace: str, name: str, action: str, epoch: int) -> str:
    """Workflow ID of one action, e.g. `drpc/web/shop/failover-8`."""
    return f"drpc/{namespace}/{name}/{action.lower()}-{epoch}"


def adopt_id(namespace: str, name: str, is_look: bool = False) -> str:
    """Workflow ID of an adoption, or of the look before it: a consent must not join somebody else's look."""
    return f"adopt/{namespace}/{name}" + ("/look" if is_look else "")


def split_entity_id(workflow_id: str) -> tuple[str, str] | None:
    """`(namespace, name)` of an entity's or action's workflow ID; None for any other workflow."""
    parts = workflow_id.split("/")
    return (parts[1], parts[2]) if len(parts) >= 3 and parts[0] == "drpc" else None


# --- Annotations, labels, finalizers -------------------------------------------------------------------------------

EPOCH = "hubless.io/epoch"
"""`<number>.<token>` on every VRG that Hubless wrote (S1)."""
DECISION = "hubless.io/decision"
"""On a promoted VRG: the cluster decided for (S10)."""
DECISION_EPOCH = "hubless.io/decision-epoch"
"""On a promoted VRG: number of the epoch of that decision; a later action may have claimed the VRG since."""
PREVIOUS = "hubless.io/previous-cluster"
"""On a promoted VRG: the cluster that was left, empty at a deployment (S10)."""
ACTION = "hubless.io/action"
"""On a VRG: the action of its epoch (S10)."""
VOLUMES = "hubless.io/volumes"
"""On the peer's VRG: JSON list of the volumes last known to be protected (S3)."""
CLUSTERS = "hubless.io/clusters"
"""On a VRG: comma-separated clusters of its policy, so that a worker knows which VRGs belong together (S8)."""

UPLOAD_REQUESTED = "hubless.io/upload-requested"
"""On a VRG: changed to wake the operator, which an annotation does without a new generation (vrg.md 1.2)."""

WRITTEN = "hubless.io/written"
"""On a DRPC: what Hubless last wrote there; an edit is a difference from it (design 7)."""
DRPC_FINALIZER = "hubless.io/drpc"
"""On a DRPC: its deletion waits until it is decided whether it means anything (S7)."""

DRPC_PREFIX = "drplacementcontrol.ramendr.openshift.io/"
DESTINATION_CLUSTER = DRPC_PREFIX + "destination-cluster"
DRPC_UID = DRPC_PREFIX + "drpc-uid"
DRPC_NAME = DRPC_PREFIX + "drpc-name"
DRPC_NAMESPACE = DRPC_PREFIX + "drpc-namespace"
USER_SWITCHES: tuple[str, ...] = tuple(
    DRPC_PREFIX + name
    for name in ("is-cg-enabled", "is-submariner-enabled", "use-volsync-for-pvc-protection", "enable-diff")
)
"""Copied from the DRPC to every VRG; always present, empty where the DRPC lacks them (vrg.md 1.2)."""

CREATED_BY_RAMEN = "ramendr.openshift.io/created-by-ramen"
STORAGE_ID = "ramendr.openshift.io/storageid"
REPLICATION_ID = "ramendr.openshift.io/replicationid"
GROUP_REPLICATION_ID = "ramendr.openshift.io/groupreplicationid"
OFFLOADED = "ramendr.openshift.io/offloaded"
GLOBAL = "ramendr.openshift.io/global"
MAINTENANCE_MODES = "ramendr.openshift.io/maintenancemodes"

COPY = "hubless.io/copy"
"""On a DRPolicy and DRCluster: `<revision>.<digest>` of the spec that Hubless last accepted or wrote there."""
EDITED = "hubless.io/edited"
"""On the same: where and when that revision was edited; travels with it to the other clusters."""
BORN = "hubless.io/born"
"""On the same: when the first copy was accepted, which is the object's age wherever it is read."""
PAST = "hubless.io/past"
"""On the same: the revisions before that one, by which an edit made at the same time is told from an old copy."""
OVERRULED = "hubless.io/overruled"
"""On the same: an edit made there that gave way to another one."""

POLICY_FINALIZER = "drpolicies.ramendr.openshift.io/ramen"
DRCLUSTER_FINALIZER = "drclusters.ramendr.openshift.io/ramen"
VRG_FINALIZER = "volumereplicationgroups.ramendr.openshift.io/vrg-protection"
PVC_FINALIZER = "volumereplicationgroups.ramendr.openshift.io/pvc-vr-protection"
VRG_PREFIX = "volumereplicationgroups.ramendr.openshift.io/"
OWNER_NAME = "ramendr.openshift.io/owner-name"
OWNER_NAMESPACE = "ramendr.openshift.io/owner-namespace-name"
RESTORED_BY_RAMEN = VRG_PREFIX + "ramen-restore"

PLACEMENT_LABEL = "cluster.open-cluster-management.io/placement"
RETAINED_FOR_FAILOVER = "RetainedForFailover"
"""Reason of a decision entry whose workload must not be removed yet (drpc.md 2.7)."""

# --- Namespaces and objects on each cluster --------------------------------------------------------------------------

RAMEN_NAMESPACE = "ramen-system"
RAMEN_CONFIG_MAP = "ramen-dr-cluster-operator-config"
OPERATOR_DEPLOYMENT = "ramen-dr-cluster-operator"
"""The dr-cluster operator as Ramen's own manifests install it."""
RAMEN_CONFIG_KEY = "ramen_manager_config.yaml"
KUBECONFIG_KEY = "kubeconfig"
REGISTRY_NAME = "hubless"
"""Name of the one ClusterRegistry object of an installation."""
WRITER_LEASE = "hubless-writer"
"""Lease on each cluster: its holder alone writes statuses and copies of objects there (S16)."""


def placement_decision_name(placement: str) -> str:
    """Name of the PlacementDecision that GitOps follows (vrg.md 4.5)."""
    return f"{placement}-decision-1"


def tombstone_name(name: str) -> str:
    """ConfigMap in the application's namespace that keeps the epoch after an unprotect (S7)."""
    return f"hubless-epoch-{name}"


# --- S3: the dr-cluster operator's objects (vrg.md 3.2), in the bucket of the profile ---------------


def operator_prefix(namespace: str, name: str) -> str:
    """Prefix of everything that the operator stores for one VRG."""
    return f"{namespace}/{name}/"


def vrg_key(namespace: str, name: str) -> str:
    """Key of the uploaded VRG."""
    return f"{namespace}/{name}/v1alpha1.VolumeReplicationGroup/a"


def pv_prefix(namespace: str, name: str) -> str:
    """Prefix of the uploaded PVs."""
    return f"{namespace}/{name}/v1.PersistentVolume/"


def pvc_prefix(namespace: str, name: str) -> str:
    """Prefix of the uploaded PVCs; the rest of the key is `<pvc namespace>/<pvc name>`, or the bare name (legacy)."""
    return f"{namespace}/{name}/v1.PersistentVolumeClaim/"


# --- S3: the mirror (design 8), in the coordination bucket ---------------

COORDINATION_BUCKET = "ramen-coordination"


MIRROR_PREFIX = "drpc-"
"""What the keys of every application begin with."""


def split_mirror_key(key: str) -> tuple[str, str, str] | None:
    """Namespace and name of the application that a key belongs to, and the rest of it; None for any other key."""
    parts = key.removeprefix(MIRROR_PREFIX).split("/", 2)
    return (parts[0], parts[1], parts[2]) if key.startswith(MIRROR_PREFIX) and len(parts) == 3 else None


def mirror_prefix(namespace: str, name: str) -> str:
    """Prefix of an application in the mirror.

    A slash and not a dash between the two: `web-shop`/`db` and `web`/`shop-db` must not share a lock and an epoch.
    """
    return f"{MIRROR_PREFIX}{namespace}/{name}/"


def lock_key(namespace: str, name: str) -> str:
    """Advisory lock (S13)."""
    return mirror_prefix(namespace, name) + "lock"


def epoch_key(namespace: str, name: str, number: int) -> str:
    """Claim of one epoch; ten digits so that listing order is number order."""
    return f"{mirror_prefix(namespace, name)}epoch/{number:010d}"


def epoch_prefix(namespace: str, name: str) -> str:
    """Prefix of all claims."""
    return mirror_prefix(namespace, name) + "epoch/"


def state_key(namespace: str, name: str) -> str:
    """Phase, progression, conditions, D(c), volumes, epoch."""
    return mirror_prefix(namespace, name) + "state"


def decision_key(namespace: str, name: str) -> str:
    """Decision, previous cluster, retained entries, epoch."""
    return mirror_prefix(namespace, name) + "decision"


def witness_key(namespace: str, name: str, epoch: int) -> str:
    """Volumes seen in sync at the demotion of that epoch (S4)."""
    return f"{mirror_prefix(namespace, name)}witness/{epoch:010d}"


def history_key(namespace: str, name: str, epoch: int, action: str) -> str:
    """One finished action."""
    return f"{mirror_prefix(namespace, name)}history/{epoch}-{action.lower()}.json"


CLUSTERS_PREFIX = "clusters/"
"""What the keys of every cluster begin with."""


def cluster_status_key(cluster: str) -> str:
    """Last seen, versions and worker identity of a cluster."""
    return f"{CLUSTERS_PREFIX}{cluster}/status"


def proof_key(cluster: str, token: str) -> str:
    """Object that a check writes, reads and deletes, in every bucket."""
    return f"hubless-check/{cluster}/{token}"
