"""Protected follows from one VRG; the first topic that does not pass decides (drpc.md 1.7)."""

from __future__ import annotations

from typing import Any

import pytest

from ramen.gates import Unknown, VRGRead
from ramen.objects import VRG
from ramen.protected import GLOBAL_VGR, initial, protected_condition

PRIMARY = {
    "ClusterDataReady": ("True", "Restored"),
    "DataReady": ("True", "Ready"),
    "DataProtected": ("False", "Replicating"),
    "NoClusterDataConflict": ("True", "NoConflictDetected"),
    "ClusterDataProtected": ("True", "Uploaded"),
}
SECONDARY = {
    "DataReady": ("True", "Replicating"),
    "DataProtected": ("True", "DataProtected"),
    "NoClusterDataConflict": ("True", "NoConflictDetected"),
}
PASS = ("True", "Protected")


def look(
    role: str,
    conditions: dict[str, tuple[str, str] | None],
    *,
    stale: str = "",
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
) -> VRGRead:
    """A VRG of generation 3 with these conditions; None takes one of the healthy ones away."""
    healthy = PRIMARY if role == "primary" else SECONDARY
    rows = [
        {
            "type": type,
            "status": row[0],
            "reason": row[1],
            "message": "m",
            "observedGeneration": 2 if type == stale else 3,
        }
        for type, row in (healthy | conditions).items()
        if row
    ]
    obj = {
        "metadata": {"name": "shop", "namespace": "web", "generation": 3, "labels": labels or {}},
        "spec": {"replicationState": role, "async": {"schedulingInterval": "5m"}} | (spec or {}),
        "status": {
            "state": role.capitalize(),
            "observedGeneration": 3,
            "lastGroupSyncTime": "2026-11-23T14:00:00Z",
            "conditions": rows,
        }
        | (status or {}),
    }
    return VRGRead("dr2", "web", "shop", VRG.of(obj))


def primary(conditions: dict[str, tuple[str, str] | None] | None = None, **more: Any) -> VRGRead:
    return look("primary", conditions or {}, **more)


