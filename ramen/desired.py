"""The VRG that is wanted on a cluster, computed from what an entity remembers; and what of a VRG travels back.

Nothing here reads or writes a cluster. The full spec never enters a history (D4): it follows from the application,
the wanted role and flags, and the VRG that is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from enum import IntEnum
from typing import Any

from ramen import names
from ramen.app import ActionKind, AppSpec, Decision, StoreReport, Volume, Wanted
from ramen.epoch import Epoch
from ramen.errors import Invalid
from ramen.kinds import VRG

Object = dict[str, Any]

MEANINGFUL_WHEN_EMPTY = frozenset({"async", "sync", "kubeObjectProtection"})
"""Spec keys whose presence alone says something; any other empty value equals its absence (vrg.md 1.1, 1.3)."""

KEPT_FROM_PRESENT = ("pvcSelector", "volSync", "staticIPTranslationSpec")
"""Spec keys that a refresh leaves alone, beside role, flags and action (vrg.md 1.3)."""

MESSAGE_LENGTH = 200
"""Characters of a condition's message that travel: enough for its first sentence, small in a history."""

OUR_ANNOTATIONS = (
    names.EPOCH,
    names.DECISION,
    names.DECISION_EPOCH,
    names.PREVIOUS,
    names.ACTION,
    names.VOLUMES,
    names.CLUSTERS,
)
RAMEN_ANNOTATIONS = (names.DESTINATION_CLUSTER, names.DRPC_UID, *names.USER_SWITCHES)


def desired_vrg(
    app: AppSpec,
    cluster: str,
    wanted: Wanted,
    s3_profiles: list[str],
    present: Object | None,
    decision: Decision | None = None,
    volumes: list[Volume] | None = None,
) -> Object:
    """The whole VRG wanted on `cluster`, in the form in which Go would write it (vrg.md 1.3).

    The normal form keeps the operator's first update from raising the generation. `s3_profiles` is written in the
    given order. Without `volumes` the list on the VRG stays as it is, because an empty one would allow an empty
    restore (S3).
    """
    old_spec: Object = (present or {}).get("spec") or {}
    spec: Object = {
        "pvcSelector": app.pvc_selector,
        "replicationState": wanted.role.value,
        "s3Profiles": list(s3_profiles),
        "async": {
            "replicationClassSelector": app.replication_class_selector,
            "volumeSnapshotClassSelector": app.volume_snapshot_class_selector,
            "volumeGroupSnapshotClassSelector": app.volume_group_snapshot_class_selector,
            "schedulingInterval": app.scheduling_interval,
        },
        # VolSync is not carried: with it disabled the operator reports a PVC that storage cannot replicate, instead
        # of half protecting it.
        "volSync": {"disabled": True},
    }
    spec |= {key: old_spec[key] for key in KEPT_FROM_PRESENT if key in old_spec}
    classes = peer_classes((old_spec.get("async") or {}).get("peerClasses") or [], app.peer_classes)
    if classes:
        spec["async"]["peerClasses"] = classes
    action = wanted.action or old_spec.get("action")
    if action:
        spec["action"] = action
    if wanted.prepare_final_sync:
        spec["prepareForFinalSync"] = True
    if wanted.run_final_sync:
        spec["runFinalSync"] = True
    metadata = {
        "name": app.name,
        "namespace": app.namespace,
        "labels": {names.CREATED_BY_RAMEN: "true"},
        "annotations": _annotations(app, cluster, wanted, present, decision, volumes),
    }
    return deepcopy({"apiVersion": VRG.api_version, "kind": VRG.kind, "metadata": metadata, "spec": spec})


def _annotations(
    app: AppSpec,
    cluster: str,
    wanted: Wanted,
    present: Object | None,
    decision: Decision | None,
    volumes: list[Volume] | None,
) -> dict[str, str]:
    old = annotations_of(present)
    written = {
        names.DESTINATION_CLUSTER: cluster,
        names.DRPC_UID: app.uid,
        **{switch: app.switches.get(switch, "") for switch in names.USER_SWITCHES},
        names.EPOCH: str(wanted.epoch),
        names.ACTION: wanted.action or old.get(names.ACTION) or "Deploy",
        names.CLUSTERS: ",".join(app.cluster_names),
    }
    if decision is not None:
        written |= {names.DECISION: decision.cluster or "", names.PREVIOUS: decision.previous or ""}
        written |= {names.DECISION_EPOCH: str(wanted.epoch.number)}
    elif wanted.role.value == "secondary" and names.DECISION in old:
        # A decision that an older epoch left behind must not be read as the decision of this one (S10).
        written |= {names.DECISION: "", names.PREVIOUS: "", names.DECISION_EPOCH: ""}
    if volumes is not None:
        written[names.VOLUMES] = volumes_text(volumes)
    return written


def peer_classes(present: list[Object], policy: list[Object]) -> list[Object]:
    """The peer classes to write: the VRG's own, refreshed and completed from the policy's (drpc.md 2.5).

    An entry is replaced only where the scheme stays the same, so a running workload never changes the way in which
    it is protected; none is ever removed.
    """
    result = list(present)
    for entry in policy:
        for index, old in enumerate(result):
            if _pair(old) == _pair(entry):
                if _scheme(old) == _scheme(entry):
                    result[index] = entry
                break
        else:
            result.append(entry)
    return result


