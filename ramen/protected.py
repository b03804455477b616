"""The DRPC's condition `Protected`, derived from one VRG and nothing else (drpc.md 1.7).

Topics are judged from top to bottom and the first that does not pass decides. The upload of the cluster's data is
judged last on purpose: with a dead peer's store it goes on failing during a failover and would hide the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ramen import conditions
from ramen.conditions import ERROR_REASONS, FALSE, TRUE, UNKNOWN, Condition, DRPCCondition, Reason, VRGCondition
from ramen.gates import Unknown, VRGRead
from ramen.objects import PRIMARY, STATE_PRIMARY, STATE_SECONDARY, VRG
from ramen.phases import Action

GLOBAL_VGR = "ramendr.openshift.io/global-vgr"
"""Label of a VRG whose volumes are replicated as one group across applications; it has no sync time of its own."""

TOPICS: dict[str, str] = {
    VRGCondition.CLUSTER_DATA_READY: "restoring its PVs and PVCs",
    VRGCondition.DATA_READY: "readiness of its data",
    VRGCondition.DATA_PROTECTED: "replication of its data",
    VRGCondition.DESTINATION_INFO_AVAILABLE: "its peer's addresses",
    VRGCondition.NO_CLUSTER_DATA_CONFLICT: "PVCs that contradict its role",
    VRGCondition.CLUSTER_DATA_PROTECTED: "storing its PVs and PVCs",
}
"""What each condition is about, in words for a message."""


def initial(generation: int | None) -> Condition:
    """Protected before any VRG was looked at."""
    return _protected(FALSE, Reason.UNKNOWN, "Not looked at yet", generation)


def protected_condition(observed: VRGRead, generation: int | None) -> Condition:
    """Protected as it follows from the VRG where the workload is or should be; `generation` is the DRPC's.

    The transition time is left to `conditions.set_condition`.
    """
    vrg = observed.vrg
    if vrg is None or isinstance(vrg, Unknown):
        why = "does not exist" if vrg is None else "cannot be read, the cluster does not answer"
        return _protected(UNKNOWN, Reason.UNKNOWN, f"{observed} {why}", generation)
    judge = _judge_primary if vrg.spec.replication_state == PRIMARY else _judge_secondary
    for status, reason, text in judge(vrg):
        return _protected(status, reason, f"{observed} {text}", generation)
    return _protected(TRUE, Reason.PROTECTED, f"{observed} protects its resources and data", generation)


Finding = tuple[str, Reason, str]
"""Status, reason and message of a topic that does not pass; a topic that passes yields nothing."""


def _protected(status: str, reason: Reason, message: str, generation: int | None) -> Condition:
    return Condition(
        type=DRPCCondition.PROTECTED,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
    )


def _judge_primary(vrg: VRG) -> Iterator[Finding]:
    yield from _hooks(vrg)
    yield from _topic(vrg, VRGCondition.CLUSTER_DATA_READY)
    yield from _topic(vrg, VRGCondition.DATA_READY)
    yield from _topic(vrg, VRGCondition.DATA_PROTECTED, passes=_is_replicating)
    yield from _present_topic(vrg, VRGCondition.DESTINATION_INFO_AVAILABLE)
    yield from _topic(vrg, VRGCondition.NO_CLUSTER_DATA_CONFLICT)
    yield from _whole(vrg, STATE_PRIMARY)
    yield from _topic(vrg, VRGCondition.CLUSTER_DATA_PROTECTED)


def _judge_secondary(vrg: VRG) -> Iterator[Finding]:
    resyncs = vrg.spec.async_ is not None and vrg.spec.action == Action.FAILOVER
    yield from _hooks(vrg)
    yield from _present_topic(vrg, VRGCondition.DATA_READY, passes=_is_replicating if resyncs else _never)
    yield from _present_topic(vrg, VRGCondition.DATA_PROTECTED)
    yield from _present_topic(vrg, VRGCondition.DESTINATION_INFO_AVAILABLE)
    yield from _topic(vrg, VRGCondition.NO_CLUSTER_DATA_CONFLICT)
    yield from _whole(vrg, STATE_SECONDARY)


def _is_replicating(condition: Condition) -> bool:
    """False/`Replicating`: the healthy state of a primary, and of a secondary that takes in the changes."""
    return condition.status == FALSE and condition.reason == Reason.REPLICATING


def _never(condition: Condition) -> bool:
    return False


def _hooks(vrg: VRG) -> Iterator[Finding]:
    """Only a hook that failed matters."""
    condition = conditions.find(vrg.status.conditions, VRGCondition.HOOKS_READY)
    if (
        condition
        and conditions.is_current(condition, vrg.metadata.generation)
        and condition.status == FALSE
        and condition.reason == Reason.HOOK_FAILED
    ):
        yield FALSE, Reason.ERROR, f"reports a failed hook ({condition.message}), until {condition.type} is met"


def _topic(vrg: VRG, type: VRGCondition, passes: Callable[[Condition], bool] = _never) -> Iterator[Finding]:
    """The general rule: True passes, so does what `passes` accepts; silence is Unknown, False is error or progress."""
    condition = conditions.find(vrg.status.conditions, type)
    if (
        condition is None
        or not conditions.is_current(condition, vrg.metadata.generation)
        or condition.status not in (TRUE, FALSE)
    ):
        yield UNKNOWN, Reason.UNKNOWN, f"reports nothing yet about {TOPICS[type]}, waiting for {type}"
    elif condition.status == FALSE and not passes(condition):
        is_error = condition.reason in ERROR_REASONS
        verb = "reports an error in" if is_error else "is working on"
        reason = Reason.ERROR if is_error else Reason.PROGRESSING
        yield FALSE, reason, f"{verb} {TOPICS[type]} ({condition.message}), until {type} is met"


def _present_topic(vrg: VRG, type: VRGCondition, passes: Callable[[Condition], bool] = _never) -> Iterator[Finding]:
    """The general rule for a condition that need not be there."""
    if conditions.find(vrg.status.conditions, type) is not None:
        yield from _topic(vrg, type, passes)


def _whole(vrg: VRG, state: str) -> Iterator[Finding]:
    """What the VRG says of itself as a whole: its generation, its state, its last sync."""
    if not vrg.has_observed_spec:
        yield (
            FALSE,
            Reason.UNKNOWN,
            f"has not been looked at by its operator since generation {vrg.metadata.generation}",
        )
    if vrg.status.state != state:
        yield FALSE, Reason.PROGRESSING, f"is {vrg.status.state or 'in no state yet'}, on its way to {state}"
    if vrg.spec.async_ is not None and GLOBAL_VGR not in vrg.metadata.labels and not vrg.status.last_group_sync_time:
        yield FALSE, Reason.PROGRESSING, "has not been in sync yet, waiting for its first sync time"
