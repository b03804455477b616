"""Reads, writes and waits on one cluster, against an API server in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.contracts import (
    AwaitVrg,
    DeleteVrg,
    DemoteResult,
    DemoteWitnessed,
    Gate,
    LastSeen,
    PublishDecision,
    ReadVrg,
    RefreshVrg,
    ReleaseVrg,
    RemoveRestored,
    RequestUpload,
    StampEpoch,
)
from activities.waits import writing
from ramen import names
from ramen.app import Decision, Observed, Role, Volume, Wanted
from ramen.desired import Drawback, is_released
from ramen.epoch import Epoch
from ramen.errors import ClusterUnreachable
from ramen.kinds import CONFIG_MAP, NAMESPACE, PLACEMENT_DECISION, POD, PV, PVC, VOLUME_REPLICATION, VRG, Kind
from tests.activities.fakes import APP, DECIDED_DR1, VOLUMES, Told, World, epoch, failure, write


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.stop()


async def run(activity: Any, *args: Any) -> Any:
    return await Told().run(activity, *args)


async def made_primary(world: World, number: int = 1, cluster: str = "dr1") -> None:
    await run(world.activities.write_vrg, write(Role.PRIMARY, number, cluster))
    world.settle(cluster)


async def made_secondary(world: World, number: int = 1, cluster: str = "dr1") -> None:
    await run(world.activities.write_vrg, write(Role.SECONDARY, number, cluster))
    world.settle(cluster)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def put_epoch(world: World, number: int, token: str = "a", cluster: str = "dr1") -> None:
    """Somebody else stamps the VRG."""
    vrg = world.vrg(cluster)
    vrg["metadata"]["annotations"][names.EPOCH] = f"{number}.{token}"
    world.clusters[cluster].put(VRG, vrg)


# --- refresh_vrg -----------------------------------------------------------------------------------------------------

BLOCK = {"storageClassName": "block", "clusterIDs": ["id-1", "id-2"], "replicationID": "r"}


async def test_a_refresh_writes_the_peer_classes_and_nothing_else_whatever_the_role(world: World) -> None:
    await made_secondary(world)
    before = world.vrg()
    given = RefreshVrg(app=APP.model_copy(update={"peer_classes": [BLOCK]}), cluster="dr1", epoch=epoch(1))
    await run(world.activities.refresh_vrg, given)
    after = world.vrg()
    assert after["spec"]["async"].pop("peerClasses") == [BLOCK]
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    version = world.vrg()["metadata"]["resourceVersion"]
    await run(world.activities.refresh_vrg, given)
    assert world.vrg()["metadata"]["resourceVersion"] == version, "written twice"


async def test_a_refresh_of_an_older_epoch_writes_nothing_and_one_without_a_vrg_makes_none(world: World) -> None:
    given = RefreshVrg(app=APP.model_copy(update={"peer_classes": [BLOCK]}), cluster="dr1", epoch=epoch(1))
    await run(world.activities.refresh_vrg, given)
    assert world.clusters["dr1"].get(VRG, "shop", "web") is None
    await made_primary(world, 2)
    assert (await failure(world.activities.refresh_vrg, given)).type == "StaleEpoch"
    assert "peerClasses" not in world.vrg()["spec"]["async"]


# --- write_vrg -------------------------------------------------------------------------------------------------------


async def test_a_create_makes_namespace_and_vrg_with_the_facts_of_the_decision(world: World) -> None:
    world.clusters["dr1"].drop(NAMESPACE, "web")
    seen: Observed = await run(
        world.activities.write_vrg, write(Role.PRIMARY, decision=DECIDED_DR1, volumes=list(reversed(VOLUMES)))
    )
    notes = world.vrg()["metadata"]["annotations"]
    assert (notes[names.EPOCH], notes[names.DECISION], notes[names.PREVIOUS]) == ("1.a", "dr1", "dr2")
    assert [entry["name"] for entry in json.loads(notes[names.VOLUMES])] == ["data-0", "data-1"]
    assert seen.epoch == epoch(1)
    assert seen.vrg is not None
    assert seen.vrg["metadata"]["generation"] == world.vrg()["metadata"]["generation"]


async def test_writing_again_writes_nothing(world: World) -> None:
    await run(world.activities.write_vrg, write(Role.PRIMARY))
    before = world.vrg()
    await run(world.activities.write_vrg, write(Role.PRIMARY))
    assert world.vrg() == before
    assert world.clusters["dr1"].calls["update", VRG.plural] == 0


async def test_a_newer_epoch_is_not_overwritten_not_even_by_a_demotion(world: World) -> None:
    await made_primary(world, 3)
    before = world.vrg()
    for role in Role:
        assert (await failure(world.activities.write_vrg, write(role, 2))).type == "StaleEpoch"
    assert world.vrg() == before


async def test_the_same_number_with_another_token_is_refused(world: World) -> None:
    await made_primary(world, 3)
    put_epoch(world, 3, "b")
    err = await failure(world.activities.write_vrg, write(Role.SECONDARY, 3))
    assert (err.type, err.non_retryable) == ("StaleEpoch", True)


async def test_an_epoch_that_arrives_between_read_and_write_is_met(world: World) -> None:
    """S1, D14: the check at the start is stale by the time of the write; only the guarded write finds out."""
    await made_primary(world, 1)

    def overtake(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind) == ("update", VRG):
            world.clusters["dr1"].before = None
            put_epoch(world, 9)

    world.clusters["dr1"].before = overtake
    assert (await failure(world.activities.write_vrg, write(Role.SECONDARY, 2))).type == "StaleEpoch"
    assert world.vrg()["spec"]["replicationState"] == "primary"


async def test_a_conflict_with_the_operator_is_decided_again(world: World) -> None:
    await made_primary(world, 1)

    def operator(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind) == ("update", VRG):
            world.clusters["dr1"].before = None
            vrg = world.vrg()
            vrg["metadata"]["finalizers"] = [names.VRG_FINALIZER]
            world.clusters["dr1"].put(VRG, vrg)

    world.clusters["dr1"].before = operator
    await run(world.activities.write_vrg, write(Role.SECONDARY, 2))
    assert world.vrg()["spec"]["replicationState"] == "secondary"
    assert world.vrg()["metadata"]["finalizers"] == [names.VRG_FINALIZER]


async def test_endless_conflicts_end_as_a_retryable_error(world: World) -> None:
    await made_primary(world, 1)

    def restless(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind) == ("update", VRG):
            vrg = world.vrg()
            vrg["metadata"]["annotations"]["seen"] = vrg["metadata"]["resourceVersion"]
            world.clusters["dr1"].put(VRG, vrg)

    world.clusters["dr1"].before = restless
    err = await failure(world.activities.write_vrg, write(Role.SECONDARY, 2))
    assert (err.type, err.non_retryable) == ("Conflict", False)


async def test_a_create_respects_the_tombstone(world: World) -> None:
    """S7: the epoch outlives the VRG."""
    await made_primary(world, 5)
    await run(world.activities.delete_vrg, DeleteVrg(app=APP.ref, cluster="dr1", epoch=epoch(5)))
    assert (await failure(world.activities.write_vrg, write(Role.PRIMARY, 4))).type == "StaleEpoch"
    await run(world.activities.write_vrg, write(Role.PRIMARY, 6))
    assert Epoch.of(world.vrg()) == epoch(6)


async def test_a_demotion_creates_nothing_where_nothing_is(world: World) -> None:
    seen: Observed = await run(world.activities.write_vrg, write(Role.SECONDARY, only_existing=True))
    assert seen.vrg is None
    assert world.clusters["dr1"].get(VRG, "shop", "web") is None


async def test_a_vrg_in_deletion_is_not_promoted(world: World) -> None:
    await made_secondary(world)
    vrg = world.vrg()
    vrg["metadata"] |= {"deletionTimestamp": "2026-01-01T10:00:00Z", "finalizers": ["x"]}
    world.clusters["dr1"].put(VRG, vrg)
    err = await failure(world.activities.write_vrg, write(Role.PRIMARY, 2))
    assert (err.type, err.non_retryable) == ("NotYet", False)


@pytest.mark.parametrize("given_up_by", ["demotion", "final sync"])
async def test_no_ordinary_primary_over_pvcs_that_are_given_up(world: World, given_up_by: str) -> None:
    """S3: its operator would delete their stored copies, or restore nothing over them (vrg.md 2.2, 2.5)."""
    await made_primary(world)
    claim = {
        "metadata": {
            "name": "data-0",
            "namespace": "web",
            "labels": APP.pvc_selector["matchLabels"],
            "deletionTimestamp": "2026-01-01T10:00:00Z",
            "finalizers": ["x"],
        }
    }
    world.clusters["dr1"].put(PVC, claim)
    final_sync = Wanted(role=Role.PRIMARY, epoch=epoch(2), run_final_sync=True)
    begun = final_sync if given_up_by == "final sync" else Wanted(role=Role.SECONDARY, epoch=epoch(2))
    await run(world.activities.write_vrg, write(Role.PRIMARY, 2).model_copy(update={"wanted": begun}))
    err = await failure(world.activities.write_vrg, write(Role.PRIMARY, 3))
    assert (err.type, err.non_retryable) == ("NotYet", False)
    assert "PVCs data-0 are being deleted on dr1" in err.message
    assert Epoch.of(world.vrg()) == epoch(2)
    world.clusters["dr1"].drop(PVC, "data-0", "web")
    await run(world.activities.write_vrg, write(Role.PRIMARY, 3))
    assert Epoch.of(world.vrg()) == epoch(3)


async def test_silent_stores_go_last_and_the_order_alone_is_no_reason_to_write(world: World) -> None:
    """S9: the operator of a primary stops uploading at the first dead profile."""
    await made_primary(world, cluster="dr2")
    assert world.vrg("dr2")["spec"]["s3Profiles"] == ["s3-dr2", "s3-dr1"]
    world.silent = {"s3-dr1"}
    await run(world.activities.write_vrg, write(Role.PRIMARY, cluster="dr2"))
    assert world.clusters["dr2"].calls["update", VRG.plural] == 0
    world.silent = {"s3-dr2"}
    await run(world.activities.write_vrg, write(Role.PRIMARY, cluster="dr2"))
    assert world.vrg("dr2")["spec"]["s3Profiles"] == ["s3-dr1", "s3-dr2"]
    world.silent = set()
    await run(world.activities.write_vrg, write(Role.PRIMARY, cluster="dr2"))
    assert world.vrg("dr2")["spec"]["s3Profiles"] == ["s3-dr1", "s3-dr2"]


async def test_a_store_that_was_emptied_is_not_the_one_to_restore_from(world: World) -> None:
    """S9: the operator restores from the first store that can be read, and reports ready with nothing in it."""
    await made_primary(world, cluster="dr2")
    request = write(Role.PRIMARY, 2, cluster="dr2")
    await run(world.activities.write_vrg, request.model_copy(update={"drawbacks": {"s3-dr2": Drawback.LACKS_VOLUMES}}))
    assert world.vrg("dr2")["spec"]["s3Profiles"] == ["s3-dr1", "s3-dr2"]


async def test_a_store_that_was_silent_when_the_action_began_is_not_asked_again(world: World) -> None:
    await made_primary(world, cluster="dr2")
    asked = world.asked
    request = write(Role.PRIMARY, 2, cluster="dr2")
    await run(world.activities.write_vrg, request.model_copy(update={"drawbacks": {"s3-dr2": Drawback.SILENT}}))
    assert world.asked == asked + 1
    assert world.vrg("dr2")["spec"]["s3Profiles"] == ["s3-dr1", "s3-dr2"]


async def test_a_demotion_asks_no_store(world: World) -> None:
    await made_primary(world)
    asked = world.asked
    await run(world.activities.write_vrg, write(Role.SECONDARY, 2))
    assert world.asked == asked


async def test_a_closed_gate_sends_the_task_to_another_worker(world: World) -> None:
    world.closed = {"dr1"}
    err = await failure(world.activities.write_vrg, write(Role.PRIMARY))
    assert (err.type, err.non_retryable) == ("GateClosed", False)
    assert err.next_retry_delay is not None


# --- stamp_epoch and reads -------------------------------------------------------------------------------------------


async def test_a_stamp_claims_without_a_generation(world: World) -> None:
    await made_primary(world, 1)
    generation = world.vrg()["metadata"]["generation"]
    request = StampEpoch(app=APP.ref, cluster="dr1", epoch=epoch(2), action="Failover")
    seen: Observed = await run(world.activities.stamp_epoch, request)
    assert seen.epoch == epoch(2)
    assert world.vrg()["metadata"]["generation"] == generation
    patches = world.clusters["dr1"].calls["patch", VRG.plural]
    await run(world.activities.stamp_epoch, request)
    assert world.clusters["dr1"].calls["patch", VRG.plural] == patches
    assert (await failure(world.activities.write_vrg, write(Role.PRIMARY, 1))).type == "StaleEpoch"


async def test_a_stamp_never_outbids(world: World) -> None:
    await made_primary(world, 7)
    request = StampEpoch(app=APP.ref, cluster="dr1", epoch=epoch(7, "b"), action="Failover")
    assert (await failure(world.activities.stamp_epoch, request)).type == "StaleEpoch"


async def test_a_read_shows_protected_volumes_and_their_pods(world: World) -> None:
    await made_primary(world)
    world.settle(protectedPVCs=[{"namespace": "web", "name": "data-0"}])
    world.bind(*VOLUMES)
    world.run_pod("shop-0", "data-0")
    world.run_pod("batch-0")
    seen: Observed = await run(world.activities.read_vrg, ReadVrg(app=APP.ref, cluster="dr1"))
    assert seen.volumes == [VOLUMES[0]]
    assert (seen.pods.ready, seen.pods.total) == (1, 1)


async def test_what_was_seen_last_stays_readable_but_is_not_called_reachable(world: World) -> None:
    """D10: unknown is never absent."""
    await made_primary(world)
    watch = world.watch("dr1")
    await watch.vrgs.ensure_live(1.0)
    request = LastSeen(app=APP.ref, cluster="dr1", grace_seconds=0.05)
    assert (await run(world.activities.last_seen, request)).reachable
    world.clusters["dr1"].failure = ClusterUnreachable("dr1 does not answer")
    world.clusters["dr1"].cut()
    await until(lambda: not watch.vrgs.live)
    seen: Observed = await run(world.activities.last_seen, request)
    assert (seen.reachable, seen.role, seen.error) == (False, "primary", "dr1 does not answer")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run(world.activities.last_seen, request), 0.02)


async def test_health_names_the_own_cluster_and_unknown_ones(world: World) -> None:
    world.closed = {"dr2"}
    assert (await run(world.activities.cluster_health, "")).cluster == "dr1"
    assert not (await run(world.activities.cluster_health, "dr2")).reachable
    assert "dr7 is not in" in (await run(world.activities.cluster_health, "dr7")).error
    assert [health.cluster for health in await run(world.activities.list_health)] == ["dr1", "dr2"]


# --- await_vrg -------------------------------------------------------------------------------------------------------


def awaiting(gate: Gate, number: int = 1, **more: Any) -> AwaitVrg:
    return AwaitVrg(app=APP.ref, cluster="dr1", gate=gate, epoch=epoch(number), pvc_selector=APP.pvc_selector, **more)


async def test_ready_waits_for_the_operator_and_tells_what_for(world: World) -> None:
    await run(world.activities.write_vrg, write(Role.PRIMARY))
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.READY)))
    await until(lambda: any("DataReady" in beat for beat in told.beats))
    world.settle()
    seen: Observed = await wait
    assert seen.vrg is not None
    assert seen.vrg["status"]["state"] == "Primary"


async def test_a_wait_that_may_last_hours_heartbeats_when_it_has_something_new_to_say(world: World) -> None:
    await run(world.activities.write_vrg, write(Role.PRIMARY))
    told = Told(heartbeat=30.0)
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.READY)))
    await until(lambda: told.beats)
    before = list(told.beats)
    for number in range(20):  # each one wakes the wait, and none changes what it waits for
        vrg = world.vrg()
        vrg["metadata"].setdefault("annotations", {})["touched"] = str(number)
        world.clusters["dr1"].put(VRG, vrg)
        await asyncio.sleep(0.01)
    assert told.beats == before
    world.settle(state="Unknown", message="the array is busy")
    await until(lambda: len(told.beats) > len(before))
    world.settle()
    await wait


async def test_ready_does_not_take_a_stale_or_a_former_state(world: World) -> None:
    await made_primary(world)
    vrg = world.vrg()
    vrg["spec"]["s3Profiles"] = ["s3-dr2"]  # a new generation that the operator has not seen
    world.clusters["dr1"].put(VRG, vrg)
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.READY)))
    await until(lambda: any("generation" in beat for beat in told.beats))
    assert not wait.done()
    wait.cancel()


async def test_an_empty_restore_is_not_ready(world: World) -> None:
    """S3: with an empty store the operator reports a primary ready that has nothing in it."""
    await made_primary(world)
    world.bind(VOLUMES[0])
    err = await failure(world.activities.await_vrg, awaiting(Gate.READY, volumes=VOLUMES))
    assert (err.type, err.non_retryable) == ("VolumesMissing", True)
    assert "data-1" in err.message
    assert "data-0" not in err.message


async def test_a_volume_bound_to_another_pv_is_missing(world: World) -> None:
    await made_primary(world)
    world.bind(VOLUMES[0], Volume(namespace="web", name="data-1", pv="pv-empty"))
    err = await failure(world.activities.await_vrg, awaiting(Gate.READY, volumes=VOLUMES))
    assert "data-1 (bound to pv-empty instead of pv-1)" in err.message


async def test_a_volume_may_bind_a_moment_later(world: World) -> None:
    await made_primary(world)
    world.bind(VOLUMES[0])
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.READY, volumes=VOLUMES)))
    await until(lambda: any("data-1" in beat for beat in told.beats))
    world.bind(VOLUMES[1])
    assert (await wait).vrg["status"]["state"] == "Primary"


async def test_a_state_that_flaps_back_before_the_read_ends_no_wait(world: World) -> None:
    """D18: the watch showed Secondary, the read right before the end shows that it is lost again."""
    await made_secondary(world)
    watch = world.watch("dr1")
    await watch.vrgs.ensure_live(1.0)
    flapped = False

    def flap(verb: str, kind: Kind, name: str) -> None:
        nonlocal flapped
        if (verb, kind) == ("get", VRG) and not flapped:
            flapped = True
            world.settle(state="Unknown")

    world.clusters["dr1"].before = flap
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.SECONDARY)))
    await until(lambda: len(told.beats) >= 2)
    assert flapped
    assert not wait.done()
    world.settle()
    assert (await wait).vrg["status"]["state"] == "Secondary"


async def test_a_newer_epoch_ends_the_wait(world: World) -> None:
    await run(world.activities.write_vrg, write(Role.PRIMARY))
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.READY)))
    await until(lambda: told.beats)
    put_epoch(world, 2)
    with pytest.raises(ApplicationError) as caught:
        await wait
    assert (caught.value.type, caught.value.non_retryable) == ("StaleEpoch", True)


async def test_a_wait_moves_to_another_worker_when_the_gate_closes(world: World) -> None:
    await run(world.activities.write_vrg, write(Role.PRIMARY))
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.READY)))
    await until(lambda: told.beats)
    world.closed = {"dr1"}
    with pytest.raises(ApplicationError) as caught:
        await wait
    assert caught.value.type == "GateClosed"


async def test_a_wait_can_be_cancelled_and_leaves_nothing_behind(world: World) -> None:
    await run(world.activities.write_vrg, write(Role.PRIMARY))
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.READY)))
    await until(lambda: told.beats)
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait
    assert world.watch("dr1").vrgs._waiters == {}


async def test_one_lost_answer_does_not_end_a_wait(world: World) -> None:
    await made_primary(world)
    await world.watch("dr1").vrgs.ensure_live(1.0)
    lost = False

    def lose(verb: str, kind: Kind, name: str) -> None:
        nonlocal lost
        if verb == "get" and not lost:
            lost = True
            raise ClusterUnreachable("dr1: no answer in 5 s")

    world.clusters["dr1"].before = lose
    told = Told()
    await told.run(world.activities.await_vrg, awaiting(Gate.READY))
    assert told.beats == ["dr1: no answer in 5 s"]


async def test_cleaned_needs_a_secondary_and_no_pod_and_no_pvc(world: World) -> None:
    world.bind(VOLUMES[0])
    world.run_pod("shop-0", "data-0")
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.CLEANED)))
    await until(lambda: any("has no VRG" in beat for beat in told.beats))
    await made_secondary(world)
    await until(lambda: any("pods shop-0 and PVCs data-0" in beat for beat in told.beats))
    world.clusters["dr1"].drop(POD, "shop-0", "web")
    await until(lambda: any(beat.endswith("still has PVCs data-0 of web/shop.") for beat in told.beats))
    world.clusters["dr1"].drop(PVC, "data-0", "web")
    await wait


async def test_accepted_secondary_needs_the_role_and_its_generation(world: World) -> None:
    await made_primary(world)
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.ACCEPTED_SECONDARY, 2)))
    await until(lambda: any("not secondary" in beat for beat in told.beats))
    await run(world.activities.write_vrg, write(Role.SECONDARY, 2))
    await until(lambda: any("has seen generation" in beat for beat in told.beats))
    assert not wait.done()
    world.settle(state="Unknown")
    await wait


@pytest.mark.parametrize(
    ("gate", "flag", "fact"),
    [
        (Gate.FINAL_SYNC_PREPARED, "prepareForFinalSync", "prepareForFinalSyncComplete"),
        (Gate.FINAL_SYNC_COMPLETE, "runFinalSync", "finalSyncComplete"),
    ],
)
async def test_a_final_sync_is_not_taken_from_an_earlier_relocate(
    world: World, gate: Gate, flag: str, fact: str
) -> None:
    await made_primary(world)
    world.settle(**{fact: True})
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(gate)))
    await until(lambda: any("is not asked" in beat for beat in told.beats))
    vrg = world.vrg()
    vrg["spec"][flag] = True
    world.clusters["dr1"].put(VRG, vrg)
    await until(lambda: any("has not yet" in beat for beat in told.beats))
    assert not wait.done()
    world.settle(**{fact: True})
    await wait


async def test_deleted_is_what_the_server_says(world: World) -> None:
    await made_primary(world)
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.DELETED)))
    await until(lambda: told.beats)
    world.clusters["dr1"].drop(VRG, "shop", "web")
    assert (await wait).vrg is None


async def test_reprotected_needs_a_sync_after_the_promotion_of_every_volume(world: World) -> None:
    await made_primary(world)
    world.replicate("data-0", "primary", promoted="2026-01-01T10:00:00Z", synced="")
    world.replicate("data-1", "primary", promoted="2026-01-01T10:00:00Z", synced="2026-01-01T10:00:00Z")
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.REPROTECTED, volumes=VOLUMES)))
    await until(lambda: any("data-0" in beat and "data-1" in beat for beat in told.beats))
    world.replicate("data-0", "primary", promoted="2026-01-01T10:00:00Z", synced="2026-01-01T10:00:01Z")
    await until(lambda: told.beats and "data-0" not in told.beats[-1])
    assert not wait.done()
    world.replicate("data-1", "primary", promoted="2026-01-01T10:00:00Z", synced="2026-01-01T10:01:00Z")
    await wait


async def test_a_sync_that_an_array_with_a_clock_ahead_dates_after_the_promotion_proves_nothing(world: World) -> None:
    """D16: array and cluster have clocks of their own; this sync went the other way, before the promotion."""
    await made_primary(world)
    promoted, volumes = "2026-01-01T10:00:00Z", VOLUMES[:1]
    world.replicate("data-0", "primary", promoted=promoted, synced="2026-01-01T10:09:50Z")
    told = Told()
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.REPROTECTED, volumes=volumes)))
    await until(lambda: any("10:09:50Z, waiting for the next one" in beat for beat in told.beats))
    assert not wait.done()
    world.replicate("data-0", "primary", promoted=promoted, synced="2026-01-01T10:10:20Z")
    await wait


async def test_without_a_promotion_time_two_advances_prove_it(world: World) -> None:
    await made_primary(world)
    volumes = VOLUMES[:1]
    told = Told()
    later = "2026-01-01T12:00:00Z"
    world.replicate("data-0", "primary", promoted=later, synced="2026-01-01T10:00:00Z")
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.REPROTECTED, volumes=volumes)))
    for minute in ("00", "01"):
        await until(lambda minute=minute: any(f"10:{minute}:00Z" in beat for beat in told.beats))
        assert not wait.done()
        world.replicate("data-0", "primary", promoted=later, synced=f"2026-01-01T10:{int(minute) + 1:02}:00Z")
    await wait


async def test_a_volume_that_was_removed_meanwhile_is_not_waited_for_and_not_called_proven(world: World) -> None:
    await made_primary(world)
    world.bind(*VOLUMES)
    both = [{"namespace": "web", "name": volume.name} for volume in VOLUMES]
    world.settle(protectedPVCs=both)
    promoted, told = "2026-01-01T10:00:00Z", Told()
    world.replicate("data-0", "primary", promoted=promoted, synced=promoted)
    wait = asyncio.create_task(told.run(world.activities.await_vrg, awaiting(Gate.REPROTECTED, volumes=VOLUMES)))
    await until(lambda: any("data-0" in beat and "data-1 (no VolumeReplication)" in beat for beat in told.beats))
    world.replicate("data-0", "primary", promoted=promoted, synced="2026-01-01T10:00:01Z")
    await until(lambda: "data-0" not in told.beats[-1])
    assert not wait.done(), "the operator still lists data-1"
    world.settle(protectedPVCs=both[:1])
    calls = world.clusters["dr1"].calls
    looks = calls["list", PVC.plural]
    await until(lambda: calls["list", PVC.plural] > looks + 1)
    assert not wait.done(), "its PVC is still there"
    world.clusters["dr1"].drop(PVC, "data-1", "web")
    seen: Observed = await wait
    assert [volume.name for volume in seen.volumes] == ["data-0"]


async def test_a_volume_made_anew_under_a_name_that_was_gone_has_proven_nothing(world: World) -> None:
    """D16: it comes back between the read that ends the wait and the look that says which volumes there are."""
    await made_primary(world)
    world.settle()
    dr1 = world.clusters["dr1"]

    def come_back(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind) == ("get", VRG) and dr1.calls["list", PVC.plural] == 1:
            dr1.before = None
            world.bind(*VOLUMES[:1])
            world.settle(protectedPVCs=[{"namespace": "web", "name": "data-0"}])

    dr1.before = come_back
    seen: Observed = await run(world.activities.await_vrg, awaiting(Gate.REPROTECTED, volumes=VOLUMES[:1]))
    assert seen.claims == 1
    assert seen.volumes == []


async def test_without_volumes_there_is_nothing_to_replicate(world: World) -> None:
    await made_primary(world)
    await run(world.activities.await_vrg, awaiting(Gate.REPROTECTED))


# --- demote_witnessed ------------------------------------------------------------------------------------------------


def demotion(number: int = 2) -> DemoteWitnessed:
    return DemoteWitnessed(write=write(Role.SECONDARY, number, action="Relocate"), volumes=VOLUMES)


async def demoted(world: World, told: Told | None = None) -> asyncio.Task[DemoteResult]:
    """A demotion whose write is done."""
    task = asyncio.create_task((told or Told()).run(world.activities.demote_witnessed, demotion()))
    await until(lambda: world.vrg()["spec"]["replicationState"] == "secondary")
    return task


async def test_a_flash_of_sync_is_witnessed_though_the_object_is_gone_at_the_end(world: World) -> None:
    """S4: the proof lasts milliseconds."""
    await made_primary(world)
    for volume in VOLUMES:
        world.replicate(volume.name, "primary")
    task = await demoted(world)
    for volume in VOLUMES:
        world.replicate(volume.name, "secondary", in_sync=False)
        world.replicate(volume.name, "secondary")
        world.clusters["dr1"].drop(VOLUME_REPLICATION, volume.name, "web")
    world.settle()
    result = await task
    assert result.witness.volumes == VOLUMES
    assert result.observed.role == "secondary"
    assert any(key.startswith("drpc-web/shop/witness/") for key in world.store.objects)


async def test_a_volume_that_was_never_in_sync_is_missing_from_the_witness(world: World) -> None:
    """S4: Secondary with `DataProtected` True/`Unused` proves nothing."""
    await made_primary(world)
    task = await demoted(world)
    world.replicate("data-0", "secondary")
    world.replicate("data-1", "secondary", in_sync=False)
    for volume in VOLUMES:
        world.clusters["dr1"].drop(VOLUME_REPLICATION, volume.name, "web")
    world.settle()
    assert (await task).witness.volumes == [VOLUMES[0]]


async def test_volumes_may_be_seen_a_moment_after_the_vrg(world: World) -> None:
    """The two watches are two streams; the one of the VRGs may be first."""
    await made_primary(world)

    def late(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind) == ("get", VRG) and world.vrg()["status"].get("state") == "Secondary":
            world.clusters["dr1"].before = None
            for volume in VOLUMES:
                asyncio.get_running_loop().call_later(0.05, world.replicate, volume.name, "secondary")

    task = await demoted(world)
    world.clusters["dr1"].before = late
    world.settle()
    assert (await task).witness.volumes == VOLUMES


async def test_the_witness_of_an_earlier_demotion_does_not_count(world: World) -> None:
    await made_primary(world)
    await world.watch("dr1").replications.ensure_live(1.0)
    for volume in VOLUMES:
        world.replicate(volume.name, "secondary")
    await until(lambda: len(world.watch("dr1").witness.of(APP.ref)) == 2)
    task = await demoted(world)
    world.settle()
    assert (await task).witness.volumes == []


async def test_a_killed_worker_loses_no_witness(world: World) -> None:
    """S4: what it saw is in the mirror before it dies."""
    await made_primary(world)
    task = await demoted(world)
    world.replicate("data-0", "secondary")
    await until(lambda: any("/witness/" in key for key in world.store.objects))
    task.cancel()
    world.clusters["dr1"].drop(VOLUME_REPLICATION, "data-0", "web")
    await world.restart()
    retried = await demoted(world)
    world.replicate("data-1", "secondary")
    world.settle()
    assert (await retried).witness.volumes == VOLUMES


async def test_a_retry_on_another_worker_uses_that_workers_own_latch(world: World) -> None:
    await made_primary(world)
    other_watch = world.new_watches()["dr1"]
    await other_watch.replications.ensure_live(1.0)
    world.mirror._stores = {}  # no store answers
    task = await demoted(world)
    for volume in VOLUMES:
        world.replicate(volume.name, "secondary")
        world.clusters["dr1"].drop(VOLUME_REPLICATION, volume.name, "web")
    task.cancel()
    await until(lambda: len(other_watch.witness.of(APP.ref)) == 2)
    await world.stop()
    world._watches["dr1"] = other_watch
    world.activities = world.worker()
    world.settle()
    assert (await (await demoted(world))).witness.volumes == VOLUMES


async def test_a_demotion_without_a_watch_writes_nothing(world: World) -> None:
    """S4: whoever does not see the volumes cannot witness, so nothing may be demoted yet."""
    await made_primary(world)
    world.clusters["dr1"].missing = {VOLUME_REPLICATION}
    assert (await failure(world.activities.demote_witnessed, demotion())).type == "ClusterUnreachable"
    assert world.vrg()["spec"]["replicationState"] == "primary"


async def test_pods_that_hold_the_demotion_up_are_named(world: World) -> None:
    await made_primary(world)
    world.bind(VOLUMES[0])
    world.run_pod("shop-0", "data-0")
    told = Told()
    task = await demoted(world, told)
    world.settle(state="Unknown", message="PVC data-0 is still in use")
    await until(lambda: any("Still used by pods shop-0" in beat for beat in told.beats))
    world.settle()
    await task


# --- publish_decision ------------------------------------------------------------------------------------------------


def publishing(number: int = 2, **more: Any) -> PublishDecision:
    decision = more.pop("decision", Decision(cluster="dr2", retained=["dr1"]))
    return PublishDecision(app=APP, cluster="dr1", epoch=epoch(number), decision=decision, **more)


def published(world: World) -> list[tuple[str, str]]:
    found = world.clusters["dr1"].get(PLACEMENT_DECISION, "shop-placement-decision-1", "web")
    assert found is not None
    return [(entry["clusterName"], entry["reason"]) for entry in found["status"].get("decisions", [])]


async def test_a_decision_is_what_gitops_expects(world: World) -> None:
    await run(world.activities.publish_decision, publishing())
    found = world.clusters["dr1"].get(PLACEMENT_DECISION, "shop-placement-decision-1", "web")
    assert found is not None
    assert found["metadata"]["labels"][names.PLACEMENT_LABEL] == "shop-placement"
    assert published(world) == [("dr1", "RetainedForFailover"), ("dr2", "dr2")]
    version = found["metadata"]["resourceVersion"]
    await run(world.activities.publish_decision, publishing())
    again = world.clusters["dr1"].get(PLACEMENT_DECISION, "shop-placement-decision-1", "web")
    assert again is not None
    assert again["metadata"]["resourceVersion"] == version
    await run(world.activities.publish_decision, publishing(decision=Decision()))
    assert published(world) == []


async def test_gitops_never_finds_a_decision_that_names_nobody_yet(world: World) -> None:
    """A new object has no status in its first moment; GitOps would take the application away."""
    cluster = world.clusters["dr1"]
    _, version = await cluster.list(PLACEMENT_DECISION)
    await run(world.activities.publish_decision, publishing())
    seen = []
    async for event in cluster.watch(PLACEMENT_DECISION, version):
        labels = event.object["metadata"].get("labels") or {}
        seen.append((names.PLACEMENT_LABEL in labels, bool((event.object.get("status") or {}).get("decisions"))))
        if seen[-1] == (True, True):
            break
    assert (True, False) not in seen


async def test_an_older_decision_does_not_come_back(world: World) -> None:
    await run(world.activities.publish_decision, publishing(3))
    assert (await failure(world.activities.publish_decision, publishing(2, decision=Decision()))).type == "StaleEpoch"
    assert published(world) == [("dr1", "RetainedForFailover"), ("dr2", "dr2")]


async def test_the_old_side_keeps_its_entry_until_it_accepted_secondary(world: World) -> None:
    """S6: an operator that still acts as primary deletes the stored copies with the PVCs."""
    await made_primary(world, 2)
    await run(world.activities.publish_decision, publishing())
    release = publishing(decision=Decision(cluster="dr2"), require_accepted_secondary=True)
    for _ in range(2):
        err = await failure(world.activities.publish_decision, release)
        assert (err.type, err.non_retryable) == ("NotYet", False)
        await run(world.activities.write_vrg, write(Role.SECONDARY, 2))  # asked, not yet accepted
    assert published(world) == [("dr1", "RetainedForFailover"), ("dr2", "dr2")]
    world.settle(state="Unknown")
    await run(world.activities.publish_decision, release)
    assert published(world) == [("dr2", "dr2")]


async def test_acceptance_that_is_lost_between_the_writes_is_noticed(world: World) -> None:
    """S6: read right before, not once at the start."""
    await made_secondary(world, 2)
    await run(world.activities.publish_decision, publishing(1))
    cluster = world.clusters["dr1"]
    patched = 0

    def promote(verb: str, kind: Kind, name: str) -> None:
        nonlocal patched
        if (verb, kind) == ("patch", PLACEMENT_DECISION):
            patched += 1
            vrg = world.vrg()
            vrg["spec"]["replicationState"] = "primary"
            cluster.put(VRG, vrg)

    cluster.before = promote
    release = publishing(decision=Decision(cluster="dr2"), require_accepted_secondary=True)
    assert (await failure(world.activities.publish_decision, release)).type == "NotYet"
    assert patched == 1
    assert published(world) == [("dr1", "RetainedForFailover"), ("dr2", "dr2")]


async def test_nobody_is_taken_from_an_ordinary_primary(world: World) -> None:
    """S3, vrg.md 2.2: a clearing that comes late, or of a Temporal that was copied, meets the side that serves."""
    await made_primary(world, 2)
    await run(world.activities.publish_decision, publishing(decision=Decision(cluster="dr1"), require_primary=True))
    error = await failure(world.activities.publish_decision, publishing(decision=Decision()))
    assert (error.type, "ordinary primary" in error.message) == ("NotYet", True)
    assert published(world) == [("dr1", "dr1")]
    preparing = Wanted(role=Role.PRIMARY, epoch=epoch(2), prepare_final_sync=True)
    await run(world.activities.write_vrg, write(Role.PRIMARY, 2).model_copy(update={"wanted": preparing}))
    await run(world.activities.publish_decision, publishing(decision=Decision()))
    assert published(world) == []


async def test_an_attempt_that_is_over_writes_nothing(world: World) -> None:
    """S1: a worker that was frozen begins its tasks late, when another one did them and the same action has gone on."""
    await made_primary(world, 2)
    await run(world.activities.publish_decision, publishing(decision=Decision(cluster="dr1"), require_primary=True))
    before = world.vrg()["metadata"]["resourceVersion"]
    world.is_stale = True
    late = [
        (world.activities.write_vrg, write(Role.SECONDARY, 2)),
        (world.activities.delete_vrg, DeleteVrg(app=APP.ref, cluster="dr1", epoch=epoch(2))),
        (world.activities.release_vrg, ReleaseVrg(app=APP.ref, cluster="dr1", epoch=epoch(2))),
        (world.activities.publish_decision, publishing()),
    ]
    for activity, request in late:
        assert (await failure(activity, request)).type == "StaleAttempt"
    assert published(world) == [("dr1", "dr1")]
    assert world.vrg()["metadata"]["resourceVersion"] == before


async def test_a_demotion_that_comes_late_leaves_the_volumes_alone(world: World) -> None:
    await made_secondary(world, 2)
    world.bind(VOLUMES[0], restored=True)
    world.is_stale = True
    assert (
        await failure(world.activities.remove_restored, RemoveRestored(app=APP, cluster="dr1", epoch=epoch(2)))
    ).type == "StaleAttempt"
    world.is_stale = False
    assert await run(world.activities.remove_restored, RemoveRestored(app=APP, cluster="dr1", epoch=epoch(2))) == [
        VOLUMES[0].name
    ]


async def test_a_decision_for_a_primary_that_flapped_is_not_published(world: World) -> None:
    """D18: what ended the wait must be true right before the write that depends on it."""
    await made_primary(world, 2)
    ready = publishing(decision=Decision(cluster="dr1"), require_primary=True)
    world.settle(state="Unknown")
    assert (await failure(world.activities.publish_decision, ready)).type == "NotYet"
    world.settle()
    assert (await failure(world.activities.publish_decision, publishing(3, require_primary=True))).type == "NotYet"
    await run(world.activities.publish_decision, ready)
    assert published(world) == [("dr1", "dr1")]


# --- delete_vrg ------------------------------------------------------------------------------------------------------


async def test_a_delete_leaves_a_tombstone_and_repeats(world: World) -> None:
    """S7: the epoch outlives the VRG."""
    await made_primary(world, 4)
    request = DeleteVrg(app=APP.ref, cluster="dr1", epoch=epoch(4))
    for _ in range(2):
        await run(world.activities.delete_vrg, request)
    assert world.clusters["dr1"].get(VRG, "shop", "web") is None
    assert Epoch.of(world.clusters["dr1"].get(CONFIG_MAP, "hubless-epoch-shop", "web")) == epoch(4)
    seen: Observed = await run(world.activities.read_vrg, ReadVrg(app=APP.ref, cluster="dr1"))
    assert (seen.vrg, seen.tombstone) == (None, epoch(4))


async def test_a_newer_vrg_is_never_deleted(world: World) -> None:
    """S7, S1: also when it becomes newer between read and delete."""
    await made_primary(world, 4)
    assert (
        await failure(world.activities.delete_vrg, DeleteVrg(app=APP.ref, cluster="dr1", epoch=epoch(3)))
    ).type == "StaleEpoch"

    def overtake(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind) == ("delete", VRG):
            world.clusters["dr1"].before = None
            put_epoch(world, 5)

    world.clusters["dr1"].before = overtake
    err = await failure(world.activities.delete_vrg, DeleteVrg(app=APP.ref, cluster="dr1", epoch=epoch(4)))
    assert err.type == "StaleEpoch"
    assert not world.vrg()["metadata"].get("deletionTimestamp")


async def test_a_vrg_in_a_terminating_namespace_is_deleted_without_a_tombstone(world: World) -> None:
    await made_primary(world, 4)
    namespace = {"metadata": {"name": "web", "deletionTimestamp": "2026-01-01T10:00:00Z"}}
    world.clusters["dr1"].put(NAMESPACE, namespace)
    await run(world.activities.delete_vrg, DeleteVrg(app=APP.ref, cluster="dr1", epoch=epoch(4)))
    assert world.clusters["dr1"].get(VRG, "shop", "web") is None
    assert world.clusters["dr1"].get(CONFIG_MAP, "hubless-epoch-shop", "web") is None
    request = ReadVrg(app=APP.ref, cluster="dr1")
    assert (await failure(world.activities.ensure_namespace, request)).type == "NotYet"


# --- release_vrg -----------------------------------------------------------------------------------------------------


async def test_a_release_takes_our_marks_and_leaves_spec_and_generation(world: World) -> None:
    decision = Decision(cluster="dr1", previous="dr2", epoch=epoch(4))
    await made_primary(world, 4)
    await run(world.activities.write_vrg, write(Role.PRIMARY, 4, decision=decision, volumes=VOLUMES))
    before = world.vrg()
    request = ReleaseVrg(app=APP.ref, cluster="dr1", epoch=epoch(4))
    assert not is_released(before)
    for _ in range(2):
        await run(world.activities.release_vrg, request)
    after = world.vrg()
    assert is_released(after)
    assert after["spec"] == before["spec"]
    kept = ("uid", "generation", "labels", "finalizers", "deletionTimestamp")
    assert {key: after["metadata"].get(key) for key in kept} == {key: before["metadata"].get(key) for key in kept}
    ours = {key: value for key, value in after["metadata"]["annotations"].items() if key.startswith("hubless.io/")}
    assert ours == {names.EPOCH: str(epoch(4)), names.ACTION: "Release"}
    assert after["metadata"]["annotations"][names.DRPC_UID] == "uid-1", "a hub tells by it that the VRG is not its own"


async def test_no_older_action_writes_to_what_was_released(world: World) -> None:
    """S1: also after a hub made the VRG anew, which then carries no epoch at all."""
    await made_primary(world, 4)
    await run(world.activities.release_vrg, ReleaseVrg(app=APP.ref, cluster="dr1", epoch=epoch(4)))
    stamp = StampEpoch(app=APP.ref, cluster="dr1", epoch=epoch(3), action="Failover")
    older = [(world.activities.write_vrg, write(Role.SECONDARY, 3)), (world.activities.stamp_epoch, stamp)]
    for call, request in older:
        assert (await failure(call, request)).type == "StaleEpoch"
    vrg = world.vrg()
    vrg["metadata"]["annotations"] = {names.DRPC_UID: "a hub's"}
    world.clusters["dr1"].put(VRG, vrg)
    for call, request in older:
        assert (await failure(call, request)).type == "StaleEpoch"
    seen: Observed = await run(world.activities.read_vrg, ReadVrg(app=APP.ref, cluster="dr1"))
    assert seen.epoch == epoch(4), "whoever adopts it counts on from here"


async def test_an_older_release_changes_nothing(world: World) -> None:
    await made_primary(world, 4)
    before = world.vrg()
    request = ReleaseVrg(app=APP.ref, cluster="dr1", epoch=epoch(3))
    assert (await failure(world.activities.release_vrg, request)).type == "StaleEpoch"
    assert world.vrg() == before


async def test_a_claim_notes_the_clusters_of_a_vrg_that_a_hub_made(world: World) -> None:
    """S8: without them no worker looks at it."""
    await made_primary(world, 4)
    vrg = world.vrg()
    vrg["metadata"]["annotations"] = {names.DRPC_UID: "a hub's"}
    generation = vrg["metadata"]["generation"]
    world.clusters["dr1"].put(VRG, vrg)
    stamp = StampEpoch(app=APP.ref, cluster="dr1", epoch=epoch(5), action="Adopt", clusters=["dr1", "dr2"])
    await run(world.activities.stamp_epoch, stamp)
    assert world.vrg()["metadata"]["annotations"][names.CLUSTERS] == "dr1,dr2"
    assert world.vrg()["metadata"]["generation"] == generation


# --- remove_restored and request_upload ------------------------------------------------------------------------------


async def test_only_restored_pvcs_of_an_accepted_secondary_are_removed(world: World) -> None:
    await made_primary(world, 2)
    world.bind(VOLUMES[0], restored=True)
    world.bind(VOLUMES[1])
    request = RemoveRestored(app=APP, cluster="dr1", epoch=epoch(2))
    assert (await failure(world.activities.remove_restored, request)).type == "NotYet"
    await made_secondary(world, 2)
    older = RemoveRestored(app=APP, cluster="dr1", epoch=epoch(1))
    assert (await failure(world.activities.remove_restored, older)).type == "StaleEpoch"
    newer = RemoveRestored(app=APP, cluster="dr1", epoch=epoch(3))
    assert (await failure(world.activities.remove_restored, newer)).type == "NotYet"
    assert await run(world.activities.remove_restored, request) == ["data-0"]
    assert world.clusters["dr1"].get(PVC, "data-0", "web") is None
    assert world.clusters["dr1"].get(PVC, "data-1", "web") is not None


async def test_an_upload_is_asked_for_by_removing_the_marks_and_waking_the_operator(world: World) -> None:
    await made_primary(world, 2)
    cluster, mark = world.clusters["dr1"], {names.VRG_PREFIX + "vr-archived": "x", "kept": "y"}
    world.bind(VOLUMES[0])
    claim = cluster.get(PVC, "data-0", "web")
    assert claim is not None
    claim["metadata"]["annotations"] = dict(mark)
    cluster.put(PVC, claim)
    cluster.put(PV, {"metadata": {"name": "pv-0", "annotations": dict(mark)}, "spec": {"claimRef": {"name": "data-0"}}})
    generation = world.vrg()["metadata"]["generation"]
    request = RequestUpload(app=APP, cluster="dr1", epoch=epoch(2), volumes=VOLUMES)
    await run(world.activities.request_upload, request)
    for obj in (cluster.get(PVC, "data-0", "web"), cluster.get(PV, "pv-0")):
        assert obj is not None
        assert obj["metadata"]["annotations"] == {"kept": "y"}
    assert "hubless.io/upload-requested" in world.vrg()["metadata"]["annotations"]
    assert world.vrg()["metadata"]["generation"] == generation
    await made_secondary(world, 2)
    assert (await failure(world.activities.request_upload, request)).type == "NotYet"


async def test_a_write_that_takes_its_time_gives_signs_of_life() -> None:
    """A write that is part of a waiting activity must not lose it to the heartbeat's limit on a busy machine."""
    beats: list[object] = []
    enough = asyncio.Event()

    def beaten(*details: object) -> None:
        beats.extend(details)
        if len(beats) >= 3:
            enough.set()

    async def slow_write() -> None:
        async with writing("dr1", 0.01):
            await enough.wait()

    environment = ActivityEnvironment()
    environment.on_heartbeat = beaten
    async with asyncio.timeout(5):
        await environment.run(slow_write)
    assert beats[0] == {"waiting": "dr1 to take the write"}
