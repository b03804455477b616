"""The runbook of docs/without-temporal.md, run as it stands, with Temporal and the workers stopped."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from sandbox import sites
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from tests.scenarios.checks import Story

RUNBOOK = Path(__file__).parents[2] / "docs" / "without-temporal.md"
BLOCK = re.compile(r"<!-- runbook: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)


def run(block: str, sandbox: Sandbox, application: Application) -> str:
    """Runs one block with the variables that the page asks for; its standard output."""
    state = sandbox.state
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", dict(BLOCK.findall(RUNBOOK.read_text()))[block]],
        env={
            **os.environ,
            "NS": application.namespace,
            "NAME": application.name,
            "PLACEMENT": application.placement,
            "OLD": "dr1",
            "TARGET": "dr2",
            "OLD_KUBECONFIG": str(state.kubeconfig("dr1")),
            "TARGET_KUBECONFIG": str(state.kubeconfig("dr2")),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{block}: {done.stderr}"
    return done.stdout


@pytest.mark.matrix
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="the runbook is for kubectl, which is not installed here")
async def test_the_runbook_fails_over_with_kubectl_alone(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    for name in ("temporal", "dr1-worker", "dr2-worker"):
        await sandbox.processes.kill(name)
    await sites.lose(sandbox, "dr1")
    assert run("look", sandbox, application).startswith("secondary Secondary")
    story.asked = time.time()
    run("promote", sandbox, application)
    ready = run("wait", sandbox, application)
    assert all(claim in ready for claim in application.claim_names)
    run("decide", sandbox, application)
    await story.serves("dr2")
    await story.nothing_old_was_lost()
    await sites.give_back(sandbox, "dr1")
    for cluster in driver.clusters:
        await sandbox.processes.kill(f"{cluster}-worker")
    run("demote", sandbox, application)
    run("release", sandbox, application)
    assert await driver.claims(application, "dr1") == []
