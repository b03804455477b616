"""A condition counts when it is True at its object's generation; its time moves with status and generation."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ramen.conditions import Condition, find, is_met, set_condition

BEFORE = "2026-11-23T14:00:00Z"
NOW = datetime(2026, 11, 23, 14, 3, 7, 900_000, tzinfo=UTC)
NOW_TEXT = "2026-11-23T14:03:07Z"


def condition(**changes: object) -> Condition:
    fields = {
        "type": "DataReady",
        "status": "True",
        "reason": "Ready",
        "message": "m",
        "observedGeneration": 3,
        "lastTransitionTime": BEFORE,
    }
    return Condition.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("conditions", "generation", "met"),
    [
        pytest.param([condition()], 3, True, id="True at the generation counts"),
        pytest.param(
            [condition(observedGeneration=2)], 3, False, id="a condition of an older generation does not count"
        ),
        pytest.param(
            [condition(observedGeneration=4)], 3, False, id="a condition of a newer generation does not count"
        ),
        pytest.param([condition(status="False")], 3, False, id="False does not count"),
        pytest.param([condition(status="Unknown")], 3, False, id="Unknown does not count"),
        pytest.param([], 3, False, id="a missing condition does not count"),
        pytest.param([condition(type="DataProtected")], 3, False, id="another type does not count"),
        pytest.param(
            [condition(observedGeneration=None)], 3, False, id="a condition without a generation does not count"
        ),
        pytest.param([condition(observedGeneration=None)], None, False, id="no generation on both sides is no match"),
    ],
)
def test_is_met(conditions: list[Condition], generation: int | None, met: bool) -> None:
    assert is_met(conditions, "DataReady", generation) is met


def test_find_takes_the_condition_of_that_type() -> None:
    wanted = condition(type="B")
    assert find([condition(type="A"), wanted], "B") is wanted
    assert find([], "B") is None


@pytest.mark.parametrize(
    ("changes", "time", "changed"),
    [
        pytest.param({}, BEFORE, False, id="nothing new, nothing changes"),
        pytest.param({"status": "False"}, NOW_TEXT, True, id="another status moves the time"),
        pytest.param({"observedGeneration": 4}, NOW_TEXT, True, id="another generation moves the time"),
        pytest.param({"reason": "Other"}, BEFORE, True, id="another reason alone does not move the time"),
        pytest.param({"message": "other"}, BEFORE, True, id="another message alone does not move the time"),
    ],
)
def test_set_condition_over_an_old_one(changes: dict[str, object], time: str, changed: bool) -> None:
    conditions = [condition()]
    assert set_condition(conditions, condition(lastTransitionTime="", **changes), NOW) is changed
    assert conditions == [condition(**{"lastTransitionTime": time} | changes)]


def test_set_condition_keeps_the_order_because_a_column_reads_peer_ready_by_index() -> None:
    conditions = [condition(type="Available"), condition(type="PeerReady"), condition(type="Protected")]
    set_condition(conditions, condition(type="PeerReady", status="False"), NOW)
    assert [one.type for one in conditions] == ["Available", "PeerReady", "Protected"]


def test_set_condition_adds_a_new_one_with_all_that_the_api_server_requires() -> None:
    conditions: list[Condition] = []
    assert set_condition(conditions, Condition(type="Available", status="True"), NOW)
    assert conditions[0].model_dump() == {
        "type": "Available",
        "status": "True",
        "reason": "none",
        "message": "none",
        "lastTransitionTime": NOW_TEXT,
    }


def test_set_condition_leaves_the_given_condition_alone() -> None:
    given = Condition(type="Available", status="True", reason="Ready")
    set_condition([], given, NOW)
    assert given.last_transition_time == ""
