"""Objects come back from a model as they went in: unknown fields kept, nothing added, nothing lost."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ramen.conditions import Condition
from ramen.config import RamenConfig
from ramen.errors import Invalid
from ramen.objects import DRPC, VRG, APIObject, AsyncSpec, ClusterRegistry, DRCluster, DRPolicy, VRGSpec

API = "ramendr.openshift.io/v1alpha1"

CONDITION = {
    "type": "DataReady",
    "status": "True",
    "reason": "Ready",
    "message": "",
    "observedGeneration": 2,
    "lastTransitionTime": "2026-11-23T14:00:00Z",
}
SELECTOR = {"matchLabels": {"app": "shop"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
PROTECTED_PVC = {
    "name": "data-0",
    "namespace": "web",
    "protectedByVolSync": True,
    "storageID": {"id": "", "modes": ["Failover"]},
    "replicationID": {"id": "r"},
    "resources": {"requests": {"storage": "1Gi", "count": 3}},
    "lastSyncBytes": 0,
    "conditions": [CONDITION],
}
MOVER = {"pvcName": "data-0", "pvcNamespace": "web", "moverSecurityContext": {"runAsUser": 0, "runAsNonRoot": False}}

WHOLE: list[dict[str, Any]] = [
    {
        "apiVersion": API,
        "kind": "VolumeReplicationGroup",
        "metadata": {
            "name": "shop",
            "namespace": "web",
            "uid": "u",
            "resourceVersion": "7",
            "generation": 2,
            "labels": {"l": ""},
            "annotations": {"a": ""},
            "finalizers": ["f"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "blockOwnerDeletion": True}],
            "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {
            "pvcSelector": {},
            "replicationState": "primary",
            "s3Profiles": [],
            "async": {
                "schedulingInterval": "5m",
                "replicationClassSelector": {},
                "peerClasses": [
                    {"replicationID": "r", "groupreplicationID": "g", "clusterIDs": ["1", "2"], "global": True}
                ],
            },
            "volSync": {"rdSpec": [{"protectedPVC": PROTECTED_PVC, "moverConfig": MOVER}], "disabled": False},
            "prepareForFinalSync": False,
            "action": "Failover",
            "staticIPTranslationSpec": {"ipTranslations": [{"resourceRef": {"name": "vm", "namespace": "web"}}]},
            "fieldOfTheNextRelease": {"deep": [None, {"x": None}]},
        },
        "status": {
            "state": "Primary",
            "observedGeneration": 2,
            "conditions": [CONDITION],
            "protectedPVCs": [PROTECTED_PVC],
            "rdInfo": [
                {"protectedPVC": {"name": "x"}, "rsyncTLS": {"address": "1.2.3.4", "tlsSecretRef": {"name": ""}}}
            ],
            "pvcgroups": [{"grouped": ["a"]}],
            "kubeObjectProtection": {"captureToRecoverFrom": {"number": 0, "startGeneration": 1}},
        },
    },
    {
        "apiVersion": API,
        "kind": "VolumeReplicationGroup",
        "metadata": {"name": "metro"},
        "spec": {
            "pvcSelector": SELECTOR,
            "replicationState": "secondary",
            "s3Profiles": ["s"],
            "sync": {},
            "volSync": {},
        },
        "status": {},
    },
    {
        "apiVersion": API,
        "kind": "DRPlacementControl",
        "metadata": {"name": "shop", "namespace": "web"},
        "spec": {
            "placementRef": {"kind": "Placement", "name": "p"},
            "drPolicyRef": {"name": "gold"},
            "pvcSelector": SELECTOR,
            "preferredCluster": "dr1",
            "protectedNamespaces": [],
            "retainNamespaceSCCAcrossPeers": True,
            "kubeObjectProtection": {"captureInterval": "5m0s", "recipeParameters": {"a": ["b"]}},
            "volSyncSpec": {"moverConfig": [MOVER]},
        },
        "status": {
            "phase": "",
            "progression": "Cleaning Up",
            "preferredDecision": {"clusterName": "dr1"},
            "resourceConditions": {
                "resourceMeta": {
                    "kind": "VolumeReplicationGroup",
                    "name": "shop",
                    "namespace": "web",
                    "generation": 1,
                    "protectedpvcs": ["data-0"],
                    "protectedStaticIPVMs": [{"resourceRef": {"name": "vm", "namespace": "web"}}],
                },
                "conditions": [CONDITION],
            },
            "hubless": {"servesOn": "dr2", "epoch": 8, "serving": {"holds": True}, "later": 1},
        },
    },
    {
        "apiVersion": API,
        "kind": "DRPolicy",
        "metadata": {"name": "gold"},
        "spec": {"drClusters": ["dr1", "dr2"], "schedulingInterval": "", "replicationClassSelector": {}},
        "status": {
            "sync": {"peerClasses": []},
            "networkPeers": [{"nadName": "n", "nadNamespace": "x", "clusterCNITypes": {}}],
        },
    },
    {
        "apiVersion": API,
        "kind": "DRCluster",
        "metadata": {"name": "dr1"},
        "spec": {"s3ProfileName": "s", "cidrs": ["10.0.0.0/8"], "clusterFence": "Fenced"},
        "status": {"maintenanceModes": [{"storageProvisioner": "p", "targetID": "t", "state": "Completed"}]},
    },
    {
        "apiVersion": API,
        "kind": "ClusterRegistry",
        "metadata": {"name": "hubless"},
        "spec": {
            "clusters": [{"name": "dr1", "kubeconfigSecret": "dr1", "clusterUID": "u", "endpoint": "https://dr1"}]
        },
        "status": {"clusters": [{"name": "dr1", "state": "Available", "workers": [], "lastError": ""}]},
    },
]
MODELS: dict[str, type[APIObject]] = {
    model.KIND.kind: model for model in (VRG, DRPC, DRPolicy, DRCluster, ClusterRegistry)
}


@pytest.mark.parametrize("obj", WHOLE, ids=lambda obj: f"{obj['kind']} {obj['metadata']['name']}")
def test_an_object_comes_back_as_it_was(obj: dict[str, Any]) -> None:
    before = copy.deepcopy(obj)
    assert MODELS[obj["kind"]].of(obj).to_object() == before
    assert obj == before, "reading changed the object that was read"


def test_no_field_of_a_whole_object_is_taken_for_an_unknown_one() -> None:
    """Catches a misspelt alias, which a round trip alone would hide."""
    for obj in WHOLE:
        strange = [path for path in _extras(MODELS[obj["kind"]].of(obj)) if path not in KNOWN_EXTRAS]
        assert strange == []


KNOWN_EXTRAS = {
    "metadata.managedFields",
    "metadata.owner_references.blockOwnerDeletion",
    "spec.fieldOfTheNextRelease",
    "status.hubless.later",
}


def _extras(model: Any, at: str = "") -> list[str]:
    if isinstance(model, list):
        return [path for item in model for path in _extras(item, at)]
    if not hasattr(model, "model_extra"):
        return []
    found = [f"{at}{name}" for name in model.model_extra or {}]
    for name in type(model).model_fields:
        found += _extras(getattr(model, name), f"{at}{name}.")
    return [path.replace("..", ".") for path in found]


def test_null_of_a_known_field_reads_as_absent_and_is_left_out() -> None:
    obj = {"metadata": {"name": "x"}, "status": {"lastUpdateTime": None, "conditions": None}}
    vrg = VRG.of(obj)
    assert vrg.status.conditions == []
    assert vrg.to_object()["status"] == {}


def test_a_new_object_says_only_what_was_set() -> None:
    vrg = VRG(spec=VRGSpec(async_=AsyncSpec(scheduling_interval="5m"), replication_state="primary"))
    assert vrg.to_object() == {
        "apiVersion": API,
        "kind": "VolumeReplicationGroup",
        "spec": {"replicationState": "primary", "async": {"schedulingInterval": "5m"}},
    }


def test_a_change_inside_a_part_that_was_not_there_is_written() -> None:
    vrg = VRG.of({"metadata": {"name": "shop"}})
    vrg.metadata.annotations["a"] = "b"
    vrg.status.conditions.append(Condition(type="A", status="True"))
    written = vrg.to_object()
    assert written["metadata"] == {"name": "shop", "annotations": {"a": "b"}}
    assert written["status"] == {"conditions": [{"type": "A", "status": "True"}]}


def test_another_kind_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match=r"DRPolicy gold is not a VolumeReplicationGroup\."):
        VRG.of({"kind": "DRPolicy", "metadata": {"name": "gold"}})


def test_a_field_of_another_type_is_named() -> None:
    with pytest.raises(Invalid, match=r"VolumeReplicationGroup web/shop cannot be read: spec\.s3Profiles: "):
        VRG.of({"metadata": {"name": "shop", "namespace": "web"}, "spec": {"s3Profiles": "s3-dr1"}})


def test_a_value_that_a_newer_operator_may_add_is_read() -> None:
    vrg = VRG.of({"metadata": {"name": "x"}, "spec": {"action": "Evacuate"}, "status": {"state": "Warming"}})
    assert (vrg.spec.action, vrg.status.state) == ("Evacuate", "Warming")


def profile(**changes: str) -> dict[str, Any]:
    return {
        "s3ProfileName": "s3-dr1",
        "s3Bucket": "bucket",
        "s3CompatibleEndpoint": "http://127.0.0.1:9000",
        "s3SecretRef": {"name": "s", "namespace": "ramen-system"},
    } | changes


def test_a_profile_is_found_by_name_and_keeps_what_it_does_not_know() -> None:
    config = RamenConfig.of(
        {"kind": "RamenConfig", "s3StoreProfiles": [profile(tier="gold")], "volSync": {"disabled": True}}
    )
    found = config.profile("s3-dr1")
    assert found is not None
    assert (found.s3_secret_ref.namespace, found.problem()) == ("ramen-system", "")
    assert found.model_dump() == profile(tier="gold")
    assert config.profile("s3-dr2") is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"s3CompatibleEndpoint": ""}, "s3CompatibleEndpoint", id="an endpoint is needed"),
        pytest.param(
            {"s3CompatibleEndpoint": "minio:9000"}, "s3CompatibleEndpoint", id="the endpoint is an absolute URL"
        ),
        pytest.param({"s3Bucket": ""}, "s3Bucket", id="a bucket is needed"),
    ],
)
def test_an_unusable_profile_says_why(changes: dict[str, str], problem: str) -> None:
    found = RamenConfig.of({"s3StoreProfiles": [profile(**changes)]}).profile("s3-dr1")
    assert found is not None
    assert problem in found.problem()


def test_an_unreadable_configuration_names_the_field() -> None:
    with pytest.raises(Invalid, match=r"s3StoreProfiles\.0\.s3Bucket"):
        RamenConfig.of({"s3StoreProfiles": [profile() | {"s3Bucket": 7}]})
