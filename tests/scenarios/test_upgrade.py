"""New workers take over from old ones while actions are in flight: an earlier commit runs first, then this one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sandbox import faults
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from sandbox.processes import Spec
from tests.scenarios.checks import Story
from workflows.inputs import Outcome

ROOT = Path(__file__).parents[2]

CODE = ("ramen", "activities", "workflows", "worker")
"""What a worker consists of; the commit before the last change to it is the old release."""

FROM = "HUBLESS_UPGRADE_FROM"
"""Variable: another commit or tag to upgrade from."""

RUN = "from worker.main import main; main(None)"


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the old release in a directory of its own; no checkout is touched."""
    try:
        commit = os.environ.get(FROM) or f"{_git('log', '-1', '--format=%H', '--', *CODE).decode().strip()}~1"
        archive = _git("archive", commit, *CODE)
    except (subprocess.CalledProcessError, FileNotFoundError) as err:
        pytest.skip(f"no earlier commit to upgrade from: {err}")
    directory = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        found.extractall(directory, filter="data")
    return directory


def _old(sandbox: Sandbox, cluster: str, code: Path) -> Spec:
    """The worker of a cluster, run from the old code; -P keeps the present directory out of the way."""
    usual = sandbox.worker_spec(cluster)
    return usual.model_copy(
        update={"argv": [sys.executable, "-P", "-c", RUN], "env": {**usual.env, "PYTHONPATH": str(code)}}
    )


@pytest.mark.parametrize(
    ("verb", "fault"),
    [
        pytest.param("failover", {"promotion": {"dr2": "hang"}}, marks=pytest.mark.matrix),
        pytest.param("relocate", {"demotion": {"dr1": "hang"}}, marks=pytest.mark.matrix),
    ],
)
async def test_new_workers_finish_what_old_ones_began(
    driver: Driver, sandbox: Sandbox, application: Application, old_code: Path, verb: str, fault: dict[str, object]
) -> None:
    for cluster in driver.clusters:
        await sandbox.processes.start(_old(sandbox, cluster, old_code))
    try:
        story = await Story.begin(driver, application)
        faults.save(sandbox.directory, faults.Faults.model_validate(fault))
        answer = await driver.move(verb, application, "dr2")
        await driver.until(lambda: _is_at_work(driver, answer.workflow_id), "the action to be in the middle")
    finally:
        # One after the other, as a rollout does it; the first new worker meets what the last old one leaves.
        for cluster in driver.clusters:
            await sandbox.processes.start(sandbox.worker_spec(cluster))
    faults.save(sandbox.directory, faults.Faults())
    assert (await driver.ended(answer)).outcome is Outcome.DONE
    await story.settled("dr2")
    await story.nothing_old_was_lost()
    await story.move("relocate", "dr1")
    await story.settled("dr1")


async def _is_at_work(driver: Driver, workflow_id: str) -> bool:
    waiting = (await driver.hubless.steps(workflow_id)).waiting
    return waiting is not None and ("promote" in waiting.reason or "Secondary role" in waiting.reason)
