"""The witness latches what lasts milliseconds, and never takes an earlier demotion for this one (S4)."""

from __future__ import annotations

from typing import Any

import pytest

from activities.access.protocol import Object
from activities.witness import WitnessLatch, in_sync_as_secondary
from ramen.app import AppRef
from tests.activities.fakes import World

SHOP = AppRef(namespace="web", name="shop")
DATA = ("web", "data-0")


@pytest.fixture
async def world() -> World:
    return World()


def without(replication: Object, kind: str) -> Object:
    status = replication["status"]
    kept = [condition for condition in status["conditions"] if condition["type"] != kind]
    return {**replication, "status": {**status, "conditions": kept}}


def changed(replication: Object, **status: Any) -> Object:
    return {**replication, "status": {**replication["status"], **status}}


async def test_only_a_complete_final_sync_at_its_generation_counts(world: World) -> None:
    good = world.replicate("data-0", "secondary")
    assert in_sync_as_secondary(good)
    assert in_sync_as_secondary(without(good, "Resyncing"))
    assert not in_sync_as_secondary(without(good, "Completed"))
    assert not in_sync_as_secondary(without(good, "Degraded"))
    assert not in_sync_as_secondary(changed(good, state="Primary"))
    assert not in_sync_as_secondary(changed(good, observedGeneration=99))
    assert not in_sync_as_secondary({**good, "spec": {"replicationState": "primary"}})
    assert not in_sync_as_secondary({**good, "metadata": {**good["metadata"], "generation": 2}})
    assert not in_sync_as_secondary(world.replicate("data-0", "secondary", in_sync=False))


async def test_the_proof_outlives_the_object_and_later_states_of_it(world: World) -> None:
    latch = WitnessLatch()
    good = world.replicate("data-0", "secondary")
    latch.changed(None, good)
    latch.changed(good, world.replicate("data-0", "secondary", in_sync=False))
    latch.changed(good, None)
    assert list(latch.of(SHOP)) == [DATA]


async def test_a_promotion_ends_the_proof(world: World) -> None:
    latch = WitnessLatch()
    latch.changed(None, world.replicate("data-0", "secondary"))
    latch.changed(None, world.replicate("data-0", "primary"))
    assert latch.of(SHOP) == {}


async def test_after_a_gap_only_what_is_still_true_counts(world: World) -> None:
    latch = WitnessLatch()
    good = world.replicate("data-0", "secondary")
    latch.changed(None, good)
    latch.listed([good])
    assert list(latch.of(SHOP)) == [DATA]
    latch.listed([world.replicate("data-0", "secondary", in_sync=False)])
    assert latch.of(SHOP) == {}


async def test_forgetting_is_by_application(world: World) -> None:
    latch = WitnessLatch()
    latch.changed(None, world.replicate("data-0", "secondary"))
    latch.forget(AppRef(namespace="web", name="other"))
    assert list(latch.of(SHOP)) == [DATA]
    latch.forget(SHOP)
    assert latch.of(SHOP) == {}


async def test_it_is_bounded(world: World) -> None:
    latch = WitnessLatch(capacity=2)
    for name in ("a", "b", "c"):
        latch.changed(None, world.replicate(name, "secondary"))
    assert list(latch.of(SHOP)) == [("web", "b"), ("web", "c")]
