"""The shared watch: one stream for all waits, and no change that a wait can miss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from activities.access.fake import FakeCluster
from activities.access.protocol import Object
from activities.waiting import KindWatch, SharedWatch
from ramen.errors import ClusterUnreachable, KindMissing
from ramen.kinds import VOLUME_REPLICATION, VRG

KEY = ("web", "shop")


def vrg(name: str = "shop", **spec: Any) -> Object:
    return {"metadata": {"name": name, "namespace": "web"}, "spec": spec}


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster("dr1")


@pytest.fixture
async def watch(cluster: FakeCluster) -> AsyncIterator[KindWatch]:
    made = KindWatch(lambda: cluster, VRG, watch_seconds=5.0, first_back_off=0.01, last_back_off=0.02)
    yield made
    await made.stop()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_thousand_waits_cost_one_list_and_one_watch(cluster: FakeCluster, watch: KindWatch) -> None:
    await watch.ensure_live(1.0)
    names = [f"shop-{n}" for n in range(1000)]
    waits = [asyncio.create_task(watch.await_change(("web", name), 0, 5.0)) for name in names]
    await asyncio.sleep(0)
    for name in names:
        cluster.put(VRG, vrg(name))
    await asyncio.gather(*waits)
    assert [watch.latest(("web", name))[0][0]["metadata"]["name"] for name in names] == names
    assert dict(cluster.calls) == {("list", VRG.plural): 1, ("watch", VRG.plural): 1}


async def test_a_change_between_look_and_wait_is_not_missed(cluster: FakeCluster, watch: KindWatch) -> None:
    await watch.ensure_live(1.0)
    _, tick = watch.latest(KEY)
    cluster.put(VRG, vrg())
    await until(lambda: watch.latest(KEY)[0])
    async with asyncio.timeout(1):
        await watch.await_change(KEY, tick, 60.0)


async def test_a_wait_for_another_application_sleeps_on(cluster: FakeCluster, watch: KindWatch) -> None:
    await watch.ensure_live(1.0)
    wait = asyncio.create_task(watch.await_change(KEY, 0, 60.0))
    cluster.put(VRG, vrg("other"))
    await until(lambda: watch.latest(("web", "other"))[0])
    assert not wait.done()
    wait.cancel()


async def test_deletion_is_seen_and_wakes(cluster: FakeCluster, watch: KindWatch) -> None:
    cluster.put(VRG, vrg())
    await watch.ensure_live(1.0)
    _, tick = watch.latest(KEY)
    cluster.drop(VRG, "shop", "web")
    await watch.await_change(KEY, tick, 5.0)
    assert watch.latest(KEY)[0] == []


async def test_a_version_that_is_too_old_leads_to_a_new_list(cluster: FakeCluster, watch: KindWatch) -> None:
    await watch.ensure_live(1.0)
    cluster.put(VRG, vrg())
    cluster.compact()
    await until(lambda: watch.lists == 2 and watch.live)
    assert watch.latest(KEY)[0]


async def test_an_unreachable_cluster_is_not_live_and_comes_back_with_a_new_list(
    cluster: FakeCluster, watch: KindWatch
) -> None:
    cluster.put(VRG, vrg(role="a"))
    lists: list[int] = []
    watch.on_list.append(lambda items: lists.append(len(items)))
    await watch.ensure_live(1.0)
    cluster.failure = ClusterUnreachable("dr1 does not answer")
    cluster.cut()
    await until(lambda: not watch.live)
    assert watch.error == "dr1 does not answer"
    assert watch.latest(KEY)[0], "what was seen last stays readable"
    with pytest.raises(ClusterUnreachable, match="dr1 does not answer"):
        await watch.ensure_live(0.05)
    cluster.drop(VRG, "shop", "web")
    cluster.failure = None
    await watch.ensure_live(1.0)
    assert watch.latest(KEY)[0] == []
    assert lists == [1, 0]


async def test_callbacks_get_old_and_new_and_cannot_end_the_watch(cluster: FakeCluster, watch: KindWatch) -> None:
    seen: list[tuple[Any, Any]] = []

    def broken(old: Object | None, new: Object | None) -> None:
        raise ValueError("a bug in a callback")

    watch.on_change += [broken, lambda old, new: seen.append((_role(old), _role(new)))]
    await watch.ensure_live(1.0)
    cluster.put(VRG, vrg(role="a"))
    cluster.put(VRG, vrg(role="b"))
    cluster.drop(VRG, "shop", "web")
    await until(lambda: len(seen) == 4)
    assert seen == [(None, "a"), ("a", "b"), ("b", "b"), ("b", None)]


async def test_a_missing_kind_is_named(cluster: FakeCluster) -> None:
    cluster.missing = {VOLUME_REPLICATION}
    watch = SharedWatch("dr1", lambda: cluster)
    with pytest.raises(ClusterUnreachable, match="VolumeReplication"):
        await watch.replications.ensure_live(0.1)
    await watch.stop()
    with pytest.raises(KindMissing):
        await cluster.list(VOLUME_REPLICATION)


async def test_nothing_is_kept_of_applications_that_are_gone(cluster: FakeCluster, watch: KindWatch) -> None:
    await watch.ensure_live(1.0)
    for number in range(50):
        cluster.put(VRG, vrg(f"shop-{number}"))
        cluster.drop(VRG, f"shop-{number}", "web")
    cluster.put(VRG, vrg("last"))
    await until(lambda: watch.latest(("web", "last"))[0])
    assert len(watch._ticks) == 1


def _role(obj: Object | None) -> Any:
    return obj["spec"]["role"] if obj else None


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_without_a_pause(cluster: FakeCluster) -> None:
    asked = 0

    class Closing:
        """What stands before the API server ends each watch with a clean answer."""

        name = "dr1"
        list = cluster.list

        async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
            nonlocal asked
            asked += 1
            return
            yield

    made = KindWatch(lambda: Closing(), VRG, watch_seconds=5.0, first_back_off=0.01, last_back_off=0.2)  # type: ignore[arg-type, return-value]
    made.start()
    await asyncio.sleep(1)  # the rate is what is tested
    await made.stop()
    assert 1 < asked <= 6
