"""Tables of the stand-in operator's decisions: spec checks, classes, VolumeReplication outcomes, conditions, state."""

from __future__ import annotations

from typing import Any

import pytest

from ramen import names
from sandbox.standins import vrg_conditions as cond
from sandbox.standins import vrg_reconcile as rules
from sandbox.standins.vrg_conditions import Part

Object = dict[str, Any]

ASYNC = {"schedulingInterval": "5m"}


def vrg(**spec: Any) -> Object:
    found = {"replicationState": "primary", "async": ASYNC, "s3Profiles": [], "pvcSelector": {}, **spec}
    return {
        "apiVersion": "ramendr.openshift.io/v1alpha1",
        "kind": "VolumeReplicationGroup",
        "metadata": {"namespace": "web", "name": "shop", "uid": "u", "annotations": {}},
        "spec": {key: value for key, value in found.items() if value is not None},
    }


def pvc(name: str = "data", **meta: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "web", **meta},
        "spec": {"storageClassName": "array", "volumeName": f"pv-{name}", "accessModes": ["ReadWriteOnce"]},
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"replicationState": "Primary"}, "neither primary nor secondary"),
        ({"async": None}, "neither async nor sync"),
        ({"async": None, "sync": {}}, "async only"),
        ({"protectedNamespaces": ["a"]}, "ramen-ops only"),
    ],
)
def test_spec_checks(changes: Object, said: str | None) -> None:
    error = rules.spec_error(vrg(**changes))
    assert (error is None) if said is None else (error is not None and said in error)


def test_normal_form_is_what_a_typed_client_writes() -> None:
    written = {"async": {"schedulingInterval": "5m"}, "prepareForFinalSync": False, "runFinalSync": True}
    normal = rules.normal_form(written)
    assert normal == {
        "async": {
            "schedulingInterval": "5m",
            "replicationClassSelector": {},
            "volumeSnapshotClassSelector": {},
            "volumeGroupSnapshotClassSelector": {},
        },
        "runFinalSync": True,
        "volSync": {},
    }
    assert rules.normal_form(normal) == normal
    assert "volSync" not in written, "the argument stays as it was"
    assert rules.normal_form({"volSync": {"disabled": False}}) == {"volSync": {}}


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({}, None, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": "1"}, False),
    ],
)
def test_label_selector(selector: Object, labels: Object | None, expected: bool) -> None:
    assert rules.matches(selector, labels) is expected


def test_pvcs_of_volsync_and_of_ramen_are_left_alone_unless_volsync_is_disabled() -> None:
    foreign = pvc(labels={names.CREATED_BY_RAMEN: "true"})
    assert not rules.selects(vrg(), foreign)
    assert rules.selects(vrg(volSync={"disabled": True}), foreign)
    assert not rules.selects(vrg(), {**pvc(), "metadata": {"name": "data", "namespace": "other"}})


def storage_class(**labels: str) -> Object:
    return {"metadata": {"name": "array", "labels": labels}, "provisioner": "p"}


def replication_class(name: str = "five", interval: str = "5m", default: bool = False, **labels: str) -> Object:
    annotations = {rules.DEFAULT_CLASS: "true"} if default else {}
    return {
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {"provisioner": "p", "parameters": {"schedulingInterval": interval}},
    }


SID, RID = {names.STORAGE_ID: "sid"}, {names.REPLICATION_ID: "rid"}
PEER = {"storageClassName": "array", "storageID": ["sid", "other"], "replicationID": "rid"}


