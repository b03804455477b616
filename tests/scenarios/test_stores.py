"""Failovers while stores misbehave, and while somebody else holds the lock: real servers behind the sandbox's proxy."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.mirror import LOCK_TTL_SECONDS, UNREADABLE
from ramen import names
from ramen.epoch import Epoch
from ramen.s3layout import LockDocument
from sandbox import s3server, sites
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.faults import StoreFault
from sandbox.lifecycle import Sandbox
from starter import looks
from starter.failures import Failed, Refused
from tests.scenarios.checks import Story
from tests.scenarios.test_losing import fork
from workflows.inputs import Outcome

HUBLESS = str(Path(sys.executable).with_name("hubless"))

ORCHESTRATION_SECONDS = 20.0
"""A slow store costs a second at the look at the stores and one at the claim, which the bench measures. Whoever waited
three seconds for each of its answers would take longer than this, however busy the machine is. The operator's own wait
for the store is not in here."""


async def types(sandbox: Sandbox, *words: str) -> tuple[int, str]:
    """Exit code and all that `hubless` prints."""
    process = await asyncio.create_subprocess_exec(
        *(HUBLESS, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **sandbox.environment()},
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


NO_ANSWER = ("No worker of", "do not answer", "no worker answers", "No worker answers")


async def check(sandbox: Sandbox) -> list[str]:
    """Problems and risks that a check prints; asked again where a busy machine kept a worker from answering in time."""
    for _ in range(3):
        code, printed = await types(sandbox, "check")
        if not any(text in printed for text in NO_ANSWER):
            break
    assert code == 1, printed
    return problems(printed)


def says(lines: list[str], cluster: str, *parts: str) -> bool:
    """Whether a line names the cluster, the store of dr1, and all the parts."""
    return any(line.startswith(f"✗ {cluster}: ") and all(part in line for part in ("s3-dr1", *parts)) for line in lines)


def problems(printed: str) -> list[str]:
    """What a check calls a problem or a risk, without its last line."""
    return [line for line in printed.splitlines()[:-1] if line.startswith(("✗", "⚠"))]


async def test_failover_to_a_side_whose_store_was_emptied(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """S9: the target's own store answers and has nothing, so the operator is told to restore from the other one."""
    story = await Story.begin(driver, application)
    await s3server.empty(sandbox.state, "dr2")
    lost = [line for line in await check(sandbox) if application.name in line]
    assert lost
    assert all("not in store s3-dr2" in line for line in lost), lost
    assert (await story.move("failover", "dr2")).outcome is Outcome.DONE
    await story.settled("dr2")
    await story.nothing_old_was_lost()
    vrg = await driver.vrg(application, "dr2")
    assert vrg is not None
    assert vrg["spec"]["s3Profiles"] == ["s3-dr1", "s3-dr2"]
    await story.move("relocate", "dr1")
    await story.settled("dr1")
    await story.nothing_was_lost()


