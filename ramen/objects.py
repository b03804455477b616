"""The five API objects that Hubless reads and writes, as models: VRG, DRPC, DRPolicy, DRCluster, ClusterRegistry.

They are one description for three uses: reading what a cluster serves, writing it back without losing a field that
only a newer operator knows, and generating the CRDs (`ramen.crds`). Four of them are Ramen's; ClusterRegistry and
`status.hubless` of a DRPC are ours. Embedded parts live in `ramen.parts`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ValidationError

from ramen import kinds
from ramen.conditions import Condition
from ramen.errors import Invalid
from ramen.kinds import Kind
from ramen.model import Int64, Model, Required, Rules, Time
from ramen.parts import (
    ActionName,
    KubeObjectProtectionSpec,
    LabelSelector,
    LocalObjectReference,
    ObjectReference,
    PeerClasses,
    ProtectedPVC,
    PVCGroup,
    StaticIPDiscovery,
    StaticIPResource,
    StaticIPTranslationSpec,
    VolSyncDestination,
    VolSyncSpec,
)

PRIMARY = "primary"
SECONDARY = "secondary"
"""The two values of a VRG's `spec.replicationState`, in lower case (vrg.md 1.1)."""

STATE_PRIMARY = "Primary"
STATE_SECONDARY = "Secondary"
STATE_UNKNOWN = "Unknown"
"""The three values of a VRG's `status.state`, capitalised (vrg.md 1.5.1)."""


class OwnerReference(Model):
    """An object that owns this one."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Metadata(Model):
    """The parts of `metadata` that decisions look at; the rest is kept as it is."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    owner_references: list[OwnerReference] = Field(default_factory=list)
    creation_timestamp: str = ""
    deletion_timestamp: str = ""


class APIObject(Model):
    """A Kubernetes object of one of our kinds, between JSON as the API server speaks it and a typed model."""

    KIND: ClassVar[Kind]

    api_version: str = ""
    kind: str = ""
    metadata: Metadata = Field(default_factory=Metadata)

    @classmethod
    def of(cls, obj: dict[str, Any]) -> Self:
        """Reads an object as the API server or a store serves it.

        Raises `Invalid`, naming object and field, for another kind or a field of another type than Ramen's.
        """
        if obj.get("kind", cls.KIND.kind) != cls.KIND.kind:
            raise Invalid(f"{obj['kind']} {_label(obj)} is not a {cls.KIND.kind}.")
        try:
            return cls.model_validate(obj)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise Invalid(f"{cls.KIND.kind} {_label(obj)} cannot be read: {field}: {first['msg']}.") from error

    def to_object(self) -> dict[str, Any]:
        """JSON for the API server: what was read, with what was changed; fields never set are left out."""
        written = self.model_dump(mode="json")
        return {"apiVersion": self.KIND.api_version, "kind": self.KIND.kind} | written

    @property
    def label(self) -> str:
        """`namespace/name`, or the bare name of a cluster-scoped object."""
        return f"{self.metadata.namespace}/{self.metadata.name}" if self.metadata.namespace else self.metadata.name

    @property
    def is_being_deleted(self) -> bool:
        """Whether a delete was accepted and only finalizers keep the object."""
        return bool(self.metadata.deletion_timestamp)


def _label(obj: dict[str, Any]) -> str:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        return "without metadata"
    return "/".join(str(metadata[key]) for key in ("namespace", "name") if metadata.get(key)) or "without a name"


# --- VolumeReplicationGroup ----------------------------------------------------------------------------------------


class AsyncSpec(PeerClasses):
    """Regional DR: copies at an interval."""

    replication_class_selector: LabelSelector = Field(default_factory=LabelSelector)
    volume_snapshot_class_selector: LabelSelector = Field(default_factory=LabelSelector)
    volume_group_snapshot_class_selector: LabelSelector = Field(default_factory=LabelSelector)
    scheduling_interval: Annotated[str, Rules(required=True, pattern=r"^\d+[mhd]$")] = ""


