"""The wanted VRG: Go's normal form, a merge that spends no generation, and what must not be touched."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ramen import names
from ramen.app import AppSpec, Decision, PolicyCluster, Role, StoreReport, Volume, Wanted
from ramen.desired import (
    Drawback,
    desired_vrg,
    drawbacks,
    label_query,
    merge,
    normal_form,
    ordered_profiles,
    peer_classes,
    slim,
    volumes_of,
)
from ramen.epoch import Epoch
from ramen.errors import Invalid

CLASS = {"storageClassName": "block", "clusterIDs": ["u1", "u2"], "storageID": ["s1", "s2"], "replicationID": "r1"}
APP = AppSpec(
    namespace="web",
    name="shop",
    uid="uid-1",
    policy="gold",
    clusters=[PolicyCluster(name="dr1", s3_profile="s3-dr1"), PolicyCluster(name="dr2", s3_profile="s3-dr2")],
    preferred_cluster="dr1",
    pvc_selector={"matchLabels": {"app": "shop"}},
    placement="shop",
    scheduling_interval="5m",
    peer_classes=[CLASS],
)
PROFILES = ["s3-dr1", "s3-dr2"]
EPOCH = Epoch(number=3, token="t")


def wanted(role: Role = Role.PRIMARY, **more: Any) -> Wanted:
    return Wanted(role=role, epoch=EPOCH, **more)


def made(present: dict[str, Any] | None = None, role: Role = Role.PRIMARY, **more: Any) -> dict[str, Any]:
    decision, volumes = more.pop("decision", None), more.pop("volumes", None)
    return desired_vrg(APP, "dr1", wanted(role, **more), PROFILES, present, decision, volumes)


def stored(**spec: Any) -> dict[str, Any]:
    """The VRG as the API server would have it."""
    vrg = made()
    vrg["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 1, "finalizers": [names.VRG_FINALIZER]}
    vrg["spec"] |= spec
    vrg["status"] = {"state": "Primary"}
    return vrg


def test_a_new_vrg_is_in_the_form_that_go_writes() -> None:
    assert made()["spec"] == {
        "pvcSelector": {"matchLabels": {"app": "shop"}},
        "replicationState": "primary",
        "s3Profiles": PROFILES,
        "async": {
            "replicationClassSelector": {},
            "volumeSnapshotClassSelector": {},
            "volumeGroupSnapshotClassSelector": {},
            "schedulingInterval": "5m",
            "peerClasses": [CLASS],
        },
        "volSync": {"disabled": True},
    }


def test_ramens_annotations_are_all_there_even_when_empty() -> None:
    notes = made()["metadata"]["annotations"]
    assert {names.DESTINATION_CLUSTER: "dr1", names.DRPC_UID: "uid-1"}.items() <= notes.items()
    assert [notes[switch] for switch in names.USER_SWITCHES] == ["", "", "", ""]


def test_flags_and_action_are_written_only_when_they_say_something() -> None:
    spec = made(action="Relocate", prepare_final_sync=True)["spec"]
    assert (spec["action"], spec["prepareForFinalSync"]) == ("Relocate", True)
    assert "runFinalSync" not in spec
    assert "action" not in made()["spec"]


def test_an_action_once_set_stays_without_a_new_one() -> None:
    assert made(stored(action="Failover"))["spec"]["action"] == "Failover"
    assert made(stored(action="Failover"), action="Relocate")["spec"]["action"] == "Relocate"


def test_a_demotion_clears_the_final_sync_flags() -> None:
    spec = made(stored(prepareForFinalSync=True, runFinalSync=True), Role.SECONDARY)["spec"]
    assert spec.keys().isdisjoint({"prepareForFinalSync", "runFinalSync"})


def test_what_a_refresh_must_leave_alone_is_kept() -> None:
    kept = {"rdSpec": [{"protectedPVC": {"name": "files"}}]}
    spec = made(stored(volSync=kept, pvcSelector={"matchLabels": {"old": "yes"}}))["spec"]
    assert spec["volSync"] == kept
    assert spec["pvcSelector"] == {"matchLabels": {"old": "yes"}}


def test_facts_of_the_decision_travel_with_a_promotion_and_end_with_a_demotion() -> None:
    promoted = made(decision=Decision(cluster="dr1", previous="dr2"))
    notes = promoted["metadata"]["annotations"]
    assert (notes[names.EPOCH], notes[names.DECISION], notes[names.PREVIOUS]) == ("3.t", "dr1", "dr2")
    assert notes[names.DECISION_EPOCH] == "3", "a later action may claim the VRG and decide for another"
    assert made(promoted, Role.SECONDARY)["metadata"]["annotations"][names.DECISION] == ""
    assert names.DECISION not in made(promoted)["metadata"]["annotations"]


def test_the_list_of_volumes_is_erased_on_purpose_only() -> None:
    volumes = [Volume(namespace="web", name="b", pv="pv-b"), Volume(namespace="web", name="a", pv="pv-a")]
    vrg = made(volumes=volumes)
    assert volumes_of(vrg) == [volumes[1], volumes[0]]
    merged = merge(vrg, made(vrg, role=Role.SECONDARY))
    assert volumes_of(merged) == [volumes[1], volumes[0]]
    assert volumes_of(merge(vrg, made(vrg, role=Role.SECONDARY, volumes=[]))) == []
    vrg["metadata"]["annotations"][names.VOLUMES] = "not json"
    assert volumes_of(vrg) == []


def test_merge_changes_nothing_for_what_equals_absence() -> None:
    present = stored(runFinalSync=False, dryRun=False)
    del present["spec"]["async"]["volumeGroupSnapshotClassSelector"]
    assert merge(present, made(present)) is None


def test_merge_replaces_the_spec_and_keeps_all_that_is_not_ours() -> None:
    present = stored(dryRun=True)
    present["metadata"]["annotations"]["theirs"] = "kept"
    present["metadata"]["labels"] |= {"theirs": "kept"}
    before = copy.deepcopy(present)
    merged = merge(present, made(present, Role.SECONDARY))
    assert merged is not None
    assert "dryRun" not in merged["spec"]
    assert merged["spec"]["replicationState"] == "secondary"
    assert merged["metadata"]["annotations"]["theirs"] == merged["metadata"]["labels"]["theirs"] == "kept"
    assert (merged["status"], merged["metadata"]["finalizers"]) == (before["status"], [names.VRG_FINALIZER])
    assert present == before, "the object that was read is not changed"


def test_an_annotation_alone_leaves_the_spec_as_it_was_written() -> None:
    present = stored(runFinalSync=False)
    present["metadata"]["annotations"][names.EPOCH] = "2.t"
    merged = merge(present, made(present))
    assert merged is not None
    assert merged["spec"] == present["spec"], "else the generation would rise for nothing"


def test_presence_alone_counts_for_the_kind_of_dr() -> None:
    assert normal_form({"sync": {}, "volSync": {}, "dryRun": False}) == {"sync": {}}


@pytest.mark.parametrize(
    ("cluster", "wrong", "order"),
    [
        ("dr1", {}, ["s3-dr1", "s3-dr2"]),
        ("dr2", {}, ["s3-dr2", "s3-dr1"]),
        ("dr2", {"s3-dr2": Drawback.SILENT}, ["s3-dr1", "s3-dr2"]),
        ("dr2", {"s3-dr2": Drawback.TAKES_NO_WRITE}, ["s3-dr1", "s3-dr2"]),
        ("dr2", {"s3-dr1": Drawback.SILENT, "s3-dr2": Drawback.SILENT}, ["s3-dr2", "s3-dr1"]),
        ("dr2", {"s3-dr1": Drawback.SILENT, "s3-dr2": Drawback.LACKS_VOLUMES}, ["s3-dr2", "s3-dr1"]),
        ("dr2", {"s3-dr1": Drawback.TAKES_NO_WRITE, "s3-dr2": Drawback.LACKS_VOLUMES}, ["s3-dr1", "s3-dr2"]),
    ],
)
def test_profiles_without_a_drawback_come_first_and_the_own_before_the_others(
    cluster: str, wrong: dict[str, Drawback], order: list[str]
) -> None:
    assert ordered_profiles(APP, cluster, wrong) == order


def test_drawbacks_of_stores_follow_from_a_look_and_from_who_took_a_write() -> None:
    one, two = (Volume(namespace="web", name=name, pv=f"pv-{name}") for name in ("a", "b"))
    reports = [
        StoreReport(profile="whole", reachable=True, volumes=[one, two]),
        StoreReport(profile="full", reachable=True, volumes=[one, two]),
        StoreReport(profile="partial", reachable=True, volumes=[one]),
        StoreReport(profile="broken", reachable=True, error="an object cannot be read"),
        StoreReport(profile="silent", reachable=False),
    ]
    assert drawbacks(reports, [one, two], ["whole", "partial", "broken"]) == {
        "full": Drawback.TAKES_NO_WRITE,
        "partial": Drawback.LACKS_VOLUMES,
        "broken": Drawback.LACKS_VOLUMES,
        "silent": Drawback.SILENT,
    }
    assert drawbacks(reports[2:3], [], ["partial"]) == {}, "no volume is expected, none is lacking"


def test_peer_classes_are_refreshed_only_within_their_scheme() -> None:
    renewed = CLASS | {"storageID": ["s3", "s4"]}
    assert peer_classes([CLASS], [renewed]) == [renewed]
    volsync = {key: value for key, value in CLASS.items() if key != "replicationID"}
    assert peer_classes([volsync], [CLASS]) == [volsync]
    other = CLASS | {"storageClassName": "file"}
    assert peer_classes([CLASS], [other]) == [CLASS, other]
    assert peer_classes([CLASS], []) == [CLASS]


def test_a_slim_vrg_keeps_what_gates_read_and_cuts_the_rest() -> None:
    vrg = stored()
    vrg["metadata"]["annotations"]["theirs"] = "x"
    vrg["status"] |= {
        "conditions": [{"type": "DataReady", "status": "False", "reason": "Error", "message": "m" * 900}],
        "protectedPVCs": [{"namespace": "web", "name": "a", "lastSyncTime": "t", "labels": {"long": "x" * 900}}],
    }
    small = slim(vrg)
    assert Epoch.of(small) == EPOCH
    assert "theirs" not in small["metadata"]["annotations"]
    assert len(small["status"]["conditions"][0]["message"]) == 200
    assert small["status"]["protectedPVCs"] == [{"namespace": "web", "name": "a", "lastSyncTime": "t"}]
    assert len(json.dumps(small)) < 2000


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, ""),
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, "a in (1,2)"),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, "a notin (1)"),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "a"),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, "!a"),
    ],
)
def test_label_selectors_become_queries(selector: dict[str, Any], text: str) -> None:
    assert label_query(selector) == text


@pytest.mark.parametrize(
    "selector",
    [
        {"app": "shop"},
        {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["1"]}]},
        {"matchExpressions": [{"key": "a", "operator": "In"}]},
    ],
)
def test_a_selector_that_cannot_be_read_is_refused(selector: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="pvcSelector"):
        label_query(selector)


def test_a_slim_vrg_says_which_volumes_are_protected() -> None:
    """An adoption from a hub reads the selector from it; none would select every PVC of the namespace."""
    selector = {"matchLabels": {"app": "shop"}}
    assert slim({"metadata": {"name": "shop"}, "spec": {"pvcSelector": selector}})["spec"]["pvcSelector"] == selector
