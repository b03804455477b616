"""The mirror over two real stores: claims, lock, newest wins, and stores that are silent, frozen or refuse."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from activities.access.s3 import S3Store
from activities.mirror import LOCK_TTL_SECONDS, UNREADABLE, ClaimResult, LockResult, Mirror
from ramen import names
from ramen.app import Volume
from ramen.epoch import Epoch
from ramen.errors import LockHeld, LockLost, StaleEpoch
from ramen.s3layout import (
    ClusterStatusDocument,
    DecisionDocument,
    EpochClaim,
    HistoryDocument,
    LockDocument,
    StateDocument,
    WitnessDocument,
)
from tests.activities.conftest import Weed, free_ports

AT = datetime(2026, 3, 1, 14, 1, 31, tzinfo=UTC)
APP = ("web", "shop")
BOTH = ["s3-dr1", "s3-dr2"]
EIGHT, NINE = Epoch(number=8, token="eight"), Epoch(number=9, token="nine")
PATIENT = 10.0
"""Time limit of operations whose time limit is not the subject, so that a busy machine does not fail a test."""

Stores = dict[str, S3Store]


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mirror(stores: Stores, clock: Clock) -> Mirror:
    return Mirror(stores, clock, lambda: AT)


@pytest.fixture
async def half(stores: Stores) -> AsyncIterator[Mirror]:
    """The second store's site is gone: nobody listens there."""
    gone = S3Store.connect(f"http://127.0.0.1:{free_ports(1)[0]}", "bucket", "key", "secret", name="s3-dr2")
    yield Mirror({"s3-dr1": stores["s3-dr1"], "s3-dr2": gone})
    await gone.close()


def claim(number: int, request_id: str, token: str, holder: str = "worker dr1") -> EpochClaim:
    return EpochClaim(
        number=number, token=token, action="Failover", request_id=request_id, holder=holder, claimed_at=AT
    )


def state(epoch: Epoch, phase: str = "", at: datetime = AT) -> StateDocument:
    return StateDocument(phase=phase, epoch=epoch, written_at=at)


def decision(epoch: Epoch, cluster: str) -> DecisionDocument:
    return DecisionDocument(cluster=cluster, epoch=epoch, decided_at=AT)


# --- Epochs ----------------------------------------------------------------------------------------------------------


async def test_a_claim_lies_in_both_stores(mirror: Mirror, stores: Stores) -> None:
    result = await mirror.claim_epoch(*APP, claim(8, "r-1", "eight"), PATIENT)
    assert result == ClaimResult(BOTH, {}, EIGHT)
    for store in stores.values():
        assert await store.list("") == [names.epoch_key(*APP, 8)]
    newest = await mirror.newest_epoch(*APP, PATIENT)
    assert (newest.value, newest.answered) == (EIGHT, BOTH)


async def test_nothing_claimed_is_not_the_same_as_nobody_answered(mirror: Mirror, half: Mirror) -> None:
    newest = await mirror.newest_epoch(*APP, PATIENT)
    assert (newest.value, newest.answered, newest.failed) == (None, BOTH, {})
    newest = await half.newest_epoch(*APP, PATIENT)
    assert (newest.answered, list(newest.failed)) == (["s3-dr1"], ["s3-dr2"])


async def test_a_retried_claim_keeps_its_token(mirror: Mirror) -> None:
    await mirror.claim_epoch(*APP, claim(8, "r-1", "eight"), PATIENT)
    again = await mirror.claim_epoch(*APP, claim(8, "r-1", "made by the retry"), PATIENT)
    assert (again.epoch, again.stored) == (EIGHT, BOTH)


@pytest.mark.parametrize("reached", BOTH)
async def test_a_retry_copies_the_first_token_to_the_store_that_missed_it(
    mirror: Mirror, stores: Stores, reached: str
) -> None:
    await mirror.of([reached]).claim_epoch(*APP, claim(8, "r-1", "eight"), PATIENT)
    again = await mirror.claim_epoch(*APP, claim(8, "r-1", "made by the retry"), PATIENT)
    assert (again.epoch, again.stored) == (EIGHT, BOTH)
    for store in stores.values():
        assert EpochClaim.decode(await store.get(names.epoch_key(*APP, 8)) or b"").token == "eight"


