"""What the stand-ins share: watched copies that survive restarts of the server, and the work queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from activities.access.protocol import Object, WatchEvent
from ramen import kinds
from ramen.errors import ClusterUnreachable, Gone, HublessError, Invalid
from sandbox.standins import runtime
from sandbox.standins.runtime import Mirror, Name, Next, WorkQueue


def pod(name: str, version: int, **meta: Any) -> Object:
    return {"metadata": {"name": name, "namespace": "web", "resourceVersion": str(version), **meta}}


class Server:
    """Plays lists and watches from a script; a watch without events stays open."""

    name = "fake"

    def __init__(self, lists: list[tuple[list[Object], str] | HublessError]) -> None:
        self.lists = lists
        self.events: asyncio.Queue[WatchEvent | HublessError] = asyncio.Queue()
        self.watched_from: list[str] = []

    async def list(self, kind: Any, namespace: Any = None, labels: Any = None, fields: Any = None) -> Any:
        found = self.lists.pop(0)
        if isinstance(found, HublessError):
            raise found
        return found

    async def watch(
        self, kind: Any, resource_version: str, namespace: Any = None, seconds: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        self.watched_from.append(resource_version)
        while True:
            event = await self.events.get()
            if isinstance(event, HublessError):
                raise event
            yield event


async def until(holds: Callable[[], object]) -> None:
    """Waits for a condition; the test's own time limit ends it."""
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.001)


async def test_mirror_follows_and_lists_again_when_the_watch_is_too_old() -> None:
    server = Server([([pod("a", 1), pod("b", 2)], "2"), ([pod("b", 5), pod("c", 4)], "6")])
    seen: list[tuple[str | None, str | None]] = []

    def note(before: Object | None, after: Object | None) -> None:
        seen.append((before and before["metadata"]["name"], after and after["metadata"]["name"]))

    mirror = Mirror(server, kinds.POD, note)  # type: ignore[arg-type]
    running = asyncio.create_task(mirror.run())
    await mirror.synced.wait()
    server.events.put_nowait(WatchEvent("BOOKMARK", pod("", 3)))
    server.events.put_nowait(Gone("too old"))
    await until(lambda: mirror.get("c", "web"))
    running.cancel()
    assert mirror.get("a", "web") is None
    assert {item["metadata"]["name"] for item in mirror.within("web")} == {"b", "c"}
    assert seen == [(None, "a"), (None, "b"), ("a", None), ("b", "b"), (None, "c")]


async def test_mirror_outlives_an_unreachable_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "RELIST_FIRST", 0.001)
    server = Server([ClusterUnreachable("down"), ClusterUnreachable("down"), ([pod("a", 1)], "1")])
    mirror = Mirror(server, kinds.POD)  # type: ignore[arg-type]
    running = asyncio.create_task(mirror.run())
    await until(lambda: mirror.get("a", "web"))
    running.cancel()
    assert server.lists == []


def test_own_write_is_seen_at_once_and_never_undone_by_an_older_event() -> None:
    mirror = Mirror(Server([]), kinds.POD)  # type: ignore[arg-type]
    mirror.remember(pod("a", 7, labels={"mine": "1"}))
    mirror.apply(WatchEvent("MODIFIED", pod("a", 6)))
    assert (mirror.get("a", "web") or {})["metadata"]["labels"] == {"mine": "1"}
    mirror.apply(WatchEvent("DELETED", pod("a", 9)))
    mirror.remember(pod("a", 8))
    assert mirror.get("a", "web") is None, "a late answer does not revive a deleted object"
    mirror.apply(WatchEvent("ADDED", pod("a", 11)))
    mirror.remember(pod("a", 12, deletionTimestamp="t", finalizers=[]))
    assert (mirror.get("a", "web") or {})["metadata"]["resourceVersion"] == "11"


async def run_queue(queue: WorkQueue[Name], done: Callable[[], object]) -> None:
    running = asyncio.create_task(queue.run())
    await until(done)
    running.cancel()


async def test_queue_never_works_twice_at_once_on_a_key_and_misses_no_request() -> None:
    active: set[Name] = set()
    passes: list[Name] = []

    async def handle(key: Name) -> Next:
        assert key not in active
        active.add(key)
        if key == ("web", "a") and key not in passes:
            queue.add(key)
            queue.add(key)
        await asyncio.sleep(0)
        active.discard(key)
        passes.append(key)
        return None

    queue: WorkQueue[Name] = WorkQueue(handle, lambda attempt: 0.0)
    queue.add(("web", "a"))
    queue.add(("web", "a"))
    queue.add(("web", "b"))
    await run_queue(queue, lambda: len(passes) == 3 and not active)
    assert passes.count(("web", "a")) == 2


async def test_queue_backs_off_until_a_pass_asks_for_nothing() -> None:
    answers: list[Next | Exception] = ["back-off", ClusterUnreachable("x"), ValueError("y"), None, "back-off", None]
    attempts: list[int] = []

    async def handle(key: Name) -> Next:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is None and answers:
            queue.add(key)
        return answer

    def back_off(attempt: int) -> float:
        attempts.append(attempt)
        return 0.0

    queue: WorkQueue[Name] = WorkQueue(handle, back_off)
    queue.add(("web", "a"))
    await run_queue(queue, lambda: not answers)
    assert attempts == [0, 1, 2, 0]


async def test_a_pass_answers_the_repetition_asked_for_before_it() -> None:
    passes: list[Name] = []

    async def handle(key: Name) -> Next:
        passes.append(key)
        return None

    queue: WorkQueue[Name] = WorkQueue(handle, lambda attempt: 0.0)
    queue.add_after(("web", "a"), 0.01)
    queue.add_after(("web", "later"), 0.02)
    queue.add(("web", "a"))
    await run_queue(queue, lambda: ("web", "later") in passes)
    assert passes == [("web", "a"), ("web", "later")]


def test_back_off_grows_to_its_limit_and_never_spins() -> None:
    real = runtime.growing(1.0, 60.0, 0.02)
    assert [real(attempt) for attempt in (0, 1, 2, 10)] == [1.0, 2.0, 4.0, 60.0]
    none = runtime.growing(0.0, 60.0, 0.02)
    assert none(0) == pytest.approx(0.02)
    assert none(20) == 1.0


def test_arguments(tmp_path: Path) -> None:
    found = runtime.parse("x", ["--dir", str(tmp_path), "--cluster", "dr1", "--delay-scale", "0"])
    assert found == runtime.Options(tmp_path, "dr1", 0.0)


async def test_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"dr1-operator\.yaml"):
        await runtime.connect(tmp_path, "dr1", "operator")
