"""What is true of a DRPolicy and of a DRCluster, as conditions (drpc.md 4.2, 5.1, 5.2, 5.4). No I/O.

Types, reasons and order are Ramen's where Ramen has them. Two rules are ours: a status is computed as a whole and
written once, so that Validated never turns True before peer classes and conflicts were looked at; and what could not
be read leaves what was known as it is, for unknown is never absent (D10).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ramen import names
from ramen.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    ClusterCondition,
    Condition,
    CopyCondition,
    PolicyCondition,
    find,
    set_condition,
)
from ramen.config import NO_S3
from ramen.gates import interval_seconds
from ramen.objects import DRCluster, DRClusterStatus, DRPolicy, DRPolicyStatus
from ramen.parts import PeerClass, PeerClasses
from ramen.peerclasses import Classes, discover, unmatched, update

POLICY_FIXED = ("drClusters", "schedulingInterval", "replicationClassSelector", "volumeSnapshotClassSelector")
"""Fields of a DRPolicy that the API server lets nobody change (drpc.md 4.1)."""

DRCLUSTER_FIXED = ("region", "s3ProfileName")
"""The same of a DRCluster (drpc.md 5.1)."""

CLUSTERS_OF_A_POLICY = 2

INTERVAL = re.compile(r"(|\d+[mhd])")


class Reason(StrEnum):
    """Reasons of the conditions below; those that Ramen has are spelled as Ramen spells them."""

    SUCCEEDED = "Succeeded"
    VALIDATION_FAILED = "ValidationFailed"
    DRCLUSTER_NOT_FOUND = "DRClusterNotFound"
    DRCLUSTERS_UNAVAILABLE = "DRClustersUnavailable"
    CONFLICT_FOUND = "DRPolicyConflictFound"
    S3_CONNECTION_FAILED = "s3ConnectionFailed"
    S3_BUCKET_NOT_FOUND = "s3BucketNotFound"
    S3_LIST_FAILED = "s3ListFailed"
    INVALID_CIDRS = "InvalidCIDRsFormat"
    INITIALIZING = "Initializing"
    CLEAN = "Clean"
    FENCED = "Fenced"
    FENCE_ERROR = "FenceError"
    UNFENCE_ERROR = "UnfenceError"
    NOT_REGISTERED = "ClusterNotRegistered"
    """Ours: no worker knows how to reach the cluster."""
    CLASSES_DIFFER = "ClassesDiffer"
    SOME_UNMATCHED = "SomeUnmatched"
    UNREACHABLE = "ClusterUnreachable"
    COPIES_DIFFER = "CopiesDiffer"
    WAITING = "Waiting"
    NOT_CHECKED = "NotChecked"


@dataclass(frozen=True)
class StoreLook:
    """How the store of an S3 profile answered; an empty `reason` is a good answer."""

    reason: str = ""
    error: str = ""


@dataclass(frozen=True)
class Sight:
    """What one worker sees of the installation."""

    registered: Sequence[str]
    """Clusters of the ClusterRegistry."""
    classes: Mapping[str, Classes] = field(default_factory=dict)
    """By cluster; without those that could not be read."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Clusters that have not answered for a while, and why."""
    unsure: frozenset[str] = frozenset()
    """Clusters that fell silent only now: nothing is said about them yet, or a flap would be a storm of writes."""
    stores: Mapping[str, StoreLook] = field(default_factory=dict)
    """By S3 profile; without those that were not looked at yet."""


# --- DRCluster -----------------------------------------------------------------------------------------------------