@pytest.mark.parametrize(
    ("peers", "storage", "replication", "expected"),
    [
        ([], [storage_class()], [replication_class()], "five"),
        ([PEER], [storage_class(**SID)], [replication_class(**SID, **RID)], "five"),
        ([PEER], [storage_class()], [replication_class(**SID, **RID)], "StorageIDNotFound"),
        ([{**PEER, "storageID": ["x"]}], [storage_class(**SID)], [], "PeerClassNotFound"),
        ([{**PEER, "replicationID": ""}], [storage_class(**SID)], [], "PeerClassNotFound"),
        ([PEER], [storage_class(**SID)], [replication_class(interval="1m", **SID, **RID)], "PeerClassNotFound"),
        ([], [], [replication_class()], "Error"),
        ([], [storage_class()], [replication_class("a"), replication_class("b")], "PeerClassNotFound"),
        ([], [storage_class()], [replication_class("a"), replication_class("b", default=True)], "b"),
    ],
)
def test_classes_of_a_pvc(peers: list[Object], storage: list[Object], replication: list[Object], expected: str) -> None:
    group = vrg(**{"async": {**ASYNC, "peerClasses": peers}})
    try:
        found = rules.classify(group, pvc(), storage, replication).replication["metadata"]["name"]
    except rules.ClassifyError as err:
        found = err.reason
    assert found == expected


def vr(state: str | None = None, observed: int | None = 2, **conditions: str) -> Object:
    """A VolumeReplication of generation 2; conditions are written `Completed="True@2"`."""
    found = []
    for kind, text in conditions.items():
        status, generation = text.split("@")
        found.append({"type": kind, "status": status, "observedGeneration": int(generation)})
    return {
        "metadata": {"generation": 2},
        "status": {"state": state, "observedGeneration": observed, "conditions": found},
    }


IN_SYNC = {"Completed": "True@2", "Degraded": "False@2", "Resyncing": "False@2"}
RESYNCING = {"Completed": "True@2", "Degraded": "True@2", "Resyncing": "True@2"}
STUCK = {"Completed": "True@2", "Degraded": "True@2", "Resyncing": "False@2"}


@pytest.mark.parametrize(
    ("role", "body", "accepted", "ready", "protected"),
    [
        ("primary", {"metadata": {"generation": 1}}, False, "Progressing", None),
        ("primary", vr(observed=1, Completed="True@1"), False, "Progressing", None),
        ("primary", vr("Primary", Completed="True@2"), True, "Ready", "Replicating"),
        ("primary", vr("Primary", Completed="True@1"), False, "Error", "Error"),
        ("primary", vr("Primary"), False, "Error", "Error"),
        ("primary", vr("Primary", Completed="True@2", Validated="False@2"), False, "Error", "Error"),
        ("secondary", vr("Secondary", **IN_SYNC), True, "Replicated", "DataProtected"),
        ("secondary", vr("Unknown", **IN_SYNC), False, "Error", "Error"),
        ("secondary", vr("Unknown", **RESYNCING), True, "Replicating", "Replicating"),
        ("secondary", vr("Secondary", **STUCK), False, "Error", "Error"),
    ],
)
def test_what_a_replication_status_means(
    role: Any, body: Object, accepted: bool, ready: str, protected: str | None
) -> None:
    found = rules.outcome(body, role)
    assert found.accepted is accepted
    assert found.ready.reason == ready
    assert (found.protected.reason if found.protected else None) == protected


def test_a_primary_replication_may_go_when_promoted_or_refused() -> None:
    assert rules.deletable(vr("Primary", Completed="True@2"))
    assert rules.deletable(vr("Unknown", Validated="False@2"))
    assert not rules.deletable(vr("Unknown", Completed="False@2"))


POD = {
    "metadata": {"name": "app"},
    "spec": {"volumes": [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "data"}}]},
}
ATTACHMENT = {"metadata": {"name": "va"}, "spec": {"source": {"persistentVolumeName": "pv-data"}}}


