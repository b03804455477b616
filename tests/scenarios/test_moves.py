"""Deploy, failover and relocate on real servers; the ledger of writes says what was kept.

Each scenario is there twice: undisturbed, and with a worker killed in the middle of every action.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import cycle

import pytest
from pydantic import BaseModel

from activities.access.s3 import S3Store
from ramen import names
from ramen.kinds import PVC
from sandbox import faults, sites
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from sandbox.processes import ProcessFailed
from starter.client import Hubless
from starter.failures import Refused
from tests.conftest import mend
from tests.scenarios.checks import Story
from workflows.inputs import Answer, Outcome


class KillingDriver(Driver):
    """Kills a worker right after each action was accepted, the clusters' in turn, and starts it again."""

    def __init__(self, sandbox: Sandbox, hubless: Hubless) -> None:
        super().__init__(sandbox, hubless)
        self._victims = cycle([f"{cluster}-worker" for cluster in self.clusters])
        self._starts: list[asyncio.Task[None]] = []

    async def protect(self, application: Application, cluster: str) -> Answer:
        answer = await super().protect(application, cluster)
        await self._kill()
        return answer

    async def _ask(self, verb: str, application: Application, request: BaseModel, request_id: str) -> Answer:
        answer = await super()._ask(verb, application, request, request_id)
        await self._kill()
        return answer

    async def _kill(self) -> None:
        victim = next(self._victims)
        if await self.sandbox.processes.kill(victim):
            self._starts.append(asyncio.create_task(self._start(victim)))

    async def _start(self, worker: str) -> None:
        with contextlib.suppress(ProcessFailed):  # its site was lost meanwhile; it comes back with it
            await self.sandbox.processes.start_again(worker)

    async def close(self) -> None:
        await asyncio.gather(*self._starts)
        await super().close()