def drcluster_status(drcluster: DRCluster, sight: Sight, now: datetime) -> DRClusterStatus:
    """The status that the copy should have; times move only with what they belong to."""
    status = drcluster.status.model_copy(deep=True)
    generation = drcluster.metadata.generation
    validated = _validated_cluster(drcluster, sight, find(status.conditions, ClusterCondition.VALIDATED))
    if validated is not None:
        _say(status.conditions, ClusterCondition.VALIDATED, *validated, generation, now)
    phase, fenced, clean = _fencing(drcluster)
    status.phase = phase
    _say(status.conditions, ClusterCondition.FENCED, *fenced, generation, now)
    _say(status.conditions, ClusterCondition.CLEAN, *clean, generation, now)
    bad = _bad_cidrs(drcluster.spec.cidrs)
    if bad:
        text = f"invalid CIDRs format specified: {', '.join(bad)}; write them as 10.0.0.0/24"
        _say(status.conditions, ClusterCondition.CIDRS_VALIDATED, FALSE, Reason.INVALID_CIDRS, text, generation, now)
    else:
        # What storage detects is not read in this release, so nothing more is claimed about them.
        _drop(status.conditions, ClusterCondition.CIDRS_VALIDATED)
    return status


def _validated_cluster(drcluster: DRCluster, sight: Sight, known: Condition | None) -> tuple[str, str, str] | None:
    """Status, reason and message of Validated; None while nothing new can be said."""
    name, profile = drcluster.metadata.name, drcluster.spec.s3_profile_name
    problems: list[tuple[str, str]] = []
    store = StoreLook() if profile == NO_S3 else sight.stores.get(profile)
    if not profile:
        text = "s3ProfileName is empty: delete the DRCluster and create it with a profile of the operator's ConfigMap"
        problems.append((Reason.S3_CONNECTION_FAILED, text))
    elif store is not None and store.reason:
        problems.append((store.reason, store.error))
    if name not in sight.registered:
        problems.append((Reason.NOT_REGISTERED, to_register(name, drcluster.spec.region)))
    bad = _bad_cidrs(drcluster.spec.cidrs)
    if bad:
        problems.append((Reason.VALIDATION_FAILED, f"CIDRs validation failed: {', '.join(bad)}"))
    if problems:
        return FALSE, problems[0][0], ". ".join(text for _, text in problems)
    if store is None:
        if known is not None and known.reason != Reason.INITIALIZING:
            return None
        return UNKNOWN, Reason.INITIALIZING, "Initializing DRCluster"
    return TRUE, Reason.SUCCEEDED, "Validated the cluster"


def to_register(cluster: str, region: str = "") -> str:
    """What to do about a cluster that no worker knows how to reach: the command, and the entry that it makes."""
    secret = f"kubeconfig-{cluster}"
    entry = f"{{name: {cluster}, region: {region or 'REGION'}, kubeconfigSecret: {secret}, clusterUID: UID}}"
    return (
        f"{cluster} is not in the ClusterRegistry: hubless cluster add {cluster} --kubeconfig FILE, or add to its "
        f"spec.clusters {entry}, UID being that of its namespace kube-system, and create Secret "
        f"{names.RAMEN_NAMESPACE}/{secret} with key {names.KUBECONFIG_KEY}"
    )


def to_create(cluster: str) -> str:
    """The DRCluster object that a policy lacks, in one line that `kubectl apply` takes."""
    return (
        f"{{apiVersion: ramendr.openshift.io/v1alpha1, kind: DRCluster, metadata: {{name: {cluster}}}, "
        f"spec: {{s3ProfileName: PROFILE}}}}"
    )


Said = tuple[str, str, str]


def _fencing(drcluster: DRCluster) -> tuple[str, Said, Said]:
    """Phase, Fenced and Clean by `clusterFence` (drpc.md 5.4); a fence that nobody made is never claimed."""
    present = drcluster.status.phase or "Starting"
    match drcluster.spec.cluster_fence:
        case "ManuallyFenced":
            text = "Cluster Manually fenced"
            return "Fenced", (TRUE, Reason.FENCED, text), (FALSE, Reason.FENCED, text)
        case "ManuallyUnfenced":
            text = "Cluster Manually Unfenced and clean"
            return "Unfenced", (FALSE, Reason.CLEAN, text), (TRUE, Reason.CLEAN, text)
        case "Fenced":
            text = (
                "NetworkFences are not carried in this release, nothing was fenced. Fence by other means and set "
                "clusterFence to ManuallyFenced"
            )
            return present, (FALSE, Reason.FENCE_ERROR, text), (TRUE, Reason.FENCE_ERROR, text)
        case "Unfenced":
            text = (
                "NetworkFences are not carried in this release, none was removed. Unfence by other means and set "
                "clusterFence to ManuallyUnfenced"
            )
            fenced = find(drcluster.status.conditions, ClusterCondition.FENCED)
            status = fenced.status if fenced else FALSE
            return present, (status, Reason.UNFENCE_ERROR, text), (FALSE, Reason.UNFENCE_ERROR, text)
    return "Available", (FALSE, Reason.CLEAN, "Cluster Clean"), (TRUE, Reason.CLEAN, "Cluster Clean")


