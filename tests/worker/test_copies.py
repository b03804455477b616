"""What a hub distributed, kept equal by the workers: who writes where, and what is never overwritten."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
import yaml

from activities.access.fake import FakeCluster
from activities.access.protocol import Object
from ramen import names
from ramen.copies import LINEAGE
from ramen.kinds import CLUSTER_REGISTRY, CONFIG_MAP, DRCLUSTER_CONFIG, DRPOLICY, NAMESPACE, SECRET, Kind
from tests.worker.fakes import registry
from worker.clusters import Clusters
from worker.copies import Copies
from worker.gate import Gate
from worker.session import Session

HERE = names.RAMEN_NAMESPACE


def encoded(**data: str) -> dict[str, str]:
    return {key: b64encode(value.encode()).decode() for key, value in data.items()}


def store_secret(name: str, key: str = "id") -> Object:
    data = encoded(AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY="secret")
    return {"metadata": {"name": name, "namespace": HERE}, "type": "Opaque", "data": data}


def kubeconfig(cluster: str, token: str = "token") -> Object:
    data = encoded(kubeconfig=f"server: {cluster}\ntoken: {token}")
    return {"metadata": {"name": f"kubeconfig-{cluster}", "namespace": HERE}, "data": data}


def config(*profiles: str, **more: Any) -> Object:
    stores = [{"s3ProfileName": name, "s3Bucket": "b", "s3SecretRef": {"name": f"s3-{name}"}} for name in profiles]
    content = {"kind": "RamenConfig", "s3StoreProfiles": stores, **more}
    return {
        "metadata": {"name": names.RAMEN_CONFIG_MAP, "namespace": HERE},
        "data": {names.RAMEN_CONFIG_KEY: yaml.safe_dump(content)},
    }


class Reached(Clusters):
    """Two clusters in memory."""

    def __init__(self) -> None:
        super().__init__("dr1", None)
        self.fakes = {name: FakeCluster(name) for name in ("dr1", "dr2")}
        self.gates = {name: Gate(name) for name in self.fakes}
        for gate in self.gates.values():
            gate.answered("v1.36.3")

    def names(self) -> list[str]:
        return list(self.fakes)

    def gate(self, name: str) -> Gate:
        return self.gates[name]

    def session(self, name: str) -> Session:
        session = Session(name, self.gates[name])
        session.client = self.fakes[name]
        return session

    def access(self, name: str) -> Session:
        self.gates[name].require()
        return self.session(name)


class World:
    """dr1 and dr2 with everything equal; each worker writes on its own cluster."""

    def __init__(self) -> None:
        self.clusters = Reached()
        self.workers = {name: Copies(self.clusters, name.__eq__) for name in self.clusters.fakes}
        for name, fake in self.clusters.fakes.items():
            fake.put(NAMESPACE, {"metadata": {"name": HERE}})
            fake.put(CLUSTER_REGISTRY, registry(dr1="uid-dr1", dr2="uid-dr2"))
            fake.put(CONFIG_MAP, config("east", "west", health=name))
            for body in (store_secret("s3-east"), store_secret("s3-west"), kubeconfig("dr1"), kubeconfig("dr2")):
                fake.put(SECRET, body)

    def __getitem__(self, cluster: str) -> FakeCluster:
        return self.clusters.fakes[cluster]

    async def sync(self, *workers: str) -> None:
        for name in workers or ("dr1", "dr2", "dr1", "dr2"):
            await self.workers[name].sync()

    def edit(self, cluster: str, kind: Kind, body: Object) -> None:
        """As `kubectl edit` does: annotations stay."""
        metadata = body["metadata"]
        found = self[cluster].get(kind, metadata["name"], metadata.get("namespace", ""))
        assert found is not None
        self[cluster].put(kind, {**found, **{key: body[key] for key in ("data", "spec") if key in body}})

    def data(self, cluster: str, name: str) -> Any:
        return (self[cluster].get(SECRET, name, HERE) or {}).get("data")

    def operator(self, cluster: str) -> dict[str, Any]:
        found = self[cluster].get(CONFIG_MAP, names.RAMEN_CONFIG_MAP, HERE)
        assert found is not None
        return dict(yaml.safe_load(found["data"][names.RAMEN_CONFIG_KEY]))

    def writes(self) -> int:
        verbs = ("create", "update", "patch", "delete")
        return sum(
            fake.calls[verb, kind]
            for fake in self.clusters.fakes.values()
            for verb, kind in fake.calls
            if verb in verbs
        )

    @property
    def problems(self) -> list[str]:
        return [problem for name, worker in self.workers.items() for problem in worker.problems[name]]


@pytest.fixture
async def world() -> World:
    made = World()
    await made.sync()
    assert made.problems == []
    return made


async def test_equal_copies_are_noted_once_and_then_left_alone(world: World) -> None:
    before = world.writes()
    for _ in range(5):
        await world.sync()
    assert world.writes() == before
    found = world["dr1"].get(SECRET, "s3-east", HERE)
    assert found is not None
    assert len(found["metadata"]["annotations"][LINEAGE]) == 16
    condition, complete = world.workers["dr1"].conditions("dr1")
    assert (condition.status, condition.message) == ("True", "Equal on dr1 and dr2")
    assert (complete.type, complete.status) == ("Complete", "True")


@pytest.mark.parametrize("edited", ["dr1", "dr2"])
async def test_a_rotated_store_secret_reaches_the_other_cluster(world: World, edited: str) -> None:
    world.edit(edited, SECRET, store_secret("s3-west", "rotated"))
    await world.sync()
    assert world.data("dr1", "s3-west") == world.data("dr2", "s3-west") == store_secret("s3-west", "rotated")["data"]
    assert world.problems == []


async def test_a_profile_reaches_the_other_cluster_and_the_rest_of_its_configuration_stays(world: World) -> None:
    world.edit("dr1", CONFIG_MAP, config("east", "west", "north", health="dr1"))
    world["dr1"].put(SECRET, store_secret("s3-north"))
    await world.sync()
    found = world.operator("dr2")
    assert [profile["s3ProfileName"] for profile in found["s3StoreProfiles"]] == ["east", "west", "north"]
    assert found["health"] == "dr2"
    assert world.data("dr2", "s3-north") == store_secret("s3-north")["data"]


async def test_a_missing_secret_is_made_again(world: World) -> None:
    """One missing Secret empties the operator's list of stores."""
    world["dr2"].drop(SECRET, "s3-east", HERE)
    await world.sync()
    assert world.data("dr2", "s3-east") == store_secret("s3-east")["data"]


