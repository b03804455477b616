"""The registry's status on each cluster: written by its one writer, on a change, and never for a probe."""

from __future__ import annotations

import asyncio

import pytest

from activities.access.fake import FakeCluster
from ramen import names
from ramen.errors import ClusterUnreachable, HublessError
from ramen.health import BURST, PER_WRITE_SECONDS
from ramen.kinds import CLUSTER_REGISTRY, NAMESPACE, Kind
from ramen.objects import ClusterRegistry, ClusterRegistryStatus
from tests.worker.fakes import registry
from worker.clusters import Clusters
from worker.gate import Gate
from worker.registrystatus import READ_SECONDS, RegistryStatus
from worker.session import Session


class Reached(Clusters):
    """Clusters whose gates the test moves."""

    def __init__(self) -> None:
        super().__init__("dr1", None)
        self.notes: dict[str, str] = {}
        self.fakes = {name: FakeCluster(name) for name in ("dr1", "dr2")}
        self.gates = {name: Gate(name) for name in self.fakes}
        self.sessions = {name: Session(name, gate) for name, gate in self.gates.items()}
        for name, fake in self.fakes.items():
            fake.put(NAMESPACE, {"metadata": {"name": names.RAMEN_NAMESPACE}})
            fake.put(CLUSTER_REGISTRY, registry(dr1="uid-dr1", dr2="uid-dr2"))
            self.sessions[name].client = fake
            self.gates[name].answered("v1.36.3")

    def names(self) -> list[str]:
        return list(self.fakes)

    def gate(self, name: str) -> Gate:
        return self.gates[name]

    def access(self, name: str) -> Session:
        self.gates[name].require()
        return self.sessions[name]

    def has_credentials(self, name: str) -> bool:
        return self.sessions[name].client is not None

    def note(self, name: str) -> str:
        return self.notes.get(name, "")


class World:
    def __init__(self) -> None:
        self.time = 1000.0
        self.clusters = Reached()
        self.writes_on = {"dr1", "dr2"}
        self.asked: list[str] = []
        self.workers: list[str] | None = ["dr1@a:1", "dr2@b:2"]
        self.status = self.worker()

    def worker(self) -> RegistryStatus:
        return RegistryStatus(
            self.clusters, self.writes_on.__contains__, "dr1@a:1", self.reaches, now=lambda: self.time
        )

    async def reaches(self, cluster: str) -> list[str] | None:
        self.asked.append(cluster)
        return self.workers

    async def look(self, seconds: float = 1.0) -> None:
        self.time += seconds
        await self.status.look()

    def on(self, cluster: str) -> ClusterRegistryStatus:
        found = self.clusters.fakes[cluster].get(CLUSTER_REGISTRY, names.REGISTRY_NAME)
        assert found is not None
        return ClusterRegistry.of(found).status

    def writes(self, cluster: str) -> int:
        return self.clusters.fakes[cluster].calls["patch", CLUSTER_REGISTRY.plural]


@pytest.fixture
async def world() -> World:
    return World()


async def test_every_cluster_gets_the_whole_status(world: World) -> None:
    await world.look()
    for cluster in ("dr1", "dr2"):
        status = world.on(cluster)
        assert [(entry.name, entry.state, entry.version) for entry in status.clusters] == [
            ("dr1", "Available", "v1.36.3"),
            ("dr2", "Available", "v1.36.3"),
        ]
        assert status.clusters[1].workers == ["dr1@a:1", "dr2@b:2"]
        assert status.reporter == "dr1@a:1"


async def test_an_idle_hour_writes_nothing_and_asks_once_a_minute(world: World) -> None:
    for _ in range(3600):
        await world.look()
    assert (world.writes("dr1"), world.writes("dr2")) == (1, 1)
    assert len(world.asked) <= 2 * 61
    assert world.clusters.fakes["dr1"].calls["get", CLUSTER_REGISTRY.plural] <= 3600 / READ_SECONDS + 1


async def test_only_the_writer_writes(world: World) -> None:
    world.writes_on.discard("dr2")
    await world.look()
    assert (world.writes("dr1"), world.writes("dr2")) == (1, 0)


async def test_a_worker_that_writes_nowhere_asks_nobody(world: World) -> None:
    world.writes_on.clear()
    await world.look()
    assert world.asked == []


async def test_who_stops_being_the_writer_while_it_reads_writes_nothing(world: World) -> None:
    def before(verb: str, kind: Kind, name: str) -> None:
        if verb == "get":
            world.writes_on.discard("dr2")

    world.clusters.fakes["dr2"].before = before
    await world.look()
    assert (world.writes("dr1"), world.writes("dr2")) == (1, 0)