@pytest.mark.parametrize(
    ("action", "going", "pods", "attachments", "obstacle"),
    [
        ("Relocate", False, [], [], "not deleted"),
        (None, False, [], [], "not deleted"),
        ("Relocate", True, [], [], None),
        ("Failover", False, [], [], None),
        ("Failover", False, [POD], [], "pod app"),
        ("Relocate", True, [], [ATTACHMENT], "VolumeAttachment va"),
    ],
)
def test_what_holds_a_demotion(
    action: str | None, going: bool, pods: list[Object], attachments: list[Object], obstacle: str | None
) -> None:
    claim = pvc(**({"deletionTimestamp": "x"} if going else {}))
    found = rules.demotion_obstacle(vrg(action=action), claim, pods, attachments)
    assert (found is None) if obstacle is None else (found is not None and obstacle in found)


@pytest.mark.parametrize(
    ("action", "dry_run", "expected"), [("Failover", "", True), ("Relocate", "", False), (None, "true", True)]
)
def test_auto_resync_only_for_failover_and_dry_run(action: str | None, dry_run: str, expected: bool) -> None:
    group = vrg(action=action)
    group["metadata"]["annotations"] = {rules.DRY_RUN: dry_run}
    classes = rules.Classes(storage_class(), replication_class())
    assert rules.replication(group, pvc(), classes, "secondary")["spec"]["autoResync"] is expected
    assert rules.replication(group, pvc(), classes, "primary")["spec"]["autoResync"] is False