@pytest.mark.matrix
async def test_resume_uploads_again_what_a_store_has_lost(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    for cluster in driver.clusters:
        await s3server.empty(sandbox.state, cluster)
    with pytest.raises(Refused, match=application.claim_names[0]):
        await driver.move("failover", application, "dr2")
    code, printed = await types(sandbox, "resume", application.name, "-n", application.namespace)
    assert code == 0, printed
    await driver.until(lambda: _holds_all(driver, application), "both stores to hold every volume again", 60)
    assert (await story.move("failover", "dr2")).outcome is Outcome.DONE
    await story.settled("dr2")
    await story.nothing_old_was_lost()


async def test_failover_while_the_store_of_the_source_is_slow(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    await sites.spoil_store(sandbox, "dr1", StoreFault(slow=3))
    lines = await check(sandbox)
    assert all(says(lines, cluster, "look at the store") for cluster in driver.clusters), lines
    result = await story.move("failover", "dr2")
    assert result.outcome is Outcome.DONE
    assert result.serving_at is not None
    assert result.serving_at.timestamp() - story.asked - result.clusters_seconds < ORCHESTRATION_SECONDS
    await story.serves("dr2")
    await story.nothing_old_was_lost()
    status = await driver.status(application)
    assert status.state.action is not None
    assert status.state.action.reprotected_at is None, "nobody has read the volumes' objects back from s3-dr1"
    await sites.spoil_store(sandbox, "dr1", StoreFault())
    await story.settled("dr2")


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("fault", "word"),
    [
        pytest.param(StoreFault(full="minio"), "is full", id="full"),
        pytest.param(StoreFault(read_only=True), "refuses to write", id="read-only"),
    ],
)
async def test_failover_while_the_store_of_the_source_takes_no_write(
    driver: Driver, sandbox: Sandbox, application: Application, fault: StoreFault, word: str
) -> None:
    story = await Story.begin(driver, application)
    await sites.spoil_store(sandbox, "dr1", fault)
    lines = await check(sandbox)
    assert all(says(lines, cluster, word) for cluster in driver.clusters), lines
    assert (await story.move("failover", "dr2")).outcome is Outcome.DONE
    await story.serves("dr2")
    await story.nothing_old_was_lost()
    await sites.spoil_store(sandbox, "dr1", StoreFault())
    await story.settled("dr2")
    await driver.until(lambda: _is_uploaded(driver, application, "dr2"), "dr2 to have uploaded to both stores", 90)
    await story.move("relocate", "dr1")
    await story.settled("dr1")
    await story.nothing_was_lost()


@pytest.mark.matrix
async def test_failover_while_the_store_of_the_target_is_read_only(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """S9: uploads stop at the first store that fails, so the one that takes writes comes first."""
    story = await Story.begin(driver, application)
    await sites.spoil_store(sandbox, "dr2", StoreFault(read_only=True))
    await story.move("failover", "dr2")
    vrg = await driver.vrg(application, "dr2")
    assert vrg is not None
    assert vrg["spec"]["s3Profiles"] == ["s3-dr1", "s3-dr2"]
    await sites.spoil_store(sandbox, "dr2", StoreFault())
    await story.settled("dr2")


@pytest.mark.matrix
async def test_reprotection_is_not_claimed_on_the_word_of_a_store_that_lies(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """D16: the peer's store acknowledged the uploads and has none of them."""
    story = await Story.begin(driver, application)
    await sites.spoil_store(sandbox, "dr1", StoreFault(lying=True))
    await s3server.empty(sandbox.state, "dr1")
    lines = await check(sandbox)
    assert all(says(lines, cluster, "is not read back") for cluster in driver.clusters), lines
    assert any("no conditional writes" in line and "s3-dr1" in line for line in lines), lines
    assert (await story.move("failover", "dr2")).outcome is Outcome.DONE
    await story.serves("dr2")
    await driver.until(lambda: _waits_for_upload(driver, application), "the re-protection to miss the uploads", 60)
    with pytest.raises(Refused):
        await driver.move("failover", application, "dr1")
    await sites.spoil_store(sandbox, "dr1", StoreFault())
    await story.settled("dr2")
    await story.nothing_old_was_lost()


@pytest.mark.matrix
async def test_two_holders_of_one_lock_and_one_epoch_meet_at_the_vrg(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """S1: stores that lie let both halves of a fork claim the same number; the token on the VRG decides."""
    story = await Story.begin(driver, application)
    for cluster in driver.clusters:
        lies = StoreFault(bucket=names.COORDINATION_BUCKET, lying=True)
        await sites.spoil_store(sandbox, cluster, lies)
    async with fork(sandbox) as other:
        from starter.client import Hubless

        twin = Driver(sandbox, Hubless(other))
        try:
            asked = await asyncio.gather(
                driver.move("failover", application, "dr2"),
                twin.move("failover", application, "dr2"),
                return_exceptions=True,
            )
            outcomes = []
            for half, answer in zip((driver, twin), asked, strict=True):
                if isinstance(answer, BaseException):
                    assert isinstance(answer, (Refused, Failed)), answer
                    continue
                outcomes.append((await half.ended(answer)).outcome)
            assert outcomes.count(Outcome.DONE) == 1, (outcomes, asked)
            await driver.until(lambda: driver.serves(application, "dr2"), "one half to have moved it")
            found = [await driver.vrg(application, cluster) for cluster in driver.clusters]
            assert len({str(Epoch.of(vrg)) for vrg in found}) == 1, "both sides carry the token of the same half"
            for half, answer in zip((driver, twin), asked, strict=True):
                if isinstance(answer, BaseException) or (await half.ended(answer)).outcome is not Outcome.DONE:
                    with pytest.raises((Refused, Failed)):
                        await half.move("failover", application, "dr1", accept_data_loss=True)
        finally:
            await twin.close()
    await story.serves("dr2")


# --- A lock that somebody else holds ----------------------------------------------------------------------------------


def foreign(holder: str = "other-tool/host-7", left: timedelta = timedelta(seconds=30)) -> LockDocument:
    """A lock of another tool, as its own clock dates it."""
    now = datetime.now(UTC)
    return LockDocument(
        holder=holder, epoch=Epoch(number=1, token="theirs"), acquired=now - timedelta(minutes=2), expires=now + left
    )


async def put_lock(sandbox: Sandbox, application: Application, body: bytes) -> None:
    """Lies in the store of dr1 only, as if dr2's had been out of the other tool's reach."""
    store = s3server.store(sandbox.state, "dr1", names.COORDINATION_BUCKET)
    try:
        await store.put(names.lock_key(application.namespace, application.name), body)
    finally:
        await store.close()


def command(application: Application, *more: str) -> list[str]:
    return ["failover", application.name, "-n", application.namespace, "--to", "dr2", "--yes", *more]


@pytest.mark.parametrize("lock", ["held", "unreadable"])
async def test_a_foreign_lock_refuses_names_its_holder_and_can_be_broken(
    driver: Driver, sandbox: Sandbox, application: Application, lock: str
) -> None:
    """S13, as a person meets it; a refusal consumes no epoch (S15)."""
    story = await Story.begin(driver, application)
    body, holder = (
        (foreign().encode(), "other-tool/host-7")
        if lock == "held"
        else (json.dumps({"owner": "another tool"}).encode(), UNREADABLE)
    )
    await put_lock(sandbox, application, body)
    before = (await driver.status(application)).state.epoch
    code, printed = await types(sandbox, *command(application))
    assert code == 2, printed
    assert "s3-dr1" in printed
    assert f"--break-lock '{holder}'" in printed or f"--break-lock {holder}" in printed, printed
    code, printed = await types(sandbox, *command(application, "--break-lock", "somebody else"))
    assert code == 2, printed
    assert (await driver.status(application)).state.epoch == before
    assert (vrg := await driver.vrg(application, "dr2")) is not None
    assert vrg["spec"]["replicationState"] == "secondary"
    code, printed = await types(sandbox, *command(application, "--break-lock", holder))
    assert code == 0, printed
    await story.settled("dr2")


@pytest.mark.matrix
async def test_a_foreign_lock_runs_out_by_standing_still_and_not_by_what_it_says(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """S13: by the other tool's clock, which is wrong, its lock expired yesterday; it is valid all the same."""
    story = await Story.begin(driver, application)
    await put_lock(sandbox, application, foreign(left=timedelta(days=-1)).encode())
    began = time.monotonic()

    async def accepted() -> bool:
        try:
            await driver.move("failover", application, "dr2")
        except (Refused, Failed) as err:
            if "other-tool/host-7" not in str(err):
                raise
            await asyncio.sleep(2)
            return False
        return True

    await driver.until(accepted, "the lock to have run out", 3 * LOCK_TTL_SECONDS)
    assert time.monotonic() - began >= LOCK_TTL_SECONDS
    await story.settled("dr2")


# --- small hands ------------------------------------------------------------------------------------------------------


async def _is_uploaded(driver: Driver, application: Application, cluster: str) -> bool:
    vrg = await driver.vrg(application, cluster) or {}
    conditions = (vrg.get("status") or {}).get("conditions") or []
    return any(found["type"] == "ClusterDataProtected" and found["status"] == "True" for found in conditions)


async def _holds_all(driver: Driver, application: Application) -> bool:
    seen = await looks.stores(driver.hubless.client, (await driver.status(application)).state.app)  # type: ignore[arg-type]
    return all({volume.name for volume in store.volumes} == set(application.claim_names) for store in seen.stores)


async def _waits_for_upload(driver: Driver, application: Application) -> bool:
    state = (await driver.status(application)).state
    assert not (state.action and state.action.reprotected_at), "re-protected on the word of a store that lies"
    workflow_id = names.action_id(application.namespace, application.name, "Reprotect", state.epoch.number)  # type: ignore[union-attr]
    steps = await driver.hubless.client.get_workflow_handle(workflow_id).query("steps")
    return "peer's store" in json.dumps(steps)