async def test_stores_that_disagree_about_one_request_are_made_to_agree(mirror: Mirror, stores: Stores) -> None:
    await mirror.of(["s3-dr2"]).claim_epoch(*APP, claim(8, "r-1", "second"), PATIENT)
    await mirror.of(["s3-dr1"]).claim_epoch(*APP, claim(8, "r-1", "first"), PATIENT)
    result = await mirror.claim_epoch(*APP, claim(8, "r-1", "third"), PATIENT)
    assert result.epoch.token == "first"
    for store in stores.values():
        assert EpochClaim.decode(await store.get(names.epoch_key(*APP, 8)) or b"").token == "first"


async def test_of_racers_exactly_one_claims(stores: Stores) -> None:
    for number in range(1, 6):
        results = await asyncio.gather(
            *(
                Mirror(stores).claim_epoch(*APP, claim(number, f"r-{racer}", f"t-{racer}"), PATIENT)
                for racer in range(3)
            ),
            return_exceptions=True,
        )
        winners = [result for result in results if isinstance(result, ClaimResult)]
        assert len(winners) == 1
        assert sum(isinstance(result, StaleEpoch) for result in results) == 2
        assert winners[0].stored == BOTH
        for store in stores.values():
            stored = EpochClaim.decode(await store.get(names.epoch_key(*APP, number)) or b"")
            assert stored.epoch == winners[0].epoch


async def test_racing_attempts_of_one_request_get_one_token(stores: Stores) -> None:
    results = await asyncio.gather(
        *(Mirror(stores).claim_epoch(*APP, claim(8, "r-1", f"t-{racer}"), PATIENT) for racer in range(3))
    )
    stored = EpochClaim.decode(await stores["s3-dr1"].get(names.epoch_key(*APP, 8)) or b"").epoch
    assert [result.epoch for result in results] == [stored] * 3


async def test_a_foreign_claim_in_any_store_refuses_and_is_named(mirror: Mirror, stores: Stores) -> None:
    await mirror.of(["s3-dr2"]).claim_epoch(*APP, claim(8, "r-1", "eight", "worker dr2"), PATIENT)
    with pytest.raises(StaleEpoch, match=r"worker dr2.*r-1.*s3-dr2"):
        await mirror.claim_epoch(*APP, claim(8, "r-2", "other"), PATIENT)
    assert await stores["s3-dr1"].list("") == []


async def test_a_higher_number_refuses(mirror: Mirror) -> None:
    await mirror.claim_epoch(*APP, claim(9, "r-9", "nine"), PATIENT)
    with pytest.raises(StaleEpoch, match=r"epoch 9 .* epoch 8 cannot be claimed"):
        await mirror.claim_epoch(*APP, claim(8, "r-8", "eight"), PATIENT)


async def test_newest_is_the_maximum_over_stores(mirror: Mirror) -> None:
    await mirror.of(["s3-dr2"]).claim_epoch(*APP, claim(9, "r-9", "nine"), PATIENT)
    await mirror.of(["s3-dr1"]).claim_epoch(*APP, claim(8, "r-8", "eight"), PATIENT)
    newest = await mirror.newest_epoch(*APP, PATIENT)
    assert (newest.value, newest.store) == (NINE, "s3-dr2")


async def test_applications_do_not_meet(mirror: Mirror) -> None:
    await mirror.claim_epoch("web", "shop", claim(9, "r-9", "nine"), PATIENT)
    assert (await mirror.claim_epoch("web", "shop-2", claim(1, "r-1", "one"), PATIENT)).stored == BOTH


# --- Silent stores ---------------------------------------------------------------------------------------------------


async def test_one_store_down(half: Mirror) -> None:
    claimed = await half.claim_epoch(*APP, claim(8, "r-1", "eight"), PATIENT)
    locked = await half.acquire_lock(*APP, "worker dr1", EIGHT, seconds=PATIENT)
    written = await half.write_state(*APP, state(EIGHT), PATIENT)
    for result in (claimed, locked, written):
        assert result.stored == ["s3-dr1"]
        assert list(result.failed) == ["s3-dr2"]
        assert "does not answer" in result.failed["s3-dr2"]
        assert "\n" not in result.failed["s3-dr2"]


