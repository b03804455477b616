"""What must hold over every version of an application's VRGs and decisions: pure functions over a recording.

Rules are those of drpc.md 10.5 and of design 3, as far as the clusters show them. Each function answers with one line
for each place where its rule is broken; no line means that it held. A recording merges the watches of several servers,
so the order of versions of *different* clusters is known to `SKEW_SECONDS` only; of one cluster it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ramen import gates, names
from ramen.app import AppRef, Observed
from ramen.epoch import Epoch
from ramen.gates import VRGRead

KNOWN = "KNOWN"
"""Event of a version that was there when the recording began: how it came about was judged before, or never."""

SKEW_SECONDS = 2.0
"""How much later than what it permits, on another cluster, a version may have been taken down: a watch that was broken
catches up within this time on a busy machine."""

PRIMARY, SECONDARY = "primary", "secondary"


@dataclass(frozen=True)
class Version:
    """One version of an object as a watch brought it: when, where, and whether it was the last."""

    at: float
    cluster: str
    kind: str
    event: str
    obj: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Cluster and UID: one life of one object."""
        return self.cluster, self.obj["metadata"].get("uid", "")

    @property
    def epoch(self) -> Epoch | None:
        """The epoch stamped on it."""
        return Epoch.of(self.obj)

    @property
    def action(self) -> str:
        """The action that claimed its epoch."""
        return str((self.obj["metadata"].get("annotations") or {}).get(names.ACTION, ""))

    @property
    def role(self) -> str:
        """The role that is wanted of it."""
        return str((self.obj.get("spec") or {}).get("replicationState", ""))

    @property
    def generation(self) -> int:
        """Counts changes of the spec."""
        return int(self.obj["metadata"].get("generation", 0))

    @property
    def read(self) -> VRGRead:
        """The form in which the gates take it."""
        metadata = self.obj["metadata"]
        app = AppRef(namespace=metadata["namespace"], name=metadata["name"])
        return VRGRead.of(app, Observed(cluster=self.cluster, vrg=self.obj))

    def chosen(self) -> set[str]:
        """PlacementDecision: clusters that are to run the application."""
        return {
            entry["clusterName"]
            for entry in (self.obj.get("status") or {}).get("decisions") or []
            if entry.get("reason") != names.RETAINED_FOR_FAILOVER
        }

    def named(self) -> set[str]:
        """PlacementDecision: clusters that it names at all."""
        return {entry["clusterName"] for entry in (self.obj.get("status") or {}).get("decisions") or []}


Recording = list[Version]
Rule = Callable[[Recording], list[str]]


def vrgs(recording: Recording) -> Recording:
    """The VolumeReplicationGroups of a recording."""
    return [version for version in recording if version.kind == "VolumeReplicationGroup"]


def decisions(recording: Recording) -> Recording:
    """The PlacementDecisions of a recording."""
    return [version for version in recording if version.kind == "PlacementDecision"]


def epochs_never_go_down(recording: Recording) -> list[str]:
    """S1: on one object the number grows, the token stays while the number does, and neither is ever dropped."""
    broken: list[str] = []
    for before, now in _successive(vrgs(recording)):
        old, new = before.epoch, now.epoch
        if old is None or old == new:
            continue
        if new is None:
            broken.append(f"{now.cluster}: epoch {old} was dropped")
        elif new.number < old.number:
            broken.append(f"{now.cluster}: epoch went from {old.number} down to {new.number}")
        elif new.number == old.number:
            broken.append(f"{now.cluster}: epoch {new.number} changed its token")
    return broken


def one_token_for_each_epoch(recording: Recording) -> list[str]:
    """S1: whichever cluster it stands on, a number belongs to one action."""
    tokens: dict[int, set[str]] = {}
    for version in recording:
        if version.epoch:
            tokens.setdefault(version.epoch.number, set()).add(version.epoch.token)
    return [f"epoch {number} was issued {len(found)} times" for number, found in tokens.items() if len(found) > 1]


def one_promotion_in_each_epoch(recording: Recording) -> list[str]:
    """drpc.md 10.5 no. 1: no epoch makes two clusters primary; the undoing of a relocate promotes its source alone."""
    promoted: dict[int, set[str]] = {}
    for version in _promotions(recording):
        if version.epoch:
            promoted.setdefault(version.epoch.number, set()).add(version.cluster)
    return [
        f"epoch {number} promoted {' and '.join(sorted(clusters))}"
        for number, clusters in promoted.items()
        if len(clusters) > 1
    ]


