"""S16: one worker writes on a cluster at a time, the cluster's own one if it lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from activities.access.fake import FakeCluster
from activities.access.protocol import ClusterAccess, Object
from ramen import names
from ramen.errors import ClusterUnreachable, GateClosed
from ramen.kinds import LEASE, NAMESPACE, Kind
from worker.writer import LEASE_SECONDS, RENEW_SECONDS, WANTED_BY, YIELD_SECONDS, Writer, process_is_gone


class World:
    """A cluster dr1, a clock, and the writers that workers of dr1 and dr2 have for it."""

    def __init__(self) -> None:
        self.cluster = FakeCluster("dr1")
        self.cluster.put(NAMESPACE, {"metadata": {"name": names.RAMEN_NAMESPACE}})
        self.time = 1000.0
        self.closed = False

    def writer(self, worker: str) -> Writer:
        return Writer("dr1", worker, f"{worker}@host:1", self.access, now=lambda: self.time)

    def access(self) -> ClusterAccess:
        if self.closed:
            raise GateClosed("dr1 does not answer")
        return self.cluster

    @property
    def lease(self) -> Object:
        found = self.cluster.get(LEASE, names.WRITER_LEASE, names.RAMEN_NAMESPACE)
        assert found is not None
        return found

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"])

    @property
    def writes(self) -> int:
        return sum(count for (verb, _), count in self.cluster.calls.items() if verb not in ("get", "list", "watch"))


@pytest.fixture
def world() -> World:
    return World()


async def test_the_first_worker_that_looks_writes(world: World) -> None:
    local, peer = world.writer("dr1"), world.writer("dr2")
    await local.look()
    await peer.look()
    assert (local.is_writer, peer.is_writer) == (True, False)
    assert world.holder == "dr1@host:1"


async def test_an_idle_holder_writes_at_most_once_a_minute(world: World) -> None:
    local = world.writer("dr1")
    for _ in range(3600 // 5):
        await local.look()
        assert local.is_writer
        world.time += 5
    assert world.writes <= 3600 / RENEW_SECONDS + 1


async def test_a_peer_takes_over_only_after_the_whole_length(world: World) -> None:
    local, peer = world.writer("dr1"), world.writer("dr2")
    await local.look()
    await peer.look()
    world.time += LEASE_SECONDS - 1
    await peer.look()
    assert not peer.is_writer
    world.time += 1
    await peer.look()
    assert peer.is_writer
    assert not local.is_writer, "the former holder had stopped by its own clock before"


async def test_a_lease_that_is_renewed_is_never_taken_over(world: World) -> None:
    local, peer = world.writer("dr1"), world.writer("dr2")
    for _ in range(100):
        await local.look()
        await peer.look()
        world.time += 10
        assert not peer.is_writer


async def test_the_own_worker_gets_the_lease_back_from_a_peer(world: World) -> None:
    peer, local = world.writer("dr2"), world.writer("dr1")
    await peer.look()
    assert not peer.is_writer, "a cluster's own worker that is only starting comes first"
    world.time += YIELD_SECONDS
    await peer.look()
    assert peer.is_writer
    await local.look()
    assert not local.is_writer
    assert world.lease["metadata"]["annotations"][WANTED_BY] == "dr1@host:1"
    await peer.look()
    assert not peer.is_writer
    await local.look()
    assert local.is_writer
    assert WANTED_BY not in world.lease["metadata"].get("annotations", {})


async def test_two_workers_of_the_same_cluster_do_not_fight(world: World) -> None:
    first = Writer("dr1", "dr1", "dr1@a:1", world.access, now=lambda: world.time)
    second = Writer("dr1", "dr1", "dr1@b:2", world.access, now=lambda: world.time)
    await first.look()
    before = world.writes
    await second.look()
    assert (first.is_writer, second.is_writer, world.writes) == (True, False, before)


async def test_a_worker_in_the_place_of_a_killed_one_does_not_wait_for_the_lease_to_run_out(world: World) -> None:
    killed = Writer("dr1", "dr1", "dr1@here:1", world.access, now=lambda: world.time)
    await killed.look()
    gone = {"dr1@here:1"}
    peer = Writer("dr1", "dr2", "dr2@here:9", world.access, now=lambda: world.time, is_gone=gone.__contains__)
    other = Writer("dr1", "dr1", "dr1@there:2", world.access, now=lambda: world.time, is_gone=lambda _: False)
    for writer in (peer, other):
        await writer.look()
        assert not writer.is_writer, "only who knows that it is dead may take its place"
    new = Writer("dr1", "dr1", "dr1@here:2", world.access, now=lambda: world.time, is_gone=gone.__contains__)
    await new.look()
    assert new.is_writer
    await killed.look()
    assert not killed.is_writer, "one that was taken for dead wrongly steps back at its next look"


def test_only_a_process_of_this_machine_is_known_to_be_gone() -> None:
    here = socket.gethostname()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert process_is_gone(f"dr1@{here}:{ended.pid}")
    assert not process_is_gone(f"dr1@{here}:{os.getpid()}")
    assert not process_is_gone(f"dr1@elsewhere:{ended.pid}")
    assert not process_is_gone("dr1@host")


async def test_a_holder_that_cannot_renew_stops_before_others_may_take_over(world: World) -> None:
    local = world.writer("dr1")
    await local.look()
    world.closed = True
    world.time += LEASE_SECONDS - 1
    with pytest.raises(GateClosed):
        await local.look()
    assert not local.is_writer


async def test_a_lease_taken_meanwhile_is_lost(world: World) -> None:
    local, peer = world.writer("dr1"), world.writer("dr2")
    await local.look()
    await peer.look()
    world.time += LEASE_SECONDS

    def other_is_faster(verb: str, kind: Kind, name: str) -> None:
        if verb == "update":
            world.cluster.before = None
            world.cluster.put(LEASE, world.lease)

    world.cluster.before = other_is_faster
    await peer.look()
    assert not peer.is_writer


async def test_a_released_lease_is_left_to_the_own_worker_for_a_while(world: World) -> None:
    local, peer = world.writer("dr1"), world.writer("dr2")
    await local.look()
    await local._release()
    assert world.holder == ""
    await peer.look()
    assert not peer.is_writer
    world.time += YIELD_SECONDS
    await peer.look()
    assert peer.is_writer


async def test_an_unreachable_cluster_is_no_reason_to_fail_the_process(world: World) -> None:
    world.cluster.failure = ClusterUnreachable("gone")
    with pytest.raises(ClusterUnreachable):
        await world.writer("dr1").look()
