"""What is said of a DRPolicy and a DRCluster: each row is a state of the world and the condition that follows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ramen import names
from ramen.conditions import Condition, find
from ramen.objects import DRCluster, DRPolicy
from ramen.peerclasses import Classes
from ramen.policies import (
    Sight,
    StoreLook,
    conflict_of,
    drcluster_status,
    findings,
    interval_problem,
    is_sync,
    policy_status,
    say_copies,
    to_create,
    warnings,
)
from tests.ramen.test_peerclasses import pair, peer, sc, snap, sync, vrc

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)

MATCHING = pair(
    {"storage": [sc("s1")], "replication": [vrc("s1")]}, {"storage": [sc("s2")], "replication": [vrc("s2")]}
)


def sight(classes: list[Classes] | None = None, **given: Any) -> Sight:
    found = MATCHING if classes is None else classes
    stores = {"s3-dr1": StoreLook(), "s3-dr2": StoreLook()} | given.pop("stores", {})
    return Sight(
        registered=given.pop("registered", ("dr1", "dr2")),
        classes={each.cluster: each for each in found},
        stores=stores,
        **given,
    )


def drcluster(name: str = "dr1", valid: bool | None = True, **spec: Any) -> DRCluster:
    status: dict[str, Any] = {}
    if valid is not None:
        condition = {"type": "Validated", "status": str(valid), "reason": "x", "message": "its store is away"}
        status = {"conditions": [condition]}
    return DRCluster.of(
        {"metadata": {"name": name, "generation": 2}, "spec": {"s3ProfileName": f"s3-{name}"} | spec, "status": status}
    )


def policy(name: str = "gold", interval: str = "1m", born: str = "", status: Any = None, **spec: Any) -> DRPolicy:
    metadata = {"name": name, "generation": 3, "annotations": {names.BORN: born} if born else {}}
    wanted = {"drClusters": ["dr1", "dr2"], "schedulingInterval": interval} | spec
    return DRPolicy.of({"metadata": metadata, "spec": wanted, "status": status or {}})


BOTH = {"dr1": drcluster("dr1"), "dr2": drcluster("dr2")}


def said(conditions: list[Condition], kind: str) -> tuple[str, str, str]:
    found = find(conditions, kind)
    assert found is not None, f"no condition {kind}"
    return found.status, found.reason, found.message


# --- DRCluster -----------------------------------------------------------------------------------------------------

REFUSED = StoreLook("s3ConnectionFailed", "Secret ramen-system/s3-dr1 is missing")


@pytest.mark.parametrize(
    ("spec", "given", "status", "reason", "words"),
    [
        ({}, {}, "True", "Succeeded", "Validated the cluster"),
        ({}, {"registered": ("dr2",)}, "False", "ClusterNotRegistered", "{name: dr1, region: REGION,"),
        ({"region": "east"}, {"registered": ()}, "False", "ClusterNotRegistered", "region: east"),
        ({}, {"stores": {"s3-dr1": REFUSED}}, "False", "s3ConnectionFailed", "Secret ramen-system/s3-dr1 is missing"),
        ({}, {"stores": {"s3-dr1": StoreLook("s3ListFailed", "no")}}, "False", "s3ListFailed", "no"),
        ({"s3ProfileName": "other"}, {}, "Unknown", "Initializing", "Initializing DRCluster"),
        ({"s3ProfileName": ""}, {}, "False", "s3ConnectionFailed", "s3ProfileName is empty"),
        ({"s3ProfileName": "NoS3"}, {"stores": {"s3-dr1": REFUSED}}, "True", "Succeeded", "Validated the cluster"),
        ({"cidrs": ["10.0.0.0/24", "fd00::/64"]}, {}, "True", "Succeeded", "Validated the cluster"),
        ({"cidrs": ["10.0.0.0/24", "ten"]}, {}, "False", "ValidationFailed", "CIDRs validation failed: ten"),
    ],
)
def test_a_drcluster_is_validated(spec: Any, given: Any, status: str, reason: str, words: str) -> None:
    found = drcluster_status(drcluster(valid=None, **spec), sight(**given), NOW)
    assert said(found.conditions, "Validated")[:2] == (status, reason)
    assert words in said(found.conditions, "Validated")[2]


def test_conditions_stand_in_ramens_order() -> None:
    found = drcluster_status(drcluster(valid=None, cidrs=["x"]), sight(), NOW)
    assert [condition.type for condition in found.conditions] == ["Validated", "Fenced", "Clean", "CIDRsValidated"]
    assert {condition.observed_generation for condition in found.conditions} == {2}


def test_cidrs_that_were_corrected_leave_no_condition() -> None:
    bad = drcluster(valid=None, cidrs=["x"])
    bad.status = drcluster_status(bad, sight(), NOW)
    assert said(bad.status.conditions, "CIDRsValidated")[:2] == ("False", "InvalidCIDRsFormat")
    bad.spec.cidrs = []
    assert find(drcluster_status(bad, sight(), NOW).conditions, "CIDRsValidated") is None


@pytest.mark.parametrize(
    ("fence", "phase", "fenced", "clean"),
    [
        (None, "Available", ("False", "Clean"), ("True", "Clean")),
        ("ManuallyFenced", "Fenced", ("True", "Fenced"), ("False", "Fenced")),
        ("ManuallyUnfenced", "Unfenced", ("False", "Clean"), ("True", "Clean")),
        ("Fenced", "Starting", ("False", "FenceError"), ("True", "FenceError")),
        ("Unfenced", "Starting", ("False", "UnfenceError"), ("False", "UnfenceError")),
    ],
)
def test_a_fence_is_claimed_only_when_a_person_made_it(fence: Any, phase: str, fenced: Any, clean: Any) -> None:
    found = drcluster_status(drcluster(valid=None, clusterFence=fence), sight(), NOW)
    assert found.phase == phase
    assert said(found.conditions, "Fenced")[:2] == fenced
    assert said(found.conditions, "Clean")[:2] == clean


def test_unfencing_that_nobody_did_leaves_the_cluster_fenced() -> None:
    fenced = drcluster(valid=None, clusterFence="ManuallyFenced")
    fenced.status = drcluster_status(fenced, sight(), NOW)
    fenced.spec.cluster_fence = "Unfenced"
    found = drcluster_status(fenced, sight(), NOW)
    assert found.phase == "Fenced"
    assert said(found.conditions, "Fenced")[:2] == ("True", "UnfenceError")


def test_fencing_is_said_with_a_broken_store_too() -> None:
    found = drcluster_status(
        drcluster(valid=None, clusterFence="ManuallyFenced"), sight(stores={"s3-dr1": REFUSED}), NOW
    )
    assert said(found.conditions, "Fenced")[0] == "True"


def test_the_same_look_changes_nothing() -> None:
    found = drcluster(valid=None, cidrs=["x"])
    found.status = drcluster_status(found, sight(), NOW)
    assert drcluster_status(found, sight(), LATER).model_dump() == found.status.model_dump()


def test_a_store_that_was_not_looked_at_yet_leaves_what_was_known() -> None:
    found = drcluster(valid=None)
    found.status = drcluster_status(found, sight(), NOW)
    blind = Sight(registered=("dr1", "dr2"))
    assert drcluster_status(found, blind, LATER).model_dump() == found.status.model_dump()


# --- DRPolicy: Validated -------------------------------------------------------------------------------------------

INVALID = {"dr1": drcluster("dr1", False), "dr2": drcluster("dr2", False)}


@pytest.mark.parametrize(
    ("spec", "drclusters", "given", "status", "reason", "words"),
    [
        ({}, BOTH, {}, "True", "Succeeded", "drpolicy validated"),
        ({}, {}, {}, "False", "DRClusterNotFound", "specified in policy (dr1, dr2)"),
        ({}, {"dr1": drcluster()}, {}, "False", "DRClusterNotFound", to_create("dr2")),
        ({}, {"dr1": drcluster()}, {"registered": ("dr1",)}, "False", "DRClusterNotFound", "kubeconfig-dr2"),
        ({}, BOTH, {"registered": ("dr1",)}, "False", "ClusterNotRegistered", "{name: dr2, region: REGION"),
        ({}, INVALID, {}, "False", "DRClustersUnavailable", "dr1: its store is away; dr2: its store is away"),
        ({}, BOTH | {"dr2": drcluster("dr2", False)}, {}, "True", "Succeeded", "but DRCluster dr2: its store is away"),
        ({}, BOTH | {"dr2": drcluster("dr2", None)}, {}, "True", "Succeeded", "dr2: not looked at yet"),
        ({"drClusters": []}, BOTH, {}, "False", "ValidationFailed", "list of 2 clusters"),
        ({"drClusters": ["dr1", "dr1"]}, BOTH, {}, "False", "ValidationFailed", "list of 2 clusters"),
        ({"interval": "3s"}, BOTH, {}, "False", "ValidationFailed", "'3s' is no interval"),
    ],
)
def test_a_policy_is_validated(
    spec: Any, drclusters: dict[str, DRCluster], given: Any, status: str, reason: str, words: str
) -> None:
    found = policy_status(policy(**spec), drclusters, [], sight(**given), NOW)
    assert said(found.conditions, "Validated")[:2] == (status, reason)
    assert words in said(found.conditions, "Validated")[2]
    assert found.conditions[0].type == "Validated"


@pytest.mark.parametrize(
    ("interval", "good"),
    [
        ("", True),
        ("0m", True),
        ("00m", True),
        ("9999999d", True),
        ("5h", True),
        ("3s", False),
        ("0", False),
        ("m", False),
    ],
)
def test_intervals(interval: str, good: bool) -> None:
    assert (interval_problem(interval) == "") is good


METRO = {"sync": {"peerClasses": [sync().model_dump(mode="json")]}}
REGIONAL = {"async": {"peerClasses": [peer("r").model_dump(mode="json")]}}


@pytest.mark.parametrize(
    ("mine", "other", "conflict"),
    [
        ({"status": METRO, "born": "2"}, {"status": METRO, "born": "1"}, True),
        ({"status": METRO, "born": "2"}, {"status": REGIONAL, "born": "1"}, True),
        ({"status": REGIONAL, "born": "2"}, {"status": METRO, "born": "1"}, True),
        ({"status": REGIONAL, "born": "2"}, {"status": REGIONAL, "born": "1"}, False),
        ({"status": METRO, "born": "2"}, {"status": METRO, "born": "1", "drClusters": ["dr2", "dr3"]}, True),
        ({"status": METRO, "born": "2"}, {"status": METRO, "born": "1", "drClusters": ["dr3", "dr4"]}, False),
        ({"status": METRO, "born": "1"}, {"status": METRO, "born": "2"}, False),
        ({"status": METRO, "born": "1"}, {"status": METRO, "born": "1"}, True),
        ({"status": METRO, "born": "1", "name": "a"}, {"status": METRO, "born": "1"}, False),
        ({"status": METRO | REGIONAL, "born": "1"}, {"born": "2"}, True),
        ({"interval": "", "born": "2"}, {"interval": "", "born": "1"}, True),
    ],
    ids=[
        "both metro",
        "mine metro",
        "other metro",
        "both regional",
        "one cluster shared",
        "disjoint",
        "mine is older",
        "equally old: the later name",
        "equally old: the earlier name",
        "sync and async in one",
        "metro by interval, no peer classes yet",
    ],
)
def test_metro_policies_that_overlap(mine: Any, other: Any, conflict: bool) -> None:
    assert bool(conflict_of(policy(**{"name": "new", **mine}), [policy(**{"name": "gold", **other})])) is conflict


@pytest.mark.parametrize(
    ("interval", "status", "metro"),
    [
        ("", {}, True),
        ("0m", {}, True),
        ("5m", {}, False),
        ("5m", METRO, True),
        ("0m", REGIONAL, False),
        ("5m", REGIONAL, False),
    ],
)
def test_metro_or_regional(interval: str, status: Any, metro: bool) -> None:
    assert is_sync(policy(interval=interval, status=status)) is metro


# --- DRPolicy: peer classes ----------------------------------------------------------------------------------------

NO_STORAGE = pair({"storage": [sc("s1")]}, {})
DIFFER = pair(
    {"storage": [sc("s1")], "replication": [vrc("s1")]},
    {"storage": [sc("s2")], "replication": [vrc("s2", interval="5m", name="slow")]},
)
SOME = pair(
    {"storage": [sc("s1"), sc("s1", "extra")], "snapshot": [snap("s1")]},
    {"storage": [sc("s2")], "snapshot": [snap("s2")]},
)


@pytest.mark.parametrize(
    ("classes", "status", "reason", "words"),
    [
        (MATCHING, "True", "Succeeded", "block (async)"),
        (DIFFER, "False", "ClassesDiffer", "slow has schedulingInterval 5m"),
        (NO_STORAGE, "False", "ClassesDiffer", "no StorageClass with label ramendr.openshift.io/storageid on dr2"),
        (SOME, "True", "SomeUnmatched", "without a peer: StorageClass extra of dr1 does not exist on dr2"),
    ],
)
def test_peer_classes_are_found_and_what_is_missing_is_said(
    classes: list[Classes], status: str, reason: str, words: str
) -> None:
    found = policy_status(policy(), BOTH, [], sight(classes), NOW)
    assert said(found.conditions, "PeerClassesMatched")[:2] == (status, reason)
    assert words in said(found.conditions, "PeerClassesMatched")[2]
    assert said(found.conditions, "Validated")[0] == "True", "as in Ramen, peer classes do not make a policy valid"


def test_peer_classes_are_in_the_status_as_ramen_writes_them() -> None:
    found = policy_status(policy(), BOTH, [], sight(), NOW).model_dump(mode="json")
    assert found["async"] == {
        "peerClasses": [
            {
                "storageClassName": "block",
                "storageID": ["s1", "s2"],
                "clusterIDs": ["uid1", "uid2"],
                "replicationID": "r",
            }
        ]
    }
    assert "sync" not in found


@pytest.mark.parametrize(
    ("seen", "condition"),
    [
        (sight(MATCHING[:1], silent={"dr2": "dr2 did not answer in 1 s"}), "dr2 did not answer in 1 s"),
        (sight(MATCHING[:1], unsure=frozenset({"dr2"})), ""),
    ],
    ids=["away for a while", "away since a moment"],
)
def test_a_cluster_that_does_not_answer_takes_no_peer_class_away(seen: Sight, condition: str) -> None:
    known = policy()
    known.status = policy_status(known, BOTH, [], sight(), NOW)
    found = policy_status(known, BOTH, [], seen, LATER)
    assert found.async_ == known.status.async_
    assert condition in said(found.conditions, "PeerClassesMatched")[2]
    assert said(found.conditions, "PeerClassesMatched")[0] == ("Unknown" if condition else "True")
    assert said(found.conditions, "Validated")[0] == "True"


def test_the_same_look_at_a_policy_changes_nothing() -> None:
    known = policy(networkMappingRef={"name": "nets"})
    known.status = policy_status(known, BOTH, [], sight(), NOW)
    assert policy_status(known, BOTH, [], sight(), LATER).model_dump() == known.status.model_dump()
    assert said(known.status.conditions, "NetworkAttachmentsValidated")[0] == "Unknown"


# --- both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waits", "deleting", "seen", "kind", "status", "words"),
    [
        ("", False, sight(), "CopiesEqual", "True", "revision 4 on dr1, dr2"),
        ("", False, sight(silent={"dr2": "gone"}), "CopiesEqual", "Unknown", "dr2 does not answer"),
        ("region differ", False, sight(), "CopiesEqual", "False", "region differ"),
        ("in use by web/shop", True, sight(), "Deletable", "False", "in use by web/shop"),
    ],
)
def test_what_is_said_of_copies(waits: str, deleting: bool, seen: Sight, kind: str, status: str, words: str) -> None:
    conditions: list[Condition] = []
    say_copies(conditions, 1, 4, waits, "", deleting, seen, NOW)
    assert said(conditions, kind)[0] == status
    assert words in said(conditions, kind)[2]


def test_findings_name_object_and_reason() -> None:
    broken = policy()
    assert findings(broken) == ["DRPolicy gold is not validated yet: no worker has written its status"]
    broken.status = policy_status(broken, {}, [], sight(DIFFER), NOW)
    assert [line.split(":")[0] for line in findings(broken)] == ["DRPolicy gold", "DRPolicy gold"]
    assert "(DRClusterNotFound)" in findings(broken)[0]
    assert "(ClassesDiffer)" in findings(broken)[1]
    good = policy()
    good.status = policy_status(good, BOTH | {"dr2": drcluster("dr2", False)}, [], sight(SOME), NOW)
    assert findings(good) == []
    assert [line.rsplit("(", 1)[1] for line in warnings(good)] == ["Succeeded)", "SomeUnmatched)"]
