"""Ramen's gates R1 to R11 (drpc.md 2.6) as pure functions: what was observed in, a `Verdict` out.

`Verdict.allowed` always means "as far as this gate is concerned the action may go on"; so `multiple_primaries` and
`group_sync_lagging` are allowed when there is *no* second primary and *no* lag. A refusal says what is wrong, where,
and what to do.

A read has three possible answers and no gate may mix them up (D10): a VRG; None, the API server said that there is
none; or `Unknown`, the cluster did not answer. Unknown is neither "Secondary everywhere" nor "gone".

Conditions and `state` flap (D18): a gate that ends a wait has to hold again in a later version, or in a read right
before the write that depends on it. That is for the one who waits; these functions judge one observation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ramen import conditions
from ramen.app import AppRef, Observed
from ramen.conditions import ClusterCondition, DRPCCondition, Reason, VRGCondition
from ramen.model import parse_time
from ramen.objects import DRPC, PRIMARY, SECONDARY, STATE_PRIMARY, STATE_SECONDARY, VRG, DRCluster

LAG_LIMIT = 3
"""Group syncs older than this many intervals are lagging (drpc.md 2.6 R11)."""

FENCING = ("Fenced", "ManuallyFenced")
"""Values of `spec.clusterFence` that ask for a fence."""

SECONDS_PER_UNIT = {"m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Unknown:
    """The cluster did not answer, so nothing is known about the object."""

    since: str = ""
    """Last time it did answer, as people are to read it; empty when that is not known."""


@dataclass(frozen=True)
class VRGRead:
    """What one read of one application's VRG on one cluster answered."""

    cluster: str
    namespace: str
    name: str
    vrg: VRG | Unknown | None

    @classmethod
    def of(cls, app: AppRef, seen: Observed) -> VRGRead:
        """The VRG part of a look at an application on a cluster; raises `Invalid` for an object that is no VRG."""
        if not seen.reachable:
            return cls(seen.cluster, app.namespace, app.name, Unknown())
        vrg = VRG.of(seen.vrg) if seen.vrg is not None else None
        return cls(seen.cluster, app.namespace, app.name, vrg)

    def __str__(self) -> str:
        return f"VRG {self.namespace}/{self.name} on {self.cluster}"


@dataclass(frozen=True)
class DRClusterRead:
    """What one read of a DRCluster answered: whether that cluster is kept from writing."""

    cluster: str
    drcluster: DRCluster | Unknown | None


@dataclass(frozen=True)
class Verdict:
    """Whether an action may go on; if not, why in one line, and what to do."""

    allowed: bool
    reason: str
    remedy: str = ""

    def __bool__(self) -> bool:
        """Refuses: `if multiple_primaries(…)` would read as the opposite of what it does."""
        raise TypeError("a Verdict is not a truth value; ask for .allowed")


def _first(*verdicts: Verdict | None) -> Verdict:
    """The first one that was given; the last is always there."""
    return next(verdict for verdict in verdicts if verdict is not None)


def _existing(observed: VRGRead) -> VRG | Verdict:
    """The VRG, or the refusal of every gate that needs one to look at."""
    vrg = observed.vrg
    if isinstance(vrg, Unknown):
        since = f" (last answer {vrg.since})" if vrg.since else ""
        return Verdict(
            False,
            f"{observed.cluster} does not answer{since}: its VRG {observed.namespace}/{observed.name} is unknown.",
            f"Wait for {observed.cluster}, or find out why: hubless cluster check {observed.cluster}",
        )
    if vrg is None:
        return Verdict(
            False,
            f"{observed.cluster} has no VRG {observed.namespace}/{observed.name}.",
            f"See what {observed.cluster} is wanted to be: hubless status {observed.name} -n {observed.namespace}",
        )
    return vrg


def _wait(observed: VRGRead) -> str:
    return f"Wait. If it lasts, on {observed.cluster}: kubectl describe vrg {observed.name} -n {observed.namespace}"


def _why_unmet(vrg: VRG, type: str) -> str:
    """Why a condition does not count, as the end of a sentence; empty when it does."""
    generation = vrg.metadata.generation
    if conditions.is_met(vrg.status.conditions, type, generation):
        return ""
    condition = conditions.find(vrg.status.conditions, type)
    if condition is None:
        return f"{type} is not reported"
    if not conditions.is_current(condition, generation):
        return f"{type} is of generation {condition.observed_generation}, not yet of {generation}"
    words = f": {condition.message.rstrip('.')}" if condition.message else ""
    return f"{type} is {condition.status} ({condition.reason}){words}"


def _all_met(observed: VRGRead, vrg: VRG, *types: str) -> Verdict | None:
    """None when all these conditions count, else the refusal for the first that does not."""
    for type in types:
        if why := _why_unmet(vrg, type):
            return Verdict(False, f"{observed}: {why}.", _wait(observed))
    return None