async def test_a_secret_that_nobody_has_is_named(world: World) -> None:
    for cluster in ("dr1", "dr2"):
        world[cluster].drop(SECRET, "s3-east", HERE)
    await world.sync()
    assert "Secret ramen-system/s3-east is on no cluster that answers; create it on one of them" in world.problems


async def test_edits_on_both_sides_are_reported_and_not_overwritten(world: World) -> None:
    world.edit("dr1", SECRET, store_secret("s3-west", "by-ann"))
    world.edit("dr2", SECRET, store_secret("s3-west", "by-bob"))
    await world.sync()
    assert world.data("dr1", "s3-west") == store_secret("s3-west", "by-ann")["data"]
    assert world.data("dr2", "s3-west") == store_secret("s3-west", "by-bob")["data"]
    condition, _ = world.workers["dr2"].conditions("dr2")
    assert condition.status == "False"
    assert condition.message.startswith("Secret ramen-system/s3-west differs between dr1 and dr2 and neither follows")
    world.edit("dr2", SECRET, store_secret("s3-west", "by-ann"))
    await world.sync()
    assert world.problems == []


async def test_a_cluster_that_was_away_takes_what_was_rotated_meanwhile(world: World) -> None:
    world.clusters.gates["dr2"].shut("away")
    for key in ("second", "third"):
        world.edit("dr1", SECRET, store_secret("s3-west", key))
        await world.sync("dr1")
    assert world.data("dr2", "s3-west") == store_secret("s3-west")["data"]
    world.clusters.gates["dr2"].answered("v1.36.3")
    await world.sync()
    assert world.data("dr2", "s3-west") == store_secret("s3-west", "third")["data"]