@pytest.fixture(params=["undisturbed", pytest.param("worker killed", marks=pytest.mark.matrix)])
async def driver(sandbox: Sandbox, request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    """A driver of the sandbox, or one that kills workers; whatever the test broke is mended after it."""
    found = (Driver if request.param == "undisturbed" else KillingDriver)(sandbox, await Hubless.connect())
    try:
        yield found
    finally:
        await mend(sandbox)
        await found.close()


async def test_deploy(driver: Driver, application: Application) -> None:
    story = await Story.begin(driver, application)
    await story.settled("dr1")


async def test_failover_with_the_source_alive_and_relocate_home(driver: Driver, application: Application) -> None:
    story = await Story.begin(driver, application)
    result = await story.move("failover", "dr2")
    assert result.outcome is Outcome.DONE
    await story.settled("dr2")
    await story.nothing_old_was_lost()
    await story.move("relocate", "dr1")
    await story.settled("dr1")
    await story.nothing_was_lost()


async def test_failover_with_the_source_dead_and_returning_later(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    await sites.lose(sandbox, "dr1")
    await story.move("failover", "dr2")
    await story.serves("dr2")
    await story.nothing_old_was_lost()
    status = await driver.status(application)
    assert status.state.action is not None
    assert status.state.action.cleaned_at is None, "an unreachable side is never cleaned"
    await sites.give_back(sandbox, "dr1")
    await story.settled("dr2")


@pytest.mark.matrix
async def test_failover_with_the_source_cut_off_but_still_writing(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    await sites.cut_off(sandbox, "dr1")
    await story.move("failover", "dr2")
    await story.serves("dr2")
    await sites.give_back(sandbox, "dr1")
    await story.settled("dr2")
    figures = await story.nothing_old_was_lost()
    assert figures.orphaned > 0, "what the old side wrote out of reach is counted, not denied"


@pytest.mark.matrix
async def test_failover_whose_source_dies_in_the_middle(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    faults.save(sandbox.directory, faults.Faults(promotion={"dr2": "hang"}))
    answer = await driver.move("failover", application, "dr2")
    await driver.until(lambda: _is(driver, application, "dr2", "primary"), "dr2 to be asked to be primary")
    await sites.lose(sandbox, "dr1")
    now = faults.load(sandbox.directory)
    faults.save(sandbox.directory, now.model_copy(update={"promotion": {}}))
    assert (await driver.ended(answer)).outcome is Outcome.DONE
    await sites.give_back(sandbox, "dr1")
    await story.settled("dr2")


async def test_failover_back_while_the_target_restores_leaves_nothing_there(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """GitOps never placed anything on dr2, so nobody else takes away the PVCs that were restored there."""
    story = await Story.begin(driver, application)
    faults.save(sandbox.directory, faults.Faults(promotion={"dr2": "hang"}))
    first = await driver.move("failover", application, "dr2")

    async def restored() -> bool:
        return len(await driver.claims(application, "dr2")) == len(application.claim_names)

    await driver.until(restored, "the PVCs to be restored on dr2")
    back = await driver.move("failover", application, "dr1")
    assert (await driver.ended(first)).outcome is Outcome.SUPERSEDED
    faults.save(sandbox.directory, faults.Faults())
    assert (await driver.ended(back)).outcome is Outcome.DONE
    await story.settled("dr1")


async def test_failover_back_before_reprotected_is_refused_and_accepted_with_loss(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    faults.save(sandbox.directory, faults.Faults(resync={"dr1": "hang"}))
    await story.move("failover", "dr2")
    await story.serves("dr2")
    await driver.until(lambda: _is_demoted(driver, application, "dr1"), "dr1 to be demoted")
    with pytest.raises(Refused, match="--accept-data-loss"):
        await driver.move("failover", application, "dr1")
    faults.save(sandbox.directory, faults.Faults())
    await story.move("failover", "dr1", accept_data_loss=True)
    await story.settled("dr1")


async def test_failover_with_an_empty_store_is_refused_and_changes_nothing(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    for cluster in driver.clusters:
        await _empty(sandbox, cluster, application)
    before = [await driver.vrg(application, cluster) for cluster in driver.clusters]
    with pytest.raises(Refused, match=application.claim_names[0]):
        await driver.move("failover", application, "dr2")
    after = [await driver.vrg(application, cluster) for cluster in driver.clusters]
    assert [v and v["metadata"]["generation"] for v in before] == [v and v["metadata"]["generation"] for v in after]
    await story.serves("dr1")


async def test_failover_with_a_volume_missing_is_refused_and_goes_on_without_it(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    missing = application.claim_names[0]
    volumes = (await driver.status(application)).state.volumes
    pv = next(volume.pv for volume in volumes if volume.name == missing)
    for cluster in driver.clusters:
        await _empty(sandbox, cluster, application, only=(missing, pv))
    with pytest.raises(Refused, match=missing):
        await driver.move("failover", application, "dr2")
    result = await story.move("failover", "dr2", accept_missing_volumes=[missing])
    assert result.outcome is Outcome.DONE
    assert missing not in [volume.name for volume in result.volumes]


async def test_failover_with_no_store_is_refused_and_names_them(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    await Story.begin(driver, application)
    for cluster in driver.clusters:
        await sandbox.processes.kill(f"{cluster}-s3")
    with pytest.raises(Refused, match="s3-dr1"):
        await driver.move("failover", application, "dr2")


async def test_promotion_that_hangs_then_abort_then_failover(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    faults.save(sandbox.directory, faults.Faults(promotion={"dr2": "hang"}))
    answer = await driver.move("failover", application, "dr2")
    await driver.until(lambda: _is(driver, application, "dr2", "primary"), "dr2 to be asked to be primary")
    await driver.say("abort", application, reason="it hangs")
    assert (await driver.ended(answer)).outcome is Outcome.ABORTED
    faults.save(sandbox.directory, faults.Faults())
    await story.settled("dr1")
    await story.move("failover", "dr2")
    await story.settled("dr2")


async def test_relocate_is_refused_while_a_cluster_is_down(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    await Story.begin(driver, application)
    await sites.lose(sandbox, "dr1")
    with pytest.raises(Refused, match=f"hubless failover {application.name} -n web --to dr2"):
        await driver.move("relocate", application, "dr2")


@pytest.mark.matrix
async def test_relocate_whose_source_dies_after_the_demotion_is_turned_into_a_failover(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    faults.save(sandbox.directory, faults.Faults(promotion={"dr2": "hang"}))
    relocate = await driver.move("relocate", application, "dr2")
    await driver.until(lambda: _is(driver, application, "dr1", "secondary"), "dr1 to be demoted")
    await sites.lose(sandbox, "dr1")
    now = faults.load(sandbox.directory)
    faults.save(sandbox.directory, now.model_copy(update={"promotion": {}}))
    result = await story.move("failover", "dr2")
    assert result.outcome is Outcome.DONE
    assert (await driver.ended(relocate)).outcome is Outcome.SUPERSEDED
    await sites.give_back(sandbox, "dr1")
    await story.settled("dr2")


@pytest.mark.matrix
@pytest.mark.parametrize("late", [False, True], ids=["at once", "with PVCs on their way out"])
async def test_relocate_whose_target_dies_before_the_promotion_is_turned_back(
    driver: Driver, sandbox: Sandbox, application: Application, late: bool
) -> None:
    """A PVC that is being deleted cannot be kept: its volume comes back from the store (vrg.md 2.2, 2.5) when the
    demotion has ended. Where the last writes had not been moved before the target died, that takes its return."""
    story = await Story.begin(driver, application)
    relocate = await _relocate_with_a_demotion_that_hangs(driver, sandbox, application, late)
    await sites.lose(sandbox, "dr2")
    back = await driver.move("failover", application, "dr1")
    assert (await driver.ended(relocate)).outcome is Outcome.SUPERSEDED
    _let_demote(sandbox)

    async def serves_or_says_why_not() -> bool:
        if await driver.serves(application, "dr1"):
            return True
        waiting = (await driver.hubless.steps(back.workflow_id)).waiting
        return waiting is not None and waiting.cluster == "dr1" and "give up the PVCs" in waiting.reason

    await driver.until(serves_or_says_why_not, "the failover to serve, or to say what it waits for")
    await sites.give_back(sandbox, "dr2")
    assert (await driver.ended(back)).outcome is Outcome.DONE
    await story.settled("dr1")
    await story.nothing_was_lost()


@pytest.mark.parametrize(
    "late", [pytest.param(False, marks=pytest.mark.matrix), True], ids=["at once", "with PVCs on their way out"]
)
async def test_relocate_whose_demotion_hangs_is_aborted(
    driver: Driver, sandbox: Sandbox, application: Application, late: bool
) -> None:
    """S5, S3: the source serves again with every write, however far its PVCs were on their way out."""
    story = await Story.begin(driver, application)
    relocate = await _relocate_with_a_demotion_that_hangs(driver, sandbox, application, late)
    await driver.say("abort", application, reason="it hangs")
    _let_demote(sandbox)
    assert (await driver.ended(relocate)).outcome is Outcome.ABORTED
    await story.settled("dr1")
    await story.nothing_was_lost()
    await story.move("relocate", "dr2")
    await story.settled("dr2")
    await story.nothing_was_lost()


async def _relocate_with_a_demotion_that_hangs(
    driver: Driver, sandbox: Sandbox, application: Application, late: bool
) -> Answer:
    """Asks for a relocate to dr2, and comes back when dr1 is to be Secondary; `late`, when its PVCs are in deletion."""
    faults.save(sandbox.directory, faults.Faults(demotion={"dr1": "hang"}))
    relocate = await driver.move("relocate", application, "dr2")
    await driver.until(lambda: _is(driver, application, "dr1", "secondary"), "dr1 to be asked to be secondary")

    async def leave() -> bool:
        labels = ",".join(f"{key}={value}" for key, value in application.labels.items())
        found, _ = await (await driver.access("dr1")).list(PVC, application.namespace, labels)
        return all("deletionTimestamp" in claim["metadata"] for claim in found)

    if late:
        await driver.until(leave, "dr1's PVCs to be on their way out")
    return relocate


def _let_demote(sandbox: Sandbox) -> None:
    now = faults.load(sandbox.directory)
    faults.save(sandbox.directory, now.model_copy(update={"demotion": {}}))


@pytest.mark.matrix
async def test_pvcs_deleted_on_the_returned_side_before_its_demotion(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    await sites.lose(sandbox, "dr1")
    await story.move("failover", "dr2")
    await story.serves("dr2")
    await sandbox.processes.kill("dr2-worker")  # nobody demotes dr1 before its PVCs are deleted
    await sites.give_back(sandbox, "dr1")
    await sandbox.processes.kill("dr1-worker")
    access = await driver.access("dr1")
    from ramen.kinds import DEPLOYMENT, PVC

    await access.delete(DEPLOYMENT, application.name, "web")
    for claim in application.claim_names:
        await access.delete(PVC, claim, "web")
    await sandbox.processes.start_again("dr2-worker")
    await sandbox.processes.start_again("dr1-worker")
    await story.settled("dr2")
    held = await _held(sandbox, "dr1", application)
    assert held == sorted(application.claim_names), "the survivor's volumes are in the store that dr1 restores from"


async def test_unprotect(driver: Driver, application: Application) -> None:
    story = await Story.begin(driver, application)
    answer = await driver.unprotect(application)
    await driver.unprotected(application)
    assert [await driver.vrg(application, cluster) for cluster in driver.clusters] == [None, None]
    await story.serves("dr1")
    again = await Story.begin(driver, application)
    epoch = (await driver.status(application)).state.epoch
    assert epoch is not None
    assert epoch.number > answer.epoch, "the epoch goes on where the tombstone left it"
    await again.settled("dr1")


@pytest.mark.matrix
async def test_unprotect_with_a_cluster_down_stays_open_until_it_returns(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    await sites.lose(sandbox, "dr2")
    answer = await driver.unprotect(application)
    await asyncio.sleep(0)
    assert await driver.vrg(application, "dr1") is not None, "the primary goes last"
    await sites.give_back(sandbox, "dr2")
    await driver.ended(answer)
    assert [await driver.vrg(application, cluster) for cluster in driver.clusters] == [None, None]
    await story.serves("dr1")


@pytest.mark.matrix
async def test_failover_and_back_twice(driver: Driver, application: Application) -> None:
    story = await Story.begin(driver, application)
    for target in ("dr2", "dr1", "dr2", "dr1"):
        await story.move("failover", target)
        await story.nothing_old_was_lost()
        await story.settled(target)


@pytest.mark.parametrize("driver", ["undisturbed"], indirect=True)
@pytest.mark.parametrize("worker", ["dr1-worker", "dr2-worker"])
@pytest.mark.parametrize(
    "verb", [pytest.param("failover", id="failover"), pytest.param("relocate", marks=pytest.mark.matrix, id="relocate")]
)
async def test_a_worker_killed_in_the_middle(
    driver: Driver, sandbox: Sandbox, application: Application, verb: str, worker: str
) -> None:
    story = await Story.begin(driver, application)
    answer = await driver.move(verb, application, "dr2")
    await sandbox.processes.kill(worker)
    await driver.ended(answer)
    await sandbox.processes.start_again(worker)
    if verb == "relocate":
        await story.nothing_was_lost()
    else:
        await story.nothing_old_was_lost()
    await story.settled("dr2")


# --- small hands ------------------------------------------------------------------------------------------------------


async def _is(driver: Driver, application: Application, cluster: str, role: str) -> bool:
    vrg = await driver.vrg(application, cluster)
    return vrg is not None and vrg["spec"]["replicationState"] == role


async def _is_demoted(driver: Driver, application: Application, cluster: str) -> bool:
    vrg = await driver.vrg(application, cluster)
    status = (vrg or {}).get("status") or {}
    current = vrg is not None and status.get("observedGeneration") == vrg["metadata"]["generation"]
    return bool(
        current and status.get("state") == "Secondary" and vrg and vrg["spec"]["replicationState"] == "secondary"
    )


def _store(sandbox: Sandbox, cluster: str) -> S3Store:
    state = sandbox.state
    return S3Store.connect(state.clusters[cluster].s3_url, "ramen", state.s3_access_key, state.s3_secret_key)


async def _empty(sandbox: Sandbox, cluster: str, application: Application, only: tuple[str, ...] = ()) -> None:
    """Deletes the operator's objects of an application, or of one of its volumes, from a store."""
    store = _store(sandbox, cluster)
    prefix = names.operator_prefix(application.namespace, application.name)
    try:
        for key in await store.list(prefix):
            if not only or key.endswith(tuple(f"/{name}" for name in only)):
                await store.delete(key)
    finally:
        await store.close()


async def _held(sandbox: Sandbox, cluster: str, application: Application) -> list[str]:
    store = _store(sandbox, cluster)
    try:
        keys = await store.list(names.pvc_prefix(application.namespace, application.name))
    finally:
        await store.close()
    return sorted(key.rsplit("/", 1)[-1] for key in keys)