async def test_what_another_writer_wrote_meanwhile_is_read_and_not_overwritten(world: World) -> None:
    await world.look()
    fake, gate = world.clusters.fakes["dr1"], world.clusters.gates["dr2"]
    theirs = fake.get(CLUSTER_REGISTRY, names.REGISTRY_NAME)
    assert theirs is not None
    theirs["status"]["reporter"] = "dr2@b:2"
    fake.put(CLUSTER_REGISTRY, theirs)
    gate.shut("dr2: connection refused")
    await world.look()
    assert world.on("dr1").reporter == "dr2@b:2"
    await world.look()
    assert world.on("dr1").reporter == "dr1@a:1"
    assert world.on("dr1").clusters[1].last_error == "dr2: connection refused"


async def test_who_became_the_writer_at_the_moment_of_a_write_is_not_overwritten(world: World) -> None:
    """S16: the Lease was lost after the last look at it."""
    fake = world.clusters.fakes["dr1"]

    def before(verb: str, kind: Kind, name: str) -> None:
        if verb == "patch":
            fake.before = None
            theirs = registry(dr1="uid-dr1", dr2="uid-dr2") | {"status": {"reporter": "dr2@b:2"}}
            fake.put(CLUSTER_REGISTRY, theirs)

    fake.before = before
    await world.look()
    world.writes_on.discard("dr1")
    await world.look()
    assert world.on("dr1").reporter == "dr2@b:2"


async def test_an_outage_is_written_where_somebody_can_read_it(world: World) -> None:
    await world.look()
    world.clusters.gates["dr2"].shut("dr2: connection refused")
    await world.look()
    entry = world.on("dr1").clusters[1]
    assert (entry.state, entry.last_error, entry.workers) == ("Unavailable", "dr2: connection refused", [])
    assert world.writes("dr2") == 1


async def test_without_credentials_nothing_is_known(world: World) -> None:
    world.clusters.sessions["dr2"].client = None
    world.clusters.gates["dr2"].shut("Secret ramen-system/kubeconfig-dr2 is missing on dr1")
    await world.look()
    assert world.on("dr1").clusters[1].state == "Unknown"


async def test_credentials_that_were_not_taken_are_said_though_the_cluster_answers(world: World) -> None:
    await world.look()
    world.clusters.notes["dr2"] = "Secret ramen-system/kubeconfig-dr2 changed, but dr2 refuses the new one (401)"
    await world.look()
    entry = world.on("dr1").clusters[1]
    assert (entry.state, entry.last_error) == ("Available", world.clusters.notes["dr2"])


async def test_without_temporal_a_worker_speaks_for_itself_alone(world: World) -> None:
    world.workers = None
    await world.look()
    assert world.on("dr1").clusters[1].workers == ["dr1@a:1"]


async def test_flapping_costs_a_write_a_minute(world: World) -> None:
    await world.look()
    for second in range(600):
        gate = world.clusters.gates["dr2"]
        gate.shut("gone") if second // 3 % 2 else gate.answered("v1.36.3")
        await world.look()
    assert world.writes("dr1") <= BURST + 600 / PER_WRITE_SECONDS + 1
    assert world.on("dr1").clusters[1].flaps > 50


async def test_a_status_that_somebody_emptied_is_written_again(world: World) -> None:
    await world.look()
    world.clusters.fakes["dr1"].put(CLUSTER_REGISTRY, registry(dr1="uid-dr1", dr2="uid-dr2"))
    assert world.on("dr1").clusters == []
    await world.look(READ_SECONDS)
    assert len(world.on("dr1").clusters) == 2


async def test_a_restart_keeps_since(world: World) -> None:
    await world.look()
    since = world.on("dr1").clusters[0].since
    await asyncio.sleep(1.1)  # status times have whole seconds
    for name, gate in world.clusters.gates.items():
        world.clusters.gates[name] = gate = Gate(name)
        gate.answered("v1.36.3")
        world.clusters.sessions[name]._gate = gate
    world.status = world.worker()
    await world.look()
    assert world.on("dr1").clusters[0].since == since


@pytest.mark.parametrize("error", [ClusterUnreachable("dr1: no answer")])
async def test_a_write_that_fails_is_tried_again_slowly(world: World, error: HublessError) -> None:
    fake = world.clusters.fakes["dr1"]

    def before(verb: str, kind: object, name: str) -> None:
        if verb == "patch":
            raise error

    fake.before = before
    for _ in range(10):
        await world.look()
    assert world.writes("dr1") == 1
    fake.before = None
    await world.look(20)
    assert len(world.on("dr1").clusters) == 2


async def test_a_cluster_that_leaves_the_registry_while_temporal_is_asked_ends_no_worker(world: World) -> None:
    await world.look()

    asked = asyncio.Barrier(2)

    async def reaches(cluster: str) -> list[str] | None:
        await asked.wait()
        world.clusters.fakes.pop("dr2", None)
        world.clusters.gates.pop("dr2", None)
        return ["dr1@a:1"]

    world.status.workers = reaches
    await world.look(61)
    await world.look()
    assert [entry.name for entry in world.on("dr1").clusters] == ["dr1"]