async def test_a_frozen_store_costs_a_second_at_most(mirror: Mirror, stores: Stores, weeds: tuple[Weed, Weed]) -> None:
    await mirror.write_state(*APP, state(EIGHT), PATIENT)
    weeds[0].freeze()
    try:
        for operation in (
            lambda: mirror.claim_epoch(*APP, claim(9, "r-1", "nine")),
            lambda: mirror.acquire_lock(*APP, "worker dr1", NINE),
            lambda: mirror.renew_lock(*APP, "worker dr1", NINE),
            lambda: mirror.write_state(*APP, state(NINE)),
            lambda: mirror.release_lock(*APP, "worker dr1", NINE),
        ):
            started = time.monotonic()
            result = await operation()
            assert time.monotonic() - started < 2.5, "the store itself gives up after three"
            assert result.stored == ["s3-dr2"]
            assert "did not answer within" in result.failed["s3-dr1"]
    finally:
        weeds[0].thaw()
    found = await mirror.read_state(*APP, PATIENT)
    assert found.value == state(NINE)


async def test_no_store_at_all_stops_nothing(half: Mirror) -> None:
    nowhere = half.of(["s3-dr2", "s3-unknown"])
    assert (await nowhere.claim_epoch(*APP, claim(8, "r-1", "eight"))).epoch == EIGHT
    assert (await nowhere.acquire_lock(*APP, "worker dr1", EIGHT)).stored == []
    renewed = await nowhere.renew_lock(*APP, "worker dr1", EIGHT)
    assert renewed.stored == []
    assert "s3-unknown is not configured" in renewed.failed["s3-unknown"]


async def test_refused_credentials_and_a_missing_bucket_are_reported_not_raised(
    weeds: tuple[Weed, Weed], stores: Stores
) -> None:
    bucket = stores["s3-dr1"].bucket
    mirror = Mirror(
        {"s3-dr1": weeds[0].store(bucket, secret_key="not-the-secret"), "s3-dr2": weeds[1].store("no-such-bucket")}
    )
    result = await mirror.write_decision(*APP, decision(EIGHT, "dr2"), PATIENT)
    assert result.stored == []
    assert "s3SecretRef" in result.failed["s3-dr1"]
    assert "has no bucket no-such-bucket" in result.failed["s3-dr2"]


# --- Lock ------------------------------------------------------------------------------------------------------------


async def test_a_foreign_lock_refuses_and_names_its_holder(mirror: Mirror, stores: Stores) -> None:
    await mirror.of(["s3-dr2"]).acquire_lock(*APP, "worker dr2", EIGHT, seconds=PATIENT)
    with pytest.raises(LockHeld, match=r"web/shop is locked by worker dr2 .*14:01:31Z.*s3-dr2.*--break-lock"):
        await mirror.acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    assert await stores["s3-dr1"].list("") == []


async def test_ones_own_lock_is_taken_over_by_ones_later_action(mirror: Mirror, stores: Stores) -> None:
    await mirror.acquire_lock(*APP, "worker dr1", EIGHT, seconds=PATIENT)
    assert (await mirror.acquire_lock(*APP, "worker dr1", NINE, "w", seconds=PATIENT)).stored == BOTH
    lock = LockDocument.decode(await stores["s3-dr2"].get(names.lock_key(*APP)) or b"")
    assert (lock.epoch, lock.workflow_id) == (NINE, "w")
    with pytest.raises(LockLost, match="epoch 9"):
        await mirror.renew_lock(*APP, "worker dr1", EIGHT, seconds=PATIENT)


async def test_a_lock_expires_when_it_stands_still_for_a_ttl(mirror: Mirror, stores: Stores, clock: Clock) -> None:
    holder = Mirror(stores)
    await holder.acquire_lock(*APP, "worker dr2", EIGHT, seconds=PATIENT)
    with pytest.raises(LockHeld):
        await mirror.acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    clock.seconds += LOCK_TTL_SECONDS - 1
    with pytest.raises(LockHeld):
        await mirror.acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    clock.seconds += 2
    taken = await mirror.acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    assert taken == LockResult(BOTH, {})
    with pytest.raises(LockLost, match="worker dr1"):
        await holder.renew_lock(*APP, "worker dr2", EIGHT, seconds=PATIENT)


