"""Temporal comes back without its histories, on real servers: `hubless adopt` holds what runs and finishes the rest."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest
from temporalio.client import RPCError

from activities.contracts import MirrorSeen, ReadMirror
from ramen import names
from ramen.app import AppRef
from ramen.recovery import Verdict
from sandbox import faults, sites
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from starter.failures import Refused, Stopped
from tests.scenarios.checks import Story
from workflows.inputs import AdoptRequest, AdoptResult, Outcome


async def adopt(driver: Driver, application: Application, **more: str | bool) -> AdoptResult:
    """Adopts as the command line does after consent; the workers may need a moment to meet the new Temporal."""
    request = AdoptRequest(
        app=AppRef(namespace=application.namespace, name=application.name), consent=True, requester="sandbox", **more
    )
    async with asyncio.timeout(180):
        while True:
            try:
                return await driver.hubless.adopt(request)
            except Refused:
                raise
            except (Stopped, RPCError):
                await asyncio.sleep(0.5)


async def test_an_idle_application_is_held_again_without_touching_it(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    before = await driver.vrg(application, "dr1")
    assert before is not None
    await sites.lose_history(sandbox)
    held = await adopt(driver, application)
    assert (held.inference.verdict, held.inference.serving) == (Verdict.ADOPT, "dr1")
    await story.settled("dr1")
    after = await driver.vrg(application, "dr1")
    assert after is not None
    assert after["metadata"]["generation"] == before["metadata"]["generation"], "the serving VRG's spec is as it was"
    await story.move("failover", "dr2")
    await story.settled("dr2")
    await story.nothing_old_was_lost()
    with pytest.raises(Refused, match="nothing to adopt"):
        await adopt(driver, application)


async def proof_is_stored(driver: Driver, application: Application) -> bool:
    """Whether the stores know that the peer's copy is good; they are told right after the entity knows it."""
    app = AppRef(namespace=application.namespace, name=application.name)
    seen: MirrorSeen = await driver.hubless.client.execute_activity(
        "read_mirror",
        ReadMirror(app=app),
        id=f"test/{uuid.uuid4().hex}",
        task_queue=names.CONTROL_QUEUE,
        result_type=MirrorSeen,
        start_to_close_timeout=timedelta(seconds=10),
    )
    return bool((seen.state or {}).get("observed", {}).get("protected"))


@pytest.mark.matrix
async def test_temporal_and_a_site_are_lost_together(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    await driver.until(lambda: proof_is_stored(driver, application), "the stores to know of the good copy")
    await sites.lose(sandbox, "dr1")
    await sites.lose_history(sandbox)
    held = await adopt(driver, application)
    assert (held.inference.verdict, held.inference.serving) == (Verdict.ADOPT, "dr1")
    assert (await story.move("failover", "dr2")).outcome is Outcome.DONE
    await story.serves("dr2")
    await story.nothing_old_was_lost()
    await sites.give_back(sandbox, "dr1")
    await story.settled("dr2")


async def test_a_failover_that_was_cut_off_is_finished(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    faults.save(sandbox.directory, faults.Faults(promotion={"dr2": "hang"}))
    await driver.move("failover", application, "dr2")
    await driver.until(lambda: _is(driver, application, "dr2", "primary"), "dr2 to be asked to be primary")
    await sites.lose_history(sandbox)
    faults.save(sandbox.directory, faults.Faults())
    held = await adopt(driver, application)
    assert (held.inference.verdict, held.inference.serving) == (Verdict.FINISH, "dr2")
    assert (await driver.hubless.result(held.workflow_id)).outcome is Outcome.DONE
    await story.settled("dr2")
    await story.nothing_old_was_lost()


@pytest.mark.matrix
async def test_a_relocate_that_was_cut_off_brings_its_source_back(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    faults.save(sandbox.directory, faults.Faults(demotion={"dr1": "hang"}))
    await driver.move("relocate", application, "dr2")
    await driver.until(lambda: _is(driver, application, "dr1", "secondary"), "dr1 to be demoted")
    await sites.lose_history(sandbox)
    faults.save(sandbox.directory, faults.Faults())
    held = await adopt(driver, application)
    assert (held.inference.verdict, held.inference.serving) == (Verdict.BRING_BACK, "dr1")
    assert (await driver.hubless.result(held.workflow_id)).outcome is Outcome.DONE
    await story.settled("dr1")
    await story.move("relocate", "dr2")
    await story.settled("dr2")
    await story.nothing_was_lost()


async def _is(driver: Driver, application: Application, cluster: str, role: str) -> bool:
    vrg = await driver.vrg(application, cluster)
    return vrg is not None and vrg["spec"]["replicationState"] == role