def _bad_cidrs(cidrs: Sequence[str]) -> list[str]:
    bad = []
    for cidr in cidrs:
        try:
            if "/" not in cidr:
                raise ValueError
            ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            bad.append(cidr)
    return bad


# --- DRPolicy ------------------------------------------------------------------------------------------------------


def policy_status(
    policy: DRPolicy,
    drclusters: Mapping[str, DRCluster],
    others: Sequence[DRPolicy],
    sight: Sight,
    now: datetime,
) -> DRPolicyStatus:
    """The status that the copy should have. `drclusters` carry the statuses of the same look."""
    status = policy.status.model_copy(deep=True)
    generation = policy.metadata.generation
    peers, matched = _peers(policy, sight)
    if peers is not None:
        sync, async_ = peers
        status.sync, status.async_ = _as_list(sync), _as_list(async_)
    if matched is not None:
        _say(status.conditions, PolicyCondition.PEER_CLASSES_MATCHED, *matched, generation, now)
    judged = policy.model_copy(update={"status": status})
    said = _validated_policy(judged, drclusters, others, sight)
    _say(status.conditions, PolicyCondition.VALIDATED, *said, generation, now, first=True)
    if policy.spec.network_mapping_ref is not None and policy.spec.network_mapping_ref.name:
        text = "network mappings are not carried in this release: NADs of the clusters were not compared"
        kind = PolicyCondition.NETWORK_ATTACHMENTS_VALIDATED
        _say(status.conditions, kind, UNKNOWN, Reason.NOT_CHECKED, text, generation, now)
    else:
        _drop(status.conditions, PolicyCondition.NETWORK_ATTACHMENTS_VALIDATED)
    return status


def _validated_policy(
    policy: DRPolicy, drclusters: Mapping[str, DRCluster], others: Sequence[DRPolicy], sight: Sight
) -> Said:
    spec = policy.spec
    if len(set(spec.dr_clusters)) != CLUSTERS_OF_A_POLICY:
        return FALSE, Reason.VALIDATION_FAILED, "drClusters requires a list of 2 clusters"
    if interval_problem(spec.scheduling_interval):
        return FALSE, Reason.VALIDATION_FAILED, interval_problem(spec.scheduling_interval)
    missing = [name for name in spec.dr_clusters if name not in drclusters]
    unknown = [name for name in spec.dr_clusters if name not in sight.registered]
    if missing:
        create = "; ".join(to_create(name) for name in missing)
        text = f"failed to find DRClusters specified in policy ({', '.join(missing)}). Create {create}"
        return FALSE, Reason.DRCLUSTER_NOT_FOUND, ". ".join([text, *map(to_register, unknown)])
    if unknown:
        texts = [to_register(name, drclusters[name].spec.region) for name in unknown]
        return FALSE, Reason.NOT_REGISTERED, ". ".join(texts)
    invalid = {}
    for name in spec.dr_clusters:
        condition = find(drclusters[name].status.conditions, ClusterCondition.VALIDATED)
        if condition is None or condition.status != TRUE:
            invalid[name] = condition.message if condition else "not looked at yet"
    shown = "; ".join(f"{name}: {why}" for name, why in invalid.items())
    if len(invalid) == len(spec.dr_clusters):
        return FALSE, Reason.DRCLUSTERS_UNAVAILABLE, f"none of the DRClusters is validated. {shown}"
    conflict = conflict_of(policy, others)
    if conflict:
        return FALSE, Reason.CONFLICT_FOUND, conflict
    matched = find(policy.status.conditions, PolicyCondition.PEER_CLASSES_MATCHED)
    before = find(policy.status.conditions, PolicyCondition.VALIDATED)
    are_known = bool(_classes(policy.status.sync) or _classes(policy.status.async_))
    were_read = matched is not None and matched.status != UNKNOWN
    if not (are_known or were_read or (before and before.status == TRUE)):
        # Whether storage is shared shows in the classes: as async, shared storage would be failed over unfenced.
        why = matched.message.split(": ", 1)[-1] if matched else "they are being read"
        text = f"the storage classes of both clusters were never read, so nobody knows whether this is sync: {why}"
        return UNKNOWN, Reason.INITIALIZING, text
    # One valid cluster is enough, as in Ramen: the other one may be lost, which is what the policy is there for.
    return TRUE, Reason.SUCCEEDED, "drpolicy validated" + (f"; but DRCluster {shown}" if invalid else "")


