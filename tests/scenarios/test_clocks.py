"""An array whose clock is wrong: what it dates are the syncs, and by them a copy is proven."""

from __future__ import annotations

import asyncio

import pytest

from sandbox import faults
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from tests.scenarios.checks import Story
from workflows.inputs import Outcome

CLOCK_SECONDS = 600

UNPROVEN_SECONDS = 6
"""Some syncs of one second each, had there been any."""


@pytest.mark.matrix
@pytest.mark.parametrize("seconds", [CLOCK_SECONDS, -CLOCK_SECONDS], ids=["ahead", "behind"])
async def test_an_array_whose_clock_is_wrong(
    driver: Driver, sandbox: Sandbox, application: Application, seconds: int
) -> None:
    """D16: re-protected is claimed when a sync began after serving, neither before nor never."""
    faults.save(sandbox.directory, faults.Faults(array_clock=seconds))
    story = await Story.begin(driver, application)
    faults.save(sandbox.directory, faults.Faults(array_clock=seconds, replication="paused"))
    assert (await story.move("failover", "dr2")).outcome is Outcome.DONE
    await story.serves("dr2")
    await asyncio.sleep(UNPROVEN_SECONDS)
    action = (await driver.status(application)).state.action
    assert action is not None
    assert action.reprotected_at is None, "no sync has begun since the promotion"
    faults.save(sandbox.directory, faults.Faults(array_clock=seconds))
    await story.settled("dr2")
    await story.nothing_old_was_lost()
    assert (await story.move("relocate", "dr1")).outcome is Outcome.DONE
    await story.settled("dr1")
    await story.nothing_was_lost()