def _has_state(observed: VRGRead, vrg: VRG, state: str) -> Verdict | None:
    """None when the operator reports that state, else the refusal."""
    if vrg.status.state == state:
        return None
    why = _why_unmet(vrg, VRGCondition.DATA_READY)
    detail = f": {why}" if why else ""
    return Verdict(
        False, f"{observed} is {vrg.status.state or 'in no state yet'}, not {state}{detail}.", _wait(observed)
    )


def _spec_was_seen(observed: VRGRead, vrg: VRG) -> Verdict | None:
    """None when the operator has seen the present spec, else the refusal."""
    if vrg.has_observed_spec:
        return None
    return Verdict(
        False,
        f"{observed}: the operator has seen generation {vrg.status.observed_generation or 0}, "
        f"not yet {vrg.metadata.generation}.",
        f"Wait. If it lasts, check that the dr-cluster operator runs on {observed.cluster}.",
    )


def ready(observed: VRGRead) -> Verdict:
    """R1: the promoted side may be used. DataReady and ClusterDataReady at the generation, state Primary.

    Says nothing about Kubernetes objects, and nothing about volumes that were never restored (design S3).
    """
    vrg = _existing(observed)
    if isinstance(vrg, Verdict):
        return vrg
    return _first(
        _all_met(observed, vrg, VRGCondition.DATA_READY, VRGCondition.CLUSTER_DATA_READY),
        _has_state(observed, vrg, STATE_PRIMARY),
        Verdict(True, f"{observed} is Primary and ready."),
    )


def ready_to_switch_over(source: VRGRead, *, metro: bool = False, target: DRClusterRead | None = None) -> Verdict:
    """R2: the source may be left in a relocate. DataReady and ClusterDataProtected at the generation.

    With `metro`, the target must not be fenced either, and its fencing must be known: no `target` is a refusal.
    """
    vrg = _existing(source)
    if isinstance(vrg, Verdict):
        return vrg
    unmet = _all_met(source, vrg, VRGCondition.DATA_READY, VRGCondition.CLUSTER_DATA_PROTECTED)
    if unmet is not None:
        return unmet
    if metro:
        if target is None:
            return Verdict(
                False,
                f"{source} cannot be left: nobody asked whether the target is fenced.",
                "Name the target's DRCluster.",
            )
        fence = not_fenced(target)
        if not fence.allowed:
            return fence
    return Verdict(True, f"{source} is ready and everything needed to rebuild it is stored.")


def is_secondary(observed: VRGRead) -> Verdict:
    """R3: the cluster cannot act as primary. No VRG there, or state Secondary at the generation."""
    if observed.vrg is None:
        return Verdict(True, f"{observed.cluster} has no VRG {observed.namespace}/{observed.name}.")
    vrg = _existing(observed)
    if isinstance(vrg, Verdict):
        return vrg
    return _first(
        _spec_was_seen(observed, vrg),
        _has_state(observed, vrg, STATE_SECONDARY),
        Verdict(True, f"{observed} is Secondary."),
    )


def accepted_role(observed: VRGRead) -> Verdict:
    """The operator has seen that it is to be secondary: spec secondary, and that generation observed.

    The latch before the old workload and its PVCs may go: an operator that still acts as primary takes their
    removal for the user's and deletes the stored copies (vrg.md 2.7 step 7, design S6). Read it right before.
    """
    vrg = _existing(observed)
    if isinstance(vrg, Verdict):
        return vrg
    if vrg.spec.replication_state != SECONDARY:
        return Verdict(
            False,
            f"{observed} is wanted {vrg.spec.replication_state or 'in no role'}, not {SECONDARY}.",
            f"Demote it first; what is owed to it: hubless status {observed.name} -n {observed.namespace}",
        )
    accepted = Verdict(True, f"{observed} has accepted to be secondary.")
    return _first(_spec_was_seen(observed, vrg), accepted)


def may_be_unplaced(observed: VRGRead) -> Verdict:
    """Nobody may be placed here any more: the VRG is no ordinary primary, or there is none.

    Under an ordinary primary the removal of the workload's PVCs is taken for the user's, and the stored copies go with
    them (vrg.md 2.2). What takes an application away has prepared its final sync before, or demoted it.
    """
    vrg = observed.vrg
    if vrg is None:
        return Verdict(True, f"{observed.cluster} has no VRG {observed.namespace}/{observed.name}.")
    if isinstance(vrg, VRG):
        spec = vrg.spec
        if spec.replication_state == SECONDARY or spec.prepare_for_final_sync or spec.run_final_sync:
            return Verdict(True, f"{observed} gives up its volumes.")
    return Verdict(
        False,
        f"{observed} is an ordinary primary: its PVCs would be deleted, and their stored copies with them.",
        f"See what serves: hubless status {observed.name} -n {observed.namespace}",
    )


