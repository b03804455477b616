"""When an application's VRGs disagree (S8): a row per case."""

from __future__ import annotations

import json

import pytest

from activities.access.protocol import Object
from ramen import names
from tests.worker.fakes import classes, policy, under_policy, vrg
from worker.attention import Seen, lacks_policy_classes, needs_attention


def told(*pvcs: str) -> str:
    return json.dumps([{"namespace": "web", "name": pvc, "pv": f"pv-{pvc}"} for pvc in pvcs])


def without_epoch(role: str) -> dict[str, object]:
    body = vrg(role)
    del body["metadata"]["annotations"][names.EPOCH]
    return body


def deleting(body: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    body["metadata"]["deletionTimestamp"] = "2026-11-23T14:00:00Z"
    return body


HEALTHY = {"dr1": vrg("primary", decision="dr1", protected=("data",)), "dr2": vrg("secondary", volumes=told("data"))}


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        pytest.param(HEALTHY, None, id="agree"),
        pytest.param({}, None, id="nothing seen"),
        pytest.param({"dr1": None, "dr2": None}, None, id="no VRG anywhere"),
        pytest.param({"dr1": without_epoch("primary")}, None, id="a hub's VRG is not ours"),
        pytest.param({"dr2": HEALTHY["dr2"]}, None, id="the primary's cluster is out of sight"),
        pytest.param({"dr1": HEALTHY["dr1"]}, None, id="the peer is out of sight"),
        pytest.param(
            {"dr1": vrg("primary", "7.abc"), "dr2": vrg("primary", "8.def", decision="dr2")},
            ["dr1", "epoch 7", "newest is 8"],
            id="a former primary returned",
        ),
        pytest.param(
            {"dr1": vrg("secondary", "7.abc"), "dr2": vrg("primary", "8.def")}, ["dr1", "epoch 7"], id="older secondary"
        ),
        pytest.param(
            {"dr1": vrg("primary", "8.abc"), "dr2": vrg("secondary", "8.def")}, ["two", "epoch 8"], id="two tokens"
        ),
        pytest.param(
            {"dr1": without_epoch("secondary"), "dr2": vrg("primary")}, ["dr1", "no epoch"], id="stamp was removed"
        ),
        pytest.param({"dr1": vrg("primary"), "dr2": vrg("primary")}, ["dr1 and dr2", "both"], id="two primaries"),
        pytest.param(
            {"dr1": vrg("secondary"), "dr2": vrg("secondary")}, ["no cluster is Primary"], id="primary was edited away"
        ),
        pytest.param(
            {"dr1": vrg("primary", protected=("data",)), "dr2": vrg("secondary")}, ["+data"], id="the first volume came"
        ),
        pytest.param(
            {"dr1": vrg("primary", decision="dr2"), "dr2": vrg("secondary")},
            ["dr1 is Primary", "dr2"],
            id="primary is not the one decided for",
        ),
        pytest.param({"dr1": vrg("primary"), "dr2": None}, ["dr2 has no VRG"], id="peer's VRG was deleted"),
        pytest.param(
            {"dr1": deleting(vrg("primary")), "dr2": vrg("secondary")}, ["dr1", "deleted"], id="deletion under way"
        ),
        pytest.param(
            {"dr1": vrg("primary", protected=("data", "logs")), "dr2": vrg("secondary", volumes=told("data"))},
            ["changed", "+logs"],
            id="a volume came",
        ),
        pytest.param(
            {"dr1": vrg("primary"), "dr2": vrg("secondary", volumes=told("data"))}, ["-data"], id="a volume went"
        ),
        pytest.param(
            {
                "dr1": vrg("primary", protected=("data", "logs"), settled=False),
                "dr2": vrg("secondary", volumes=told("data")),
            },
            None,
            id="an unsettled primary is not believed",
        ),
        pytest.param(
            {"dr1": vrg("primary", protected=("data",)), "dr2": vrg("secondary", volumes="{nonsense")},
            ["changed"],
            id="unreadable list of volumes",
        ),
    ],
)
def test_needs_attention(seen: Seen, words: list[str] | None) -> None:
    reason = needs_attention(seen)
    if words is None:
        assert reason is None
    else:
        assert reason is not None
        assert all(word in reason for word in words), reason


@pytest.mark.parametrize(
    ("given", "policies", "lacks"),
    [
        pytest.param(["block"], [policy("block")], False, id="has them"),
        pytest.param(["block", "old"], [policy("block")], False, id="none is ever taken away"),
        pytest.param(["block"], [policy("block", "fast")], True, id="a storage class came"),
        pytest.param([], [policy("block")], True, id="the policy had none when it was protected"),
        pytest.param(["block"], [], False, id="no policy is seen"),
        pytest.param(["block"], [policy("fast", interval="1h")], False, id="a policy of another interval"),
        pytest.param(["block"], [policy("fast", clusters=("dr1", "dr3"))], False, id="a policy of other clusters"),
        pytest.param(["block"], [policy("fast"), policy("block")], False, id="one of two equal policies will do"),
    ],
)
def test_a_vrg_that_lacks_peer_classes_of_its_policy(given: list[str], policies: list[Object], lacks: bool) -> None:
    reason = lacks_policy_classes({"dr1": under_policy(vrg("primary"), *given), "dr2": None}, policies)
    assert reason == ("the policy has new peer classes for the VRG on dr1" if lacks else None)


def test_a_class_that_is_protected_in_another_way_now_is_no_difference() -> None:
    """drpc.md 2.5: a running workload never changes the way in which it is protected."""
    changed = policy("block")
    changed["status"]["async"]["peerClasses"][0]["grouping"] = True
    assert lacks_policy_classes({"dr1": under_policy(vrg("primary"), "block")}, [changed]) is None


def test_what_a_server_leaves_out_is_no_difference() -> None:
    written = policy("block")
    written["status"]["async"]["peerClasses"] = [entry | {"grouping": False} for entry in classes("block")]
    assert lacks_policy_classes({"dr1": under_policy(vrg("primary"), "block")}, [written]) is None
