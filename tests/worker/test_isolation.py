"""S16: a worker that reaches nobody outside its cluster for half a minute says so on its copies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ramen.drpc_edits import Do, Entity, Known, Step
from ramen.errors import StoreDenied, StoreUnreachable
from worker.drpc_status import Isolation, build
from worker.isolation import ISOLATED_SECONDS, Contact

NOW = datetime(2026, 11, 28, 14, 1, 31, tzinfo=UTC)


class Outside:
    """Temporal, one peer and one store, each of which may answer."""

    own = "dr1"

    def __init__(self) -> None:
        self.temporal = self.peer = False
        self.store: Exception | None = StoreUnreachable("no answer")
        self.looks = 0
        self.time = 0.0

    def names(self) -> list[str]:
        return ["dr1", "dr2"]

    def gate(self, name: str) -> Any:
        return type("Gate", (), {"is_open": self.peer})

    async def head_bucket(self) -> None:
        self.looks += 1
        if self.store is not None:
            raise self.store

    def contact(self) -> Contact:
        stores: Any = {"s3-dr1": self}
        clusters: Any = self
        return Contact(clusters, lambda: self.temporal, stores, lambda: self.time)


async def test_lost_only_when_nobody_answers_for_the_whole_time() -> None:
    outside = Outside()
    contact = outside.contact()
    outside.time = ISOLATED_SECONDS - 1
    await contact.look()
    assert not contact.is_lost
    outside.time += 1
    assert contact.is_lost
    for answers in ("temporal", "peer"):
        setattr(outside, answers, True)
        await contact.look()
        assert not contact.is_lost
        setattr(outside, answers, False)
        outside.time += ISOLATED_SECONDS
        await contact.look()
        assert contact.is_lost


async def test_a_store_that_refuses_is_there() -> None:
    outside = Outside()
    contact = outside.contact()
    outside.time = ISOLATED_SECONDS
    outside.store = StoreDenied("403")
    await contact.look()
    assert not contact.is_lost


async def test_stores_are_left_in_peace_while_anybody_else_answers() -> None:
    outside = Outside()
    outside.temporal = True
    await outside.contact().look()
    assert outside.looks == 0


def copy() -> dict[str, Any]:
    status = {
        "phase": "Deployed",
        "hubless": {"epoch": 7, "servesOn": "dr1"},
        "lastUpdateTime": "2026-11-28T13:00:00Z",
        "conditions": [{"type": "Available", "status": "True", "reason": "Deployed", "message": "Completed"}],
    }
    return {"metadata": {"name": "shop", "namespace": "web", "generation": 1}, "spec": {}, "status": status}


def available(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = status["conditions"][0]
    return found


def isolated(obj: dict[str, Any], at: datetime | None) -> dict[str, Any]:
    known = Known(Entity.UNKNOWN, why="Temporal does not answer")
    return build(obj, known, None, {}, Step(Do.NOTHING), Isolation(at), NOW)


def test_an_isolated_copy_says_when_it_was_last_confirmed() -> None:
    found = available(isolated(copy(), NOW))
    assert (found["status"], found["reason"]) == ("Unknown", "Isolated")
    assert found["message"] == "last confirmed 14:01:31, epoch 7; may have been failed over since"


def test_a_process_that_never_reached_anybody_names_the_last_update_and_writes_once() -> None:
    obj = copy()
    first = isolated(obj, None)
    assert available(first)["message"].startswith("last confirmed 13:00:00")
    assert isolated({**obj, "status": first}, None) == first
