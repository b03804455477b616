"""Who wakes the stand-in operator: the real one's triggers, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from activities.access.protocol import WatchEvent
from ramen import kinds, names
from sandbox.standins.operator import Operator
from sandbox.standins.runtime import Name
from tests.sandbox.operator_fakes import FakeCluster

Object = dict[str, Any]


class Wakes:
    """Stands for the work queue."""

    def __init__(self) -> None:
        self.now: list[Name] = []
        self.later: list[Name] = []

    def add(self, key: Name) -> None:
        self.now.append(key)

    def add_all(self, keys: Any) -> None:
        self.now += list(keys)

    def add_after(self, key: Name, seconds: float) -> None:
        self.later.append(key)

    def taken(self) -> tuple[set[Name], set[Name]]:
        found = set(self.now), set(self.later)
        self.now, self.later = [], []
        return found


def operator(delay_scale: float = 1.0) -> tuple[Operator, Wakes]:
    """An operator that knows one VRG, `web/shop`, for PVCs with `app=shop`."""
    found, wakes = Operator(FakeCluster(), delay_scale), Wakes()  # type: ignore[arg-type]
    found.queue = wakes  # type: ignore[assignment]
    feed(found, kinds.VRG, vrg())
    wakes.taken()
    return found, wakes


def feed(found: Operator, kind: Any, body: Object, event: str = "MODIFIED") -> None:
    found.world.mirrors[kind].apply(WatchEvent(event, body))  # type: ignore[arg-type]


def vrg(version: int = 1, **changes: Any) -> Object:
    meta = {"namespace": "web", "name": "shop", "generation": 1, "resourceVersion": str(version)}
    spec = {"pvcSelector": {"matchLabels": {"app": "shop"}}, "volSync": {"disabled": True}}
    return {"metadata": {**meta, **changes.pop("metadata", {})}, "spec": spec, **changes}


def other(version: int, name: str = "data", labels: Object | None = None, **status: Any) -> Object:
    meta = {"namespace": "web", "name": name, "generation": 1, "resourceVersion": str(version), "labels": labels or {}}
    return {"metadata": meta, "spec": {}, "status": status}


SHOP = {("web", "shop")}
OWNED = {names.OWNER_NAME: "shop", names.OWNER_NAMESPACE: "web"}


@pytest.mark.parametrize(
    ("changes", "woken"),
    [
        ({"status": {"state": "Primary"}}, False),
        ({"metadata": {"generation": 2}}, True),
        ({"metadata": {"annotations": {"a": "b"}}}, True),
        ({"metadata": {"labels": {"a": "b"}}}, True),
        ({"metadata": {"deletionTimestamp": "t"}}, True),
    ],
)
def test_a_vrg_wakes_by_everything_but_its_status(changes: Object, woken: bool) -> None:
    found, wakes = operator()
    feed(found, kinds.VRG, vrg(2, **changes))
    assert wakes.taken() == (SHOP if woken else set(), set())


def test_pvcs_wake_the_vrg_that_selects_or_owns_them() -> None:
    found, wakes = operator()
    feed(found, kinds.PVC, other(2, "foreign"), "ADDED")
    assert wakes.taken() == (set(), set())
    feed(found, kinds.PVC, other(3, labels={"app": "shop"}), "ADDED")
    assert wakes.taken() == (SHOP, set())
    feed(found, kinds.PVC, other(4))
    assert wakes.taken() == (SHOP, set()), "it was selected before it lost its label"
    feed(found, kinds.PVC, other(5, "marked", labels=OWNED), "ADDED")
    assert wakes.taken() == (SHOP, set())


def test_sync_times_wait_for_each_other_and_nothing_else_does() -> None:
    found, wakes = operator()
    feed(found, kinds.VOLUME_REPLICATION, other(2, labels=OWNED), "ADDED")
    assert wakes.taken() == (SHOP, set())
    feed(found, kinds.VOLUME_REPLICATION, other(3, labels=OWNED, state="Primary"))
    assert wakes.taken() == (SHOP, set())
    feed(found, kinds.VOLUME_REPLICATION, other(4, labels=OWNED, state="Primary", lastSyncTime="t"))
    assert wakes.taken() == (set(), SHOP)
    feed(found, kinds.VOLUME_REPLICATION, other(5, labels=OWNED), "DELETED")
    assert wakes.taken() == (SHOP, set())


@pytest.mark.parametrize(("delay_scale", "woken"), [(1.0, set()), (0.0, SHOP)])
def test_the_end_of_a_pod_wakes_only_without_delays(delay_scale: float, woken: set[Name]) -> None:
    found, wakes = operator(delay_scale)
    feed(found, kinds.POD, other(2), "ADDED")
    feed(found, kinds.POD, other(3), "DELETED")
    assert wakes.taken() == (woken, set())


def test_the_configuration_wakes_every_vrg() -> None:
    found, wakes = operator()
    body = {"metadata": {"namespace": names.RAMEN_NAMESPACE, "name": names.RAMEN_CONFIG_MAP, "resourceVersion": "2"}}
    feed(found, kinds.CONFIG_MAP, {**body, "data": {}}, "ADDED")
    assert wakes.taken() == (SHOP, set())