def test_marks_come_and_go_without_a_trace() -> None:
    claim = pvc(labels={"app": "a"}, finalizers=["kubernetes.io/pvc-protection"], annotations={"mine": "1"})
    marked = rules.annotated(rules.claimed(claim, vrg()), rules.PROTECTED, "protected")
    assert rules.owner_of(marked) == ("web", "shop")
    assert rules.has_finalizer(marked)
    assert rules.released_pvc(marked) == claim
    pv = {"metadata": {"name": "pv", "annotations": {}}, "spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    kept = rules.retained(pv)
    assert kept is not None
    assert kept["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert rules.retained(kept) is None
    assert rules.released_pv(kept) == pv
    owned = {"metadata": {"name": "pv", "annotations": {}}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    assert rules.released_pv(owned) == owned, "a policy that the operator did not set stays"


# --- conditions -------------------------------------------------------------------------------------------------------


def item(**conditions: str) -> Object:
    """An entry; conditions are written `DataReady="True/Ready"`."""
    found = []
    for kind, text in conditions.items():
        status, reason = text.split("/")
        found.append({"type": kind, "status": status, "reason": reason})
    return {"conditions": found}


@pytest.mark.parametrize(
    ("parts", "status", "reason", "message"),
    [
        ([Part("True", "Unused", "a"), Part("True", "Ready", "b")], "True", "Ready", "b"),
        ([Part("True", "Unused", "a"), Part("True", "Unused", "b")], "True", "Unused", "a. b"),
        ([Part("True", "Ready", "a"), Part("Unknown", "X", "b")], "Unknown", "X", "b"),
        ([Part("Unknown", "X", "a"), Part("False", "Error", "b"), Part("True", "Y", "c")], "False", "Error", "b"),
    ],
)
def test_merging_parts(parts: list[Part], status: str, reason: str, message: str) -> None:
    merged = cond.merge(parts)
    assert (merged.status, merged.reason, merged.message) == (status, reason, message)


@pytest.mark.parametrize(
    ("entries", "volumes", "primary", "expected"),
    [
        ([], 0, True, "True/Unused"),
        ([], 1, True, "False/Error"),
        ([item(DataReady="True/Ready")], 1, True, "True/Ready"),
        ([item(DataReady="True/Replicated")], 1, False, "True/Replicating"),
        ([item(DataReady="True/Ready"), item(DataReady="False/Progressing")], 2, True, "False/Progressing"),
        ([item(DataReady="True/Ready"), item(DataReady="False/Error")], 2, True, "False/Error"),
        ([item()], 1, True, "False/Error"),
    ],
)
def test_data_ready(entries: list[Object], volumes: int, primary: bool, expected: str) -> None:
    part = cond.data_ready(entries, volumes, primary)
    assert f"{part.status}/{part.reason}" == expected


@pytest.mark.parametrize(
    ("entries", "volumes", "expected"),
    [
        ([], 0, "True/Unused"),
        ([], 1, "True/DataProtected"),
        ([item()], 1, "False/Error"),
        ([item(DataProtected="False/Replicating"), item(DataProtected="True/DataProtected")], 2, "False/Replicating"),
        ([item(DataProtected="True/DataProtected")], 1, "True/DataProtected"),
        ([item(DataProtected="False/Error"), item(DataProtected="False/Replicating")], 2, "False/Error"),
    ],
)
def test_data_protected(entries: list[Object], volumes: int, expected: str) -> None:
    part = cond.data_protected(entries, volumes)
    assert f"{part.status}/{part.reason}" == expected


@pytest.mark.parametrize(
    ("entries", "volumes", "expected"),
    [
        ([], 0, "True/Unused"),
        ([], 1, "True/Uploaded"),
        ([item()], 1, "False/Uploading"),
        ([item(), item(ClusterDataProtected="False/UploadError")], 2, "False/UploadError"),
        ([item(ClusterDataProtected="True/Uploaded")], 1, "True/Uploaded"),
    ],
)
def test_cluster_data_protected(entries: list[Object], volumes: int, expected: str) -> None:
    part = cond.cluster_data_protected(entries, volumes)
    assert f"{part.status}/{part.reason}" == expected


@pytest.mark.parametrize(
    ("role", "action", "ready", "protected", "state"),
    [
        ("primary", None, "True@3", None, "Primary"),
        ("primary", None, "True@2", None, "Unknown"),
        ("primary", None, "False@3", None, "Unknown"),
        ("secondary", None, "True@3", "False@3", "Secondary"),
        ("secondary", "Failover", "True@3", "False@3", "Secondary"),
        ("secondary", "Relocate", "True@3", "False@3", "Unknown"),
        ("secondary", "Relocate", "True@3", "True@2", "Unknown"),
        ("secondary", "Relocate", "True@3", "True@3", "Secondary"),
    ],
)
def test_state(role: str, action: str | None, ready: str, protected: str | None, state: str) -> None:
    conditions: list[Object] = []
    for kind, text in ((cond.DATA_READY, ready), (cond.DATA_PROTECTED, protected)):
        if text is not None:
            status, generation = text.split("@")
            conditions.append({"type": kind, "status": status, "observedGeneration": int(generation)})
    assert cond.state_of(vrg(replicationState=role, action=action)["spec"], conditions, 3) == state


def test_transition_time_moves_with_status_or_generation_only() -> None:
    conditions: list[Object] = []
    cond.stamp(conditions, "A", Part("True", "X", "m"), 1, "t1")
    cond.stamp(conditions, "A", Part("True", "Y", "n"), 1, "t2")
    assert conditions[0]["lastTransitionTime"] == "t1"
    cond.stamp(conditions, "A", Part("True", "Y", "n"), 2, "t3")
    assert conditions[0]["lastTransitionTime"] == "t3"
    cond.stamp(conditions, "A", Part("False", "Y", "n"), 2, "t4")
    assert conditions[0]["lastTransitionTime"] == "t4"
    assert len(conditions) == 1


def test_group_sync_is_absent_until_every_volume_has_synced() -> None:
    first = {"lastSyncTime": "2026-01-02T00:00:00Z", "lastSyncDuration": "900ms", "lastSyncBytes": 3}
    second = {"lastSyncTime": "2026-01-01T00:00:00Z", "lastSyncDuration": "1m2s", "lastSyncBytes": 4}
    assert cond.group_sync([]) == {}
    assert cond.group_sync([first, {}]) == {}
    assert cond.group_sync([first, second]) == {
        "lastGroupSyncTime": "2026-01-01T00:00:00Z",
        "lastGroupSyncDuration": "1m2s",
        "lastGroupSyncBytes": 7,
    }
    assert cond.duration_seconds("1h2m3.5s") == pytest.approx(3723.5)