def two_primaries_only_after_a_failover(recording: Recording) -> list[str]:
    """drpc.md 10.5 no. 1: while two clusters are wanted primary, the newer promotion is a failover's."""
    broken = []
    latest: dict[str, Version] = {}
    for version in vrgs(recording):
        before = latest.get(version.cluster)
        latest[version.cluster] = version
        if version.event == "DELETED":
            latest.pop(version.cluster)
            continue
        turned = version.role == PRIMARY and (before is None or before.role != PRIMARY or before.key != version.key)
        others = [other.cluster for other in latest.values() if other is not version and other.role == PRIMARY]
        if turned and others and version.action != "Failover":
            still = [c for c in others if not _becomes(recording, c, version.at, lambda v: v.role != PRIMARY)]
            if still:
                broken.append(f"{version.cluster} was made primary by {version.action or 'nobody'} beside {still[0]}")
    return broken


def relocate_promotes_after_every_side_is_secondary(recording: Recording) -> list[str]:
    """drpc.md 10.5 no. 4: at a relocate's promotion every other VRG is Secondary at its generation."""
    broken = []
    for promotion in _promotions(recording):
        if promotion.action != "Relocate":
            continue
        for cluster, other in _latest(recording, promotion.at, promotion.cluster).items():
            seen = [
                version
                for version in vrgs(recording)
                if version.key == other.key
                and version.generation == other.generation
                and version.at <= promotion.at + SKEW_SECONDS
            ]
            if other.role == SECONDARY and any(gates.is_secondary(version.read).allowed for version in seen):
                continue
            if _becomes(recording, cluster, promotion.at, lambda v: gates.is_secondary(v.read).allowed):
                continue
            broken.append(f"{promotion.cluster} was promoted by a relocate while {cluster} was not Secondary")
    return broken


def failover_leaves_the_old_side_until_the_target_is_ready(recording: Recording) -> list[str]:
    """drpc.md 10.5 no. 3: the spec of the side that is left changes only after the target became ready."""
    broken = []
    promotions = [version for version in _promotions(recording) if version.action == "Failover"]
    for before, now in _successive(vrgs(recording)):
        if before.role != PRIMARY or now.role == PRIMARY or now.epoch is None:
            continue
        of_epoch = [p for p in promotions if p.epoch == now.epoch and p.cluster != now.cluster]
        for promotion in of_epoch:
            if not _was(recording, promotion, now.at, lambda v: gates.ready(v.read).allowed):
                broken.append(f"{now.cluster} was demoted before {promotion.cluster} was ready")
    return broken


def decision_follows_readiness(recording: Recording) -> list[str]:
    """D15, D18: a decision newly names a cluster only after that cluster's VRG was Primary and ready at its epoch."""
    broken = []
    chosen: dict[str, set[str]] = {}
    for version in decisions(recording):
        before, now = chosen.get(version.cluster, set()), version.chosen()
        chosen[version.cluster] = now if version.event != "DELETED" else set()
        if version.event == KNOWN:
            continue
        for cluster in now - before:
            seen = [v for v in vrgs(recording) if v.cluster == cluster and v.at <= version.at + SKEW_SECONDS]
            ready = [v for v in seen if v.role == PRIMARY and gates.ready(v.read).allowed]
            if not any(v.epoch and version.epoch and v.epoch.number <= version.epoch.number for v in ready):
                broken.append(f"the decision on {version.cluster} named {cluster} before it was ready there")
    return broken


def retained_until_accepted_secondary(recording: Recording) -> list[str]:
    """S6: in a failover a cluster's own entry leaves its own copy only when its VRG accepted the Secondary role."""
    broken = []
    named: dict[str, set[str]] = {}
    for version in decisions(recording):
        before, now = named.get(version.cluster, set()), version.named()
        named[version.cluster] = now if version.event != "DELETED" else set()
        own = version.cluster
        if own not in before or own in now or version.event == "DELETED" or not now:
            continue  # a relocate clears its decision on purpose, and names nobody then
        seen = [v for v in vrgs(recording) if v.cluster == own and v.at <= version.at + SKEW_SECONDS]
        if seen and not any(
            v.role == SECONDARY and gates.accepted_role(v.read).allowed for v in seen if v.at >= version.at - 600
        ):
            broken.append(f"{own}'s own entry was taken out of its decision before its VRG accepted Secondary")
    return broken