async def test_a_renewed_lock_does_not_expire(mirror: Mirror, stores: Stores, clock: Clock) -> None:
    holder = Mirror(stores, now=lambda: AT)
    await holder.acquire_lock(*APP, "worker dr2", EIGHT, seconds=PATIENT)
    for _ in range(3):
        with pytest.raises(LockHeld):
            await mirror.acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
        assert (await holder.renew_lock(*APP, "worker dr2", EIGHT, seconds=PATIENT)).stored == BOTH
        clock.seconds += LOCK_TTL_SECONDS + 1


async def test_what_a_part_of_the_mirror_observed_counts_for_all(mirror: Mirror, stores: Stores, clock: Clock) -> None:
    await Mirror(stores).acquire_lock(*APP, "worker dr2", EIGHT, seconds=PATIENT)
    with pytest.raises(LockHeld):
        await mirror.of(BOTH).acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    clock.seconds += LOCK_TTL_SECONDS + 1
    assert (await mirror.of(BOTH).acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)).stored == BOTH


async def test_break_lock_breaks_the_named_holder_only(mirror: Mirror) -> None:
    await mirror.acquire_lock(*APP, "worker dr2", EIGHT, seconds=PATIENT)
    with pytest.raises(LockHeld):
        await mirror.acquire_lock(*APP, "worker dr1", NINE, break_holder="worker dr3", seconds=PATIENT)
    broken = await mirror.acquire_lock(*APP, "worker dr1", NINE, break_holder="worker dr2", seconds=PATIENT)
    assert broken.stored == BOTH


async def test_a_lock_that_cannot_be_read_is_somebody_elses(mirror: Mirror, stores: Stores, clock: Clock) -> None:
    key = names.lock_key(*APP)
    await stores["s3-dr2"].put(key, b"<lock owner='another tool'/>")
    with pytest.raises(LockHeld, match=r"web/shop in S3 profile s3-dr2 cannot be read.*--break-lock unreadable"):
        await mirror.acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    assert await stores["s3-dr1"].list("") == []
    with pytest.raises(LockHeld):
        await mirror.acquire_lock(*APP, "worker dr1", NINE, break_holder="worker dr2", seconds=PATIENT)
    broken = await mirror.acquire_lock(*APP, "worker dr1", NINE, break_holder=UNREADABLE, seconds=PATIENT)
    assert broken.stored == BOTH
    await stores["s3-dr1"].put(key, b"<lock owner='another tool'/>")
    with pytest.raises(LockLost, match="held by unreadable"):
        await mirror.renew_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    await mirror.release_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    assert await stores["s3-dr1"].get(key) == b"<lock owner='another tool'/>", "only ours is released"
    with pytest.raises(LockHeld):
        await mirror.acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    clock.seconds += LOCK_TTL_SECONDS + 1
    assert (await mirror.acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)).stored == BOTH


async def test_of_racers_exactly_one_locks(stores: Stores) -> None:
    results = await asyncio.gather(
        *(Mirror(stores).acquire_lock(*APP, f"worker {racer}", EIGHT, seconds=PATIENT) for racer in range(4)),
        return_exceptions=True,
    )
    assert [result for result in results if isinstance(result, LockResult)] == [LockResult(BOTH, {})]
    assert sum(isinstance(result, LockHeld) for result in results) == 3


async def test_a_renewal_takes_the_lock_where_a_store_came_back_without_it(mirror: Mirror) -> None:
    await mirror.of(["s3-dr1"]).acquire_lock(*APP, "worker dr1", EIGHT, seconds=PATIENT)
    assert (await mirror.renew_lock(*APP, "worker dr1", EIGHT, seconds=PATIENT)).stored == BOTH
    with pytest.raises(LockHeld, match="worker dr1"):
        await mirror.of(["s3-dr2"]).acquire_lock(*APP, "worker dr2", NINE, seconds=PATIENT)