def secondary(conditions: dict[str, tuple[str, str] | None] | None = None, **more: Any) -> VRGRead:
    return look("secondary", conditions or {}, **more)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(primary(), PASS, id="a healthy primary replicates for ever and is protected"),
        pytest.param(secondary(), PASS, id="a healthy secondary is protected"),
        pytest.param(
            primary({"HooksReady": ("False", "HookFailed")}), ("False", "Error"), id="a failed hook is an error"
        ),
        pytest.param(
            primary({"HooksReady": ("False", "HookFailed")}, stale="HooksReady"),
            PASS,
            id="a hook that failed before is over",
        ),
        pytest.param(
            primary({"HooksReady": ("Unknown", "Initializing")}), PASS, id="a hook that has not run is ignored"
        ),
        pytest.param(primary({"ClusterDataReady": None}), ("Unknown", "Unknown"), id="a missing condition is Unknown"),
        pytest.param(
            primary(stale="DataReady"), ("Unknown", "Unknown"), id="a condition of an older generation is Unknown"
        ),
        pytest.param(
            primary({"DataReady": ("Unknown", "Initializing")}),
            ("Unknown", "Unknown"),
            id="a condition Unknown is Unknown",
        ),
        pytest.param(
            primary({"DataReady": ("False", "Error")}), ("False", "Error"), id="False with an error reason is an error"
        ),
        pytest.param(
            primary({"DataReady": ("False", "Progressing")}), ("False", "Progressing"), id="any other False is progress"
        ),
        pytest.param(
            primary({"DataProtected": ("True", "DataProtected")}), PASS, id="a protected primary is protected"
        ),
        pytest.param(
            primary({"DataProtected": ("False", "Replicating")}, stale="DataProtected"),
            ("Unknown", "Unknown"),
            id="replicating at an older generation does not count",
        ),
        pytest.param(
            primary({"DataProtected": ("False", "Progressing")}),
            ("False", "Progressing"),
            id="a primary that does not replicate yet is in progress",
        ),
        pytest.param(
            secondary({"DataReady": None, "DataProtected": None}), PASS, id="a secondary may say nothing of its data"
        ),
        pytest.param(
            secondary({"DataReady": ("False", "Replicating")}, spec={"action": "Failover"}),
            PASS,
            id="a secondary that takes in changes after a failover is protected",
        ),
        pytest.param(
            secondary({"DataReady": ("False", "Replicating")}),
            ("False", "Progressing"),
            id="without a failover the same is progress",
        ),
        pytest.param(
            secondary({"DataReady": ("False", "Replicating")}, spec={"action": "Failover", "async": None, "sync": {}}),
            ("False", "Progressing"),
            id="in sync mode the same is progress",
        ),
        pytest.param(
            secondary({"DataProtected": ("False", "Replicating")}),
            ("False", "Progressing"),
            id="a secondary that resynchronises is in progress",
        ),
        pytest.param(secondary({"ClusterDataReady": ("False", "Error")}), PASS, id="a secondary restores nothing"),
        pytest.param(
            secondary({"ClusterDataProtected": ("False", "UploadError")}), PASS, id="a secondary stores nothing"
        ),
        pytest.param(
            primary({"DestinationInfoAvailable": ("False", "Progressing")}),
            ("False", "Progressing"),
            id="addresses of the peer count where they are reported",
        ),
        pytest.param(
            primary({"NoClusterDataConflict": ("False", "ClusterDataConflictPrimary")}),
            ("False", "Error"),
            id="a conflict is an error",
        ),
        pytest.param(
            primary({"NoClusterDataConflict": ("True", "ClusterDataConflictPrimary")}),
            PASS,
            id="of a conflict only the status counts",
        ),
        pytest.param(
            primary(status={"observedGeneration": 2}),
            ("False", "Unknown"),
            id="a spec that was not seen is not protected",
        ),
        pytest.param(primary(status={"state": "Unknown"}), ("False", "Progressing"), id="the state follows the role"),
        pytest.param(
            primary(status={"lastGroupSyncTime": None}), ("False", "Progressing"), id="async needs a first sync"
        ),
        pytest.param(
            primary(status={"lastGroupSyncTime": None}, labels={GLOBAL_VGR: "g"}),
            PASS,
            id="a global group has no sync time of its own",
        ),
        pytest.param(
            primary(status={"lastGroupSyncTime": None}, spec={"async": None, "sync": {}}),
            PASS,
            id="sync mode has no sync time",
        ),
        pytest.param(
            primary({"ClusterDataProtected": ("False", "UploadError")}),
            ("False", "Error"),
            id="a failing store is an error",
        ),
        pytest.param(
            primary({"ClusterDataProtected": ("False", "UploadError")}, status={"state": "Unknown"}),
            ("False", "Progressing"),
            id="a failing store does not hide the rest",
        ),
        pytest.param(VRGRead("dr2", "web", "shop", None), ("Unknown", "Unknown"), id="no VRG is Unknown"),
        pytest.param(
            VRGRead("dr2", "web", "shop", Unknown()), ("Unknown", "Unknown"), id="a silent cluster is Unknown"
        ),
    ],
)
def test_protected_condition(observed: VRGRead, expected: tuple[str, str]) -> None:
    condition = protected_condition(observed, generation=9)
    assert (condition.status, condition.reason) == expected, condition.message
    assert (condition.type, condition.observed_generation) == ("Protected", 9)
    assert "web/shop on dr2" in condition.message


def test_the_first_topic_that_does_not_pass_decides() -> None:
    observed = primary({"ClusterDataReady": ("False", "Progressing"), "DataReady": ("False", "Error")})
    assert "ClusterDataReady" in protected_condition(observed, 1).message


def test_initially_nothing_is_protected() -> None:
    condition = initial(1)
    assert (condition.status, condition.reason) == ("False", "Unknown")
