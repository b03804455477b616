"""Parts that Ramen's API objects share, and those that Ramen embeds from Kubernetes.

The embedded Kubernetes types are written out rather than left as free-form objects: the API server then checks
them exactly as it does under Ramen's own CRDs.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ramen.conditions import Condition
from ramen.model import Int64, Model, Quantity, Required, Rules, Time
from ramen.phases import Action

ActionName = Annotated[str, Rules(enum=tuple(action.value for action in Action))]
StorageMode = Annotated[str, Rules(enum=("Failover",))]


# --- Kubernetes ----------------------------------------------------------------------------------------------------


class LabelSelectorRequirement(Model):
    """One expression of a label selector."""

    key: Annotated[str, Required] = ""
    operator: Annotated[str, Required] = ""
    values: Annotated[list[str], Rules(atomic=True)] = Field(default_factory=list)


class LabelSelector(Model):
    """Selects objects by label; the empty one selects all."""

    ATOMIC = True

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: Annotated[list[LabelSelectorRequirement], Rules(atomic=True)] = Field(default_factory=list)


class ObjectReference(Model):
    """Names an object, wherever it is."""

    ATOMIC = True

    api_version: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class LocalObjectReference(Model):
    """Names an object in the same namespace."""

    ATOMIC = True

    name: Annotated[str, Rules(default="")] = ""


class Profile(Model):
    """An AppArmor or seccomp profile."""

    type: Annotated[str, Required] = ""
    localhost_profile: str | None = None


class SELinuxOptions(Model):
    """SELinux labels of a container."""

    level: str | None = None
    role: str | None = None
    type: str | None = None
    user: str | None = None


class Sysctl(Model):
    """A kernel parameter of a pod."""

    name: Annotated[str, Required] = ""
    value: Annotated[str, Required] = ""


class WindowsOptions(Model):
    """Windows settings of a pod."""

    gmsa_credential_spec: str | None = None
    gmsa_credential_spec_name: str | None = None
    host_process: bool | None = None
    run_as_user_name: str | None = None


class PodSecurityContext(Model):
    """Security settings of a pod, here of a VolSync mover; 0 is a user like any other, so nothing defaults to it."""

    app_armor_profile: Profile | None = None
    fs_group: Int64 | None = None
    fs_group_change_policy: str | None = None
    run_as_group: Int64 | None = None
    run_as_non_root: bool | None = None
    run_as_user: Int64 | None = None
    se_linux_change_policy: str | None = None
    se_linux_options: SELinuxOptions | None = None
    seccomp_profile: Profile | None = None
    supplemental_groups: Annotated[list[Int64], Rules(atomic=True)] = Field(default_factory=list)
    supplemental_groups_policy: str | None = None
    sysctls: Annotated[list[Sysctl], Rules(atomic=True)] = Field(default_factory=list)
    windows_options: WindowsOptions | None = None


class VolumeResources(Model):
    """How much storage a PVC asks for."""

    limits: dict[str, Quantity] = Field(default_factory=dict)
    requests: dict[str, Quantity] = Field(default_factory=dict)


# --- Ramen: storage ------------------------------------------------------------------------------------------------


class PeerClass(Model):
    """A storage class that exists on both clusters, and how it is replicated (vrg.md 1.6)."""

    replication_id: str = Field(default="", alias="replicationID")
    groupreplication_id: str = Field(default="", alias="groupreplicationID")
    storage_id: list[str] = Field(default_factory=list, alias="storageID")
    storage_class_name: str = ""
    cluster_ids: list[str] = Field(default_factory=list, alias="clusterIDs")
    grouping: bool = False
    offloaded: bool = False
    global_: bool = False


class PeerClasses(Model):
    """The storage classes of one kind of DR."""

    peer_classes: list[PeerClass] = Field(default_factory=list)


class StorageIdentifier(Model):
    """ID of a storage or of a replication, and the maintenance modes that a failover needs from it."""

    id: Annotated[str, Required] = ""
    modes: list[StorageMode] = Field(default_factory=list)


class ProtectedPVC(Model):
    """One protected volume as its VRG reports it (vrg.md 1.4)."""

    namespace: str = ""
    name: str = ""
    protected_by_volsync: bool = Field(default=False, alias="protectedByVolSync")
    csi_provisioner: str = ""
    storage_id: StorageIdentifier | None = Field(default=None, alias="storageID")
    replication_id: StorageIdentifier | None = Field(default=None, alias="replicationID")
    storage_class_name: str | None = None
    annotations: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    access_modes: list[str] = Field(default_factory=list)
    resources: VolumeResources | None = None
    volume_mode: str | None = None
    conditions: list[Condition] = Field(default_factory=list)
    last_sync_time: Time = ""
    last_sync_duration: str = ""
    last_sync_bytes: Int64 | None = None


class PVCGroup(Model):
    """PVCs that are replicated as one."""

    grouped: list[str] = Field(default_factory=list)


# --- Ramen: VolSync ------------------------------------------------------------------------------------------------


class MoverConfig(Model):
    """Identity under which VolSync moves one PVC's data."""

    pvc_name: Annotated[str, Rules(required=True, min_length=1)] = ""
    pvc_namespace: Annotated[str, Rules(required=True, min_length=1)] = ""
    mover_security_context: PodSecurityContext | None = None
    mover_service_account: str | None = None