def interval_problem(interval: str) -> str:
    """What is wrong with a scheduling interval, in one line; empty when nothing is."""
    if INTERVAL.fullmatch(interval):
        return ""
    return f"schedulingInterval {interval!r} is no interval: write a number with m, h or d, such as 5m"


def conflict_of(policy: DRPolicy, others: Sequence[DRPolicy]) -> str:
    """Why the policy cannot stand beside the others, in one line (drpc.md 4.2, 9). Of two that overlap the younger
    is at fault, and of two equally old ones the one with the later name."""
    if _classes(policy.status.sync) and _classes(policy.status.async_):
        return "invalid DRPolicy: a policy cannot contain both sync and async configurations"
    for other in others:
        shared = set(policy.spec.dr_clusters) & set(other.spec.dr_clusters)
        if other.metadata.name == policy.metadata.name or not shared or _age(other) > _age(policy):
            continue
        if shared & (_metro_clusters(policy) | _metro_clusters(other)):
            names_ = f"{policy.metadata.name} has overlapping clusters with another drpolicy {other.metadata.name}"
            return f"drpolicy: {names_} ({', '.join(sorted(shared))}); use other clusters, or delete one of the two"
    return ""


def _age(policy: DRPolicy) -> tuple[str, str]:
    """When the first copy came to be, wherever this one lies."""
    metadata = policy.metadata
    return metadata.annotations.get(names.BORN) or metadata.creation_timestamp, metadata.name


def _metro_clusters(policy: DRPolicy) -> set[str]:
    return set(policy.spec.dr_clusters) if is_sync(policy) else set()


def is_sync(policy: DRPolicy) -> bool:
    """Sync (metro) or async (regional): by its peer classes, and without any by its interval (drpc.md 4.3)."""
    if _classes(policy.status.sync) or _classes(policy.status.async_):
        return bool(_classes(policy.status.sync))
    return not interval_seconds(policy.spec.scheduling_interval)


def _peers(policy: DRPolicy, sight: Sight) -> tuple[tuple[list[PeerClass], list[PeerClass]] | None, Said | None]:
    """The two lists, None to keep what was known; and what to say about them, None for nothing new."""
    clusters = policy.spec.dr_clusters
    if set(clusters) & sight.unsure:
        return None, None
    silent = [name for name in clusters if name not in sight.classes]
    if silent or len(clusters) != CLUSTERS_OF_A_POLICY:
        why = "; ".join(sight.silent.get(name) or f"{name} is out of sight" for name in silent)
        return None, (UNKNOWN, Reason.UNREACHABLE, f"what was found before stays in force: {why}")
    first, second = (sight.classes[name] for name in clusters)
    found = discover([first, second], policy.spec.scheduling_interval)
    lists = (update(_classes(policy.status.sync), found.sync), update(_classes(policy.status.async_), found.async_))
    without = [each.cluster for each in (first, second) if not each.dr_storage]
    lines = unmatched(first, second, policy.spec.scheduling_interval)
    if without:
        lines = [f"no StorageClass with label {names.STORAGE_ID} on {' and '.join(without)}"]
    names_ = ", ".join(
        f"{peer.storage_class_name} ({kind})"
        for kind, peers in (("sync", lists[0]), ("async", lists[1]))
        for peer in peers
    )
    if not names_:
        return lists, (FALSE, Reason.CLASSES_DIFFER, "; ".join(lines))
    if lines:
        return lists, (TRUE, Reason.SOME_UNMATCHED, f"{names_}; without a peer: {'; '.join(lines)}")
    return lists, (TRUE, Reason.SUCCEEDED, names_)


