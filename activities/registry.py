"""The list of all activities and of the queue that serves each: what a worker registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from activities.access.s3 import S3Store
from activities.clusters import ClusterActivities, Clusters
from activities.forwarding import ForwardingActivities
from activities.mirror import Mirror
from activities.proving import Problems, ProofActivities
from activities.store import StoreActivities
from activities.surveying import SurveyActivities
from activities.waiting import object_key
from activities.waits import WaitTimes
from ramen.desired import is_released
from ramen.errors import GateClosed

Activities = Sequence[Callable[..., Any]]


@dataclass(frozen=True)
class Registered:
    """Activities by queue."""

    control: Activities
    """For the control queue: stores, policies, health, forwarding."""
    cluster: Activities
    """For both queues of each cluster: short calls, and waits on the other one (S12)."""
    own: Activities
    """For the queue of a cluster's own worker."""


def register(
    clusters: Clusters,
    mirror: Mirror,
    operator_stores: Mapping[str, S3Store],
    times: WaitTimes | None = None,
    problems: Problems = lambda: [],
) -> Registered:
    """Builds all activities over what a worker holds.

    `operator_stores` holds the dr-cluster operator's own buckets by S3 profile and may change over time.
    """
    stores = StoreActivities(mirror, operator_stores, watched=lambda: _watched(clusters))
    entities = ForwardingActivities()
    on_clusters = ClusterActivities(clusters, mirror, stores.silent_profiles, times)
    surveys = SurveyActivities(clusters, operator_stores)
    control: list[Callable[..., Any]] = [
        stores.claim_epoch,
        stores.hold_lock,
        stores.release_lock,
        stores.read_stores,
        stores.mirror_state,
        stores.append_history,
        surveys.resolve_application,
        surveys.read_peer_classes,
        surveys.check_policies,
        on_clusters.last_seen,
        on_clusters.cluster_health,
        on_clusters.list_health,
        stores.read_mirror,
        stores.list_mirrored,
        entities.forward_request,
        entities.describe_entity,
        entities.end_entity,
    ]
    cluster: list[Callable[..., Any]] = [
        on_clusters.read_vrg,
        on_clusters.stamp_epoch,
        on_clusters.refresh_vrg,
        on_clusters.write_vrg,
        on_clusters.await_vrg,
        on_clusters.apply_vrg,
        on_clusters.demote_witnessed,
        on_clusters.publish_decision,
        on_clusters.read_decision,
        on_clusters.ensure_namespace,
        on_clusters.delete_vrg,
        on_clusters.release_vrg,
        on_clusters.remove_restored,
        on_clusters.request_upload,
        on_clusters.cluster_health,
        surveys.survey_cluster,
    ]
    own = [ProofActivities(clusters.own, mirror.stores, operator_stores, problems).prove_installation]
    return Registered(control, cluster, own)


def _watched(clusters: Clusters) -> list[tuple[str, str]]:
    """Namespace and name of every VRG in sight but those that were given back to a hub."""
    found: list[tuple[str, str]] = []
    for name in clusters.names():
        with suppress(GateClosed):  # a cluster that has only just joined
            found += [object_key(vrg) for vrg in clusters.watch(name).vrgs.objects() if not is_released(vrg)]
    return found