class RsyncTLS(Model):
    """Where a source sends its data, and the key that it proves itself with."""

    address: str | None = None
    tls_secret_ref: LocalObjectReference | None = None


class VolSyncDestination(Model):
    """A receiving PVC; in `status.rdInfo` with the address on which it listens."""

    protected_pvc: ProtectedPVC = Field(default_factory=ProtectedPVC, alias="protectedPVC")
    rsync_tls: RsyncTLS | None = Field(default=None, alias="rsyncTLS")


class VolSyncDestinationSpec(Model):
    """A PVC that the secondary is to receive."""

    protected_pvc: ProtectedPVC = Field(default_factory=ProtectedPVC, alias="protectedPVC")
    mover_config: MoverConfig | None = None


class VolSyncSourceSpec(Model):
    """A PVC that the primary is to send, where Submariner does not tell it the address."""

    protected_pvc: ProtectedPVC = Field(default_factory=ProtectedPVC, alias="protectedPVC")
    rsync_tls: RsyncTLS | None = Field(default=None, alias="rsyncTLS")
    mover_config: MoverConfig | None = None


class VolSyncSpec(Model):
    """What VolSync is to do for one VRG (vrg.md 1.3)."""

    rd_spec: list[VolSyncDestinationSpec] = Field(default_factory=list)
    rs_spec: list[VolSyncSourceSpec] = Field(default_factory=list)
    mover_config: list[MoverConfig] = Field(default_factory=list)
    disabled: bool = False


# --- Ramen: Kubernetes objects -------------------------------------------------------------------------------------


class RecipeRef(Model):
    """Names a recipe on the managed cluster."""

    namespace: str = ""
    name: str = ""


class KubeObjectProtectionSpec(Model):
    """Whether and how Kubernetes objects are captured beside the volumes."""

    capture_interval: Annotated[str, Rules(format="duration")] | None = None
    recipe_ref: RecipeRef | None = None
    recipe_parameters: dict[str, list[str]] = Field(default_factory=dict)
    kube_object_selector: LabelSelector | None = None


# --- Ramen: static addresses of virtual machines ---------------------------------------------------------------------


class StaticIPResourceRef(Model):
    """Names a virtual machine."""

    api_version: str = ""
    kind: str = ""
    namespace: Annotated[str, Required] = ""
    name: Annotated[str, Required] = ""


class StaticIPNetwork(Model):
    """Addresses that a machine has on one network."""

    network_name: Annotated[str, Required] = ""
    addresses: list[str] = Field(default_factory=list)


class StaticIPResource(Model):
    """A machine with fixed addresses."""

    resource_ref: Annotated[StaticIPResourceRef, Required] = Field(default_factory=StaticIPResourceRef)
    networks: list[StaticIPNetwork] = Field(default_factory=list)


class StaticIPDiscovery(Model):
    """Machines with fixed addresses that the primary found."""

    resources: list[StaticIPResource] = Field(default_factory=list)


class TranslatedAddress(Model):
    """An address that a machine gets on the target."""

    target_ip: Annotated[str, Required] = Field(default="", alias="targetIP")


class TranslatedNetwork(Model):
    """Addresses that a machine gets on one network of the target."""

    network_name: Annotated[str, Required] = ""
    addresses: list[TranslatedAddress] = Field(default_factory=list)


class StaticIPTranslation(Model):
    """A machine with the addresses that it gets on the target."""

    resource_ref: Annotated[StaticIPResourceRef, Required] = Field(default_factory=StaticIPResourceRef)
    networks: list[TranslatedNetwork] = Field(default_factory=list)


class StaticIPTranslationSpec(Model):
    """New addresses for machines that move."""

    ip_translations: list[StaticIPTranslation] = Field(default_factory=list)
