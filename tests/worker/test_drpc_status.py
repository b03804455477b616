"""The status of a DRPC copy: the workflow's facts, the VRGs, and Ramen's shape (drpc.md 1.3 to 1.8, S16)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ramen import names
from ramen.app import ActionKind, Decision
from ramen.drpc_edits import Do, Entity, Known, Step
from ramen.epoch import Epoch
from tests.worker.test_drpcs import APP, record
from worker import drpc_status
from worker.entities import known
from workflows import view
from workflows.inputs import AppState, Outcome, StatusView

NOW = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
E2 = Epoch(number=2, token="t")
TRUE_TYPES = ("ClusterDataReady", "DataReady", "DataProtected", "NoClusterDataConflict", "ClusterDataProtected")


def vrg(role: str = "primary", ready: bool = True, synced: str = "2026-11-28T08:55:00Z", **spec: Any) -> dict[str, Any]:
    conditions = [
        {"type": kind, "status": "True", "reason": "Ready", "message": "", "observedGeneration": 3}
        for kind in TRUE_TYPES
        if ready
    ]
    return {
        "metadata": {
            "name": "shop",
            "namespace": "web",
            "generation": 3,
            "annotations": {names.EPOCH: str(E2), names.CLUSTERS: "dr1,dr2"},
        },
        "spec": {"replicationState": role, "async": {"schedulingInterval": "1m"}, **spec},
        "status": {
            "state": role.capitalize(),
            "observedGeneration": 3,
            "conditions": conditions,
            "lastGroupSyncTime": synced,
            "protectedPVCs": [{"name": "data-0", "namespace": "web"}],
        },
    }


def told(kind: ActionKind, outcome: Outcome | None, serving: str = "dr2", proven: bool = True) -> StatusView:
    action = record(kind, 2, "dr2", outcome).model_copy(update={"source": "dr1"})
    state = AppState(
        namespace="web",
        name="shop",
        app=APP,
        issued=[E2],
        decision=Decision(cluster=serving or None),
        action=action,
        history=[action] if outcome else [],
        protected={"dr1": NOW} if proven else {},
    )
    return StatusView(drpc=view.drpc(state, NOW), hubless=view.hubless(state), state=state)


def status(now: StatusView, seen: drpc_status.Seen, old: dict[str, Any] | None = None) -> dict[str, Any]:
    obj = {"metadata": {"name": "shop", "namespace": "web", "generation": 5}, "spec": {}, "status": old or {}}
    return drpc_status.build(obj, known(now.state), now, seen, Step(Do.NOTHING), None, NOW)


def protected(found: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in found["conditions"] if each["type"] == "Protected")


DONE = told(ActionKind.FAILOVER, Outcome.DONE)


def test_ramens_columns_find_what_they_read() -> None:
    found = status(DONE, {"dr1": vrg("secondary"), "dr2": vrg()})
    assert [each["type"] for each in found["conditions"]] == ["Available", "PeerReady", "Protected"]
    assert (found["phase"], found["progression"]) == ("FailedOver", "Completed")
    assert found["lastGroupSyncTime"] == "2026-11-28T08:55:00Z"
    assert found["resourceConditions"]["resourceMeta"]["protectedpvcs"] == ["data-0"]
    assert found["hubless"]["servesOn"] == "dr2"


def test_nothing_new_is_said_twice() -> None:
    seen = {"dr1": vrg("secondary"), "dr2": vrg()}
    first = status(DONE, seen)
    assert status(DONE, seen, first) == first


@pytest.mark.parametrize(
    ("now", "seen", "expected"),
    [
        (DONE, {"dr2": vrg()}, ("True", "Protected")),
        (DONE, {"dr2": vrg(ready=False)}, ("Unknown", "Unknown")),
        (DONE, {"dr2": None}, ("Unknown", "Unknown")),
        (DONE, {"dr1": vrg("secondary")}, ("Unknown", "Unknown")),
        (told(ActionKind.FAILOVER, Outcome.DONE, proven=False), {"dr2": vrg()}, ("False", "Progressing")),
    ],
    ids=["proven and healthy", "not reported", "no VRG", "out of sight", "healthy but not proven (D16)"],
)
def test_protected_needs_both_the_vrg_and_the_proof(
    now: StatusView, seen: drpc_status.Seen, expected: tuple[str, str]
) -> None:
    found = protected(status(now, seen))
    assert (found["status"], found["reason"]) == expected


def test_the_last_sync_time_is_known_while_the_cluster_is_out_of_sight() -> None:
    first = status(DONE, {"dr2": vrg()})
    then = status(DONE, {}, first)
    assert then["lastGroupSyncTime"] == first["lastGroupSyncTime"]
    assert "resourceConditions" not in then


def test_new_sync_times_alone_are_routine() -> None:
    first = status(DONE, {"dr2": vrg()})
    later = status(DONE, {"dr2": vrg(synced="2026-11-28T09:00:00Z")}, first)
    assert drpc_status.is_routine(first, later)
    assert not drpc_status.is_routine(first, status(DONE, {"dr2": vrg(ready=False)}, first))


FAILING = told(ActionKind.FAILOVER, None, serving="dr1")
MOVING = told(ActionKind.RELOCATE, None, serving="dr1")


@pytest.mark.parametrize(
    ("now", "seen", "progression"),
    [
        (FAILING, {"dr2": vrg("secondary")}, "FailingOverToCluster"),
        (FAILING, {"dr2": vrg(ready=False)}, "WaitingForResourceRestore"),
        (FAILING, {"dr2": vrg()}, "WaitForReadiness"),
        (MOVING, {"dr1": vrg(prepareForFinalSync=True), "dr2": vrg("secondary")}, "PreparingFinalSync"),
        (MOVING, {"dr1": vrg(runFinalSync=True), "dr2": vrg("secondary")}, "RunningFinalSync"),
        (MOVING, {"dr1": vrg("secondary"), "dr2": vrg("secondary")}, "EnsuringVolumesAreSecondary"),
        (MOVING, {"dr1": vrg("secondary"), "dr2": vrg(ready=False)}, "WaitingForResourceRestore"),
        (DONE, {"dr2": vrg()}, "Completed"),
    ],
)
def test_progressions_follow_the_vrgs(now: StatusView, seen: drpc_status.Seen, progression: str) -> None:
    assert status(now, seen)["progression"] == progression


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Deployed", "FailingOver", "DRPCFailingOver"),
        ("FailingOver", "FailedOver", "DRPCFailoverSuccess"),
        ("Relocating", "Relocated", "DRPCRelocationSuccess"),
        ("", "Deploying", "DRPCDeploying"),
        ("", "Deployed", None),
        ("Deployed", "Deployed", None),
    ],
)
def test_events_tell_of_transitions_only(old: str, new: str, reason: str | None) -> None:
    event = drpc_status.phase_event({"phase": old}, {"phase": new})
    assert (event and event[1]) == reason


def available(found: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in found["conditions"] if each["type"] == "Available")


@pytest.mark.parametrize("there", [vrg("secondary"), None], ids=["Secondary", "none"])
def test_nothing_is_available_whose_vrg_is_not_primary(there: dict[str, Any] | None) -> None:
    found = available(status(DONE, {"dr2": there}))
    assert found["status"] == "Unknown"
    assert "dr2" in found["message"]
    assert available(status(DONE, {"dr2": vrg()}))["status"] == "True"
    assert available(status(DONE, {}))["status"] == "True", "what is out of sight says nothing against it"


def unheard(seen: drpc_status.Seen, old: dict[str, Any]) -> dict[str, Any]:
    """The status when the workflow does not answer any more, and what it said last is remembered."""
    obj = {"metadata": {"name": "shop", "namespace": "web", "generation": 5}, "spec": {}, "status": old}
    why = Known(Entity.UNKNOWN, why="Temporal does not answer")
    return drpc_status.build(obj, why, DONE, seen, Step(Do.NOTHING), None, NOW)


def test_a_newer_epoch_that_is_seen_is_not_ignored_because_temporal_is_away() -> None:
    seen = {"dr1": vrg("secondary"), "dr2": vrg()}
    old = status(DONE, seen)
    assert available(unheard(seen, old))["status"] == "True"
    moved = vrg()
    moved["metadata"]["annotations"][names.EPOCH] = "3.other"
    found = available(unheard({"dr1": moved, "dr2": vrg()}, old))
    assert (found["status"], found["reason"]) == ("Unknown", "Isolated")
    assert "epoch 3 was seen on dr1" in found["message"]


def test_after_an_isolation_nothing_is_confirmed_by_a_store_alone() -> None:
    obj = {"metadata": {"name": "shop", "namespace": "web", "generation": 5}, "spec": {}}
    nobody = Known(Entity.UNKNOWN, why="Temporal does not answer")
    alone = drpc_status.build(obj, nobody, DONE, {"dr2": vrg()}, Step(Do.NOTHING), drpc_status.Isolation(NOW), NOW)
    assert available(alone)["reason"] == "Isolated"
    assert available(unheard({"dr2": vrg()}, alone))["reason"] == "Isolated"
    assert available(unheard({"dr1": vrg("secondary"), "dr2": vrg()}, alone))["status"] == "True"


def test_sync_figures_belong_together_and_to_the_side_that_serves() -> None:
    first = vrg() | {}
    first["status"] |= {"lastGroupSyncBytes": 1000, "lastGroupSyncDuration": "2s"}
    old = status(DONE, {"dr2": first})
    idle = vrg(synced="2026-11-28T08:56:00Z")
    idle["status"]["lastGroupSyncBytes"] = 0
    found = status(DONE, {"dr2": idle}, old)
    assert (found["lastGroupSyncTime"], found["lastGroupSyncBytes"]) == ("2026-11-28T08:56:00Z", 0)
    assert "lastGroupSyncDuration" not in found
    back = told(ActionKind.FAILOVER, Outcome.DONE, serving="dr1")
    found = status(back, {"dr1": vrg(synced=""), "dr2": vrg("secondary")}, old)
    assert "lastGroupSyncTime" not in found, "dr1 has copied nothing yet"
    found = status(DONE, {"dr2": vrg(synced="")}, old)
    assert found["lastGroupSyncTime"] == old["lastGroupSyncTime"], "a relocate takes it away for a while"
