"""Each row is a rule: R1 to R11 of drpc.md 2.6, and what Unknown may never stand for (D10)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from ramen import gates
from ramen.app import AppRef, Observed
from ramen.gates import DRClusterRead, Unknown, Verdict, VRGRead
from ramen.objects import DRPC, VRG, DRCluster

Gate = Callable[[VRGRead], Verdict]

NOW = datetime(2026, 11, 23, 14, 3, tzinfo=UTC)
ALL_MET = ("DataReady", "ClusterDataReady", "ClusterDataProtected", "DataProtected")


def vrg(
    role: str = "primary",
    state: str = "Primary",
    seen: int | None = 3,
    *,
    unmet: dict[str, str] | None = None,
    missing: tuple[str, ...] = (),
    stale: tuple[str, ...] = (),
    **more: Any,
) -> VRGRead:
    """A VRG of generation 3 on dr2 with all conditions met but those named."""
    conditions = [
        {
            "type": type,
            "status": (unmet or {}).get(type, "True"),
            "reason": "R",
            "message": "words of the operator.",
            "observedGeneration": 2 if type in stale else 3,
        }
        for type in ALL_MET
        if type not in missing
    ]
    metadata = {"name": "shop", "namespace": "web", "generation": 3} | more.pop("metadata", {})
    obj = {
        "metadata": metadata,
        "spec": {"replicationState": role} | more.pop("spec", {}),
        "status": {"state": state, "observedGeneration": seen, "conditions": conditions} | more,
    }
    return VRGRead("dr2", "web", "shop", VRG.of(obj))


def secondary(**more: Any) -> VRGRead:
    return vrg("secondary", "Secondary", **more)


ABSENT = VRGRead("dr2", "web", "shop", None)
SILENT = VRGRead("dr2", "web", "shop", Unknown(since="14:01:31"))


def rules(gate: Gate, *rows: tuple[str, VRGRead, bool]) -> list[Any]:
    return [pytest.param(gate, observed, allowed, id=f"{gate.__name__}: {rule}") for rule, observed, allowed in rows]


READY = rules(
    gates.ready,
    ("state Primary with data and cluster data ready", vrg(), True),
    ("DataReady of an older generation does not count", vrg(stale=("DataReady",)), False),
    ("ClusterDataReady of an older generation does not count", vrg(stale=("ClusterDataReady",)), False),
    ("DataReady False does not count", vrg(unmet={"DataReady": "False"}), False),
    ("ClusterDataReady Unknown does not count", vrg(unmet={"ClusterDataReady": "Unknown"}), False),
    ("no DataReady is not ready", vrg(missing=("DataReady",)), False),
    ("conditions alone do not make a Primary", vrg(state="Unknown"), False),
    ("a Secondary is not ready", secondary(), False),
    ("data need not be protected to be ready", vrg(missing=("DataProtected", "ClusterDataProtected")), True),
    ("a cluster that does not answer is not ready", SILENT, False),
    ("no VRG is not ready", ABSENT, False),
)
SWITCH = rules(
    gates.ready_to_switch_over,
    ("data ready and cluster data stored", vrg(), True),
    ("DataReady of an older generation does not count", vrg(stale=("DataReady",)), False),
    ("cluster data not stored holds it back", vrg(unmet={"ClusterDataProtected": "False"}), False),
    ("cluster data stored for an older generation does not count", vrg(stale=("ClusterDataProtected",)), False),
    ("a source that does not answer is not left in order", SILENT, False),
    ("no VRG cannot be left", ABSENT, False),
)
SECONDARY = rules(
    gates.is_secondary,
    ("state Secondary at the generation", secondary(), True),
    ("Secondary of an older generation does not count", secondary(seen=2), False),
    ("state Unknown is not Secondary", vrg("secondary", "Unknown"), False),
    ("a Primary is not Secondary", vrg(), False),
    ("no status at all is not Secondary", vrg("secondary", "", None), False),
    ("no VRG cannot act as primary", ABSENT, True),
    ("a cluster that does not answer is not Secondary", SILENT, False),
)
ACCEPTED = rules(
    gates.accepted_role,
    ("spec secondary and seen", secondary(), True),
    ("seen is enough, the demotion need not be done", vrg("secondary", "Unknown"), True),
    ("spec secondary not yet seen may still act as primary", vrg("secondary", "Primary", 2), False),
    ("state Secondary under spec primary is not accepted", vrg("primary", "Secondary"), False),
    ("no VRG has accepted nothing", ABSENT, False),
    ("a cluster that does not answer has accepted nothing", SILENT, False),
)
PROTECTED = rules(
    gates.data_protected,
    ("DataProtected at the generation", secondary(), True),
    ("DataProtected of an older generation does not count", secondary(stale=("DataProtected",)), False),
    ("DataProtected False holds it back", secondary(unmet={"DataProtected": "False"}), False),
    ("no VRG holds no data", ABSENT, False),
    ("a cluster that does not answer holds nothing for sure", SILENT, False),
)
TARGET = rules(
    gates.valid_failover_target,
    ("a Secondary at the generation can take over", secondary(), True),
    ("a VRG wanted primary is a target whatever its state", vrg("primary", "Unknown", 2), True),
    ("a Secondary of an older generation cannot", secondary(seen=2), False),
    ("a demotion under way cannot", vrg("secondary", "Unknown"), False),
    ("no VRG cannot, unlike for Secondary everywhere", ABSENT, False),
    ("a cluster that does not answer cannot", SILENT, False),
)
EXISTS = rules(
    gates.exists_and_primary,
    ("wanted primary", vrg(), True),
    ("state does not matter", vrg("primary", "Unknown", 2), True),
    ("wanted secondary is not", secondary(), False),
    ("being deleted is not", vrg(metadata={"deletionTimestamp": "2026-11-23T14:00:00Z"}), False),
    ("no VRG is not", ABSENT, False),
    ("a cluster that does not answer is not", SILENT, False),
)


@pytest.mark.parametrize(
    ("gate", "observed", "allowed"), READY + SWITCH + SECONDARY + ACCEPTED + PROTECTED + TARGET + EXISTS
)
def test_gate_of_one_vrg(gate: Gate, observed: VRGRead, allowed: bool) -> None:
    verdict = gate(observed)
    assert verdict.allowed is allowed, verdict.reason
    assert "\n" not in verdict.reason
    assert "web/shop" in verdict.reason
    assert "dr2" in verdict.reason
    assert allowed or verdict.remedy, "a refusal says what to do"


def test_a_refusal_says_which_condition_and_why() -> None:
    assert gates.ready(vrg(unmet={"DataReady": "False"})).reason == (
        "VRG web/shop on dr2: DataReady is False (R): words of the operator."
    )
    assert gates.ready(vrg(stale=("DataReady",))).reason == (
        "VRG web/shop on dr2: DataReady is of generation 2, not yet of 3."
    )


def test_a_silent_cluster_is_named_with_its_last_answer() -> None:
    verdict = gates.is_secondary(SILENT)
    assert verdict.reason == "dr2 does not answer (last answer 14:01:31): its VRG web/shop is unknown."
    assert "hubless cluster check dr2" in verdict.remedy


def test_a_verdict_is_no_truth_value() -> None:
    with pytest.raises(TypeError, match="allowed"):
        bool(gates.multiple_primaries([]))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(Observed(cluster="dr2", reachable=False), Unknown(), id="unreachable is Unknown, never absent"),
        pytest.param(Observed(cluster="dr2"), None, id="an answer without a VRG is absence"),
    ],
)
def test_a_look_without_a_vrg(seen: Observed, expected: Unknown | None) -> None:
    assert VRGRead.of(AppRef(namespace="web", name="shop"), seen) == VRGRead("dr2", "web", "shop", expected)


def test_a_look_with_a_vrg() -> None:
    seen = Observed(cluster="dr2", vrg={"metadata": {"name": "shop", "generation": 3}, "status": {"state": "Primary"}})
    read = VRGRead.of(AppRef(namespace="web", name="shop"), seen)
    assert isinstance(read.vrg, VRG)
    assert read.vrg.status.state == "Primary"


# --- R7, and the fencing half of R2 -----------------------------------------------------------------------------------


def drcluster(
    status: str | None = None, reason: str = "Fenced", *, generation: int = 4, wanted: str | None = None
) -> DRClusterRead:
    """DRCluster dr1 of generation 4 with that Fenced condition."""
    condition = {"type": "Fenced", "status": status, "reason": reason, "observedGeneration": generation}
    obj = {
        "metadata": {"name": "dr1", "generation": 4},
        "spec": {"clusterFence": wanted},
        "status": {"conditions": [condition] if status else []},
    }
    return DRClusterRead("dr1", DRCluster.of(obj))


FENCES = [
    # rule, what was read, is fenced, is not fenced
    ("Fenced True for that reason is fenced", drcluster("True", wanted="Fenced"), True, False),
    ("unfencing is neither fenced nor free", drcluster("True", "Unfencing", wanted="Unfenced"), False, False),
    ("a failed unfencing is neither", drcluster("True", "UnfenceError", wanted="Unfenced"), False, False),
    ("a fence of an older generation proves nothing and still binds", drcluster("True", generation=3), False, False),
    ("fencing is neither", drcluster("False", "Fencing", wanted="Fenced"), False, False),
    ("asked to be fenced by hand and not yet seen is neither", drcluster(wanted="ManuallyFenced"), False, False),
    ("clean is free", drcluster("False", "Clean"), False, True),
    ("never looked at and never asked to be fenced is free", drcluster("Unknown", "Initializing"), False, True),
    ("no condition and no wish is free", drcluster(), False, True),
    ("no DRCluster is neither", DRClusterRead("dr1", None), False, False),
    ("a DRCluster that cannot be read is neither", DRClusterRead("dr1", Unknown()), False, False),
]


@pytest.mark.parametrize(
    ("observed", "is_fenced", "is_free"), [pytest.param(*rest, id=f"fenced: {rule}") for rule, *rest in FENCES]
)
def test_fencing(observed: DRClusterRead, is_fenced: bool, is_free: bool) -> None:
    fenced, free = gates.fenced(observed), gates.not_fenced(observed)
    assert (fenced.allowed, free.allowed) == (is_fenced, is_free)
    for verdict in (fenced, free):
        assert "dr1" in verdict.reason
        assert verdict.allowed or verdict.remedy


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        pytest.param(drcluster("False", "Clean"), True, id="metro: a free target may be relocated to"),
        pytest.param(drcluster("True"), False, id="metro: a fenced target may not"),
        pytest.param(DRClusterRead("dr1", Unknown()), False, id="metro: fencing that is not known is a refusal"),
        pytest.param(None, False, id="metro: fencing that nobody asked for is a refusal"),
    ],
)
def test_metro_switch_over_looks_at_the_target(target: DRClusterRead | None, allowed: bool) -> None:
    assert gates.ready_to_switch_over(vrg(), metro=True, target=target).allowed is allowed


def test_regional_switch_over_does_not_look_at_fences() -> None:
    assert gates.ready_to_switch_over(vrg(), target=drcluster("True")).allowed


# --- R8 to R11 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observations", "allowed"),
    [
        pytest.param([vrg(), secondary()], True, id="one primary is as it should be"),
        pytest.param([vrg(), vrg()], False, id="two primaries refuse"),
        pytest.param([vrg(), vrg(spec={"dryRun": True})], True, id="a test failover is no second primary"),
        pytest.param([vrg(), SILENT], True, id="a silent cluster does not refuse"),
        pytest.param([vrg(), ABSENT], True, id="an absent VRG is no primary"),
        pytest.param([vrg("primary", "Unknown"), vrg()], False, id="what is wanted counts, not the state"),
        pytest.param([], True, id="nothing seen is no second primary"),
    ],
)
def test_multiple_primaries(observations: list[VRGRead], allowed: bool) -> None:
    assert gates.multiple_primaries(observations).allowed is allowed


def test_multiple_primaries_names_both_and_the_one_that_is_not_known() -> None:
    other = VRGRead("dr1", "web", "shop", vrg().vrg)
    silent = VRGRead("dr3", "web", "shop", Unknown())
    assert gates.multiple_primaries([vrg(), other, silent]).reason == (
        "VRG web/shop is wanted primary on dr2 and dr1 at once. dr3 did not answer and may be Primary too."
    )


@pytest.mark.parametrize(
    ("decision", "preferred", "home"),
    [
        pytest.param("dr1", "dr2", "dr1", id="the decision is where it runs"),
        pytest.param("", "dr1", "dr1", id="without a decision, where it was deployed first"),
        pytest.param("", "dr2", "dr1", id="the target is never what is left"),
        pytest.param("", "", "dr1", id="without anything, the policy's other cluster"),
    ],
)
def test_current_home(decision: str, preferred: str, home: str) -> None:
    assert gates.current_home(decision, preferred, ["dr2", "dr1"], target="dr2") == home


def test_current_home_of_a_policy_of_nothing_but_the_target() -> None:
    assert gates.current_home("", "", ["dr2"], target="dr2") == ""


@pytest.mark.parametrize(
    ("conditions", "allowed"),
    [
        pytest.param([{"type": "Protected", "status": "True"}], True, id="Protected True"),
        pytest.param([{"type": "Protected", "status": "False"}], False, id="Protected False refuses"),
        pytest.param([{"type": "Protected", "status": "Unknown"}], False, id="Protected Unknown refuses"),
        pytest.param([], False, id="nothing said refuses"),
    ],
)
def test_protected(conditions: list[dict[str, str]], allowed: bool) -> None:
    drpc = DRPC.of({"metadata": {"name": "shop", "namespace": "web"}, "status": {"conditions": conditions}})
    verdict = gates.protected(drpc)
    assert verdict.allowed is allowed
    assert "web/shop" in verdict.reason


@pytest.mark.parametrize(
    ("last", "interval", "allowed"),
    [
        pytest.param("2026-11-23T14:02:00Z", "5m", True, id="a minute ago is not late"),
        pytest.param("2026-11-23T13:48:00Z", "5m", True, id="three intervals to the second are not late"),
        pytest.param("2026-11-23T13:47:59Z", "5m", False, id="more than three intervals are late"),
        pytest.param("2026-11-23T12:00:00Z", "1h", True, id="hours are counted as hours"),
        pytest.param("2026-11-19T14:00:00Z", "1d", False, id="days are counted as days"),
        pytest.param("", "5m", True, id="no sync time is not late"),
        pytest.param("yesterday", "5m", True, id="an unreadable sync time is not late"),
        pytest.param("2020-01-01T00:00:00Z", "", True, id="without an interval nothing is late"),
        pytest.param("2020-01-01T00:00:00Z", "0m", True, id="an interval of nothing is none"),
    ],
)
def test_group_sync_lagging(last: str, interval: str, allowed: bool) -> None:
    assert gates.group_sync_lagging(vrg(lastGroupSyncTime=last), interval, NOW).allowed is allowed


@pytest.mark.parametrize("observed", [SILENT, ABSENT], ids=["silent", "absent"])
def test_group_sync_of_a_vrg_that_cannot_be_read_refuses(observed: VRGRead) -> None:
    assert not gates.group_sync_lagging(observed, "5m", NOW).allowed


@pytest.mark.parametrize(
    ("interval", "seconds"), [("5m", 300), ("2h", 7200), ("1d", 86400), ("00m", 0), ("", 0), ("5s", 0), ("-5m", 0)]
)
def test_interval_seconds(interval: str, seconds: int) -> None:
    assert gates.interval_seconds(interval) == seconds


@pytest.mark.parametrize(
    ("read", "letting_go"),
    [
        pytest.param(vrg(), False, id="a primary keeps its volumes"),
        pytest.param(vrg(spec={"prepareForFinalSync": True}), True, id="one that prepares its final sync may not"),
        pytest.param(vrg(spec={"runFinalSync": True}), True, id="nor one that runs it"),
        pytest.param(
            vrg("secondary", "Unknown", spec={"action": "Relocate"}), True, id="a relocate's demotion under way"
        ),
        pytest.param(
            vrg("secondary", "Unknown", spec={"action": "Failover"}),
            False,
            id="a failover's leaves PVCs where they are",
        ),
        pytest.param(secondary(spec={"action": "Relocate"}), False, id="a demotion that has come to its end"),
        pytest.param(ABSENT, False, id="no VRG has no volumes to give up"),
        pytest.param(SILENT, False, id="of a cluster that does not answer it is not known"),
    ],
)
def test_who_is_giving_up_its_volumes(read: VRGRead, letting_go: bool) -> None:
    assert gates.is_letting_go(read) is letting_go


@pytest.mark.parametrize(
    ("read", "leaving", "allowed"),
    [
        pytest.param(secondary(), ["data-0"], False, id="a Secondary that gives its PVCs up"),
        pytest.param(vrg(spec={"runFinalSync": True}), ["data-0"], False, id="a primary in its final sync"),
        pytest.param(vrg(spec={"prepareForFinalSync": True}), ["data-0"], False, id="one that prepares it"),
        pytest.param(secondary(), [], True, id="none is in deletion"),
        pytest.param(vrg(), ["data-0"], True, id="a user's deletion on a primary is the user's"),
        pytest.param(ABSENT, ["data-0"], True, id="without a VRG nothing is given up"),
    ],
)
def test_no_ordinary_primary_over_pvcs_on_their_way_out(read: VRGRead, leaving: list[str], allowed: bool) -> None:
    """S3: their stored copies would be deleted with them, or nothing restored over them (vrg.md 2.2, 2.5)."""
    verdict = gates.may_become_ordinary_primary(read, leaving)
    assert verdict.allowed is allowed
    assert allowed or "data-0" in verdict.reason
