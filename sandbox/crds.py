"""Definitions of the kinds that belong to other projects, reduced to what a sandbox needs.

Group, version, names, scope and status are the real ones; the schema takes any field, so that neither a stand-in nor
the real dr-cluster operator loses one. Without these kinds the real operator ends after two minutes (vrg.md 6.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ramen.kinds import PLACEMENT_DECISION, RAMEN, VOLUME_REPLICATION, VOLUME_REPLICATION_CLASS, Kind

REPLICATION = VOLUME_REPLICATION.group
SNAPSHOT = "snapshot.storage.k8s.io"
VOLSYNC = "volsync.backube"
CSIADDONS = "csiaddons.openshift.io"

NETWORK_FENCE = Kind(CSIADDONS, "v1alpha1", "networkfences", "NetworkFence", False)


@dataclass(frozen=True)
class Foreign:
    """A kind and what its definition adds to it."""

    kind: Kind
    short: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    """Printed columns: title and JSON path."""
    status: bool = True


FOREIGN: tuple[Foreign, ...] = (
    Foreign(
        VOLUME_REPLICATION,
        ("vr",),
        (
            ("Class", ".spec.volumeReplicationClass"),
            ("PVC", ".spec.dataSource.name"),
            ("Desired", ".spec.replicationState"),
            ("Current", ".status.state"),
        ),
    ),
    Foreign(VOLUME_REPLICATION_CLASS, ("vrc",), (("Provisioner", ".spec.provisioner"),)),
    Foreign(Kind(REPLICATION, "v1alpha1", "volumegroupreplications", "VolumeGroupReplication"), ("vgr",)),
    Foreign(
        Kind(REPLICATION, "v1alpha1", "volumegroupreplicationclasses", "VolumeGroupReplicationClass", False), ("vgrc",)
    ),
    Foreign(
        Kind(REPLICATION, "v1alpha1", "volumegroupreplicationcontents", "VolumeGroupReplicationContent", False),
        ("vgrcontent",),
    ),
    Foreign(PLACEMENT_DECISION, (), (("Cluster", ".status.decisions[0].clusterName"),)),
    Foreign(Kind(SNAPSHOT, "v1", "volumesnapshots", "VolumeSnapshot"), ("vs",)),
    Foreign(Kind(SNAPSHOT, "v1", "volumesnapshotclasses", "VolumeSnapshotClass", False), ("vsclass",), status=False),
    Foreign(Kind(VOLSYNC, "v1alpha1", "replicationsources", "ReplicationSource")),
    Foreign(Kind(VOLSYNC, "v1alpha1", "replicationdestinations", "ReplicationDestination")),
    Foreign(NETWORK_FENCE, ("nf",), (("State", ".spec.fenceState"), ("Result", ".status.result"))),
    Foreign(Kind(CSIADDONS, "v1alpha1", "networkfenceclasses", "NetworkFenceClass", False)),
    Foreign(Kind(CSIADDONS, "v1alpha1", "csiaddonsnodes", "CSIAddonsNode")),
    Foreign(Kind("cluster.open-cluster-management.io", "v1alpha1", "clusterclaims", "ClusterClaim", False)),
    Foreign(
        Kind("k8s.cni.cncf.io", "v1", "network-attachment-definitions", "NetworkAttachmentDefinition"),
        ("net-attach-def",),
        status=False,
    ),
    Foreign(Kind(RAMEN, "v1alpha1", "drclusterconfigs", "DRClusterConfig", False)),
    Foreign(
        Kind(RAMEN, "v1alpha1", "protectedvolumereplicationgrouplists", "ProtectedVolumeReplicationGroupList", False)
    ),
    Foreign(Kind(RAMEN, "v1alpha1", "maintenancemodes", "MaintenanceMode", False)),
    Foreign(Kind(RAMEN, "v1alpha1", "replicationgroupsources", "ReplicationGroupSource"), ("rgs",)),
    Foreign(Kind(RAMEN, "v1alpha1", "replicationgroupdestinations", "ReplicationGroupDestination"), ("rgd",)),
)


def generate() -> list[dict[str, Any]]:
    """CustomResourceDefinition objects of all foreign kinds."""
    return [_definition(foreign) for foreign in FOREIGN]


def _definition(foreign: Foreign) -> dict[str, Any]:
    kind = foreign.kind
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version: dict[str, Any] = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
        "additionalPrinterColumns": [
            *({"name": title, "type": "string", "jsonPath": path} for title, path in foreign.columns),
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    }
    if foreign.status:
        version["subresources"] = {"status": {}}
    metadata: dict[str, Any] = {"name": f"{kind.plural}.{kind.group}"}
    if kind.group.endswith("k8s.io"):
        # The API server refuses kinds of its community's groups that were not reviewed; these are copies.
        metadata["annotations"] = {"api-approved.kubernetes.io": "unapproved, reduced copy for a sandbox"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": list(foreign.short),
            },
            "versions": [version],
        },
    }
