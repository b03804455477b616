"""Activities over stores: claims that a retry meets again, the lock's life, and what is told of silent stores."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from activities.contracts import (
    AppendHistory,
    ClaimedEpoch,
    ClaimEpoch,
    LockRequest,
    MirrorSeen,
    MirrorState,
    ReadMirror,
    StoresQuery,
    StoresSeen,
)
from activities.mirror import Mirror
from activities.store import StoreActivities
from ramen.app import Decision, Volume
from ramen.errors import StoreUnreachable
from ramen.names import decision_key, epoch_key, lock_key, state_key
from ramen.s3layout import WitnessDocument
from tests.activities.fakes import APP, MemoryStore, Told, epoch, failure

PROFILES = ["s3-dr1", "s3-dr2"]
LOCK = LockRequest(app=APP.ref, epoch=epoch(1), holder="entity", workflow_id="w", profiles=PROFILES)


class Stores:
    """Both coordination buckets and both buckets of the operator."""

    def __init__(self) -> None:
        self.mirror = {name: MemoryStore(name) for name in PROFILES}
        self.operator = {name: MemoryStore(name) for name in PROFILES}
        self.activities = self.worker()

    def worker(self) -> StoreActivities:
        """The activities of a worker process."""
        return StoreActivities(Mirror(self.mirror), self.operator, renew_seconds=0.02)  # type: ignore[arg-type]

    def silence(self, *names: str) -> None:
        for name in names:
            self.mirror[name].failure = self.operator[name].failure = StoreUnreachable(f"{name} does not answer")


@pytest.fixture
async def stores() -> Stores:
    return Stores()


async def run(activity: Any, *args: Any) -> Any:
    return await Told().run(activity, *args)


def claim(number: int = 1, request_id: str = "r1") -> ClaimEpoch:
    return ClaimEpoch(
        app=APP.ref, number=number, action="Failover", request_id=request_id, profiles=PROFILES, lock=LOCK
    )


def claim_by(holder: str, break_holder: str = "") -> ClaimEpoch:
    """A claim of the next number in the name of another holder of the lock."""
    lock = LOCK.model_copy(update={"holder": holder, "break_holder": break_holder})
    return claim(2, f"r-{holder}").model_copy(update={"lock": lock})


async def test_a_retry_meets_its_own_claim_and_another_request_does_not(stores: Stores) -> None:
    first: ClaimedEpoch = await run(stores.activities.claim_epoch, claim())
    assert first.stores == PROFILES
    assert await run(stores.worker().claim_epoch, claim()) == first
    err = await failure(stores.activities.claim_epoch, claim(request_id="r2"))
    assert (err.type, err.non_retryable) == ("StaleEpoch", True)


async def test_with_no_store_the_token_is_still_stable_and_random(stores: Stores) -> None:
    stores.silence(*PROFILES)
    first: ClaimedEpoch = await run(stores.activities.claim_epoch, claim())
    assert first.stores == []
    assert (await run(stores.activities.claim_epoch, claim())).epoch == first.epoch
    assert (await run(stores.worker().claim_epoch, claim())).epoch != first.epoch, "not computed from the request"


async def test_the_lock_is_held_until_the_action_ends(stores: Stores) -> None:
    await run(stores.activities.claim_epoch, claim())
    key, store = lock_key("web", "shop"), stores.mirror["s3-dr1"]
    told = Told()
    task = asyncio.create_task(told.run(stores.activities.hold_lock, LOCK))
    async with asyncio.timeout(5):
        while json.loads(store.objects[key][0])["renewals"] < 2:
            await asyncio.sleep(0.01)
    err = await failure(stores.activities.claim_epoch, claim_by("other"))
    assert err.type == "LockHeld"
    assert epoch_key("web", "shop", 2) not in store.objects, "a refusal consumes no epoch (S15)"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert key not in store.objects


async def test_a_claim_that_is_stale_leaves_no_lock_behind(stores: Stores) -> None:
    await run(stores.activities.claim_epoch, claim(3))
    await run(stores.activities.release_lock, LOCK)
    err = await failure(stores.activities.claim_epoch, claim(2, "r2"))
    assert err.type == "StaleEpoch"
    assert all(lock_key("web", "shop") not in store.objects for store in stores.mirror.values())


async def test_a_lock_that_another_took_stops_the_action(stores: Stores) -> None:
    await run(stores.activities.claim_epoch, claim())
    taken = claim_by("other", break_holder="entity")
    other = taken.lock
    await run(stores.activities.claim_epoch, taken)
    err = await failure(stores.activities.hold_lock, LOCK)
    assert (err.type, err.non_retryable) == ("LockLost", True)
    await run(stores.activities.release_lock, LOCK)
    assert lock_key("web", "shop") in stores.mirror["s3-dr1"].objects, "another's lock stays"
    await run(stores.activities.release_lock, other)
    assert lock_key("web", "shop") not in stores.mirror["s3-dr1"].objects


async def test_a_store_whose_decision_cannot_be_read_has_not_answered(stores: Stores) -> None:
    """D10: it may hold the newer one."""
    await run(stores.activities.claim_epoch, claim())
    for number, profiles, where in ((1, PROFILES, "dr1"), (2, ["s3-dr2"], "dr2")):
        document = {"phase": "x", "written_at": datetime.now(UTC).isoformat()}
        decision = Decision(cluster=where, epoch=epoch(number), decided_at=datetime.now(UTC))
        request = MirrorState(app=APP, epoch=epoch(number), profiles=profiles, document=document, decision=decision)
        await run(stores.activities.mirror_state, request)
    for key in (decision_key("web", "shop"), state_key("web", "shop")):
        stores.mirror["s3-dr2"].objects[key] = (b"{broken", "etag")
    seen: MirrorSeen = await run(stores.activities.read_mirror, ReadMirror(app=APP.ref, profiles=PROFILES))
    assert [report.profile for report in seen.stores if not report.reachable] == ["s3-dr2"]


async def test_the_witness_of_an_earlier_relocate_is_not_found(stores: Stores) -> None:
    """S4: a relocate whose own final sync nobody saw must not promote on what was seen of the last one."""
    old = WitnessDocument(epoch=epoch(2), volumes=[Volume(namespace="web", name="data-0")], seen_at=datetime.now(UTC))
    await Mirror(stores.mirror).write_witness("web", "shop", old)  # type: ignore[arg-type]
    for asked, found in ((epoch(5), []), (epoch(2), old.volumes)):
        query = StoresQuery(app=APP.ref, profiles=PROFILES, witness_of=asked)
        seen: StoresSeen = await run(stores.activities.read_stores, query)
        assert seen.witness.volumes == found


async def test_every_profile_is_reported_also_those_that_are_silent_or_unknown(stores: Stores) -> None:
    await run(stores.activities.claim_epoch, claim(4))
    stores.silence("s3-dr2")
    seen: StoresSeen = await run(
        stores.activities.read_stores, StoresQuery(app=APP.ref, profiles=[*PROFILES, "s3-dr3"])
    )
    assert [(report.profile, report.reachable) for report in seen.stores] == [
        ("s3-dr1", True),
        ("s3-dr2", False),
        ("s3-dr3", False),
    ]
    assert seen.newest_epoch is not None
    assert seen.newest_epoch.number == 4


async def test_silent_stores_are_known_without_asking_each_time(stores: Stores) -> None:
    stores.silence("s3-dr1")
    answers = await asyncio.gather(*(stores.activities.silent_profiles(PROFILES) for _ in range(100)))
    assert answers == [{"s3-dr1"}] * 100
    assert (stores.operator["s3-dr1"].looks, stores.operator["s3-dr2"].looks) == (1, 1)


async def test_state_and_decision_are_mirrored_where_a_store_answers(stores: Stores) -> None:
    stores.silence("s3-dr2")
    request = MirrorState(
        app=APP,
        epoch=epoch(2),
        document={"phase": "FailedOver", "written_at": "2026-01-01T10:00:00Z"},
        decision=Decision(cluster="dr2", previous="dr1", epoch=epoch(2)),
        profiles=PROFILES,
    )
    assert await run(stores.activities.mirror_state, request) == ["s3-dr1"]
    objects = stores.mirror["s3-dr1"].objects
    state, decision = (json.loads(objects[key("web", "shop")][0]) for key in (state_key, decision_key))
    assert (state["phase"], state["spec"]["name"], state["epoch"]["number"]) == ("FailedOver", "shop", 2)
    assert (decision["cluster"], decision["previous"]) == ("dr2", "dr1")


async def test_a_document_that_is_none_is_refused_by_its_field(stores: Stores) -> None:
    request = MirrorState(app=APP, epoch=epoch(2), document={"volumes": "none"}, profiles=PROFILES)
    err = await failure(stores.activities.mirror_state, request)
    assert (err.type, "volumes" in err.message) == ("Invalid", True)


async def test_history_is_one_object_per_action(stores: Stores) -> None:
    request = AppendHistory(
        app=APP.ref, epoch=epoch(2), action="Failover", document={"result": "done"}, profiles=PROFILES
    )
    for _ in range(2):
        assert await run(stores.activities.append_history, request) == PROFILES
    assert list(stores.mirror["s3-dr1"].objects) == ["drpc-web/shop/history/2-failover.json"]