def data_protected(observed: VRGRead) -> Verdict:
    """R4: this side holds current data. DataProtected at the generation; no VRG is a refusal.

    Necessary, not sufficient: the operator may report True with nothing behind it (design D16, S4).
    """
    vrg = _existing(observed)
    if isinstance(vrg, Verdict):
        return vrg
    reported = Verdict(True, f"{observed} reports its data protected.")
    return _first(_all_met(observed, vrg, VRGCondition.DATA_PROTECTED), reported)


def valid_failover_target(observed: VRGRead) -> Verdict:
    """R5: the cluster can take over. Already wanted primary, or Secondary at the generation; no VRG is a refusal.

    Whether the copy is any good is another question (design S2).
    """
    vrg = _existing(observed)
    if isinstance(vrg, Verdict):
        return vrg
    if vrg.spec.replication_state == PRIMARY:
        return Verdict(True, f"{observed} is wanted {PRIMARY} already.")
    return is_secondary(observed)


def is_letting_go(observed: VRGRead) -> bool:
    """Whether a relocate has begun to take the volumes from this VRG and has not come to its end (vrg.md 2.4, 2.6).

    A PVC that is deleted in this time waits for the demotion. Made an ordinary primary now, the operator would take its
    removal for the user's and delete the stored copies (vrg.md 2.2), or find it in the way of a restore (vrg.md 2.5).
    """
    vrg = observed.vrg
    if not isinstance(vrg, VRG):
        return False
    if vrg.spec.replication_state == SECONDARY:
        return vrg.spec.action == "Relocate" and not is_secondary(observed).allowed
    return vrg.spec.prepare_for_final_sync or vrg.spec.run_final_sync


def may_become_ordinary_primary(observed: VRGRead, leaving: list[str]) -> Verdict:
    """A VRG that gives up its volumes, by a demotion or a final sync, is no ordinary primary while a PVC is `leaving`.

    `leaving` names the PVCs in deletion; without a VRG, and under a primary that keeps its volumes, they are nobody's
    business. Why: `is_letting_go`.
    """
    vrg = observed.vrg
    if not isinstance(vrg, VRG) or not leaving:
        return Verdict(True, f"{observed} has no PVC on its way out.")
    spec = vrg.spec
    gives_up = spec.replication_state == SECONDARY or spec.prepare_for_final_sync or spec.run_final_sync
    text = f"PVCs {', '.join(sorted(leaving))} are being deleted on {observed.cluster}"
    return Verdict(not gives_up, f"{text}; {observed} can be made Primary when they are gone.")


def exists_and_primary(observed: VRGRead) -> Verdict:
    """R6: a VRG is there, is wanted primary, and is not being deleted."""
    vrg = _existing(observed)
    if isinstance(vrg, Verdict):
        return vrg
    status = f"See: hubless status {observed.name} -n {observed.namespace}"
    if vrg.is_being_deleted:
        return Verdict(False, f"{observed} is being deleted since {vrg.metadata.deletion_timestamp}.", status)
    if vrg.spec.replication_state != PRIMARY:
        role = vrg.spec.replication_state or "in no role"
        return Verdict(False, f"{observed} is wanted {role}, not {PRIMARY}.", status)
    return Verdict(True, f"{observed} is wanted {PRIMARY}.")


def _fence_known(observed: DRClusterRead) -> DRCluster | Verdict:
    if isinstance(observed.drcluster, Unknown):
        return Verdict(
            False,
            f"DRCluster {observed.cluster} could not be read, so nobody knows whether {observed.cluster} is fenced.",
            "Wait for a cluster that has it: hubless cluster check",
        )
    if observed.drcluster is None:
        return Verdict(
            False,
            f"There is no DRCluster {observed.cluster}, so nobody knows whether {observed.cluster} is fenced.",
            f"Create DRCluster {observed.cluster}.",
        )
    return observed.drcluster


def fenced(observed: DRClusterRead) -> Verdict:
    """R7: the cluster is kept from writing. Fenced True at the generation, with reason `Fenced`.

    Stricter than Ramen, which ignores the reason and so takes a cluster that is being unfenced for a fenced one
    (drpc.md 9.3, 17; design 7).
    """
    drcluster = _fence_known(observed)
    if isinstance(drcluster, Verdict):
        return drcluster
    condition = conditions.find(drcluster.status.conditions, ClusterCondition.FENCED)
    remedy = f"Fence it: set spec.clusterFence of DRCluster {observed.cluster} to Fenced, or fail over with --fence"
    if condition is None or condition.status != conditions.TRUE or condition.reason != Reason.FENCED:
        state = f"{condition.status} ({condition.reason})" if condition else "not reported"
        return Verdict(False, f"{observed.cluster} is not fenced: Fenced is {state}.", remedy)
    if not conditions.is_current(condition, drcluster.metadata.generation):
        return Verdict(
            False,
            f"{observed.cluster} is not known to be fenced: Fenced is of generation {condition.observed_generation}, "
            f"not yet of {drcluster.metadata.generation}.",
            "Wait until the last change of its DRCluster is carried out.",
        )
    return Verdict(True, f"{observed.cluster} is fenced.")