async def test_an_action_does_not_release_the_lock_of_its_successor_in_the_same_epoch(
    mirror: Mirror, stores: Stores
) -> None:
    await mirror.acquire_lock(*APP, "worker dr1", EIGHT, "failover-8", seconds=PATIENT)
    await mirror.renew_lock(*APP, "worker dr1", EIGHT, "reprotect-8", takes_over=True, seconds=PATIENT)
    await mirror.release_lock(*APP, "worker dr1", EIGHT, "failover-8", seconds=PATIENT)
    assert await stores["s3-dr1"].list("") == [names.lock_key(*APP)]
    await mirror.release_lock(*APP, "worker dr1", EIGHT, "reprotect-8", seconds=PATIENT)
    assert await stores["s3-dr1"].list("") == []


@pytest.mark.parametrize("successor", ["failover-9", "reprotect-8"], ids=["another action", "another run"])
async def test_an_action_that_lingers_leaves_the_lock_to_its_successor_in_the_same_epoch(
    mirror: Mirror, clock: Clock, stores: Stores, successor: str
) -> None:
    key, store = names.lock_key(*APP), stores["s3-dr1"]
    await mirror.renew_lock(*APP, "worker dr1", EIGHT, "reprotect-8", "run 1", takes_over=True, seconds=PATIENT)
    if successor == "failover-9":
        await mirror.acquire_lock(*APP, "worker dr1", EIGHT, successor, seconds=PATIENT)
    else:
        await mirror.renew_lock(*APP, "worker dr1", EIGHT, successor, "run 2", takes_over=True, seconds=PATIENT)
    taken = await store.get(key)
    await mirror.renew_lock(*APP, "worker dr1", EIGHT, "reprotect-8", "run 1", seconds=PATIENT)
    await mirror.release_lock(*APP, "worker dr1", EIGHT, "reprotect-8", "run 1", seconds=PATIENT)
    assert await store.get(key) == taken, "neither renewed nor given back"
    clock.seconds += LOCK_TTL_SECONDS + 1
    await mirror.renew_lock(*APP, "worker dr1", EIGHT, "reprotect-8", "run 1", seconds=PATIENT)
    assert LockDocument.decode(await store.get(key) or b"", key).run_id == "run 1", "the successor never began"
    await mirror.release_lock(*APP, "worker dr1", EIGHT, "reprotect-8", "run 1", seconds=PATIENT)
    assert await store.list("") == []


async def test_an_attempt_that_wakes_up_leaves_the_lock_to_the_next_one(mirror: Mirror) -> None:
    """A worker that was frozen is told to end when it goes on; another one holds the lock for the same run by then."""
    lock = (*APP, "entity", EIGHT, "w")
    await mirror.renew_lock(*lock, run_id="r", takes_over=True, attempt=1)
    await mirror.renew_lock(*lock, run_id="r", takes_over=True, attempt=2)
    await mirror.renew_lock(*lock, run_id="r", attempt=1)  # it was about to when it froze
    await mirror.release_lock(*lock, run_id="r", attempt=1)
    with pytest.raises(LockHeld):
        await mirror.acquire_lock(*APP, "another tool", NINE)
    await mirror.release_lock(*lock, run_id="r", attempt=2)
    await mirror.acquire_lock(*APP, "another tool", NINE)


async def test_only_ones_own_lock_is_released(mirror: Mirror, stores: Stores) -> None:
    await mirror.acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    await mirror.release_lock(*APP, "worker dr2", NINE, seconds=PATIENT)
    await mirror.release_lock(*APP, "worker dr1", EIGHT, seconds=PATIENT)
    assert await stores["s3-dr1"].list("") == [names.lock_key(*APP)]
    await mirror.release_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    for store in stores.values():
        assert await store.list("") == []


# --- State and decision ----------------------------------------------------------------------------------------------