def _classes(given: PeerClasses | None) -> list[PeerClass]:
    return list(given.peer_classes) if given else []


def _as_list(peers: list[PeerClass]) -> PeerClasses | None:
    return PeerClasses(peer_classes=peers) if peers else None


# --- both ----------------------------------------------------------------------------------------------------------


def say_copies(
    conditions: list[Condition],
    generation: int | None,
    revision: int,
    waits: str,
    overruled: str,
    deleting: bool,
    sight: Sight,
    now: datetime,
) -> None:
    """Puts the conditions about the copies of an object; `waits` is what its next step waits for."""
    kind = CopyCondition.COPIES_EQUAL
    if deleting:
        text = waits or "the copies on the other clusters are being deleted"
        _say(conditions, CopyCondition.DELETABLE, FALSE, Reason.WAITING, text, generation, now)
        return
    _drop(conditions, CopyCondition.DELETABLE)
    note = f"; {overruled}" if overruled else ""
    if waits:
        _say(conditions, kind, FALSE, Reason.COPIES_DIFFER, waits, generation, now)
    elif sight.unsure:
        return
    elif sight.silent:
        text = f"{', '.join(sorted(sight.silent))} does not answer; its copy is brought up to date when it does"
        _say(conditions, kind, UNKNOWN, Reason.UNREACHABLE, text + note, generation, now)
    else:
        text = f"revision {revision} on {', '.join(sight.registered)}{note}"
        _say(conditions, kind, TRUE, Reason.SUCCEEDED, text, generation, now)


def findings(obj: DRPolicy | DRCluster) -> list[str]:
    """What is wrong with an object by its conditions, one line each, for people; empty when all is well."""
    label = f"{obj.KIND.kind} {obj.metadata.name}"
    conditions = obj.status.conditions
    validated = find(conditions, PolicyCondition.VALIDATED)
    if validated is None:
        return [f"{label} is not validated yet: no worker has written its status"]
    lines = [] if validated.status == TRUE else [f"{label}: {validated.message} ({validated.reason})"]
    for kind in (PolicyCondition.PEER_CLASSES_MATCHED, CopyCondition.COPIES_EQUAL, CopyCondition.DELETABLE):
        condition = find(conditions, kind)
        if condition is not None and condition.status == FALSE:
            lines.append(f"{label}: {condition.message} ({condition.reason})")
    return lines


def warnings(obj: DRPolicy | DRCluster) -> list[str]:
    """What is not known, or works with a risk, in the same form."""
    label = f"{obj.KIND.kind} {obj.metadata.name}"
    lines = []
    for condition in obj.status.conditions:
        is_risk = condition.reason == Reason.SOME_UNMATCHED or (
            condition.type == PolicyCondition.VALIDATED and "; but " in condition.message
        )
        if condition.status == UNKNOWN or (condition.status == TRUE and is_risk):
            lines.append(f"{label}: {condition.message} ({condition.reason})")
    return lines


def _say(
    conditions: list[Condition],
    kind: str,
    status: str,
    reason: str,
    message: str,
    generation: int | None,
    now: datetime,
    first: bool = False,
) -> None:
    new = Condition(type=kind, status=status, reason=reason, message=message, observed_generation=generation)
    set_condition(conditions, new, now)
    if first:
        conditions.sort(key=lambda condition: condition.type != kind)


def _drop(conditions: list[Condition], kind: str) -> None:
    conditions[:] = [condition for condition in conditions if condition.type != kind]