async def test_nothing_is_overwritten_that_was_edited_on_both_sides_of_a_partition(world: World) -> None:
    for cluster, other in (("dr1", "dr2"), ("dr2", "dr1")):
        world.clusters.gates[other].shut("cut off")
        for key in ("once", "twice")[: 1 + (cluster == "dr1")]:
            world.edit(cluster, SECRET, store_secret("s3-west", f"{key}-on-{cluster}"))
            await world.sync(cluster)
        world.clusters.gates[other].answered("v1.36.3")
    await world.sync()
    assert world.data("dr1", "s3-west") == store_secret("s3-west", "twice-on-dr1")["data"]
    assert world.data("dr2", "s3-west") == store_secret("s3-west", "once-on-dr2")["data"]
    assert any("Secret ramen-system/s3-west differs" in problem for problem in world.problems)


async def test_only_the_writer_writes(world: World) -> None:
    world.edit("dr1", SECRET, store_secret("s3-west", "rotated"))
    before = world["dr2"].calls.copy()
    await world.sync("dr1")
    changed = {key for key, count in world["dr2"].calls.items() if count != before[key]}
    assert {verb for verb, _ in changed} <= {"get", "list"}


async def test_a_new_cluster_in_the_registry_and_its_kubeconfig_reach_everybody(world: World) -> None:
    world.edit("dr1", CLUSTER_REGISTRY, registry(dr1="uid-dr1", dr2="uid-dr2", dr3="uid-dr3"))
    world["dr1"].put(SECRET, kubeconfig("dr3"))
    await world.sync()
    found = world["dr2"].get(CLUSTER_REGISTRY, names.REGISTRY_NAME)
    assert found is not None
    assert [cluster["name"] for cluster in found["spec"]["clusters"]] == ["dr1", "dr2", "dr3"]
    assert world.data("dr2", "kubeconfig-dr3") == kubeconfig("dr3")["data"]


async def test_a_cluster_whose_configuration_cannot_be_read_is_named(world: World) -> None:
    broken = config()
    broken["data"][names.RAMEN_CONFIG_KEY] = "- no mapping"
    world.edit("dr2", CONFIG_MAP, broken)
    await world.sync()
    assert any("ConfigMap ramen-dr-cluster-operator-config on dr2" in problem for problem in world.problems)


async def test_no_word_of_a_secret_is_in_a_problem(world: World) -> None:
    world.edit("dr1", SECRET, kubeconfig("dr2", "token-of-ann"))
    world.edit("dr2", SECRET, kubeconfig("dr2", "token-of-bob"))
    await world.sync()
    text = " ".join(world.problems)
    assert "kubeconfig-dr2" in text
    assert "token-of" not in text


# --- derived ---------------------------------------------------------------------------------------------------------


def policy(name: str, interval: str, *clusters: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"drClusters": list(clusters), "schedulingInterval": interval}}


async def test_each_cluster_is_told_who_it_is_and_how_often_it_replicates(world: World) -> None:
    for cluster in ("dr1", "dr2"):
        world[cluster].put(DRPOLICY, policy("gold", "5m", "dr1", "dr2"))
        world[cluster].put(DRPOLICY, policy("silver", "1h", "dr1", "dr2"))
        world[cluster].put(DRPOLICY, policy("metro", "", "dr1", "dr2"))
        world[cluster].put(DRPOLICY, policy("other", "2h", "dr1", "dr9"))
    await world.sync()
    specs = {cluster: (world[cluster].get(DRCLUSTER_CONFIG, cluster) or {})["spec"] for cluster in ("dr1", "dr2")}
    assert specs == {
        "dr1": {"clusterID": "uid-dr1", "replicationSchedules": ["1h", "2h", "5m"]},
        "dr2": {"clusterID": "uid-dr2", "replicationSchedules": ["1h", "5m"]},
    }