class VRGSpec(Model):
    """What a VRG is wanted to be (vrg.md 1.3)."""

    pvc_selector: Annotated[LabelSelector, Required] = Field(default_factory=LabelSelector)
    replication_state: Annotated[str, Required] = ""
    s3_profiles: Annotated[list[str], Required] = Field(default_factory=list)
    async_: AsyncSpec | None = None
    sync: PeerClasses | None = None
    vol_sync: VolSyncSpec = Field(default_factory=VolSyncSpec)
    prepare_for_final_sync: bool = False
    run_final_sync: bool = False
    action: ActionName | None = None
    dry_run: bool = False
    kube_object_protection: KubeObjectProtectionSpec | None = None
    protected_namespaces: list[str] = Field(default_factory=list)
    static_ip_translation_spec: StaticIPTranslationSpec | None = Field(default=None, alias="staticIPTranslationSpec")


class CaptureToRecoverFrom(Model):
    """The last complete capture of Kubernetes objects."""

    number: Annotated[Int64, Required] = 0
    start_time: Annotated[Time, Rules(nullable=True)] = ""
    end_time: Annotated[Time, Rules(nullable=True)] = ""
    start_generation: Int64 = 0


class KubeObjectProtectionStatus(Model):
    """How far the protection of Kubernetes objects is."""

    capture_to_recover_from: CaptureToRecoverFrom | None = None


class VRGStatus(Model):
    """What the operator reports of a VRG (vrg.md 1.5.1); all of it may be missing."""

    state: str = ""
    conditions: list[Condition] = Field(default_factory=list)
    observed_generation: Int64 | None = None
    last_update_time: Annotated[Time, Rules(nullable=True)] = ""
    protected_pvcs: list[ProtectedPVC] = Field(default_factory=list, alias="protectedPVCs")
    pvcgroups: list[PVCGroup] = Field(default_factory=list)
    rd_info: list[VolSyncDestination] = Field(default_factory=list)
    kube_object_protection: KubeObjectProtectionStatus | None = None
    prepare_for_final_sync_complete: bool = False
    final_sync_complete: bool = False
    last_group_sync_time: Time = ""
    last_group_sync_duration: str = ""
    last_group_sync_bytes: Int64 | None = None
    static_ip_discovery: StaticIPDiscovery | None = Field(default=None, alias="staticIPDiscovery")


class VRG(APIObject):
    """VolumeReplicationGroup: the contract with the dr-cluster operator, one per application and cluster."""

    KIND = kinds.VRG

    spec: VRGSpec = Field(default_factory=VRGSpec)
    status: VRGStatus = Field(default_factory=VRGStatus)

    @property
    def has_observed_spec(self) -> bool:
        """Whether the operator has seen the present spec, done with it or not (vrg.md 1.5.2 rule 1)."""
        return self.metadata.generation is not None and self.status.observed_generation == self.metadata.generation


# --- DRPlacementControl --------------------------------------------------------------------------------------------


class DRPCSpec(Model):
    """What a user asks for one application (drpc.md 1.2)."""

    placement_ref: Annotated[ObjectReference, Required, Rules(immutable=True)] = Field(default_factory=ObjectReference)
    protected_namespaces: list[str] = Field(default_factory=list)
    dr_policy_ref: Annotated[ObjectReference, Required, Rules(immutable=True)] = Field(default_factory=ObjectReference)
    preferred_cluster: str = ""
    failover_cluster: str = ""
    pvc_selector: Annotated[LabelSelector, Required, Rules(immutable=True)] = Field(default_factory=LabelSelector)
    action: ActionName | None = None
    dry_run: bool = False
    kube_object_protection: KubeObjectProtectionSpec | None = None
    vol_sync_spec: VolSyncSpec | None = None
    retain_namespace_scc_across_peers: bool = Field(default=False, alias="retainNamespaceSCCAcrossPeers")


class PlacementDecision(Model):
    """Where the first deployment was meant to go; not the present location (drpc.md 1.3)."""

    cluster_name: str = ""
    cluster_namespace: str = ""


