"""Every rule over a recording holds for a story that is right, and breaks in exactly the one that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox import invariants
from sandbox.invariants import Recording, Version, judge

CONDITIONS = ("DataReady", "ClusterDataReady", "ClusterDataProtected", "DataProtected")


def vrg(
    at: float, cluster: str, role: str, epoch: str = "1.a", *, gen: int = 1, seen: int | None = None, **more: Any
) -> Version:
    """A VRG that its operator has seen at `seen`, by default at once, and with which all is well then."""
    observed = gen if seen is None else seen
    obj = {
        "metadata": {
            "namespace": "web",
            "name": "shop",
            "uid": more.pop("uid", cluster),
            "generation": gen,
            "annotations": {"hubless.io/epoch": epoch, "hubless.io/action": more.pop("action", "Deploy")},
        },
        "spec": {"replicationState": role},
        "status": {
            "state": role.capitalize(),
            "observedGeneration": observed,
            "conditions": [{"type": kind, "status": "True", "observedGeneration": observed} for kind in CONDITIONS],
        },
    }
    return Version(at, cluster, "VolumeReplicationGroup", more.pop("event", "MODIFIED"), obj)


def decision(at: float, on: str, *clusters: str, retained: str = "", epoch: str = "1.a") -> Version:
    """A PlacementDecision on a cluster."""
    entries = [{"clusterName": retained, "reason": "RetainedForFailover"}] if retained else []
    entries += [{"clusterName": cluster, "reason": cluster} for cluster in clusters]
    metadata = {"namespace": "web", "name": "d", "uid": f"d-{on}", "annotations": {"hubless.io/epoch": epoch}}
    return Version(at, on, "PlacementDecision", "MODIFIED", {"metadata": metadata, "status": {"decisions": entries}})


def failover(
    demoted_at: float = 40.0, ready_at: float = 20.0, decided_at: float = 30.0, released_at: float = 50.0
) -> Recording:
    """An application fails over from dr1 to dr2; times of its steps can be moved."""
    story = [
        vrg(0, "dr1", "primary"),
        vrg(0, "dr2", "secondary"),
        decision(1, "dr1", "dr1"),
        vrg(10, "dr1", "primary", "2.b", action="Failover"),
        vrg(10, "dr2", "secondary", "2.b", action="Failover"),
        vrg(12, "dr2", "primary", "2.b", action="Failover", gen=2, seen=1),
        vrg(ready_at, "dr2", "primary", "2.b", action="Failover", gen=2),
        decision(decided_at, "dr2", "dr2", retained="dr1", epoch="2.b"),
        vrg(demoted_at, "dr1", "secondary", "2.b", action="Failover", gen=2, seen=1),
        vrg(demoted_at + 2, "dr1", "secondary", "2.b", action="Failover", gen=2),
        decision(released_at, "dr1", "dr2", epoch="2.b"),
    ]
    return sorted(story, key=lambda version: version.at)


def relocate(demoted_at: float = 20.0, promoted_at: float = 30.0) -> Recording:
    """An application is relocated from dr1 to dr2."""
    story = [
        vrg(0, "dr1", "primary"),
        vrg(0, "dr2", "secondary"),
        decision(1, "dr1", "dr1"),
        vrg(10, "dr1", "primary", "2.b", action="Relocate", gen=2),
        decision(12, "dr1", epoch="2.b"),
        vrg(10, "dr2", "secondary", "2.b", action="Relocate"),
        vrg(demoted_at, "dr1", "secondary", "2.b", action="Relocate", gen=3),
        vrg(promoted_at, "dr2", "primary", "2.b", action="Relocate", gen=2),
        decision(promoted_at + 5, "dr2", "dr2", epoch="2.b"),
    ]
    return sorted(story, key=lambda version: version.at)


@pytest.mark.parametrize("story", [failover(), relocate()], ids=["failover", "relocate"])
def test_a_story_that_is_right_breaks_no_rule(story: Recording) -> None:
    assert judge(story) == []


@pytest.mark.parametrize(
    ("rule", "story"),
    [
        ("epochs_never_go_down", [vrg(0, "dr1", "primary", "3.a"), vrg(1, "dr1", "primary", "2.b")]),
        ("epochs_never_go_down", [vrg(0, "dr1", "primary", "3.a"), vrg(1, "dr1", "primary", "3.b")]),
        ("epochs_never_go_down", [vrg(0, "dr1", "primary", "3.a"), vrg(1, "dr1", "primary", "")]),
        ("one_token_for_each_epoch", [vrg(0, "dr1", "primary", "3.a"), vrg(1, "dr2", "secondary", "3.b")]),
        (
            "one_promotion_in_each_epoch",
            [
                vrg(0, "dr1", "secondary", "2.b"),
                vrg(0, "dr2", "secondary", "2.b"),
                vrg(1, "dr1", "primary", "2.b", gen=2),
                vrg(9, "dr2", "primary", "2.b", gen=2, action="Failover"),
            ],
        ),
        (
            "two_primaries_only_after_a_failover",
            [
                vrg(0, "dr1", "primary"),
                vrg(0, "dr2", "secondary"),
                vrg(9, "dr2", "primary", "2.b", gen=2, action="Relocate"),
            ],
        ),
        ("relocate_promotes_after_every_side_is_secondary", relocate(demoted_at=40)),
        ("failover_leaves_the_old_side_until_the_target_is_ready", failover(demoted_at=13, ready_at=25)),
        ("decision_follows_readiness", failover(decided_at=14)),
        ("retained_until_accepted_secondary", failover(released_at=35)),
        (
            "nothing_changes_without_need",
            [vrg(n, "dr1", "primary", "1.a", gen=n) for n in range(1, invariants.GENERATIONS + 2)],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_story_that_is_wrong_breaks_its_rule(rule: str, story: Recording) -> None:
    assert any(line.startswith(f"{rule}:") for line in judge(story)), judge(story)


def test_another_life_of_a_vrg_may_begin_with_any_generation() -> None:
    gone = vrg(1, "dr1", "primary", "3.a", gen=9, event="DELETED")
    again = vrg(2, "dr1", "primary", "4.b", uid="another")
    assert judge([vrg(0, "dr1", "primary", "3.a", gen=9), gone, again]) == []


def test_versions_of_two_clusters_may_be_taken_down_a_moment_out_of_order() -> None:
    assert judge(relocate(demoted_at=31, promoted_at=30)) == []


def test_serving_claimed_too_early_is_seen() -> None:
    assert invariants.serving_was_true(failover(), "dr2", 31) == []
    assert len(invariants.serving_was_true(failover(), "dr2", 15)) == 2


def test_cleaned_claimed_too_early_is_seen() -> None:
    assert invariants.cleaned_was_true(failover(), "dr2", 45) == []
    assert invariants.cleaned_was_true(failover(), "dr2", 35) != []
