"""The Kubernetes kinds that Hubless reads or writes, each spelled once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A resource type of the Kubernetes API: enough to build its URL and its `apiVersion`."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version`, or the bare version for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection or of one object; `namespace` is ignored by cluster-scoped kinds."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            base += f"/namespaces/{namespace}"
        base += f"/{self.plural}"
        if name:
            base += f"/{name}"
        return f"{base}/{subresource}" if subresource else base


RAMEN = "ramendr.openshift.io"
VRG = Kind(RAMEN, "v1alpha1", "volumereplicationgroups", "VolumeReplicationGroup")
DRPC = Kind(RAMEN, "v1alpha1", "drplacementcontrols", "DRPlacementControl")
DRPOLICY = Kind(RAMEN, "v1alpha1", "drpolicies", "DRPolicy", namespaced=False)
DRCLUSTER = Kind(RAMEN, "v1alpha1", "drclusters", "DRCluster", namespaced=False)
DRCLUSTER_CONFIG = Kind(RAMEN, "v1alpha1", "drclusterconfigs", "DRClusterConfig", namespaced=False)
CLUSTER_REGISTRY = Kind(RAMEN, "v1alpha1", "clusterregistries", "ClusterRegistry", namespaced=False)
VOLUME_REPLICATION = Kind("replication.storage.openshift.io", "v1alpha1", "volumereplications", "VolumeReplication")
VOLUME_REPLICATION_CLASS = Kind(
    "replication.storage.openshift.io", "v1alpha1", "volumereplicationclasses", "VolumeReplicationClass", False
)
VOLUME_GROUP_REPLICATION_CLASS = Kind(
    "replication.storage.openshift.io",
    "v1alpha1",
    "volumegroupreplicationclasses",
    "VolumeGroupReplicationClass",
    False,
)
VOLUME_SNAPSHOT_CLASS = Kind("snapshot.storage.k8s.io", "v1", "volumesnapshotclasses", "VolumeSnapshotClass", False)
VOLUME_GROUP_SNAPSHOT_CLASS = Kind(
    "groupsnapshot.storage.k8s.io", "v1beta1", "volumegroupsnapshotclasses", "VolumeGroupSnapshotClass", False
)
PLACEMENT_DECISION = Kind("cluster.open-cluster-management.io", "v1beta1", "placementdecisions", "PlacementDecision")
CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False)
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", False)
NODE = Kind("", "v1", "nodes", "Node", False)
POD = Kind("", "v1", "pods", "Pod")
PVC = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PV = Kind("", "v1", "persistentvolumes", "PersistentVolume", False)
SECRET = Kind("", "v1", "secrets", "Secret")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
EVENT = Kind("", "v1", "events", "Event")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
STATEFUL_SET = Kind("apps", "v1", "statefulsets", "StatefulSet")
STORAGE_CLASS = Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", False)
VOLUME_ATTACHMENT = Kind("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", False)
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
VALIDATING_ADMISSION_POLICY = Kind(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False
)
VALIDATING_ADMISSION_POLICY_BINDING = Kind(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False
)
SELF_SUBJECT_ACCESS_REVIEW = Kind(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False
)
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False)
CLUSTER_ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False)
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")

ALL_KINDS: tuple[Kind, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Kind))
BY_KIND: dict[str, Kind] = {kind.kind: kind for kind in ALL_KINDS}