def not_fenced(observed: DRClusterRead) -> Verdict:
    """The other half of R2: the cluster may write. Neither fenced, nor being unfenced, nor asked to be fenced.

    A Fenced of an older generation counts here: a fence that may still stand is a fence.
    """
    drcluster = _fence_known(observed)
    if isinstance(drcluster, Verdict):
        return drcluster
    condition = conditions.find(drcluster.status.conditions, ClusterCondition.FENCED)
    wanted = drcluster.spec.cluster_fence or ""
    if (condition and condition.status == conditions.TRUE) or wanted in FENCING:
        state = f"Fenced is {condition.status} ({condition.reason})" if condition else f"it is to be {wanted}"
        return Verdict(
            False,
            f"{observed.cluster} is fenced or may be: {state}.",
            f"Unfence it: set spec.clusterFence of DRCluster {observed.cluster} to Unfenced and wait for it.",
        )
    return Verdict(True, f"{observed.cluster} is not fenced.")


def multiple_primaries(observations: Iterable[VRGRead]) -> Verdict:
    """R8: refuses when more than one VRG is wanted primary outside a test failover.

    Clusters that do not answer are named but do not refuse: a failover must not need them (design D12).
    """
    seen = list(observations)
    primaries = [
        one.cluster
        for one in seen
        if isinstance(one.vrg, VRG) and one.vrg.spec.replication_state == PRIMARY and not one.vrg.spec.dry_run
    ]
    silent = [one.cluster for one in seen if isinstance(one.vrg, Unknown)]
    doubt = f" {' and '.join(silent)} did not answer and may be Primary too." if silent else ""
    if len(primaries) > 1:
        app = f"{seen[0].namespace}/{seen[0].name}"
        return Verdict(
            False,
            f"VRG {app} is wanted {PRIMARY} on {' and '.join(primaries)} at once.{doubt}",
            f"Say which side to keep: hubless failover {seen[0].name} -n {seen[0].namespace} --to CLUSTER",
        )
    return Verdict(True, f"{primaries[0] if primaries else 'No cluster'} is wanted {PRIMARY}.{doubt}")


def current_home(decision: str, preferred_decision: str, clusters: Sequence[str], target: str) -> str:
    """R9: the cluster that an action leaves: the decision, else the first deployment's, else the policy's other one.

    Empty when the policy names no cluster but the target. Unlike Ramen's, a guess is never the target itself
    (drpc.md 9.3, 16).
    """
    if decision:
        return decision
    return next((cluster for cluster in (preferred_decision, *clusters) if cluster and cluster != target), "")


def protected(drpc: DRPC) -> Verdict:
    """R10: the DRPC's condition Protected is True."""
    condition = conditions.find(drpc.status.conditions, DRPCCondition.PROTECTED)
    if condition and condition.status == conditions.TRUE:
        return Verdict(True, f"{drpc.label} is protected.")
    state = f"{condition.status} ({condition.reason}): {condition.message.rstrip('.')}" if condition else "not reported"
    return Verdict(
        False,
        f"{drpc.label} is not protected: Protected is {state}.",
        f"Wait until it is: hubless status {drpc.metadata.name} -n {drpc.metadata.namespace} --watch",
    )


def group_sync_lagging(observed: VRGRead, interval: str, now: datetime) -> Verdict:
    """R11: refuses when the last group sync is older than three intervals.

    `interval` is the policy's, such as `5m`. No interval, no sync time or an unreadable one is no lag: nothing is
    known to be late.
    """
    vrg = _existing(observed)
    if isinstance(vrg, Verdict):
        return vrg
    seconds = interval_seconds(interval)
    last = parse_time(vrg.status.last_group_sync_time)
    if not seconds or last is None or now - last <= timedelta(seconds=LAG_LIMIT * seconds):
        return Verdict(True, f"{observed} is not behind its interval.")
    return Verdict(
        False,
        f"{observed} was last in sync at {vrg.status.last_group_sync_time}, "
        f"more than {LAG_LIMIT} intervals of {interval} ago.",
        f"Check the replication between the clusters, and the workload on {observed.cluster}.",
    )


def interval_seconds(interval: str) -> int:
    """Seconds of a scheduling interval such as `5m`, `2h` or `1d`; 0 for none, or for one that cannot be read."""
    match = re.fullmatch(r"(\d+)([mhd])", interval)
    return int(match[1]) * SECONDS_PER_UNIT[match[2]] if match else 0