async def test_state_and_decision_come_back_with_their_store(mirror: Mirror) -> None:
    assert (await mirror.read_state(*APP, PATIENT)).value is None
    await mirror.write_state(*APP, state(EIGHT, "FailedOver"), PATIENT)
    await mirror.of(["s3-dr2"]).write_decision(*APP, decision(EIGHT, "dr2"), PATIENT)
    assert (await mirror.read_state(*APP, PATIENT)).value == state(EIGHT, "FailedOver")
    found = await mirror.read_decision(*APP, PATIENT)
    assert (found.value, found.store, found.answered) == (decision(EIGHT, "dr2"), "s3-dr2", BOTH)


async def test_an_older_epoch_never_overwrites(mirror: Mirror) -> None:
    await mirror.of(["s3-dr1"]).write_decision(*APP, decision(NINE, "dr2"), PATIENT)
    late = await mirror.write_decision(*APP, decision(EIGHT, "dr1"), PATIENT)
    assert late.stored == ["s3-dr2"]
    assert late.failed == {"s3-dr1": "holds epoch 9, which is newer than 8"}
    found = await mirror.read_decision(*APP, PATIENT)
    assert (found.value, found.store) == (decision(NINE, "dr2"), "s3-dr1")


async def test_another_action_of_the_same_number_does_not_overwrite(mirror: Mirror) -> None:
    await mirror.write_state(*APP, state(EIGHT), PATIENT)
    fork = await mirror.write_state(*APP, state(Epoch(number=8, token="fork")), PATIENT)
    assert fork.failed == dict.fromkeys(BOTH, "holds another action of epoch 8")


async def test_a_late_retry_does_not_overwrite_a_later_write_of_its_epoch(mirror: Mirror) -> None:
    later = state(EIGHT, "FailedOver", AT + timedelta(seconds=1))
    assert (await mirror.write_state(*APP, later, PATIENT)).stored == BOTH
    assert (await mirror.write_state(*APP, later, PATIENT)).stored == BOTH
    assert (await mirror.write_state(*APP, state(EIGHT, "FailingOver"), PATIENT)).stored == []
    assert (await mirror.read_state(*APP, PATIENT)).value == later


async def test_racing_writers_leave_the_newest(mirror: Mirror) -> None:
    epochs = [Epoch(number=number, token="t") for number in range(1, 4)]
    await asyncio.gather(*(mirror.write_state(*APP, state(epoch), PATIENT) for epoch in epochs))
    for profile in BOTH:
        found = await mirror.of([profile]).read_state(*APP, PATIENT)
        assert found.value is not None
        assert found.value.epoch == epochs[-1]


async def test_what_cannot_be_read_is_reported_and_replaced_by_the_next_write(mirror: Mirror, stores: Stores) -> None:
    await stores["s3-dr1"].put(names.state_key(*APP), b"half a docu")
    found = await mirror.read_state(*APP, PATIENT)
    assert "state cannot be read" in found.failed["s3-dr1"]
    assert (await mirror.write_state(*APP, state(EIGHT), PATIENT)).stored == BOTH


# --- Witness, history, clusters, unprotect ---------------------------------------------------------------------------


def witness(epoch: Epoch, *volumes: str) -> WitnessDocument:
    return WitnessDocument(
        epoch=epoch, volumes=[Volume(namespace="web", name=volume) for volume in volumes], seen_at=AT
    )


async def test_a_witness_gathers_what_any_store_knows(mirror: Mirror) -> None:
    await mirror.of(["s3-dr1"]).write_witness(*APP, witness(EIGHT, "a"), PATIENT)
    await mirror.of(["s3-dr1"]).write_witness(*APP, witness(EIGHT, "b"), PATIENT)
    await mirror.of(["s3-dr2"]).write_witness(*APP, witness(EIGHT, "c"), PATIENT)
    assert (await mirror.read_witness(*APP, EIGHT, PATIENT)).value == witness(EIGHT, "a", "b", "c")


async def test_a_witness_proves_nothing_for_another_epoch(mirror: Mirror) -> None:
    await mirror.write_witness(*APP, witness(EIGHT, "a"), PATIENT)
    fork = Epoch(number=8, token="fork")
    assert (await mirror.read_witness(*APP, NINE, PATIENT)).value is None
    assert (await mirror.read_witness(*APP, fork, PATIENT)).value is None
    assert (await mirror.write_witness(*APP, witness(fork, "b"), PATIENT)).stored == []
    await mirror.of(["s3-dr2"]).write_witness(*APP, witness(NINE, "b"), PATIENT)
    assert (await mirror.read_witness(*APP, NINE, PATIENT)).value == witness(NINE, "b")


