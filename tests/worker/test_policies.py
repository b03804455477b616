"""DRPolicies and DRClusters of two clusters, each with a worker of its own, over API servers in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from typing import Any

import pytest

from activities.access.fake import FakeCluster
from activities.access.protocol import ClusterAccess, Object
from ramen import names
from ramen.conditions import Condition, find
from ramen.errors import (
    BucketMissing,
    ClusterUnreachable,
    Forbidden,
    HublessError,
    KindMissing,
    ServerBusy,
    StoreUnreachable,
)
from ramen.kinds import (
    DRCLUSTER,
    DRPC,
    DRPOLICY,
    NAMESPACE,
    STORAGE_CLASS,
    VOLUME_GROUP_SNAPSHOT_CLASS,
    VOLUME_REPLICATION_CLASS,
    VRG,
    Kind,
)
from ramen.objects import DRCluster, DRPolicy
from tests.ramen.test_peerclasses import sc, vrc
from tests.worker.test_rbac import granted
from worker.gate import Gate
from worker.policies import FINALIZERS, KINDS, PolicyKeeper
from worker.storelooks import StoreLooks

CLUSTERS = ("dr1", "dr2")
LOOKS = 400
"""Passes that a test waits for at most; some twenty are normal."""


class Store:
    """A store that answers as ordered."""

    def __init__(self) -> None:
        self.failure: HublessError | None = None

    async def head_bucket(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def list(self, prefix: str) -> list[str]:
        await self.head_bucket()
        return []


class Profiles:
    def __init__(self) -> None:
        self.operator = {f"s3-{name}": Store() for name in CLUSTERS}
        self.unusable: dict[str, str] = {}


class Worker:
    """One worker: what it reaches, and its keeper, which writes on its own cluster."""

    def __init__(self, own: str, servers: dict[str, FakeCluster], profiles: Profiles) -> None:
        self.own = own
        self.servers = servers
        self.time = 1000.0
        self.gates = {name: Gate(name) for name in servers}
        for gate in self.gates.values():
            gate.answered("v1")
        self.writes_on = {own}
        self.keeper = PolicyKeeper(
            self, profiles, lambda name: name in self.writes_on, lambda: self.time, back_off=(0.01, 0.01)
        )

    def names(self) -> list[str]:
        return list(self.servers)

    def access(self, name: str) -> ClusterAccess:
        self.gates[name].require()
        return self.servers[name]

    def gate(self, name: str) -> Gate:
        return self.gates[name]


class World:
    def __init__(self) -> None:
        self.servers = {name: FakeCluster(name) for name in CLUSTERS}
        self.profiles = Profiles()
        for number, (name, server) in enumerate(self.servers.items(), 1):
            server.missing.add(VOLUME_GROUP_SNAPSHOT_CLASS)
            server.put(NAMESPACE, {"metadata": {"name": "kube-system", "uid": f"uid{number}"}})
            server.put(NAMESPACE, {"metadata": {"name": "web"}})
            server.put(STORAGE_CLASS, sc(f"s{number}"))
            server.put(VOLUME_REPLICATION_CLASS, vrc(f"s{number}"))
            assert name
        self.workers = [Worker(name, self.servers, self.profiles) for name in CLUSTERS]

    def put_all(self, on: str = "dr1", interval: str = "1m") -> None:
        """A policy and its clusters, as a user applies them on one cluster."""
        for name in CLUSTERS:
            self.servers[on].put(DRCLUSTER, {"metadata": {"name": name}, "spec": {"s3ProfileName": f"s3-{name}"}})
        spec = {"drClusters": list(CLUSTERS), "schedulingInterval": interval}
        self.servers[on].put(DRPOLICY, {"metadata": {"name": "gold"}, "spec": spec})

    async def turn(self) -> None:
        for worker in self.workers:
            keeper = worker.keeper
            await keeper.follow_members()
            await keeper._stores.look(self.profiles.operator)
            await keeper.look()
        await asyncio.sleep(0.005)

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        for _ in range(LOOKS):
            await self.turn()
            if condition():
                return
        raise AssertionError(f"never: {what}")

    async def rest(self) -> None:
        """Until ten passes in a row write nothing."""
        quiet = 0
        for _ in range(LOOKS):
            before = self.written
            await self.turn()
            quiet = quiet + 1 if self.written == before else 0
            if quiet == 10:
                return
        raise AssertionError("the workers never come to rest")

    @property
    def written(self) -> int:
        return sum(
            count
            for server in self.servers.values()
            for (verb, _), count in server.calls.items()
            if verb in ("create", "update", "patch", "delete")
        )

    def policy(self, cluster: str, name: str = "gold") -> DRPolicy | None:
        found = self.servers[cluster].get(DRPOLICY, name)
        return DRPolicy.of(found) if found else None

    def drcluster(self, cluster: str, name: str) -> DRCluster:
        found = self.servers[cluster].get(DRCLUSTER, name)
        assert found is not None
        return DRCluster.of(found)

    def said(self, cluster: str, kind: str = "Validated", name: str = "gold") -> Condition | None:
        found = self.policy(cluster, name)
        return find(found.status.conditions, kind) if found else None

    def is_valid(self, cluster: str) -> bool:
        said = self.said(cluster)
        return said is not None and said.status == "True"

    def edit(self, cluster: str, kind: Kind, name: str, **spec: Any) -> None:
        obj = self.servers[cluster].get(kind, name)
        assert obj is not None
        self.servers[cluster].put(kind, obj | {"spec": {**obj["spec"], **spec}})

    def lose(self, cluster: str) -> None:
        """The API server does not answer, and every worker knows."""
        self.servers[cluster].failure = ClusterUnreachable(f"{cluster} does not answer")
        self.servers[cluster].cut()
        for worker in self.workers:
            worker.gates[cluster].shut(f"{cluster} did not answer in 1 s")

    def give_back(self, cluster: str) -> None:
        self.servers[cluster].failure = None
        for worker in self.workers:
            worker.gates[cluster].answered("v1")

    def pass_time(self, seconds: float) -> None:
        for worker in self.workers:
            worker.time += seconds


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for worker in made.workers:
        await worker.keeper.close()


def test_every_kind_that_is_watched_and_every_status_that_is_written_is_granted() -> None:
    """The calls whose kind is a variable, which the search through the code does not see."""
    rights = granted("hubless-worker")
    wanted = {(kind.group, kind.plural, verb) for kind in KINDS for verb in ("list", "watch")}
    for kind in FINALIZERS:
        wanted |= {(kind.group, kind.plural, verb) for verb in ("get", "create", "update", "delete")}
        wanted.add((kind.group, f"{kind.plural}/status", "update"))
    assert wanted - rights == set()


@pytest.mark.parametrize("on", CLUSTERS)
async def test_a_policy_applied_on_one_cluster_is_valid_on_both(world: World, on: str) -> None:
    world.put_all(on)
    await world.until(lambda: all(map(world.is_valid, CLUSTERS)), "valid on both")
    await world.rest()
    for cluster in CLUSTERS:
        policy = world.policy(cluster)
        assert policy is not None
        assert policy.metadata.finalizers == [names.POLICY_FINALIZER]
        peers = policy.status.async_
        assert peers is not None
        assert [(peer.storage_class_name, peer.replication_id, peer.cluster_ids) for peer in peers.peer_classes] == [
            ("block", "r", ["uid1", "uid2"])
        ]
        for name in CLUSTERS:
            status = world.drcluster(cluster, name).status
            assert status.phase == "Available"
            assert [(each.type, each.status) for each in status.conditions] == [
                ("Validated", "True"),
                ("Fenced", "False"),
                ("Clean", "True"),
                ("CopiesEqual", "True"),
            ]


async def test_nothing_is_written_while_nothing_changes(world: World) -> None:
    world.put_all()
    await world.rest()
    before = world.written
    world.pass_time(3600)
    for _ in range(50):
        await world.turn()
    assert world.written == before


async def test_a_policy_before_its_clusters_becomes_valid_when_they_come(world: World) -> None:
    spec = {"drClusters": list(CLUSTERS), "schedulingInterval": "1m"}
    world.servers["dr1"].put(DRPOLICY, {"metadata": {"name": "gold"}, "spec": spec})
    await world.until(lambda: world.said("dr2"), "judged on dr2")
    said = world.said("dr2")
    assert said is not None
    assert (said.status, said.reason) == ("False", "DRClusterNotFound")
    assert "kind: DRCluster, metadata: {name: dr1}" in said.message
    world.put_all("dr2")
    await world.until(lambda: all(map(world.is_valid, CLUSTERS)), "valid on both")


async def test_a_policy_does_not_lose_its_clusters_while_they_cannot_be_seen(world: World) -> None:
    """Unknown is not absent: the watch of the DRClusters begins anew, that of the DRPolicies is there already."""
    world.put_all()
    await world.until(lambda: all(map(world.is_valid, CLUSTERS)), "valid on both")
    await world.rest()
    before = world.written
    await world.workers[0].keeper._views["dr1"].watches[DRCLUSTER].stop()
    for _ in range(10):
        await world.turn()
        assert world.is_valid("dr1")
    assert world.written == before


async def test_a_cluster_that_nobody_registered_is_reported_with_the_object_to_make(world: World) -> None:
    spec = {"drClusters": ["dr1", "dr9"], "schedulingInterval": "1m"}
    world.put_all()
    world.servers["dr1"].put(DRPOLICY, {"metadata": {"name": "far"}, "spec": spec})
    world.servers["dr1"].put(DRCLUSTER, {"metadata": {"name": "dr9"}, "spec": {"s3ProfileName": "s3-dr1"}})
    await world.until(lambda: world.said("dr2", name="far"), "judged on dr2")
    await world.rest()
    said = world.said("dr2", name="far")
    assert said is not None
    assert (said.status, said.reason) == ("False", "ClusterNotRegistered")
    assert "{name: dr9, region: REGION, kubeconfigSecret: kubeconfig-dr9, clusterUID: UID}" in said.message


async def test_classes_are_followed_and_a_missing_one_is_named(world: World) -> None:
    world.put_all()
    await world.until(lambda: all(map(world.is_valid, CLUSTERS)), "valid")
    world.servers["dr2"].put(VOLUME_REPLICATION_CLASS, vrc("s2", interval="5m"))
    await world.until(
        lambda: (found := world.said("dr1", "PeerClassesMatched")) and found.status == "False", "differ on dr1"
    )
    said = world.said("dr1", "PeerClassesMatched")
    assert said is not None
    assert "dr2: vrc has schedulingInterval 5m" in said.message
    world.servers["dr2"].put(VOLUME_REPLICATION_CLASS, vrc("s2"))
    await world.until(
        lambda: (found := world.said("dr1", "PeerClassesMatched")) and found.status == "True", "match again"
    )


async def test_a_silent_cluster_changes_no_peer_class_and_a_flapping_one_no_status(world: World) -> None:
    world.put_all()
    await world.rest()
    known = world.policy("dr1")
    before = world.written
    for _ in range(5):
        world.lose("dr2")
        for _ in range(3):
            await world.turn()
        world.give_back("dr2")
        for _ in range(5):
            await world.turn()
        world.pass_time(5)
    assert world.written == before, "a cluster that flaps is no storm of writes"
    world.lose("dr2")
    await world.turn()
    world.pass_time(31)
    await world.until(
        lambda: (found := world.said("dr1", "PeerClassesMatched")) and found.status == "Unknown", "said on dr1"
    )
    now = world.policy("dr1")
    assert known is not None
    assert now is not None
    assert now.status.async_ == known.status.async_
    assert world.is_valid("dr1")


async def test_an_edit_on_any_cluster_reaches_the_other(world: World) -> None:
    world.put_all()
    await world.rest()
    world.edit("dr2", DRCLUSTER, "dr1", cidrs=["10.0.0.0/24"])
    await world.until(lambda: world.drcluster("dr1", "dr1").spec.cidrs == ["10.0.0.0/24"], "there on dr1")


async def test_an_old_copy_that_returns_edits_nothing(world: World) -> None:
    world.put_all()
    await world.rest()
    world.lose("dr1")
    world.edit("dr2", DRCLUSTER, "dr1", cidrs=["10.0.0.0/24"])
    await world.until(
        lambda: "2." in world.drcluster("dr2", "dr1").metadata.annotations[names.COPY], "accepted on dr2 alone"
    )
    world.give_back("dr1")
    await world.until(lambda: world.drcluster("dr1", "dr1").spec.cidrs == ["10.0.0.0/24"], "there on dr1")
    await world.rest()
    assert world.drcluster("dr2", "dr1").spec.cidrs == ["10.0.0.0/24"]


async def test_a_lost_copy_is_made_again(world: World) -> None:
    world.put_all()
    await world.rest()
    world.servers["dr2"].drop(DRPOLICY, "gold")
    await world.until(lambda: world.is_valid("dr2"), "made again and judged")


async def test_a_deletion_goes_everywhere_and_nothing_comes_back(world: World) -> None:
    world.put_all()
    await world.rest()
    await world.servers["dr2"].delete(DRPOLICY, "gold")
    await world.until(lambda: not any(map(world.policy, CLUSTERS)), "gone on both")
    await world.rest()
    assert not any(map(world.policy, CLUSTERS))


def vrg() -> Object:
    return {
        "metadata": {"name": "shop", "namespace": "web", "annotations": {names.CLUSTERS: "dr1,dr2"}},
        "spec": {"replicationState": "primary", "async": {"schedulingInterval": "1m"}},
    }


def drpc() -> Object:
    return {"metadata": {"name": "shop", "namespace": "web"}, "spec": {"drPolicyRef": {"name": "gold"}}}


@pytest.mark.parametrize(("kind", "user"), [(VRG, vrg()), (DRPC, drpc())], ids=["VRG", "DRPC"])
@pytest.mark.parametrize("where", CLUSTERS)
async def test_a_policy_in_use_is_kept(world: World, kind: Kind, user: Object, where: str) -> None:
    world.put_all()
    await world.rest()
    world.servers[where].put(kind, deepcopy(user))
    await world.servers["dr1"].delete(DRPOLICY, "gold")
    await world.until(lambda: world.said("dr1", "Deletable"), "the wait is said")
    await world.rest()
    said = world.said("dr1", "Deletable")
    assert said is not None
    assert "in use by web/shop" in said.message
    kept = world.policy("dr2")
    assert kept is not None
    assert not kept.is_being_deleted
    world.servers[where].drop(kind, "shop", "web")
    world.pass_time(60)
    await world.until(lambda: not any(map(world.policy, CLUSTERS)), "gone on both")


async def test_a_drcluster_stays_while_a_policy_names_it(world: World) -> None:
    world.put_all()
    await world.rest()
    await world.servers["dr1"].delete(DRCLUSTER, "dr2")
    await world.rest()
    kept = world.drcluster("dr1", "dr2")
    said = find(kept.status.conditions, "Deletable")
    assert said is not None
    assert "in use by DRPolicy gold" in said.message
    await world.servers["dr2"].delete(DRPOLICY, "gold")
    await world.until(lambda: world.servers["dr1"].get(DRCLUSTER, "dr2") is None, "gone on dr1")
    await world.until(lambda: world.servers["dr2"].get(DRCLUSTER, "dr2") is None, "gone on dr2")


async def test_a_deletion_waits_for_a_cluster_that_does_not_answer(world: World) -> None:
    world.put_all()
    await world.rest()
    world.lose("dr2")
    await world.servers["dr1"].delete(DRPOLICY, "gold")
    await world.until(lambda: world.said("dr1", "Deletable"), "the wait is said")
    for _ in range(20):
        await world.turn()
    said = world.said("dr1", "Deletable")
    assert said is not None
    assert said.message == "dr2 does not answer, and its copy would bring the object back"
    world.give_back("dr2")
    await world.until(lambda: not any(map(world.policy, CLUSTERS)), "gone on both")


async def test_an_application_protected_at_the_last_moment_keeps_its_policy(world: World) -> None:
    """Between the judgement and the write that cannot be taken back, everything is read again."""
    world.put_all()
    await world.rest()
    server = world.servers["dr1"]

    def protect(verb: str, kind: Kind, name: str) -> None:
        if verb == "get" and kind == DRPOLICY and server.get(VRG, "shop", "web") is None:
            server.put(VRG, vrg())

    server.before = protect
    await server.delete(DRPOLICY, "gold")
    await world.rest()
    assert world.policy("dr1") is not None


async def test_only_the_writer_of_a_cluster_writes_there(world: World) -> None:
    world.workers[1].writes_on = set()
    world.put_all("dr1")
    await world.rest()
    assert world.is_valid("dr1")
    assert world.policy("dr2") is None
    world.workers[0].writes_on = {"dr1", "dr2"}
    await world.until(lambda: world.is_valid("dr2"), "a worker writes for both")


@pytest.mark.parametrize(
    ("failure", "reason", "words"),
    [
        (StoreUnreachable("S3 profile s3-dr2: http://x does not answer"), "s3ConnectionFailed", "does not answer"),
        (BucketMissing("S3 profile s3-dr2: http://x has no bucket ramen"), "s3BucketNotFound", "no bucket ramen"),
    ],
)
async def test_a_store_that_cannot_be_used_is_said(
    world: World, failure: HublessError, reason: str, words: str
) -> None:
    world.put_all()
    await world.rest()
    world.profiles.operator["s3-dr2"].failure = failure
    await world.rest()
    for cluster in CLUSTERS:
        said = find(world.drcluster(cluster, "dr2").status.conditions, "Validated")
        assert said is not None
        assert (said.status, said.reason) == ("False", reason)
        assert words in said.message
        assert world.is_valid(cluster), "one valid cluster is enough"


async def test_an_unknown_profile_is_said_with_those_that_are_known() -> None:
    looks = StoreLooks(Profiles())
    await looks.look(["s3-dr7"])
    assert looks.found["s3-dr7"].reason == "s3ConnectionFailed"
    assert "(there: s3-dr1, s3-dr2)" in looks.found["s3-dr7"].error


async def test_one_lost_answer_of_a_store_is_a_hiccup() -> None:
    profiles = Profiles()
    changes: list[int] = []
    looks = StoreLooks(profiles, lambda: changes.append(1))
    assert await looks.look(["s3-dr1"])
    profiles.operator["s3-dr1"].failure = StoreUnreachable("no answer")
    assert not await looks.look(["s3-dr1"])
    before = looks.found["s3-dr1"]
    await looks.look(["s3-dr1"])
    after = looks.found["s3-dr1"]
    assert (before.reason, after.reason) == ("", "s3ConnectionFailed")
    assert len(changes) == 2


async def test_an_object_that_cannot_be_read_stops_no_other(world: World) -> None:
    world.put_all()
    world.servers["dr1"].put(DRPOLICY, {"metadata": {"name": "broken"}, "spec": {"drClusters": "dr1"}})
    await world.until(lambda: all(map(world.is_valid, CLUSTERS)), "the other one is valid on both")


async def test_a_revision_that_nobody_of_us_wrote_stops_no_worker(world: World) -> None:
    world.put_all()
    await world.rest()
    gold = world.servers["dr1"].get(DRPOLICY, "gold")
    assert gold is not None
    gold["metadata"]["annotations"][names.COPY] = "9" * 5000 + ".abc"
    world.servers["dr1"].put(DRPOLICY, gold)
    await world.rest()
    assert all(map(world.is_valid, CLUSTERS))


async def test_a_drcluster_is_not_deleted_while_the_policies_are_not_known(world: World) -> None:
    """Workers that were started again list the DRClusters before the policies, which a busy server gives later."""
    world.put_all()
    await world.rest()
    await world.servers["dr1"].delete(DRCLUSTER, "dr2")
    await world.rest()
    for worker in world.workers:
        await worker.keeper.close()
    for server in world.servers.values():
        server.before = _busy_with(DRPOLICY)
    world.workers = [Worker(name, world.servers, world.profiles) for name in CLUSTERS]
    for _ in range(30):
        await world.turn()
    world.drcluster("dr1", "dr2")
    world.drcluster("dr2", "dr2")


def _busy_with(kind: Kind) -> Callable[[str, Kind, str], None]:
    def before(verb: str, of: Kind, name: str) -> None:
        if of is kind and verb in ("list", "watch"):
            raise ServerBusy("429")

    return before


async def test_a_proxy_that_says_not_found_takes_no_peer_class_away(world: World) -> None:
    """An ingress whose API server is away answers with a page of its own, as a server without such a kind does."""
    world.put_all()
    await world.rest()
    before = world.policy("dr1")
    world.servers["dr2"].failure = KindMissing("404 page not found")
    world.servers["dr2"].cut()
    for _ in range(5):
        await world.turn()
    world.lose("dr2")
    world.servers["dr2"].failure = KindMissing("404 page not found")
    world.pass_time(100)
    await world.until(lambda: (said := world.said("dr1", "PeerClassesMatched")) and said.status == "Unknown", "silence")
    after = world.policy("dr1")
    assert before is not None
    assert after is not None
    assert after.status.async_ == before.status.async_ is not None


async def test_a_proxy_that_says_not_found_is_no_cluster_without_a_copy(world: World) -> None:
    world.put_all()
    await world.rest()
    await world.servers["dr1"].delete(DRPOLICY, "gold")
    await world.servers["dr2"].delete(DRPOLICY, "gold")
    for worker in world.workers:
        assert await worker.keeper._read_copy("dr1", DRPOLICY, "gold") is not None
        world.servers["dr2"].failure = KindMissing("404 page not found")
        with pytest.raises(KindMissing):
            await worker.keeper._read_copy("dr2", DRPOLICY, "gold")
        world.servers["dr2"].failure = None


async def test_a_policy_is_not_valid_before_the_classes_of_both_clusters_were_read(world: World) -> None:
    """Shared storage would pass for async, and be failed over with nothing fenced."""
    world.lose("dr2")
    world.put_all()
    await world.until(lambda: world.said("dr1"), "it was judged")
    world.pass_time(100)
    for _ in range(20):
        await world.turn()
    said = world.said("dr1")
    assert said is not None
    assert (said.status, said.reason) == ("Unknown", "Initializing")
    assert "dr2" in said.message
    world.give_back("dr2")
    await world.until(lambda: all(map(world.is_valid, CLUSTERS)), "valid when both were read")
    world.lose("dr2")
    world.pass_time(100)
    for _ in range(20):
        await world.turn()
    assert world.is_valid("dr1"), "what was found stays in force"


async def test_a_conflict_stays_while_the_older_policy_cannot_be_written(world: World) -> None:
    for number, server in enumerate(world.servers.values(), 1):
        shared = {**sc(f"s{number}")}
        shared["metadata"]["labels"][names.STORAGE_ID] = "shared"
        server.put(STORAGE_CLASS, shared)
    world.put_all()
    await world.rest()
    spec = {"drClusters": list(CLUSTERS), "schedulingInterval": "5m"}
    world.pass_time(2)
    world.servers["dr1"].put(DRPOLICY, {"metadata": {"name": "later"}, "spec": spec})
    conflict = "DRPolicyConflictFound"
    await world.until(lambda: (said := world.said("dr1", name="later")) and said.reason == conflict, "the conflict")

    def before(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind, name) == ("update", DRPOLICY, "gold"):
            raise Forbidden("a webhook refuses it")

    world.servers["dr1"].before = before
    world.edit("dr1", DRPOLICY, "gold", networkMappingRef={"name": "nets"})
    for _ in range(10):
        await world.turn()
    said = world.said("dr1", name="later")
    assert said is not None
    assert said.reason == conflict


async def test_a_cluster_that_was_built_anew_is_known_by_its_new_identity(world: World) -> None:
    world.put_all()
    await world.rest()
    world.lose("dr2")
    world.servers["dr2"].drop(NAMESPACE, "kube-system")
    world.servers["dr2"].put(NAMESPACE, {"metadata": {"name": "kube-system", "uid": "uid-anew"}})
    world.give_back("dr2")

    def has_it() -> bool:
        found = world.policy("dr1")
        return bool(found and found.status.async_ and "uid-anew" in found.status.async_.peer_classes[0].cluster_ids)

    await world.until(has_it, "the new identity in the peer classes")


async def test_words_for_one_silence_that_alternate_are_written_once(world: World) -> None:
    world.put_all()
    await world.rest()
    world.lose("dr2")
    world.pass_time(100)
    await world.rest()
    before = world.written
    for number in range(10):
        for worker in world.workers:
            worker.gates["dr2"].shut(f"another error {number}")
        await world.turn()
    assert world.written == before


async def test_a_cluster_that_left_and_came_back_between_two_passes_is_seen_anew(world: World) -> None:
    """Its gate is another one: a view that hangs on the old one would never be told that the new one moves."""
    keeper, own = world.workers[0].keeper, world.workers[0]
    await world.turn()
    old = keeper._views["dr2"]
    own.gates["dr2"] = Gate("dr2")
    own.gates["dr2"].answered("v1")
    await world.turn()
    assert keeper._views["dr2"] is not old
    assert keeper._views["dr2"].gate is own.gates["dr2"]
    await world.until(lambda: keeper._views["dr2"].uid, "dr2 is seen again")
    own.gates["dr2"].shut("gone")
    assert keeper._views["dr2"].uid == ""
