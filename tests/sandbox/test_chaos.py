"""The plan of the chaos bench: complete where it says so, pairwise elsewhere, and the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramen.app import ActionKind
from sandbox import holding
from sandbox.chaos.plan import COMPLETE, LOST_HISTORY, PARTS, Result, Row, State, Step, batches, counts, plan
from sandbox.chaos.table import report, table
from sandbox.holding import Hold

STEPS = [
    Step(action=action, where="action", number=number, activity="apply_vrg", summary="Promote", seconds=6)
    for action in ActionKind
    for number in (1, 2, 3)
]


def test_every_step_meets_each_worker_each_api_server_and_temporal_killed() -> None:
    rows = {(row.step, row.part) for row in plan(STEPS, 1) if row.fault == "kill"}
    assert {(step.id, part) for step in STEPS for part in (*COMPLETE, "Temporal")} <= rows


def test_every_step_meets_every_part() -> None:
    rows = {(row.step, row.part) for row in plan(STEPS, 1)}
    assert rows == {(step.id, part) for step in STEPS for part in PARTS}


def test_every_part_is_broken_in_each_of_its_ways() -> None:
    ways: dict[str, set[str]] = {}
    for row in plan(STEPS, 1):
        ways.setdefault(row.part, set()).add(row.fault)
    expected = {"site": {"lose", "cut off"}, "network": {"cut off"}}
    usual = {part: expected.get(part.split()[0], {"kill", "freeze"}) for part in PARTS}
    assert ways == usual | {LOST_HISTORY: {"lose"}}


def test_every_step_meets_a_frozen_part_and_a_frozen_store_or_worker() -> None:
    frozen = {row.step for row in plan(STEPS, 1) if row.fault == "freeze"}
    assert frozen == {step.id for step in STEPS}


def test_a_seed_gives_one_plan() -> None:
    assert plan(STEPS, 4) == plan(STEPS, 4)
    assert plan(STEPS, 4) != plan(STEPS, 5)


def test_a_batch_breaks_one_part_and_has_each_step_once() -> None:
    rows = plan(STEPS, 1)
    found = batches(rows, 4)
    assert sorted(row.id for batch in found for row in batch) == sorted(row.id for row in rows)
    for batch in found:
        assert len(batch) <= 4
        assert len({(row.part, row.fault) for row in batch}) == 1
        assert len({row.step for row in batch}) == len(batch)


def test_batches_of_one_part_are_of_about_one_size() -> None:
    rows = [row for row in plan(STEPS, 1) if (row.part, row.fault) == ("Temporal", "kill")]
    assert {len(batch) for batch in batches(rows, len(rows) - 1)} <= {len(rows) // 2, (len(rows) + 1) // 2}


@pytest.mark.parametrize(
    ("verdicts", "code"), [(["passed", "failed"], 1), (["passed", "not run"], 3), (["passed"] * 999, 0)]
)
def test_the_exit_code_says_whether_a_row_failed_or_was_not_run(tmp_path: Path, verdicts: list[str], code: int) -> None:
    rows = plan(STEPS[:1], 1)
    results = {
        row.id: Result.model_validate({"verdict": verdict}) for row, verdict in zip(rows, verdicts, strict=False)
    }
    path = tmp_path / "chaos.json"
    State(seed=1, steps=STEPS[:1], results=results).save(path)
    assert report(path) == code


def test_the_table_counts_and_names_what_failed() -> None:
    row = Row(step=STEPS[0].id, part="Temporal", fault="kill", when="before")
    state = State(seed=1, steps=STEPS, results={row.id: Result(verdict="failed", detail="a write was lost")})
    assert counts(state, [row]) == {"passed": 0, "failed": 1, "not run": 0}
    assert "a write was lost" in table(state, [row])


def test_the_table_says_on_which_commits_its_rows_were_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = plan(STEPS[:1], 1)
    passed = [Result(verdict="passed", commit=commit) for commit in ("abc", "abc", "def-dirty", "")]
    results = dict(zip([row.id for row in rows], [*passed, Result(verdict="not run", commit="abc")], strict=False))
    State(seed=1, steps=STEPS[:1], results=results).save(tmp_path / "chaos.json")
    report(tmp_path / "chaos.json")
    assert "rows by commit: abc 2, def-dirty 1, unknown 1" in capsys.readouterr().out


def test_every_step_meets_a_lost_history() -> None:
    assert {row.step for row in plan(STEPS, 1) if row.part == LOST_HISTORY} == {step.id for step in STEPS}


def test_a_hold_is_released_and_says_who_stands_in_it(tmp_path: Path) -> None:
    hold = Hold(workflow_id="drpc/web/shop/failover-2", activity_id="3")
    holding.place(tmp_path, hold)
    assert hold.path(tmp_path).exists()
    assert holding.holder(tmp_path, hold) is None
    hold.path(tmp_path).with_name(f"{hold.path(tmp_path).name}.held").write_text("dr1")
    assert holding.holder(tmp_path, hold) == "dr1"
    holding.release(tmp_path, hold)
    assert not hold.path(tmp_path).exists()