def refreshed(vrg: Object, policy: list[Object]) -> Object | None:
    """A VRG with the policy's peer classes, all else as it is; None when it has them (drpc.md 2.5)."""
    present = ((vrg.get("spec") or {}).get("async") or {}).get("peerClasses") or []
    classes = peer_classes(present, policy)
    if _reduced(classes) == _reduced(present):
        return None
    body = deepcopy(vrg)
    body["spec"]["async"] = {**(body["spec"].get("async") or {}), "peerClasses": deepcopy(classes)}
    return body


def lacks_classes(vrg: Object, policies: Iterable[Object]) -> bool:
    """Whether the policy of a VRG has peer classes that the VRG was not given yet.

    A VRG does not name its policy, but everything in which policies differ stands on it: their clusters, interval and
    selectors. Where several are equal in all of these, one whose classes the VRG has will do.
    """
    facts = _policy_facts(annotations_of(vrg).get(names.CLUSTERS, "").split(","), (vrg.get("spec") or {}).get("async"))
    alike = [
        policy
        for policy in policies
        if facts == _policy_facts((policy.get("spec") or {}).get("drClusters"), policy.get("spec"))
    ]
    return bool(alike) and all(refreshed(vrg, status_classes(policy)) for policy in alike)


def status_classes(policy: Object) -> list[Object]:
    """The peer classes of a DRPolicy's status; empty while it has none."""
    return ((policy.get("status") or {}).get("async") or {}).get("peerClasses") or []


def _policy_facts(clusters: list[str] | None, spec: Object | None) -> tuple[frozenset[str], Object]:
    keys = (
        "schedulingInterval",
        "replicationClassSelector",
        "volumeSnapshotClassSelector",
        "volumeGroupSnapshotClassSelector",
    )
    return frozenset(clusters or []), normal_form(_only(spec or {}, *keys))


def _pair(entry: Object) -> tuple[str, frozenset[str]]:
    return str(entry.get("storageClassName", "")), frozenset(entry.get("clusterIDs") or [])


def _scheme(entry: Object) -> tuple[bool, bool, bool, bool]:
    return (
        bool(entry.get("offloaded")),
        bool(entry.get("global")),
        bool(entry.get("grouping")),
        bool(entry.get("replicationID")),
    )


class Drawback(IntEnum):
    """What is wrong with a store for a promotion, the worst last."""

    NONE = 0
    TAKES_NO_WRITE = 1
    """Full, read-only or too slow: the operator's uploads would stop at it, and no store behind it get them."""
    LACKS_VOLUMES = 2
    """The operator restores from the first store that can be read, whether or not everything is in it."""
    SILENT = 3


def drawbacks(reports: Iterable[StoreReport], volumes: Iterable[Volume], written: Iterable[str]) -> dict[str, Drawback]:
    """Profiles with a drawback, by what a look showed of their stores and by which of them took a write just now."""
    wanted, took = {(volume.namespace, volume.name) for volume in volumes}, set(written)
    found = {}
    for report in reports:
        if not report.reachable:
            found[report.profile] = Drawback.SILENT
        elif wanted - {(volume.namespace, volume.name) for volume in report.volumes}:
            found[report.profile] = Drawback.LACKS_VOLUMES
        elif report.profile not in took:
            found[report.profile] = Drawback.TAKES_NO_WRITE
    return found


def ordered_profiles(app: AppSpec, cluster: str, drawbacks: Mapping[str, Drawback]) -> list[str]:
    """S3 profiles in the order to be written: those without a drawback first, the cluster's own before others (S9)."""
    own = {entry.s3_profile for entry in app.clusters if entry.name == cluster}
    profiles = sorted({entry.s3_profile for entry in app.clusters if entry.s3_profile})
    return sorted(profiles, key=lambda profile: (drawbacks.get(profile, Drawback.NONE), profile not in own, profile))


def merge(present: Object | None, desired: Object) -> Object | None:
    """The object to write: spec replaced as a whole, labels and annotations merged, all else as it is (vrg.md 2.0).

    Returns None when the write would change nothing that anybody reads, so that no generation is spent on it.
    """
    if present is None:
        return desired
    body = deepcopy(present)
    metadata = body["metadata"]
    changed = normal_form(present.get("spec") or {}) != normal_form(desired["spec"])
    if changed:
        body["spec"] = deepcopy(desired["spec"])
    for field in ("labels", "annotations"):
        old = metadata.get(field) or {}
        new = {**old, **desired["metadata"].get(field, {})}
        if new != old:
            metadata[field] = new
            changed = True
    return body if changed else None


def normal_form(spec: Object) -> Object:
    """A spec without what equals its absence: `false`, null, and empty maps and lists (vrg.md 1.3)."""
    return {
        key: value
        for key, value in ((key, _reduced(value)) for key, value in spec.items())
        if key in MEANINGFUL_WHEN_EMPTY or not _is_empty(value)
    }


