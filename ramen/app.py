"""What travels: an application, what is wanted of each cluster, the decision, and what was seen.

Every model here crosses a Temporal border, so fields that come later need defaults and unknown fields are ignored:
a worker one release behind must be able to read what a newer one wrote.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from ramen.epoch import Epoch


class Wire(BaseModel):
    """Base of everything that crosses a Temporal border."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class AppRef(Wire):
    """Namespace and name of a DRPC, which is the application's name everywhere."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PolicyCluster(Wire):
    """A cluster of the application's DRPolicy and the S3 profile of its DRCluster."""

    name: str
    s3_profile: str
    region: str = ""


class AppSpec(Wire):
    """All that VRGs are computed from: the DRPC's spec resolved with its DRPolicy and DRClusters.

    Holds no object of the cluster as a whole and no secret; `peer_classes` are those of the policy's status.
    """

    namespace: str
    name: str
    uid: str
    policy: str
    clusters: list[PolicyCluster]
    preferred_cluster: str
    placement_reason: str = ""
    """Why that cluster, where it was chosen and not named."""
    pvc_selector: dict[str, Any]
    placement: str
    scheduling_interval: str
    replication_class_selector: dict[str, Any] = {}
    volume_snapshot_class_selector: dict[str, Any] = {}
    volume_group_snapshot_class_selector: dict[str, Any] = {}
    peer_classes: list[dict[str, Any]] = []
    switches: dict[str, str] = {}

    @property
    def ref(self) -> AppRef:
        """The application's namespace and name."""
        return AppRef(namespace=self.namespace, name=self.name)

    @property
    def cluster_names(self) -> list[str]:
        """Names of the policy's clusters, in the policy's order."""
        return [cluster.name for cluster in self.clusters]

    def others(self, cluster: str | None) -> list[str]:
        """Every cluster of the policy but this one."""
        return [name for name in self.cluster_names if name != cluster]


class Volume(Wire):
    """A protected PVC and the PV that it is bound to (S3)."""

    namespace: str
    name: str
    pv: str = ""

    def __str__(self) -> str:
        return self.name


class Role(StrEnum):
    """`spec.replicationState`: lower case in the spec, capitalised in the status (vrg.md 7)."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class ActionKind(StrEnum):
    """What Hubless does to an application; the workflow types carry the same names."""

    DEPLOY = "Deploy"
    FAILOVER = "Failover"
    RELOCATE = "Relocate"
    REPROTECT = "Reprotect"
    UNPROTECT = "Unprotect"
    RELEASE = "Release"


class Wanted(Wire):
    """D(c) without the parts that follow from the AppSpec: role and flags of one cluster's VRG (D4)."""

    role: Role
    epoch: Epoch
    action: str | None = None
    """`Failover`, `Relocate`, or None, which leaves the VRG's present action as it is (vrg.md 1.3)."""
    prepare_final_sync: bool = False
    run_final_sync: bool = False

    @property
    def asks_final_sync(self) -> bool:
        """Whether it asks a primary for one of the two halves of its final sync (vrg.md 2.6)."""
        return self.prepare_final_sync or self.run_final_sync


class Decision(Wire):
    """Where the application is to run; `retained` clusters keep their old workload until they are demoted."""

    cluster: str | None = None
    previous: str | None = None
    retained: list[str] = []
    epoch: Epoch | None = None
    decided_at: datetime | None = None


class PodCount(Wire):
    """Pods that mount the protected volumes on one cluster."""

    ready: int = 0
    total: int = 0


class Observed(Wire):
    """One look at an application on one cluster.

    `vrg` is a slim VRG object (metadata, spec and status without messages of other writers), or None when the read
    answered NotFound. An unreachable cluster has `reachable` False and says nothing at all about its VRG (D10).
    """

    cluster: str
    reachable: bool = True
    error: str = ""
    vrg: dict[str, Any] | None = None
    volumes: list[Volume] = []
    """Bound PVCs that the VRG protects on that cluster."""
    claims: int | None = None
    """Number of PVCs that the application selects there, bound or not; None where they were not looked at."""
    pods: PodCount = PodCount()
    version: str = ""
    tombstone: Epoch | None = None
    """Epoch kept on the cluster after an unprotect or a release, read where no VRG carries one (S7)."""
    at: datetime | None = None
    waited_seconds: float = 0.0
    """How long the wait that ended with this look took on its worker: time of operator and storage."""

    @property
    def epoch(self) -> Epoch | None:
        """The newest epoch that the cluster shows: the VRG's, or the tombstone's."""
        return Epoch.of(self.vrg) or self.tombstone

    @property
    def has_no_volumes(self) -> bool:
        """Whether a settled Primary has none: none that is selected, and none that its operator still protects (S3)."""
        vrg = self.vrg or {}
        status = vrg.get("status") or {}
        is_settled = status.get("observedGeneration") == (vrg.get("metadata") or {}).get("generation")
        is_primary = self.role == Role.PRIMARY and status.get("state") == "Primary"
        return is_settled and is_primary and self.claims == 0 and not status.get("protectedPVCs")

    @property
    def role(self) -> str | None:
        """`spec.replicationState` of the VRG, None without one."""
        role: str | None = (self.vrg or {}).get("spec", {}).get("replicationState")
        return role


class StoreReport(Wire):
    """What one S3 profile holds of an application's restorable volumes, or why it did not answer."""

    profile: str
    reachable: bool
    error: str = ""
    volumes: list[Volume] = []


class Witness(Wire):
    """Volumes that were seen in sync at the demotion of an epoch (S4)."""

    volumes: list[Volume] = []
    seen_at: datetime | None = None
