"""Stores that misbehave, one fault after the other, on a real server behind the sandbox's proxy.

For each fault: what a check says, that the mirror goes on with the other store within its time, and what a promotion
is told of the store.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.access.s3 import THREADS, S3Store
from activities.contracts import ClaimedEpoch, ClaimEpoch, LockRequest, StoreProof, StoresQuery, StoresSeen
from activities.mirror import STORE_SECONDS, ClaimResult, Mirror, MirrorWrite
from activities.proving import ProofActivities
from activities.store import StoreActivities
from ramen import names
from ramen.app import AppRef, Volume
from ramen.errors import LockHeld, StaleEpoch, StoreDenied
from sandbox.faults import StoreFault
from sandbox.storefaults import FaultyStore
from tests.activities.conftest import ACCESS_KEY, SECRET_KEY, Weed
from tests.activities.test_mirror import APP, AT, BOTH, EIGHT, NINE, PATIENT, claim, decision, state, witness

BUSY_MACHINE_SECONDS = 1.4
"""What a busy machine may add to a time limit before a test fails; the stores here are late by more than both."""


@dataclass
class Spoilt:
    """Two stores, the first of them behind a proxy that spoils it as `fault` says."""

    fault: StoreFault
    stores: dict[str, S3Store]
    honest: S3Store
    """The way to the first one around the proxy."""

    def mirror(self) -> Mirror:
        """The mirror of another process."""
        return Mirror(self.stores, now=lambda: AT)


@pytest.fixture
async def spoilt(weeds: tuple[Weed, Weed], stores: dict[str, S3Store]) -> AsyncIterator[Spoilt]:
    first = weeds[0]
    proxy = FaultyStore(
        int(first.endpoint.rpartition(":")[2]), lambda: found.fault, lambda bucket: _client(first.endpoint, bucket)
    )
    port = await proxy.start()
    through = _client(f"http://127.0.0.1:{port}", stores["s3-dr1"].bucket)
    found = Spoilt(StoreFault(), {"s3-dr1": through, "s3-dr2": stores["s3-dr2"]}, stores["s3-dr1"])
    await through.head_bucket()  # connections are there, as in a worker that has been running
    yield found
    await through.close()
    await proxy.close()


def _client(endpoint: str, bucket: str) -> S3Store:
    return S3Store.connect(endpoint, bucket, ACCESS_KEY, SECRET_KEY, name="s3-dr1")


FAULTS = {
    "slow": StoreFault(slow=4),  # later than a read waits
    "trickling": StoreFault(trickle=True),
    "full, as MinIO says it": StoreFault(full="minio"),
    "full, as Ceph says it": StoreFault(full="ceph"),
    "full, as an overloaded one says it": StoreFault(full="busy"),
    "read-only": StoreFault(read_only=True),
    "conditions refused": StoreFault(conditions="refused"),
    "conditions ignored": StoreFault(conditions="ignored"),
    "lying": StoreFault(lying=True),
    "a page": StoreFault(page=True),
}

SAYS_STORED = {"conditions ignored", "lying"}
"""Faults behind which a store acknowledges what it was asked to write."""

every = pytest.mark.parametrize("name", list(FAULTS))


@every
async def test_the_mirror_goes_on_with_the_other_store_within_a_second(spoilt: Spoilt, name: str) -> None:
    spoilt.fault = FAULTS[name]
    mirror = spoilt.mirror()
    steps: list[Callable[[], Awaitable[MirrorWrite]]] = [
        lambda: mirror.acquire_lock(*APP, "worker dr1", EIGHT),
        lambda: mirror.claim_epoch(*APP, claim(8, "r-1", "eight")),
        lambda: mirror.renew_lock(*APP, "worker dr1", EIGHT),
        lambda: mirror.write_state(*APP, state(EIGHT)),
        lambda: mirror.write_decision(*APP, decision(EIGHT, "dr2")),
        lambda: mirror.write_witness(*APP, witness(EIGHT, "a")),
        lambda: mirror.release_lock(*APP, "worker dr1", EIGHT),
    ]
    for step in steps:
        began = time.monotonic()
        result = await step()
        assert time.monotonic() - began < STORE_SECONDS + BUSY_MACHINE_SECONDS
        assert "s3-dr2" in result.stored
        if "s3-dr1" not in result.stored:
            assert "s3-dr1" in result.failed["s3-dr1"]
            assert name not in SAYS_STORED
    read_witness = partial(mirror.read_witness, epoch=EIGHT)
    for read in (mirror.read_state, mirror.read_decision, read_witness, mirror.newest_epoch):
        began = time.monotonic()
        found: Any = await read(*APP)
        assert time.monotonic() - began < STORE_SECONDS + BUSY_MACHINE_SECONDS
        assert found.value is not None
        assert found.store == "s3-dr2" or name == "conditions ignored"


async def test_a_slow_store_that_answers_others_all_the_time_is_not_taken_for_a_busy_one(spoilt: Spoilt) -> None:
    """S13: at most one second, also when late answers to earlier requests keep coming in."""
    spoilt.fault = StoreFault(slow=2.8)
    mirror = spoilt.mirror()

    async def others() -> None:
        async with asyncio.TaskGroup() as asked:
            while True:
                asked.create_task(spoilt.stores["s3-dr1"].get("nothing"))
                await asyncio.sleep(0.4)

    traffic = asyncio.create_task(others())
    try:
        await asyncio.sleep(3)
        began = time.monotonic()
        result = await mirror.write_state(*APP, state(EIGHT))
        assert time.monotonic() - began < STORE_SECONDS + BUSY_MACHINE_SECONDS
        assert result.stored == ["s3-dr2"]
    finally:
        traffic.cancel()


async def test_lock_and_claim_together_wait_for_a_silent_store_once(spoilt: Spoilt) -> None:
    """D15: both are on the way to serving."""
    spoilt.fault = StoreFault(slow=60)
    app = AppRef(namespace=APP[0], name=APP[1])
    lock = LockRequest(app=app, epoch=EIGHT, holder="entity", workflow_id="w", profiles=BOTH)
    request = ClaimEpoch(app=app, number=9, action="Failover", request_id="r", profiles=BOTH, lock=lock)
    took: list[float] = []
    for _ in range(3):  # the best of three: a second wait is there each time, a busy machine is not
        began = time.monotonic()
        claimed: ClaimedEpoch = await ActivityEnvironment().run(
            StoreActivities(spoilt.mirror(), spoilt.stores).claim_epoch, request
        )
        took.append(time.monotonic() - began)
        assert claimed.stores == ["s3-dr2"]
    assert min(took) < STORE_SECONDS / 2 + 0.4


@pytest.mark.parametrize("name", ["slow", "trickling", "full, as MinIO says it", "read-only", "lying", "a page"])
async def test_a_mended_store_takes_part_again_and_gets_what_it_missed(spoilt: Spoilt, name: str) -> None:
    mirror = spoilt.mirror()
    spoilt.fault = FAULTS[name]
    await asyncio.gather(*(mirror.read_state(*APP) for _ in range(THREADS)))  # all of them may be stuck from now on
    await mirror.acquire_lock(*APP, "worker dr1", EIGHT)
    spoilt.fault = StoreFault()
    async with asyncio.timeout(40):
        while (await mirror.renew_lock(*APP, "worker dr1", EIGHT)).stored != BOTH:
            await asyncio.sleep(0.1)
    assert await spoilt.honest.get(names.lock_key(*APP)) is not None


# --- Who wins where a store does not keep its word -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conditions ignored", "lying"])
async def test_an_honest_store_decides_between_racers_whatever_the_other_says(spoilt: Spoilt, name: str) -> None:
    spoilt.fault = FAULTS[name]
    results = await asyncio.gather(
        *(spoilt.mirror().claim_epoch(*APP, claim(8, f"r-{n}", f"t-{n}"), PATIENT) for n in range(3)),
        return_exceptions=True,
    )
    winners = [result for result in results if isinstance(result, ClaimResult)]
    assert len(winners) == 1
    assert sum(isinstance(result, StaleEpoch) for result in results) == 2


async def test_where_only_a_lying_store_answers_both_racers_believe_they_won(spoilt: Spoilt) -> None:
    """Nothing in a store can prevent it: the epoch on the VRG decides then (S1)."""
    spoilt.fault = FAULTS["lying"]
    part = [spoilt.mirror().of(["s3-dr1"]) for _ in range(2)]
    for racer, mirror in enumerate(part):
        await mirror.acquire_lock(*APP, f"worker {racer}", EIGHT)
    claimed = [await mirror.claim_epoch(*APP, claim(8, f"r-{n}", f"t-{n}")) for n, mirror in enumerate(part)]
    assert [result.epoch.token for result in claimed] == ["t-0", "t-1"]
    assert await spoilt.honest.list("") == []


async def test_a_lock_in_a_store_that_ignores_conditions_still_names_its_holder(spoilt: Spoilt) -> None:
    spoilt.fault = FAULTS["conditions ignored"]
    await spoilt.mirror().of(["s3-dr1"]).acquire_lock(*APP, "worker dr2", EIGHT)
    with pytest.raises(LockHeld, match=r"worker dr2.*--break-lock"):
        await spoilt.mirror().acquire_lock(*APP, "worker dr1", NINE)


# --- What a check says -----------------------------------------------------------------------------------------------


async def prove(spoilt: Spoilt) -> StoreProof:
    activities = ProofActivities("dr1", spoilt.stores, {})
    proof = await ActivityEnvironment().run(activities.prove_installation)
    first, second = proof.stores
    assert second == StoreProof(profile="s3-dr2", bucket=spoilt.honest.bucket, conditional_writes=True)
    assert first.profile == "s3-dr1"
    return first


async def test_a_store_as_it_should_be_has_no_problem(spoilt: Spoilt) -> None:
    found = await prove(spoilt)
    assert (found.problem, found.conditional_writes) == ("", True)
    assert await spoilt.honest.list("") == []


@pytest.mark.parametrize(
    ("name", "says", "remedy"),
    [
        ("slow", "does not answer", "[Rr]ead timeout"),
        ("trickling", "did not complete .* 10 s", "Look at its load and at the network"),
        ("full, as MinIO says it", r"is full \(507 XMinioStorageFull\)", "free space there, or raise its quota"),
        ("full, as Ceph says it", r"is full \(403 QuotaExceeded\)", "free space there, or raise its quota"),
        ("full, as an overloaded one says it", r"not able to serve now \(503 ServiceUnavailable\)", "load and its log"),
        ("read-only", r"refuses to write .* \(AccessDenied\)", "make the bucket writable, or .* s3SecretRef"),
        ("lying", "is not read back", "do not rely on this store"),
        ("a page", "is no S3", "look at what stands before the store"),
    ],
)
async def test_a_check_names_store_and_remedy_within_its_time(
    spoilt: Spoilt, name: str, says: str, remedy: str
) -> None:
    spoilt.fault = FAULTS[name]
    began = time.monotonic()
    problem = (await prove(spoilt)).problem
    assert time.monotonic() - began < 12, "the look of a check ends after fifteen seconds"
    for part in ("s3-dr1", says, remedy):
        assert_matches(part, problem)


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), f"{pattern!r} is not in: {text}"


async def test_a_check_names_a_store_that_answers_later_than_an_action_waits(spoilt: Spoilt) -> None:
    spoilt.fault = StoreFault(slow=1.3)
    problem = (await prove(spoilt)).problem
    assert_matches(r"s3-dr1.*answers after \d+\.\d s.*an action waits 1 s.*Look at its load", problem)


@pytest.mark.parametrize("name", ["conditions refused", "conditions ignored", "lying"])
async def test_a_check_tries_conditional_writes_instead_of_believing_in_them(spoilt: Spoilt, name: str) -> None:
    spoilt.fault = FAULTS[name]
    assert (await prove(spoilt)).conditional_writes is False
    assert await spoilt.honest.list("") == []


async def test_a_store_that_ignores_only_one_of_the_conditions_is_found_out(
    spoilt: Spoilt, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, put = spoilt.stores["s3-dr1"], spoilt.stores["s3-dr1"].put

    async def half(key: str, body: bytes, if_none_match: bool = False, if_match: str | None = None) -> str:
        return await put(key, body, if_none_match=if_none_match)

    monkeypatch.setattr(store, "put", half)
    assert await store.probe_conditional_writes() is False


# --- What a promotion is told ----------------------------------------------------------------------------------------


async def upload(store: S3Store, volume: str) -> None:
    """As the dr-cluster operator stores a protected volume."""
    body = {"metadata": {"name": volume}, "spec": {"volumeName": f"pv-{volume}"}}
    await store.put(names.pvc_prefix(*APP) + f"web/{volume}", gzip.compress(json.dumps(body).encode()))
    await store.put(names.pv_prefix(*APP) + f"pv-{volume}", gzip.compress(b"{}"))


VOLUME = Volume(namespace="web", name="a", pv="pv-a")


@every
async def test_a_promotion_finds_the_volumes_in_the_store_that_can_be_read(spoilt: Spoilt, name: str) -> None:
    for store in (spoilt.honest, spoilt.stores["s3-dr2"]):
        await upload(store, "a")
    spoilt.fault = FAULTS[name]
    first, second = (await seen(spoilt)).stores
    assert second.volumes == [VOLUME]
    readable = name not in ("slow", "trickling", "a page")
    assert (first.reachable, first.volumes) == (readable, [VOLUME] if readable else [])
    assert bool(first.error) is not readable


@pytest.mark.parametrize("name", ["slow", "trickling"])
async def test_a_promotion_waits_a_second_for_a_store_that_it_does_not_need(spoilt: Spoilt, name: str) -> None:
    await upload(spoilt.stores["s3-dr2"], "a")
    spoilt.fault = FAULTS[name]
    began = time.monotonic()
    first, second = (await seen(spoilt, [VOLUME])).stores
    assert time.monotonic() - began < STORE_SECONDS + BUSY_MACHINE_SECONDS
    assert (first.reachable, second.volumes) == (False, [VOLUME])
    assert "s3-dr1 did not answer within 1 s" in first.error


async def test_a_promotion_waits_for_a_late_store_that_has_the_volume_alone(spoilt: Spoilt) -> None:
    await upload(spoilt.honest, "a")
    spoilt.fault = StoreFault(slow=1.3)
    first, second = (await seen(spoilt, [VOLUME])).stores
    assert (first.volumes, second.volumes) == ([VOLUME], [])


async def test_a_store_that_was_emptied_answers_and_has_nothing(spoilt: Spoilt) -> None:
    await upload(spoilt.stores["s3-dr2"], "a")
    first, second = (await seen(spoilt)).stores
    assert (first.reachable, first.error, first.volumes) == (True, "", [])
    assert second.volumes == [VOLUME]


async def seen(spoilt: Spoilt, enough: list[Volume] | None = None) -> StoresSeen:
    activities = StoreActivities(spoilt.mirror(), spoilt.stores)
    query = StoresQuery(app=AppRef(namespace=APP[0], name=APP[1]), profiles=BOTH, enough=enough)
    found: StoresSeen = await ActivityEnvironment().run(activities.read_stores, query)
    return found


@pytest.mark.parametrize("name", ["full, as MinIO says it", "full, as Ceph says it", "read-only"])
async def test_a_store_that_takes_no_write_can_be_read(spoilt: Spoilt, name: str) -> None:
    await spoilt.honest.put("key", b"1")
    spoilt.fault = FAULTS[name]
    assert await spoilt.stores["s3-dr1"].get("key") == b"1"
    with pytest.raises(StoreDenied):
        await spoilt.stores["s3-dr1"].put("key", b"2")
    assert await spoilt.honest.get("key") == b"1"
