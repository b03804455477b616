"""The documents of the clusters in the stores: written by the Lease's holder, on a change, and never for a beat."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from activities.access.fake import FakeCluster
from ramen import names
from ramen.errors import Forbidden, StoreUnreachable
from ramen.health import image_version
from ramen.kinds import DEPLOYMENT, NAMESPACE
from ramen.s3layout import ClusterStatusDocument
from tests.activities.fakes import MemoryStore
from worker.clusterreports import OPERATOR_SECONDS, PAUSE_SECONDS, ClusterReports
from worker.clusters import Clusters
from worker.gate import Gate
from worker.session import Session

AT = datetime(2026, 3, 1, 14, 1, 31, tzinfo=UTC)


class Counted(MemoryStore):
    """A store that counts what is asked of it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked = 0

    def _answer(self) -> None:
        self.asked += 1
        super()._answer()

    def answered_within(self, seconds: float) -> bool:
        return False


class World(Clusters):
    """One cluster of which this worker holds the Lease, and two stores."""

    def __init__(self) -> None:
        super().__init__("dr1", None)
        self.time = 1000.0
        self.writes = True
        self.fake = FakeCluster("dr1")
        self.fake.put(NAMESPACE, {"metadata": {"name": names.RAMEN_NAMESPACE}})
        self.the_gate = Gate("dr1", lambda: AT)
        self.session_of_dr1 = Session("dr1", self.the_gate)
        self.session_of_dr1.client = self.fake
        self.the_gate.answered("v1.36.3")
        self.stores = {name: Counted(name) for name in ("s3-dr1", "s3-dr2")}
        self.reports = ClusterReports(
            self,
            lambda _: self.writes,
            self.stores,  # type: ignore[arg-type]
            "dr1@a:1",
            now=lambda: self.time,
        )

    def names(self) -> list[str]:
        return ["dr1"]

    def gate(self, name: str) -> Gate:
        return self.the_gate

    def access(self, name: str) -> Session:
        self.the_gate.require()
        return self.session_of_dr1

    def install(self, image: str) -> None:
        spec = {"template": {"spec": {"containers": [{"name": "manager", "image": image}]}}}
        metadata = {"name": names.OPERATOR_DEPLOYMENT, "namespace": names.RAMEN_NAMESPACE}
        self.fake.put(DEPLOYMENT, {"metadata": metadata, "spec": spec})

    async def look(self, later: float = 0.0) -> dict[str, ClusterStatusDocument | None]:
        """What each store says after a look."""
        self.time += later
        await self.reports.look()
        return {
            name: ClusterStatusDocument.decode(store.objects[names.cluster_status_key("dr1")][0])
            if names.cluster_status_key("dr1") in store.objects
            else None
            for name, store in self.stores.items()
        }

    def requests(self) -> int:
        return sum(store.asked for store in self.stores.values())


@pytest.fixture
def world() -> World:
    return World()


async def test_the_writer_tells_every_store_at_its_start(world: World) -> None:
    world.install("quay.io/ramendr/ramen-operator:v0.9.1")
    for said in (await world.look()).values():
        assert said
        assert (said.api_server_version, said.operator_version) == ("v1.36.3", "v0.9.1")
        assert (said.worker, said.last_seen, said.reachable) == ("dr1@a:1", AT, True)
    assert world.requests() == 2


async def test_an_idle_hour_makes_no_request(world: World) -> None:
    await world.look()
    before, calls = world.requests(), sum(world.fake.calls.values())
    for _ in range(360):
        await world.look(later=10.0)
    assert world.requests() == before
    assert sum(world.fake.calls.values()) - calls <= 3600 / OPERATOR_SECONDS


async def test_who_does_not_hold_the_lease_writes_nothing(world: World) -> None:
    world.writes = False
    assert await world.look() == {"s3-dr1": None, "s3-dr2": None}


async def test_a_change_is_told_once_and_not_at_once(world: World) -> None:
    await world.look()
    world.the_gate.answered("v1.37.0")
    assert (await world.look(later=10.0))["s3-dr1"].api_server_version == "v1.36.3"  # type: ignore[union-attr]
    assert (await world.look(later=PAUSE_SECONDS))["s3-dr1"].api_server_version == "v1.37.0"  # type: ignore[union-attr]
    assert world.requests() == 4


async def test_a_cluster_that_comes_and_goes_is_not_told_each_time(world: World) -> None:
    for index in range(60):
        world.the_gate.shut("gone") if index % 2 else world.the_gate.answered("v1.36.3")
        await world.look(later=10.0)
    assert world.requests() <= 2 * (1 + 600 / PAUSE_SECONDS)


async def test_a_lost_lease_that_returns_is_no_reason_to_hurry(world: World) -> None:
    for index in range(12):
        world.writes = index % 2 == 0
        await world.look(later=10.0)
    assert world.requests() == 2


async def test_a_cluster_that_goes_away_is_said_to(world: World) -> None:
    await world.look()
    world.the_gate.shut("connection refused")
    said = (await world.look(later=PAUSE_SECONDS))["s3-dr2"]
    assert said
    assert (said.reachable, said.last_seen) == (False, AT)


async def test_a_store_that_was_away_is_told_later_and_alone(world: World) -> None:
    world.stores["s3-dr2"].failure = StoreUnreachable("away")
    assert (await world.look())["s3-dr2"] is None
    world.stores["s3-dr2"].failure = None
    before = world.stores["s3-dr1"].asked
    assert (await world.look(later=PAUSE_SECONDS))["s3-dr2"]
    assert world.stores["s3-dr1"].asked == before


async def test_an_operator_that_may_not_be_looked_at_has_no_version(world: World) -> None:
    def refuse(verb: str, kind: object, name: str) -> None:
        if kind is DEPLOYMENT:
            raise Forbidden("no right")

    world.fake.before = refuse
    said = (await world.look())["s3-dr1"]
    assert said
    assert (said.operator_version, said.api_server_version) == ("", "v1.36.3")


@pytest.mark.parametrize(
    ("images", "version"),
    [
        (["quay.io:5000/ramendr/operator:v0.9"], "v0.9"),
        (["quay.io:5000/ramendr/operator@sha256:abc"], "sha256:abc"),
        (["operator:v1@sha256:abc"], "v1"),
        (["quay.io:5000/proxy", "operator:v2"], "v2"),
        (["operator"], ""),
        ([], ""),
    ],
)
def test_the_version_of_an_image(images: list[str], version: str) -> None:
    assert image_version(images) == version
