"""The runbook of docs/without-temporal.md, run as it stands, with Temporal and the workers stopped."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ramen.epoch import Epoch
from sandbox import sites
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from starter.failures import Refused
from tests.scenarios.checks import REST_SECONDS, Story

RUNBOOK = Path(__file__).parents[2] / "docs" / "without-temporal.md"
BLOCK = re.compile(r"<!-- runbook: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
BLOCKS = dict(BLOCK.findall(RUNBOOK.read_text()))

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.sandbox,
    pytest.mark.timeout(420),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="the runbook is for kubectl, which is not installed"),
]


async def attempt(block: str, sandbox: Sandbox, application: Application) -> subprocess.CompletedProcess[str]:
    """Runs one block in a plain bash with the variables that the page asks for."""
    state = sandbox.state
    return await asyncio.to_thread(
        subprocess.run,
        ["bash", "-c", BLOCKS[block]],
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


async def run(block: str, sandbox: Sandbox, application: Application) -> str:
    """Runs one block that has to succeed; its standard output."""
    done = await attempt(block, sandbox, application)
    assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}"
    return done.stdout


async def test_failover_with_kubectl_alone(driver: Driver, sandbox: Sandbox, application: Application) -> None:
    story = await Story.begin(driver, application)
    for name in ("temporal", "dr1-worker", "dr2-worker"):
        await sandbox.processes.kill(name)
    await sites.lose(sandbox, "dr1")

    assert (await run("look", sandbox, application)).startswith("secondary Secondary")
    refused = await attempt("decide", sandbox, application)
    assert refused.returncode != 0, "no decision for a target that is not Primary"
    story.asked = time.time()
    await run("promote", sandbox, application)
    ready = await run("wait", sandbox, application)
    assert all(f"{claim} is Bound" in ready for claim in application.claim_names)
    await run("decide", sandbox, application)
    await story.serves("dr2")
    await story.nothing_old_was_lost()

    await sites.give_back(sandbox, "dr1")
    await sandbox.processes.kill("dr1-worker")
    refused = await attempt("release", sandbox, application)
    assert refused.returncode != 0, "the old workload stays until its side accepted the Secondary role"
    assert await driver.claims(application, "dr1") == application.claim_names
    await run("demote", sandbox, application)
    await run("release", sandbox, application)
    assert await driver.claims(application, "dr1") == []
    await run("upload", sandbox, application)
    await _at_rest(driver, application)

    for name in ("temporal", "dr1-worker", "dr2-worker"):
        await sandbox.processes.start_again(name)
    for answer in ("which was not issued here", "driven by somebody else"):
        with pytest.raises(Refused, match=answer):
            await driver.move("failover", application, "dr1")
    await story.serves("dr2")
    await _at_rest(driver, application)


async def test_an_epoch_of_an_action_that_temporal_lost_in_the_middle_is_passed(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    await Story.begin(driver, application)
    for name in ("temporal", "dr1-worker", "dr2-worker"):
        await sandbox.processes.kill(name)
    for block in ("promote", "wait", "decide"):
        await run(block, sandbox, application)
    promoted = Epoch.of(await driver.vrg(application, "dr2"))
    assert promoted is not None
    await _claim(sandbox, application, "dr1", Epoch(number=promoted.number, token="0f"))
    for block in ("demote", "release"):
        await run(block, sandbox, application)
    old, new = [Epoch.of(await driver.vrg(application, cluster)) for cluster in driver.clusters]
    assert old == new
    assert new is not None
    assert new.number == promoted.number + 1


async def _claim(sandbox: Sandbox, application: Application, cluster: str, epoch: Epoch) -> None:
    """Stamps an epoch as an action does that came no further."""
    words = ["annotate", "--overwrite", "vrg", application.name, f"hubless.io/epoch={epoch}", "-n", "web"]
    kubeconfig = str(sandbox.state.kubeconfig(cluster))
    done = await asyncio.to_thread(
        subprocess.run, ["kubectl", "--kubeconfig", kubeconfig, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


async def _at_rest(driver: Driver, application: Application) -> None:
    """One epoch on both sides, dr1 Secondary without the application, and no write on one side only."""
    old, new = [await driver.vrg(application, cluster) for cluster in ("dr1", "dr2")]
    assert old is not None
    assert new is not None
    assert (old["spec"]["replicationState"], new["spec"]["replicationState"]) == ("secondary", "primary")
    assert Epoch.of(old) == Epoch.of(new)
    assert (await driver.pods(application, "dr1")).total == 0

    async def equal() -> bool:
        ledger = driver.ledger()
        try:
            return ledger.divergence(application.namespace, application.name).total == 0
        finally:
            ledger.close()

    await driver.until(equal, "both sides to be equal at rest", REST_SECONDS)