class VRGResourceMeta(Model):
    """Which VRG the resource conditions were copied from."""

    kind: Annotated[str, Required] = ""
    name: Annotated[str, Required] = ""
    namespace: Annotated[str, Required] = ""
    generation: Annotated[Int64, Required] = 0
    resource_version: str = ""
    protectedpvcs: list[str] = Field(default_factory=list)
    pvcgroups: list[PVCGroup] = Field(default_factory=list)
    protected_static_ip_vms: list[StaticIPResource] = Field(default_factory=list, alias="protectedStaticIPVMs")


class VRGConditions(Model):
    """A copy of the conditions of the VRG that matters."""

    resource_meta: VRGResourceMeta | None = None
    conditions: list[Condition] = Field(default_factory=list)


class Fact(Model):
    """One of the three facts: whether it holds, since when, or what it waits for."""

    holds: bool = False
    since: Time = ""
    detail: str = ""


class HublessStatus(Model):
    """What Ramen's status cannot say; beside it, never instead of it (design 7, D6)."""

    OPEN = True

    serves_on: str = ""
    previous_cluster: str = ""
    retained_clusters: list[str] = Field(default_factory=list)
    epoch: Int64 | None = None
    action: str = ""
    serving: Fact | None = None
    cleaned: Fact | None = None
    reprotected: Fact | None = None


class DRPCStatus(Model):
    """What users and scripts read of an application (drpc.md 1.3)."""

    phase: str = ""
    observed_generation: Int64 | None = None
    action_start_time: Time = ""
    action_duration: str = ""
    progression: str = ""
    preferred_decision: PlacementDecision | None = None
    conditions: list[Condition] = Field(default_factory=list)
    resource_conditions: VRGConditions | None = None
    last_update_time: Time = ""
    last_group_sync_time: Time = ""
    last_group_sync_duration: str = ""
    last_group_sync_bytes: Int64 | None = None
    last_kube_object_protection_time: Time = ""
    hubless: HublessStatus | None = None


class DRPC(APIObject):
    """DRPlacementControl: one protected application, as its owner sees it."""

    KIND = kinds.DRPC

    spec: DRPCSpec = Field(default_factory=DRPCSpec)
    status: DRPCStatus = Field(default_factory=DRPCStatus)


# --- DRPolicy ------------------------------------------------------------------------------------------------------


class DRPolicySpec(Model):
    """Which two clusters protect each other, and how often (drpc.md 4.1)."""

    CEL = tuple(
        (f"has(oldSelf.{name}) == has(self.{name})", f"{name} is immutable")
        for name in ("replicationClassSelector", "volumeSnapshotClassSelector")
    )

    scheduling_interval: Annotated[str, Required, Rules(immutable=True, pattern=r"^(|\d+[mhd])$")] = ""
    replication_class_selector: Annotated[LabelSelector, Rules(immutable=True, default={})] = Field(
        default_factory=LabelSelector
    )
    volume_snapshot_class_selector: Annotated[LabelSelector, Rules(immutable=True, default={})] = Field(
        default_factory=LabelSelector
    )
    volume_group_snapshot_class_selector: LabelSelector | None = None
    dr_clusters: Annotated[
        list[str],
        Required,
        Rules(cel=(("size(self) == 2", "drClusters requires a list of 2 clusters"),), immutable=True),
    ] = Field(default_factory=list)
    network_mapping_ref: LocalObjectReference | None = None


class NetworkPeer(Model):
    """A network attachment definition that both clusters have."""

    nad_name: Annotated[str, Required] = ""
    nad_namespace: Annotated[str, Required] = ""
    cluster_cni_types: dict[str, str] = Field(default_factory=dict, alias="clusterCNITypes")


class DRPolicyStatus(Model):
    """What was found out about the policy's clusters."""

    conditions: list[Condition] = Field(default_factory=list)
    async_: PeerClasses | None = None
    sync: PeerClasses | None = None
    network_peers: list[NetworkPeer] = Field(default_factory=list)


class DRPolicy(APIObject):
    """A pair of clusters that applications may move between."""

    KIND = kinds.DRPOLICY

    spec: DRPolicySpec = Field(default_factory=DRPolicySpec)
    status: DRPolicyStatus = Field(default_factory=DRPolicyStatus)


