"""The registry's status: what is shown of a cluster that comes and goes, and how often it is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ramen.health import (
    BURST,
    PER_WRITE_SECONDS,
    STEADY_SECONDS,
    WINDOW_SECONDS,
    HealthBook,
    Sighting,
    Weight,
    WriteBudget,
    weight,
)
from ramen.objects import ClusterHealth

START = datetime(2026, 11, 28, 14, 0, tzinfo=UTC)


def sighting(state: str, at: float) -> Sighting:
    error = "" if state == "Available" else "dr2: connection refused"
    return Sighting(state, START + timedelta(seconds=at), "v1.36.3", error, ("dr1@a:1",))


class Story:
    """States of dr2 over time, and what the status says of it."""

    def __init__(self) -> None:
        self.book = HealthBook()

    def at(self, seconds: float, state: str, since: float | None = None) -> ClusterHealth:
        self.book.observe({"dr2": sighting(state, seconds if since is None else since)}, seconds)
        (entry,) = self.book.entries()
        return entry


A, U, Q = "Available", "Unavailable", "Unknown"

TWICE = [(0, A), (10, U), (20, A), (25, U)]
"""Two outages within a minute."""


@pytest.mark.parametrize(
    ("moves", "shown", "flaps"),
    [
        # (second, what the gate says) ... what the status says after the last move
        ([(0, Q)], Q, 0),
        ([(0, Q), (1, A)], A, 0),
        ([(0, A), (10, U)], U, 0),
        ([(0, A), (10, U), (20, A)], A, 0),
        (TWICE, U, 2),
        # From the second outage on, a return has to hold before it is believed.
        ([*TWICE, (30, A)], U, 2),
        ([*TWICE, (30, A), (30 + STEADY_SECONDS, A)], A, 2),
        # Quiet for the length of the window: forgotten.
        ([*TWICE, (30, A), (30 + WINDOW_SECONDS, A)], A, 0),
        # A worker that had no credentials saw no outage.
        ([(0, A), (10, Q), (20, A), (25, Q), (26, A)], A, 0),
    ],
)
def test_shown_state(moves: list[tuple[float, str]], shown: str, flaps: int) -> None:
    story = Story()
    entries = [story.at(second, state) for second, state in moves]
    assert (entries[-1].state, entries[-1].flaps) == (shown, flaps)


def test_an_entry_says_since_when_and_why() -> None:
    story = Story()
    assert story.at(0, "Available").last_error == ""
    entry = story.at(10, "Unavailable")
    assert (entry.since, entry.last_error, entry.version) == (
        "2026-11-28T14:00:10Z",
        "dr2: connection refused",
        "v1.36.3",
    )


def test_an_entry_that_is_held_back_says_so() -> None:
    story = Story()
    for second, state in ((0, "Available"), (10, "Unavailable"), (20, "Available"), (25, "Unavailable")):
        story.at(second, state)
    entry = story.at(30, "Available")
    assert entry.last_error == "dr2 answers, but went away 2 times in 10 min; it has to hold"
    assert entry.since == "2026-11-28T14:00:25Z"


def test_a_restart_of_the_worker_keeps_since() -> None:
    story = Story()
    story.at(100, "Available")
    story.book.inherit([ClusterHealth(name="dr2", state="Available", since="2026-11-28T09:00:00Z")])
    assert story.at(101, "Available", since=100).since == "2026-11-28T09:00:00Z"


@pytest.mark.parametrize("state", ["Unavailable", "Unknown"])
def test_another_state_inherits_nothing(state: str) -> None:
    story = Story()
    story.at(100, "Available")
    story.book.inherit([ClusterHealth(name="dr2", state=state, since="2026-11-28T09:00:00Z")])
    assert story.at(101, "Available", since=100).since == "2026-11-28T14:01:40Z"


def test_a_gate_that_moved_meanwhile_inherits_nothing() -> None:
    story = Story()
    for second, state in ((0, "Available"), (10, "Unavailable"), (20, "Available")):
        story.at(second, state)
    story.book.inherit([ClusterHealth(name="dr2", state="Available", since="2026-11-28T09:00:00Z")])
    assert story.at(21, "Available", since=20).since == "2026-11-28T14:00:20Z"


def test_a_cluster_that_left_the_registry_has_no_entry() -> None:
    story = Story()
    story.at(0, "Available")
    story.book.observe({}, 1)
    assert story.book.entries() == []


BEFORE = ClusterHealth(name="dr2", state="Available", version="v1.36.3", workers=["dr1@a:1"])


@pytest.mark.parametrize(
    ("change", "urgency"),
    [
        ({}, Weight.NONE),
        ({"since": "2026-11-28T14:00:00Z"}, Weight.WORDS),
        ({"last_error": "refused"}, Weight.FACTS),
        ({"version": "v1.37.0"}, Weight.FACTS),
        ({"workers": ["dr1@a:1", "dr2@b:1"]}, Weight.FACTS),
        ({"flaps": 2}, Weight.FACTS),
        ({"state": "Unavailable"}, Weight.STATES),
        ({"name": "dr3"}, Weight.STATES),
    ],
)
def test_how_soon_a_reader_must_know(change: dict[str, object], urgency: Weight) -> None:
    assert weight([BEFORE], [BEFORE.model_copy(update=change)]) is urgency


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"flaps": 2}, {"flaps": 9}),
        ({"state": "Unavailable", "last_error": "refused"}, {"state": "Unavailable", "last_error": "no answer"}),
    ],
)
def test_more_of_the_same_can_wait(before: dict[str, object], after: dict[str, object]) -> None:
    assert weight([BEFORE.model_copy(update=before)], [BEFORE.model_copy(update=after)]) is Weight.WORDS


def test_a_cluster_that_flaps_for_an_hour_is_written_once_a_minute() -> None:
    story, budget = Story(), WriteBudget(0)
    written: list[ClusterHealth] = []
    writes = 0
    for second in range(3600):
        story.at(second, "Available" if second // 3 % 2 == 0 else "Unavailable")
        entries = story.book.entries()
        if budget.allows(second, weight(written, entries)):
            budget.spend(second)
            written, writes = entries, writes + 1
    assert writes <= BURST + 3600 / PER_WRITE_SECONDS
    assert written[0].state == "Unavailable"
    assert written[0].flaps > 90


def test_restarts_of_workers_leave_room_for_an_outage_and_its_return() -> None:
    budget = WriteBudget(0)
    while budget.allows(0, Weight.FACTS):
        budget.spend(0)
    for second in (1, 5):
        assert budget.allows(second, Weight.STATES)
        budget.spend(second)
    assert not budget.allows(6, Weight.STATES)
    assert budget.allows(6 + PER_WRITE_SECONDS, Weight.STATES)


def test_words_wait_for_the_next_minute() -> None:
    budget = WriteBudget(0)
    budget.spend(0)
    assert not budget.allows(59, Weight.WORDS)
    assert budget.allows(60, Weight.WORDS)


def test_nothing_new_is_never_written() -> None:
    assert not WriteBudget(0).allows(1000, Weight.NONE)
