"""What can be broken at which step: the rows of a run, and what became of each."""

from __future__ import annotations

import math
import os
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from ramen.app import ActionKind
from sandbox.holding import When

BRIEF_SECONDS = 2.0
"""Limit of a look that is no gate: who is held in one gives up soon, so it is asked for last."""

Fault = Literal["kill", "freeze", "lose", "cut off"]
Verdict = Literal["passed", "failed", "not run"]
Where = Literal["entity", "action"]

LOST_HISTORY = "Temporal with its history"
"""Comes back empty at once; every application, of the row or not, is then adopted with a person's consent."""

COMPLETE = ("worker of the source", "worker of the target", "API server of the source", "API server of the target")
PARTS: dict[str, tuple[str, ...]] = {
    "worker of the source": ("{source}-worker",),
    "worker of the target": ("{target}-worker",),
    "both workers": ("{source}-worker", "{target}-worker"),
    "API server of the source": ("{source}-apiserver",),
    "API server of the target": ("{target}-apiserver",),
    "Temporal": ("temporal",),
    "store of the source": ("{source}-s3",),
    "store of the target": ("{target}-s3",),
    "both stores": ("{source}-s3", "{target}-s3"),
    "site of the source": (),
    "site of the target": (),
    "network from the source to the target": (),
    "network from the target to the source": (),
    LOST_HISTORY: (),
}
"""Processes of each part; `source` is where the application serves before the action. Sites: `sandbox.sites`. The
network between the clusters in one direction: what that side's worker has to do with the other's API server."""


class Step(BaseModel):
    """One activity of an action, as an undisturbed run showed it."""

    action: ActionKind
    where: Where
    """`entity`: scheduled by the application's workflow for this action; `action`: by the action's own."""
    number: int
    """Place among the activities of its workflow since the action was asked for, from 1."""
    activity: str
    summary: str
    seconds: float
    """Its limit from start to close."""

    @property
    def patience(self) -> str:
        """How long its action stays there while it is held; a key of `HOLD_SECONDS`."""
        if self.seconds < BRIEF_SECONDS:
            return "brief"
        late = self.activity in ("mirror_state", "append_history", "release_lock")
        return "patient" if self.where == "action" or late else "handler"

    @property
    def id(self) -> str:
        """Short name in the table and in the state file."""
        return f"{self.action.value}/{self.where}-{self.number:02d}-{self.activity}"


class Row(BaseModel):
    """One step, and one fault of one part at it."""

    step: str
    part: str
    fault: Fault
    when: When

    @property
    def id(self) -> str:
        """Key in the state file."""
        return f"{self.step} | {self.part} | {self.fault} | {self.when}"


class Result(BaseModel):
    """What became of a row."""

    verdict: Verdict
    detail: str = ""
    outcome: str = ""
    took: float = 0.0
    """Seconds from the fault to everything at rest."""
    held_by: str = ""
    """Cluster of the worker in which the step stood."""
    commit: str = ""
    """Code that ran, as `git describe` names it; a table of several commits shows less than one of one."""


class State(BaseModel):
    """All that a later run needs to go on."""

    seed: int
    steps: list[Step] = []
    results: dict[str, Result] = {}

    def save(self, path: Path) -> None:
        """Replaces the file in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(self.model_dump_json(indent=1))
        os.replace(temporary, path)


def plan(steps: list[Step], seed: int) -> list[Row]:
    """Every row, in the order in which they are run; the same seed gives the same rows.

    Complete: each step times {each worker, each API server, Temporal} killed. The rest is drawn so that each step meets
    each other part once with one of its faults, and a frozen worker, API server or Temporal once: all pairs of step
    and part, step and fault, part and fault, with the side of the step (before, after) drawn anew each time.
    """
    chance = random.Random(seed)
    rows: list[Row] = []

    def add(step: Step, part: str, fault: Fault) -> None:
        when: When = chance.choice(("before", "after"))
        # The lock is held for as long as the action works: after it there is nothing left to stand at.
        when = "before" if step.activity == "hold_lock" else when
        rows.append(Row(step=step.id, part=part, fault=fault, when=when))

    for part in (*COMPLETE, "Temporal"):
        for step in steps:
            add(step, part, "kill")
    frozen = (*COMPLETE, "Temporal")
    for number, step in enumerate(steps):
        add(step, frozen[(number + seed) % len(frozen)], "freeze")
        add(step, "both workers", ("kill", "freeze")[(number + seed) % 2])
        for part in ("store of the source", "store of the target", "both stores"):
            add(step, part, chance.choice(("kill", "freeze")))
        for part in ("site of the source", "site of the target"):
            add(step, part, chance.choice(("lose", "cut off")))
        for part in PARTS:
            if part.startswith("network"):
                add(step, part, "cut off")
        add(step, LOST_HISTORY, "lose")
    return rows


def batches(rows: list[Row], size: int) -> list[list[Row]]:
    """Rows that run at once: one fault of one part, every step at most once, no more than `size`, and about as many
    in each batch, because one row takes nearly as long as many."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.part, row.fault), []).append(row)
    found = []
    for group in groups.values():
        number = math.ceil(len(group) / size)
        cuts = [len(group) * at // number for at in range(number + 1)]
        found += [group[first:last] for first, last in pairwise(cuts)]
    return found


def commits(state: State, rows: list[Row]) -> dict[str, int]:
    """How many rows were run on which commit, most rows first."""
    found = Counter(result.commit or "unknown" for row in rows if (result := _ran(state, row)))
    return dict(found.most_common())


def _ran(state: State, row: Row) -> Result | None:
    result = state.results.get(row.id)
    return result if result and result.verdict != "not run" else None


def counts(state: State, rows: list[Row]) -> dict[Verdict, int]:
    """How many rows passed, failed, and were not run."""
    found: dict[Verdict, int] = {"passed": 0, "failed": 0, "not run": 0}
    for row in rows:
        result = state.results.get(row.id)
        found[result.verdict if result else "not run"] += 1
    return found