def nothing_changes_without_need(recording: Recording) -> list[str]:
    """drpc.md 10.5 no. 8: a spec that is written again unchanged, or back and forth in one epoch, is a busy loop."""
    counts: dict[tuple[str, str, str], set[int]] = {}
    for version in vrgs(recording):
        counts.setdefault((*version.key, str(version.epoch)), set()).add(version.generation)
    return [
        f"{cluster}: {len(found)} generations in epoch {epoch.split('.')[0]}"
        for (cluster, _, epoch), found in counts.items()
        if len(found) > GENERATIONS
    ]


GENERATIONS = 8
"""Most generations of one VRG in one epoch: a relocate and its undoing make five, a profile order may add some."""

RULES: tuple[Rule, ...] = (
    epochs_never_go_down,
    one_token_for_each_epoch,
    one_promotion_in_each_epoch,
    two_primaries_only_after_a_failover,
    relocate_promotes_after_every_side_is_secondary,
    failover_leaves_the_old_side_until_the_target_is_ready,
    decision_follows_readiness,
    retained_until_accepted_secondary,
    nothing_changes_without_need,
)


def judge(recording: Recording) -> list[str]:
    """Every rule over the recording of one application; each line begins with the rule's name."""
    return [f"{rule.__name__}: {line}" for rule in RULES for line in rule(recording)]


# --- what was claimed ----------------------------------------------------------------------------------------------


def serving_was_true(recording: Recording, cluster: str, at: float) -> list[str]:
    """The fact "serving since `at`": that cluster's VRG had been Primary and ready, and a decision named it."""
    ready = [
        v
        for v in vrgs(recording)
        if v.cluster == cluster and v.at <= at + SKEW_SECONDS and v.role == PRIMARY and gates.ready(v.read).allowed
    ]
    naming = [v.at for v in decisions(recording) if cluster in v.chosen()]
    broken = [] if ready else [f"serving on {cluster} was claimed before its VRG was ready"]
    if not any(each <= at + SKEW_SECONDS for each in naming):
        late = f" ({min(naming) - at:.1f} s later)" if naming else ""
        broken.append(f"serving on {cluster} was claimed before a decision named it{late}")
    return broken


def cleaned_was_true(recording: Recording, home: str, at: float) -> list[str]:
    """The fact "cleaned since `at`": every other cluster's VRG had accepted the Secondary role by then."""
    broken = []
    for cluster in {v.cluster for v in vrgs(recording)} - {home}:
        until = [v for v in vrgs(recording) if v.cluster == cluster and v.at <= at + SKEW_SECONDS]
        if until and not any(v.role == SECONDARY and gates.is_secondary(v.read).allowed for v in until):
            broken.append(f"cleaned was claimed while {cluster} had not been Secondary")
    return broken


# --- parts ---------------------------------------------------------------------------------------------------------


def _successive(recording: Recording) -> Iterator[tuple[Version, Version]]:
    """Each version with the one before it in the same life of the same object."""
    latest: dict[tuple[str, str], Version] = {}
    for version in recording:
        before = latest.get(version.key)
        latest[version.key] = version
        if before is not None and version.event != "DELETED":
            yield before, version


def _promotions(recording: Recording) -> Recording:
    """Versions that turned an existing VRG from secondary to primary."""
    return [now for before, now in _successive(vrgs(recording)) if before.role == SECONDARY and now.role == PRIMARY]


def _latest(recording: Recording, at: float, but: str) -> dict[str, Version]:
    """By cluster other than `but`: its VRG as it was last seen at a moment."""
    found: dict[str, Version] = {}
    for version in vrgs(recording):
        if version.cluster == but or version.at > at:
            continue
        found[version.cluster] = version
        if version.event == "DELETED":
            found.pop(version.cluster)
    return found


def _becomes(recording: Recording, cluster: str, at: float, holds: Callable[[Version], bool]) -> bool:
    """Whether a version that was taken down a moment after `at` shows it: it may have been first all the same."""
    return any(
        holds(version)
        for version in vrgs(recording)
        if version.cluster == cluster and at < version.at <= at + SKEW_SECONDS
    )


def _was(recording: Recording, promotion: Version, until: float, holds: Callable[[Version], bool]) -> bool:
    """Whether the promoted VRG ever showed it between its promotion and a moment."""
    return any(
        holds(version)
        for version in vrgs(recording)
        if version.key == promotion.key and promotion.at <= version.at <= until + SKEW_SECONDS
    )