def _reduced(value: Any) -> Any:
    if isinstance(value, dict):
        return normal_form(value)
    return [_reduced(item) for item in value] if isinstance(value, list) else value


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value == {} or value == []


def same_profiles(present: Object, desired: Object) -> bool:
    """Whether both VRGs name the same S3 profiles, in whatever order."""
    return set(present.get("spec", {}).get("s3Profiles") or []) == set(desired["spec"]["s3Profiles"])


def slim(vrg: Object) -> Object:
    """What of a VRG travels through a history: all that gates and status read, no text of other writers."""
    metadata, spec, status = vrg.get("metadata") or {}, vrg.get("spec") or {}, vrg.get("status") or {}
    keep = set(OUR_ANNOTATIONS) | set(RAMEN_ANNOTATIONS)
    slim_metadata = _only(metadata, "name", "namespace", "uid", "resourceVersion", "generation", "deletionTimestamp")
    slim_metadata["annotations"] = {key: value for key, value in annotations_of(vrg).items() if key in keep}
    slim_status = _only(
        status, "state", "observedGeneration", "lastGroupSyncTime", "prepareForFinalSyncComplete", "finalSyncComplete"
    )
    slim_status["conditions"] = [
        _only(condition, "type", "status", "reason", "observedGeneration", "lastTransitionTime")
        | {"message": str(condition.get("message", ""))[:MESSAGE_LENGTH]}
        for condition in status.get("conditions") or []
    ]
    slim_status["protectedPVCs"] = [
        _only(entry, "namespace", "name", "lastSyncTime", "protectedByVolSync")
        for entry in status.get("protectedPVCs") or []
    ]
    return {
        "apiVersion": VRG.api_version,
        "kind": VRG.kind,
        "metadata": slim_metadata,
        # An adoption takes the selector over: without it an application would be every PVC of its namespace. The last
        # two are not carried, and an adoption that did not know of them would take them away.
        "spec": _only(
            spec,
            "replicationState",
            "action",
            "prepareForFinalSync",
            "runFinalSync",
            "s3Profiles",
            "pvcSelector",
            "kubeObjectProtection",
            "protectedNamespaces",
        ),
        "status": slim_status,
    }


def released_annotations(epoch: Epoch) -> dict[str, str | None]:
    """What is left of ours on a VRG that goes back to a hub; None takes an annotation away.

    The epoch stays: without it an older action of ours that wakes up late would be taken for the first one (S1). It
    holds up nobody else, since the admission policy asks of other writers only that they leave it.
    """
    taken = (
        names.DECISION,
        names.DECISION_EPOCH,
        names.PREVIOUS,
        names.VOLUMES,
        names.CLUSTERS,
        names.UPLOAD_REQUESTED,
    )
    return {names.EPOCH: str(epoch), names.ACTION: ActionKind.RELEASE.value, **dict.fromkeys(taken)}


def is_released(vrg: Object | None) -> bool:
    """Whether a VRG was given back: its epoch is the last one of ours, and says nothing of what happened since."""
    found = annotations_of(vrg)
    return found.get(names.ACTION) == ActionKind.RELEASE.value and names.CLUSTERS not in found


def annotations_of(obj: Object | None) -> dict[str, str]:
    """The annotations of a Kubernetes object; empty for none."""
    return ((obj or {}).get("metadata") or {}).get("annotations") or {}


def volumes_text(volumes: list[Volume]) -> str:
    """Volumes as they stand in the annotation `hubless.io/volumes`: JSON, sorted, so that equal lists are equal."""
    entries = sorted(({"namespace": v.namespace, "name": v.name, "pv": v.pv} for v in volumes), key=_volume_order)
    return json.dumps(entries, separators=(",", ":"))


def volumes_of(vrg: Object | None) -> list[Volume]:
    """The volumes that a VRG's annotation names; empty without one, or for a value that cannot be read."""
    try:
        return [Volume.model_validate(entry) for entry in json.loads(annotations_of(vrg).get(names.VOLUMES, "[]"))]
    except ValueError:
        return []


def label_query(selector: dict[str, Any]) -> str:
    """A LabelSelector as the API server's `labelSelector` text; empty for a selector that takes everything.

    Raises `Invalid` for an unknown operator or field, naming it.
    """
    unknown = set(selector) - {"matchLabels", "matchExpressions"}
    if unknown:
        raise Invalid(f"pvcSelector: unknown field {', '.join(sorted(unknown))}.")
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or []:
        key, operator = expression.get("key", ""), expression.get("operator", "")
        values = ",".join(expression.get("values") or [])
        match operator:
            case "In" | "NotIn" if key and values:
                parts.append(f"{key} {operator.lower()} ({values})")
            case "Exists" if key:
                parts.append(key)
            case "DoesNotExist" if key:
                parts.append(f"!{key}")
            case _:
                raise Invalid(f"pvcSelector: expression {expression} needs a key, one of the four operators, values.")
    return ",".join(parts)


def _volume_order(entry: dict[str, str]) -> tuple[str, str]:
    return entry["namespace"], entry["name"]


def _only(source: Object, *keys: str) -> Object:
    return {key: source[key] for key in keys if key in source}
