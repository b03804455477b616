"""Stored histories of every action still replay: a change of workflow code must not break what runs.

`tests/histories/<version>/` holds the histories of `test_moves.py`, `test_adopt.py` and `test_release.py` as that
version ran them, over a world in memory. After a release of Hubless, with these three files as arguments:
HUBLESS_RECORD_HISTORIES=tests/histories/<version> python -m pytest
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from ramen.app import ActionKind
from workflows.registry import WORKFLOWS, sandbox_runner

STORED = sorted((Path(__file__).parents[1] / "histories").glob("*/*.json"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_replay(path: Path) -> None:
    history = WorkflowHistory.from_json(path.stem, path.read_text())
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter, workflow_runner=sandbox_runner())
    await replayer.replay_workflow(history)


def test_every_workflow_has_a_stored_history() -> None:
    types = set()
    for path in STORED:
        first = json.loads(path.read_text())["events"][0]
        types.add(first["workflowExecutionStartedEventAttributes"]["workflowType"]["name"])
    assert types == {"DRPlacementControl", "Adopt", *(kind.value for kind in ActionKind)}