async def test_history_and_cluster_status_are_written_for_people(mirror: Mirror, stores: Stores) -> None:
    record = HistoryDocument(epoch=EIGHT, action="Failover", result="done", started_at=AT)
    await mirror.append_history(*APP, record, PATIENT)
    await mirror.append_history(*APP, record, PATIENT)
    status = ClusterStatusDocument(cluster="dr1", last_seen=AT)
    await mirror.write_cluster_status(status, PATIENT)
    for store in stores.values():
        assert await store.list("") == ["clusters/dr1/status", "drpc-web/shop/history/8-failover.json"]
        stored = await store.get("drpc-web/shop/history/8-failover.json")
        assert json.loads(stored or b"")["result"] == "done"


async def test_after_unprotect_the_newest_epoch_and_the_lock_are_left(mirror: Mirror, stores: Stores) -> None:
    for number in (8, 9):
        await mirror.claim_epoch(*APP, claim(number, f"r-{number}", "t"), PATIENT)
    await mirror.acquire_lock(*APP, "worker dr1", NINE, seconds=PATIENT)
    await mirror.write_state(*APP, state(NINE), PATIENT)
    await mirror.write_decision("web", "shop-2", decision(NINE, "dr1"), PATIENT)
    assert (await mirror.delete_application(*APP, PATIENT)).stored == BOTH
    for store in stores.values():
        kept = [names.epoch_key(*APP, 9), names.lock_key(*APP), names.decision_key("web", "shop-2")]
        assert await store.list("") == sorted(kept)
    with pytest.raises(StaleEpoch):
        await mirror.claim_epoch(*APP, claim(9, "protected again", "t"), PATIENT)


# --- Volumes ---------------------------------------------------------------------------------------------------------


async def upload(store: S3Store, volume: str, pv: bool = True) -> None:
    """As the dr-cluster operator stores a protected volume."""
    body = {"metadata": {"name": volume}, "spec": {"volumeName": f"pv-{volume}"}}
    await store.put(names.pvc_prefix(*APP) + f"web/{volume}", gzip.compress(json.dumps(body).encode()))
    if pv:
        await store.put(names.pv_prefix(*APP) + f"pv-{volume}", gzip.compress(b"{}"))


async def test_volumes_missing_in_one_store(stores: Stores) -> None:
    for volume in ("a", "b"):
        await upload(stores["s3-dr1"], volume)
    await upload(stores["s3-dr2"], "a")
    first, second = await Mirror.restorable_volumes(*APP, stores, PATIENT)
    assert [str(volume) for volume in first.volumes] == ["a", "b"]
    assert second.volumes == [Volume(namespace="web", name="a", pv="pv-a")]


async def test_a_pv_without_its_pvc_makes_a_store_useless_to_the_operator(stores: Stores) -> None:
    await upload(stores["s3-dr1"], "a")
    await upload(stores["s3-dr1"], "b", pv=False)
    report, _ = await Mirror.restorable_volumes(*APP, stores, PATIENT)
    assert (report.reachable, report.volumes) == (True, [])
    assert "1 PVs but 2 PVCs" in report.error


async def test_a_store_that_cannot_restore_says_why(stores: Stores) -> None:
    await upload(stores["s3-dr1"], "a")
    broken = names.pv_prefix(*APP) + "pv-a"
    await stores["s3-dr1"].put(broken, b"broken")
    gone = S3Store.connect(f"http://127.0.0.1:{free_ports(1)[0]}", "bucket", "key", "secret", name="gone")
    first, second = await Mirror.restorable_volumes(*APP, {"s3-dr1": stores["s3-dr1"], "gone": gone}, PATIENT)
    assert (first.reachable, first.volumes) == (True, [])
    assert broken in first.error
    assert (second.profile, second.reachable) == ("gone", False)
    assert "does not answer" in second.error
    await gone.close()
