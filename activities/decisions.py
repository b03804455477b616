"""The PlacementDecision that GitOps follows: what stands in it (design 7, vrg.md 4.5)."""

from __future__ import annotations

from activities.access.protocol import Object
from ramen import names
from ramen.app import AppSpec, Decision
from ramen.epoch import Epoch

EXCLUDED_FROM_BACKUP = "velero.io/exclude-from-backup"
"""A decision that a backup restores would deploy an application where it no longer belongs (vrg.md 4.5)."""


def entries(decision: Decision) -> list[dict[str, str]]:
    """`status.decisions`: retained clusters first, with the reason that keeps their workload, then the chosen one."""
    retained = [
        {"clusterName": cluster, "reason": names.RETAINED_FOR_FAILOVER}
        for cluster in decision.retained
        if cluster != decision.cluster
    ]
    chosen = [{"clusterName": decision.cluster, "reason": decision.cluster}] if decision.cluster else []
    return retained + chosen


def read(found: Object | None) -> Decision:
    """The decision that a PlacementDecision holds; an absent or empty one names nobody."""
    listed = ((found or {}).get("status") or {}).get("decisions") or []
    retained = [entry["clusterName"] for entry in listed if entry.get("reason") == names.RETAINED_FOR_FAILOVER]
    chosen = [entry["clusterName"] for entry in listed if entry.get("reason") != names.RETAINED_FOR_FAILOVER]
    return Decision(cluster=chosen[0] if chosen else None, retained=retained, epoch=Epoch.of(found))


def metadata(app: AppSpec, epoch: Epoch) -> Object:
    """Labels by which the decision is found, and the epoch that wrote it."""
    return {
        "name": names.placement_decision_name(app.placement),
        "namespace": app.namespace,
        "labels": {
            names.PLACEMENT_LABEL: app.placement,
            EXCLUDED_FROM_BACKUP: "true",
            names.CREATED_BY_RAMEN: "true",
        },
        "annotations": {names.EPOCH: str(epoch)},
    }


def without_placement(wanted: Object) -> Object:
    """The same metadata without the label by which GitOps finds a decision.

    A new object has no status in its first moment, and a decision that names nobody prunes the application. So the
    label comes last.
    """
    labels = {key: value for key, value in wanted["labels"].items() if key != names.PLACEMENT_LABEL}
    return {**wanted, "labels": labels}


def lacks(found: Object, wanted: Object) -> bool:
    """Whether the object's metadata misses a wanted label or annotation."""
    return any(
        (found["metadata"].get(field) or {}).get(key) != value
        for field in ("labels", "annotations")
        for key, value in wanted[field].items()
    )
