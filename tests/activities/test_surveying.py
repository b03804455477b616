"""What is refused before anything is written: by name, and with a way out (D11)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from activities.contracts import PolicyCheck, ProtectRequest, Survey, SurveyResult
from activities.surveying import SurveyActivities
from ramen import names
from ramen.app import AppSpec, PolicyCluster
from ramen.errors import ClusterUnreachable, StoreUnreachable
from ramen.kinds import DRCLUSTER, DRPOLICY, PVC, STORAGE_CLASS, VOLUME_REPLICATION_CLASS, VRG
from tests.activities.fakes import APP, VOLUMES, MemoryStore, Told, World, failure

PEER_CLASS = {"storageClassName": "block", "clusterIDs": ["u1", "u2"], "storageID": ["s1", "s2"], "replicationID": "r"}

VALIDATED = {"type": "Validated", "status": "True", "reason": "Succeeded", "message": "drpolicy validated"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    for name, cluster in made.clusters.items():
        put_policy(made, name)
        for each in ("dr1", "dr2"):
            cluster.put(
                DRCLUSTER, {"metadata": {"name": each}, "spec": {"region": each, "s3ProfileName": f"s3-{each}"}}
            )
        cluster.put(STORAGE_CLASS, {"metadata": {"name": "block"}, "provisioner": "csi.example"})
        put_class(made, name)
    yield made
    await made.stop()


def put_policy(world: World, cluster: str, interval: str = "1m", **status: Any) -> None:
    world.clusters[cluster].put(
        DRPOLICY,
        {
            "metadata": {"name": "gold"},
            "spec": {"schedulingInterval": interval, "drClusters": ["dr1", "dr2"], "replicationClassSelector": {}},
            "status": {"conditions": [VALIDATED]} | (status or {"async": {"peerClasses": [PEER_CLASS]}}),
        },
    )


def put_class(world: World, cluster: str, interval: str = "1m", **labels: str) -> None:
    world.clusters[cluster].put(
        VOLUME_REPLICATION_CLASS,
        {
            "metadata": {"name": "vrc", "labels": labels},
            "spec": {"provisioner": "csi.example", "parameters": {"schedulingInterval": interval}},
        },
    )


def request(annotations: dict[str, str] | None = None, **spec: Any) -> ProtectRequest:
    given = {
        "drPolicyRef": {"name": "gold"},
        "placementRef": {"name": "shop"},
        "preferredCluster": "dr1",
        "pvcSelector": {"matchLabels": {"app": "shop"}},
        **spec,
    }
    return ProtectRequest(namespace="web", name="shop", spec=given, annotations=annotations or {}, uid="uid-1")


async def test_an_application_is_resolved_with_policy_and_clusters(world: World) -> None:
    switch = names.DRPC_PREFIX + "is-submariner-enabled"
    resolve = SurveyActivities(world).resolve_application
    app: AppSpec = await Told().run(resolve, request({switch: "false", "other": "x"}))
    assert app.clusters == [
        PolicyCluster(name="dr1", s3_profile="s3-dr1", region="dr1"),
        PolicyCluster(name="dr2", s3_profile="s3-dr2", region="dr2"),
    ]
    assert (app.scheduling_interval, app.peer_classes, app.switches) == ("1m", [PEER_CLASS], {switch: "false"})
    assert app.replication_class_selector == {}


async def test_a_peer_resolves_while_the_own_cluster_is_away(world: World) -> None:
    world.closed = {"dr1"}
    assert (await Told().run(SurveyActivities(world).resolve_application, request())).policy == "gold"
    world.clusters["dr2"].failure = ClusterUnreachable("dr2 does not answer")
    err = await failure(SurveyActivities(world).resolve_application, request())
    assert (err.type, err.non_retryable) == ("ClusterUnreachable", False)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"preferredCluster": "dr7"}, "dr7 is not a cluster of policy gold (dr1, dr2)."),
        ({"drPolicyRef": {"name": "lead"}}, "DRPolicy lead is missing on dr1"),
        ({"drPolicyRef": {}}, "drPolicyRef names no policy"),
        ({"placementRef": {}}, "placementRef is missing"),
        ({"placementRef": {"name": "shop", "namespace": "other"}}, "another namespace (other)"),
        ({"kubeObjectProtection": {}}, "kubeObjectProtection is not carried"),
        ({"protectedNamespaces": ["a"]}, "protectedNamespaces is not carried"),
        ({"dryRun": True}, "dryRun is not carried"),
        ({"pvcSelector": None}, "pvcSelector is missing"),
        ({"pvcSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}, "pvcSelector"),
        ({"pvcSelector": {"matchLabels": "app=shop"}}, "pvcSelector"),
        ({"pvcSelector": {"matchLabels": {"app": "shop,tier=db"}}}, "app: shop,tier=db is no value of a label"),
    ],
)
async def test_a_wrong_spec_is_refused_by_name(world: World, wrong: dict[str, Any], text: str) -> None:
    err = await failure(SurveyActivities(world).resolve_application, request(**wrong))
    assert (err.type, err.non_retryable) == ("Refused", True)
    assert text in err.message


@pytest.mark.parametrize("switch", ["is-cg-enabled", "use-volsync-for-pvc-protection"])
async def test_switches_that_are_not_carried_are_refused_when_on(world: World, switch: str) -> None:
    resolve = SurveyActivities(world).resolve_application
    assert switch in (await failure(resolve, request({names.DRPC_PREFIX + switch: "true"}))).message
    await Told().run(resolve, request({names.DRPC_PREFIX + switch: "false"}))


@pytest.mark.parametrize(
    ("interval", "status"),
    [
        ("", {"async": {}}),
        ("0m", {"async": {}}),
        ("0m", {"async": {"peerClasses": [PEER_CLASS]}}),
        ("1m", {"sync": {"peerClasses": [PEER_CLASS]}}),
    ],
)
async def test_policies_without_an_interval_of_their_own_are_refused(
    world: World, interval: str, status: dict[str, Any]
) -> None:
    put_policy(world, "dr1", interval, **status)
    err = await failure(SurveyActivities(world).resolve_application, request())
    assert "policy gold" in err.message
    assert "not carried" in err.message


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ([], "policy gold is not validated yet on dr1"),
        (
            [VALIDATED | {"status": "False", "reason": "DRClusterNotFound", "message": "failed to find dr2"}],
            "policy gold is not valid: failed to find dr2 (DRClusterNotFound).",
        ),
    ],
)
async def test_a_policy_that_is_not_valid_protects_nothing(world: World, conditions: Any, text: str) -> None:
    put_policy(world, "dr1", conditions=conditions)
    assert text in (await failure(SurveyActivities(world).resolve_application, request())).message


async def test_a_policy_that_is_being_deleted_protects_nothing(world: World) -> None:
    found = world.clusters["dr1"].get(DRPOLICY, "gold")
    assert found is not None
    found["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [names.POLICY_FINALIZER]}
    world.clusters["dr1"].put(DRPOLICY, found)
    err = await failure(SurveyActivities(world).resolve_application, request())
    assert "policy gold is being deleted" in err.message


def stores(**failures: Exception) -> dict[str, Any]:
    """Stores of both clusters; those named fail."""
    made: dict[str, Any] = {name: MemoryStore(name) for name in ("s3-dr1", "s3-dr2")}
    for cluster, error in failures.items():
        made[f"s3-{cluster}"].failure = error
    return made


async def test_without_a_preferred_cluster_the_first_ready_one_is_chosen(world: World) -> None:
    given = stores(dr1=StoreUnreachable("s3-dr1 is silent"))
    resolve = SurveyActivities(world, given).resolve_application
    app: AppSpec = await Told().run(resolve, request(preferredCluster=""))
    assert app.preferred_cluster == "dr2"
    assert "the store of dr1 cannot be used (s3-dr1 is silent)" in app.placement_reason
    app = await Told().run(resolve, request())
    assert (app.preferred_cluster, app.placement_reason) == ("dr1", ""), "a named cluster is taken as it is"


async def test_without_a_preferred_cluster_the_one_with_the_volumes_is_chosen(world: World) -> None:
    world.bind(*VOLUMES, cluster="dr2")
    resolve = SurveyActivities(world, stores()).resolve_application
    app: AppSpec = await Told().run(resolve, request(preferredCluster=""))
    assert (app.preferred_cluster, app.placement_reason) == ("dr2", "2 volumes of shop are there")


async def test_a_cluster_that_does_not_answer_may_hold_the_application(world: World) -> None:
    world.closed = {"dr2"}
    err = await failure(SurveyActivities(world, stores()).resolve_application, request(preferredCluster=""))
    assert err.type == "Refused"
    assert "it is not known whether shop runs on dr2" in err.message


async def test_a_cluster_without_the_policys_storage_class_is_not_chosen(world: World) -> None:
    world.clusters["dr1"].drop(STORAGE_CLASS, "block")
    app: AppSpec = await Told().run(SurveyActivities(world, stores()).resolve_application, request(preferredCluster=""))
    assert app.preferred_cluster == "dr2"
    assert "dr1 lacks StorageClass block" in app.placement_reason


async def test_a_cluster_without_a_store_is_refused(world: World) -> None:
    world.clusters["dr1"].put(DRCLUSTER, {"metadata": {"name": "dr2"}, "spec": {"s3ProfileName": "NoS3"}})
    assert "DRCluster dr2" in (await failure(SurveyActivities(world).resolve_application, request())).message


async def test_what_policies_say_of_themselves_is_read_on_every_cluster(world: World) -> None:
    put_policy(world, "dr2", conditions=[VALIDATED | {"status": "False", "reason": "Bad", "message": "broken"}])
    for name in ("dr1", "dr2"):
        for cluster in world.clusters.values():
            spec = {"region": name, "s3ProfileName": f"s3-{name}"}
            cluster.put(DRCLUSTER, {"metadata": {"name": name}, "spec": spec, "status": {"conditions": [VALIDATED]}})
    found: list[PolicyCheck] = await Told().run(SurveyActivities(world).check_policies)
    assert found == [
        PolicyCheck(cluster="dr1", valid={"gold": "block"}),
        PolicyCheck(cluster="dr2", problems=["DRPolicy gold: broken (Bad)"]),
    ]
    world.closed = {"dr2"}
    found = await Told().run(SurveyActivities(world).check_policies)
    assert (found[1].valid, found[1].error) == ({}, "this worker does not reach dr2")


async def test_missing_kinds_name_the_remedy(world: World) -> None:
    world.clusters["dr1"].missing = {DRPOLICY, VRG}
    for activity, given in (
        (SurveyActivities(world).resolve_application, request()),
        (SurveyActivities(world).survey_cluster, Survey(app=APP, cluster="dr1")),
    ):
        err = await failure(activity, given)
        assert err.type == "KindMissing"
        assert "hubless crds | kubectl apply -f -" in err.message


async def survey(world: World) -> SurveyResult:
    found: SurveyResult = await Told().run(SurveyActivities(world).survey_cluster, Survey(app=APP, cluster="dr1"))
    return found


async def test_volumes_that_storage_replicates_are_fine(world: World) -> None:
    world.bind(*VOLUMES)
    found = await survey(world)
    assert (found.unsupported, found.missing_kinds, found.observed.vrg) == ([], [], None)


async def test_what_would_need_volsync_is_named(world: World) -> None:
    world.bind(VOLUMES[0])
    put_class(world, "dr1", "5m")
    assert "PVC data-0 on dr1 would need VolSync" in (await survey(world)).unsupported[0]
    world.clusters["dr1"].missing = {VOLUME_REPLICATION_CLASS}
    found = await survey(world)
    assert "VolSync" in found.unsupported[0]
    assert found.missing_kinds == ["VolumeReplicationClass"]


@pytest.mark.parametrize(
    ("peer", "says"),
    [
        (PEER_CLASS, ""),
        (PEER_CLASS | {"storageClassName": "file"}, "StorageClass block, which is no peer class of policy gold (file)"),
        (PEER_CLASS | {"replicationID": ""}, "would need VolSync: the peer class of StorageClass block"),
        (PEER_CLASS | {"replicationID": "", "offloaded": True}, "offloaded to the storage"),
    ],
)
async def test_a_volume_has_to_be_of_a_peer_class_that_replicates(
    world: World, peer: dict[str, Any], says: str
) -> None:
    world.bind(VOLUMES[0])
    app = APP.model_copy(update={"peer_classes": [peer]})
    surveyed: SurveyResult = await Told().run(SurveyActivities(world).survey_cluster, Survey(app=app, cluster="dr1"))
    assert len(surveyed.unsupported) == bool(says)
    assert says in "".join(surveyed.unsupported)


async def test_a_missing_storage_class_and_a_maintenance_mode_are_named(world: World) -> None:
    world.bind(VOLUMES[0])
    put_class(world, "dr1", **{names.MAINTENANCE_MODES: "Failover"})
    assert "maintenance mode" in (await survey(world)).unsupported[0]
    world.clusters["dr1"].drop(STORAGE_CLASS, "block")
    assert "StorageClass block" in (await survey(world)).unsupported[0]


async def test_a_volume_of_another_vrg_is_named(world: World) -> None:
    world.bind(VOLUMES[0])
    claim = world.clusters["dr1"].get(PVC, "data-0", "web")
    assert claim is not None
    claim["metadata"]["labels"] |= {names.OWNER_NAME: "cart", names.OWNER_NAMESPACE: "web"}
    world.clusters["dr1"].put(PVC, claim)
    assert (await survey(world)).unsupported == ["PVC data-0 on dr1 belongs to VRG web/cart already"]


async def test_a_name_that_is_no_label_is_refused(world: World) -> None:
    """The operator labels volumes with it: such an application would be deployed for ever."""
    long = request().model_copy(update={"name": "a" * 64})
    err = await failure(SurveyActivities(world).resolve_application, long)
    assert err.type == "Refused"
    assert "Use a shorter one" in err.message