# --- DRCluster -----------------------------------------------------------------------------------------------------


FENCE_STATES = ("Unfenced", "Fenced", "ManuallyFenced", "ManuallyUnfenced")
"""Values of `spec.clusterFence` of a DRCluster."""


class DRClusterSpec(Model):
    """How a cluster takes part in DR (drpc.md 5.1)."""

    cidrs: list[str] = Field(default_factory=list)
    cluster_fence: Annotated[str, Rules(enum=FENCE_STATES)] | None = None
    region: Annotated[str, Rules(immutable=True)] = ""
    s3_profile_name: Annotated[str, Required, Rules(immutable=True)] = ""


class ClusterMaintenanceMode(Model):
    """A maintenance mode that storage was asked to enter for a failover."""

    storage_provisioner: Annotated[str, Required] = ""
    target_id: Annotated[str, Required] = Field(default="", alias="targetID")
    state: Annotated[str, Rules(required=True, enum=("Unknown", "Error", "Progressing", "Completed"))] = ""
    conditions: list[Condition] = Field(default_factory=list)


class DRClusterStatus(Model):
    """Fencing and maintenance of a cluster."""

    phase: str = ""
    conditions: list[Condition] = Field(default_factory=list)
    maintenance_modes: list[ClusterMaintenanceMode] = Field(default_factory=list)


class DRCluster(APIObject):
    """A cluster that takes part in DR; its name is the cluster's name."""

    KIND = kinds.DRCLUSTER

    spec: DRClusterSpec = Field(default_factory=DRClusterSpec)
    status: DRClusterStatus = Field(default_factory=DRClusterStatus)


# --- ClusterRegistry -----------------------------------------------------------------------------------------------


CLUSTER_STATES = ("Available", "Unavailable", "Unknown")
"""Values of `status.clusters[].state` of the registry."""


class RegisteredCluster(Model):
    """How to reach one cluster, and how to know that it is the right one (design S11)."""

    name: Annotated[str, Rules(required=True, min_length=1, max_length=63)] = ""
    region: str = ""
    kubeconfig_secret: str = ""
    """Name of a Secret in Hubless's own namespace, with the key `kubeconfig`."""
    endpoint: str = ""
    cluster_uid: str = Field(default="", alias="clusterUID")
    """UID of that cluster's `kube-system` namespace."""


class ClusterRegistrySpec(Model):
    """All clusters of an installation."""

    clusters: Annotated[list[RegisteredCluster], Rules(list_keys=("name",))] = Field(default_factory=list)


class ClusterHealth(Model):
    """What the workers last saw of one cluster."""

    name: Annotated[str, Required] = ""
    state: Annotated[str, Rules(enum=CLUSTER_STATES)] = "Unknown"
    since: Time = ""
    version: str = ""
    workers: list[str] = Field(default_factory=list)
    """Identities of the workers that reach it, as far as the reporter knows."""
    last_error: str = ""
    flaps: int = 0
    """Outages in the last ten minutes, when there were several; then `Available` has to hold for a while first."""


class ClusterRegistryStatus(Model):
    """Health of all clusters, written by the workers."""

    clusters: Annotated[list[ClusterHealth], Rules(list_keys=("name",))] = Field(default_factory=list)
    conditions: list[Condition] = Field(default_factory=list)
    """`Synced`: whether registry, credentials and S3 profiles are equal on every cluster that answers."""
    reporter: str = ""
    """Identity of the worker from whose sight this is written; its Lease `hubless-writer` says how fresh it is."""


class ClusterRegistry(APIObject):
    """The clusters of one installation: one object, on every cluster, in place of a hub's ManagedClusters."""

    KIND = kinds.CLUSTER_REGISTRY

    spec: ClusterRegistrySpec = Field(default_factory=ClusterRegistrySpec)
    status: ClusterRegistryStatus = Field(default_factory=ClusterRegistryStatus)


OBJECTS: tuple[type[APIObject], ...] = (ClusterRegistry, DRPC, DRPolicy, DRCluster, VRG)
"""Every kind that Hubless has a model for, in the order in which their CRDs are printed."""