async def test_a_policy_with_a_cluster_that_nobody_added_is_reported_and_nothing_is_guessed(world: World) -> None:
    world["dr2"].put(DRPOLICY, policy("far", "5m", "dr1", "dr9"))
    await world.sync()
    synced, complete = world.workers["dr2"].conditions("dr2")
    assert (synced.status, complete.status, complete.message) == (
        "True",
        "False",
        "DRPolicy far names dr9, which the ClusterRegistry lacks: hubless cluster add dr9 --kubeconfig FILE",
    )


@pytest.mark.parametrize(
    ("name", "uid", "words"),
    [
        ("dr1", "uid-of-another", "DRClusterConfig dr1 has the clusterID of another cluster"),
        ("east", "uid-dr1", "DRClusterConfig east on dr1 is not named as the cluster is"),
    ],
)
async def test_a_wrong_cluster_config_is_reported(world: World, name: str, uid: str, words: str) -> None:
    world["dr1"].drop(DRCLUSTER_CONFIG, "dr1")
    world["dr1"].put(DRCLUSTER_CONFIG, {"metadata": {"name": name}, "spec": {"clusterID": uid}})
    await world.sync()
    assert any(words in problem for problem in world.problems)


async def test_a_cluster_without_the_kind_does_without(world: World) -> None:
    world["dr1"].missing.add(DRCLUSTER_CONFIG)
    await world.sync()
    assert world.problems == []


async def test_velero_gets_its_form_of_each_store_secret_where_it_is_in_use(world: World) -> None:
    enabled = {"kubeObjectProtection": {"veleroNamespaceName": "velero"}}
    world["dr1"].put(NAMESPACE, {"metadata": {"name": "velero"}})
    for cluster in ("dr1", "dr2"):
        world.edit(cluster, CONFIG_MAP, config("east", "west", **enabled))
    await world.sync()
    found = world["dr1"].get(SECRET, "vs3-east", "velero")
    assert found is not None
    assert found["data"] == encoded(
        ramengenerated="[default]\n  aws_access_key_id = id\n  aws_secret_access_key = secret\n"
    )
    assert world["dr2"].get(SECRET, "vs3-east", "velero") is None, "there is no namespace velero on dr2"
    world.edit("dr1", SECRET, store_secret("s3-east", "rotated"))
    await world.sync()
    found = world["dr1"].get(SECRET, "vs3-east", "velero")
    assert found is not None
    assert "rotated" not in str(found["data"])
    assert found["data"]["ramengenerated"] != encoded(ramengenerated="")["ramengenerated"]


WRONG = {
    "a date": "s3StoreProfiles:\n- s3ProfileName: 2026-11-29\n  s3Bucket: b\n",
    "bytes": "s3StoreProfiles:\n- s3ProfileName: east\n  s3Bucket: !!binary aGVsbG8=\n",
    "text where a mapping belongs": "s3StoreProfiles:\n- s3ProfileName: east\n  s3Bucket: b\n  s3SecretRef: s3-east\n",
    "a word": "s3StoreProfiles: []\nkubeObjectProtection: true\n",
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_what_somebody_wrote_into_one_cluster_ends_no_worker_and_goes_nowhere(wrong: str) -> None:
    world = World()
    await world.sync()
    before = world.operator("dr2")["s3StoreProfiles"]
    body = config("east")
    body["data"][names.RAMEN_CONFIG_KEY] = wrong
    world.edit("dr1", CONFIG_MAP, body)
    await world.sync("dr1")
    await world.sync("dr2")
    if "s3SecretRef" in wrong:
        assert world.operator("dr2")["s3StoreProfiles"] == before
        assert world.problems


async def test_a_store_key_that_is_no_text_is_named() -> None:
    world = World()
    for fake in world.clusters.fakes.values():
        fake.put(NAMESPACE, {"metadata": {"name": "velero"}})
    for name in ("dr1", "dr2"):
        world.edit(name, CONFIG_MAP, config("east", "west", kubeObjectProtection={"veleroNamespaceName": "velero"}))
    await world.sync()
    secret = world["dr1"].get(SECRET, "s3-east", HERE)
    secret["data"] = {key: b64encode(b"\xff\xfe").decode() for key in secret["data"]}
    world.edit("dr1", SECRET, secret)
    await world.sync("dr1")
    assert "Secret s3-east has a key that is no text" in " ".join(world.problems)
