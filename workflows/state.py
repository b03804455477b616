"""What an entity decides, as pure functions: may this be done, and what is true after it was done.

Refusals read as in the user's guide: what, why, remedy. A refusal is raised before anything is written (S15).
"""

from __future__ import annotations

from datetime import datetime

from activities.contracts import StoresSeen
from ramen import gates
from ramen.app import ActionKind, AppRef, Observed, Role, Volume
from ramen.desired import Drawback, drawbacks
from ramen.epoch import Epoch, is_foreign
from ramen.errors import NoStore, Refused, Superseded, VolumesMissing
from ramen.gates import VRGRead
from workflows.inputs import (
    ActionRecord,
    ActionResult,
    AppState,
    Debt,
    MoveRequest,
    Outcome,
)

REMEMBERED = 200
"""Request IDs and finished actions that an entity remembers: asking again is safe for the last two hundred."""

ISSUED = 20
"""Epochs remembered as our own; older ones are lower in number and refused by their number alone."""

CONTROL_ACTIONS = (
    ActionKind.DEPLOY,
    ActionKind.FAILOVER,
    ActionKind.RELOCATE,
    ActionKind.UNPROTECT,
    ActionKind.RELEASE,
)
"""Actions that a person starts; Reprotect follows by itself and makes way for each of them."""


def clock(at: datetime | None) -> str:
    """A time of day for people, `not known` for none."""
    return f"{at:%H:%M:%S}" if at else "not known"


def running(state: AppState) -> ActionRecord | None:
    """The action that a person started and that has not ended."""
    action = state.action
    return action if action and action.outcome is None else None


def not_protected(state: AppState) -> Refused:
    """The refusal of an entity that knows no application: none was protected, or its workflow was reset (S14)."""
    return Refused(
        f"{state.namespace}/{state.name} is not protected. Protect it: hubless protect {state.name}; "
        f"or, if it was before its workflow was lost or reset: hubless adopt {state.name} -n {state.namespace}"
    )


def check_known(state: AppState, target: str) -> None:
    """Refuses what can be seen without looking at a cluster: unknown application or cluster, a superseded entity."""
    if state.superseded:
        raise Superseded(
            f"{state.name} is driven by somebody else: {state.superseded.rstrip('.')}. Nothing was changed. "
            f"If that is over: hubless adopt {state.name} -n {state.namespace}"
        )
    if state.app is None:
        raise not_protected(state)
    if target not in state.app.cluster_names:
        known = ", ".join(state.app.cluster_names)
        raise Refused(f"{target or 'no cluster'} is not a cluster of policy {state.app.policy} ({known}).")


def check_nothing_runs(state: AppState) -> None:
    """Refuses a second action while one runs, naming how to follow it, stop it, or overrule it."""
    now = running(state)
    if now is None:
        return
    where = f"{state.name} -n {state.namespace}"
    other = next((c for c in (state.app.cluster_names if state.app else []) if c != now.source), now.target)
    raise Refused(
        f"{state.name}: {now.kind.value} to {now.target or 'its cluster'} runs (epoch {now.epoch}, since "
        f"{clock(now.requested_at)}). Follow it: hubless status {where} --watch. Stop it: hubless abort {where}. "
        f"If a site is lost: hubless failover {where} --to {other}"
    )


def check_basis(state: AppState, basis_epoch: int | None) -> None:
    """Refuses a request that was made looking at another epoch: of two edits at once the first accepted wins."""
    now = state.epoch.number if state.epoch else 0
    if basis_epoch is not None and basis_epoch != now:
        raise Refused(
            f"{state.name} is at epoch {now} by now, and this was asked for at epoch {basis_epoch}. "
            f"Look at it and ask again: hubless status {state.name} -n {state.namespace}"
        )


def check_serving(state: AppState, basis_serving: str | None) -> None:
    """Refuses a request that was made while another cluster served, where that was what it meant (S7)."""
    now = state.decision.cluster or ""
    if basis_serving is not None and basis_serving != now:
        raise Refused(
            f"{state.name} serves on {now or 'no cluster'} by now, and this was asked for while it served on "
            f"{basis_serving or 'no cluster'}. Look at it and ask again: hubless status {state.name} -n "
            f"{state.namespace}"
        )


def check_same(state: AppState, meant: str, now: str) -> None:
    """Refuses what was said of an action that another one has replaced while it was waited for; by workflow IDs."""
    if meant != now:
        raise Refused(
            f"This was meant for {meant}, and by now {now} runs. Nothing was changed. "
            f"Look at it and ask again: hubless status {state.name} -n {state.namespace}"
        )


def check_foreign(state: AppState, seen: list[Observed], stores: StoresSeen | None) -> None:
    """Stops an entity that meets an epoch which it did not issue (S1); raises `Superseded`."""
    for observed in seen:
        if is_foreign(observed.epoch, state.issued):
            raise Superseded(
                f"{observed.cluster} carries epoch {observed.epoch.number if observed.epoch else ''}, which was not "
                f"issued here"
            )
    if stores and is_foreign(stores.newest_epoch, state.issued) and stores.newest_epoch:
        raise Superseded(f"the stores carry epoch {stores.newest_epoch.number}, which was not issued here")


def already_serves(state: AppState, target: Observed) -> bool:
    """Whether the target serves already, judged from its VRG and not from the decision alone (S5).

    A Primary below the current epoch is a debt to demote, never "already there" (S2).
    """
    primary = target.role == "primary" and gates.ready(_read(state, target)).allowed
    return primary and state.decision.cluster == target.cluster and target.epoch == state.epoch


def check_copy(state: AppState, request: MoveRequest) -> None:
    """Refuses a copy that was not proven good since its cluster last stopped serving; a loss can be accepted (S2)."""
    target = request.target
    if request.accept_data_loss or target in state.protected or state.decision.cluster == target:
        return
    good = state.last_good.get(target)
    why = (
        f"is being rebuilt from {state.decision.cluster} and may be unusable (last good {clock(good)})"
        if good
        else f"was never proven: no sync from {state.decision.cluster} has been seen to complete"
    )
    raise Refused(f"{target}'s copy of {state.name} {why}. --accept-data-loss goes on all the same.")


def check_stores(state: AppState, request: MoveRequest, stores: StoresSeen, present: list[Volume]) -> None:
    """Refuses a promotion that no store can feed, or that would restore only a part (S3, S9).

    `present` are volumes that are bound on the target already and need no store. Raises `NoStore` naming the stores,
    `VolumesMissing` naming the volumes.
    """
    expected = [v for v in state.volumes if v.name not in request.accept_missing_volumes]
    if not state.volumes and not state.known_empty and not request.accept_data_loss:
        raise VolumesMissing(
            f"which volumes {state.name} has is not known: no cluster has shown them since it was protected, "
            f"and no store that answers has any, so {request.target} might start it without its data. Bring back the "
            "cluster that served it or its store, or: --accept-data-loss. Nothing was changed."
        )
    here = {(v.namespace, v.name) for v in present}
    wanted = [v for v in expected if (v.namespace, v.name) not in here]
    if not wanted:
        return
    answering = [report for report in stores.stores if report.reachable]
    if not answering:
        silent = "; ".join(f"{report.profile}: {report.error}" for report in stores.stores)
        raise NoStore(
            f"no store with the volumes of {state.name} answers ({silent}), so {request.target} cannot restore them. "
            "Bring one of them back. Nothing was changed."
        )
    held = {(v.namespace, v.name) for report in answering for v in report.volumes}
    missing = [v.name for v in wanted if (v.namespace, v.name) not in held]
    if missing:
        silent = ", ".join(report.profile for report in stores.stores if not report.reachable)
        broken = "; ".join(report.error for report in answering if report.error)
        remedy = f"Bring back store {silent}" if silent else "Restore the objects of these volumes to a store"
        remedy = f"{broken}. {remedy}" if broken else remedy
        raise VolumesMissing(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} in no store that answers: {request.target} "
            f"cannot restore {'it' if len(missing) == 1 else 'them'}. {remedy}, or: "
            f"--accept-missing-volumes {' '.join(missing)}. Nothing was changed."
        )


def expected_volumes(state: AppState, stores: StoresSeen) -> list[Volume]:
    """The volumes that a promotion must restore (S3): those last known, else those that any store has.

    Of an application that had none, the first ones may have come since its VRGs were last looked at.
    """
    found = {(v.namespace, v.name): v for report in stores.stores if report.reachable for v in report.volumes}
    return state.volumes or list(found.values())


def store_drawbacks(
    state: AppState, request: MoveRequest, stores: StoresSeen, written: list[str]
) -> dict[str, Drawback]:
    """What is wrong with which store for this move, by the look at them and by which of them took the claim."""
    wanted = [volume for volume in state.volumes if volume.name not in request.accept_missing_volumes]
    return drawbacks(stores.stores, wanted, written)


def is_turned_back(state: AppState, target: Observed) -> bool:
    """Whether the target is the side that still serves by the decision, and a relocate is taking its volumes: it has
    every write, and the failover lets that demotion end before it promotes (S5).

    A relocate that promoted and decided elsewhere meanwhile is found out when it is superseded.
    """
    return state.decision.cluster == target.cluster and gates.is_letting_go(_read(state, target))


def is_settled_secondary(state: AppState, target: Observed) -> bool:
    """Whether nothing that was begun on the target can be in the way of its promotion."""
    return gates.is_secondary(_read(state, target)).allowed


def is_unsettled(state: AppState, target: Observed) -> bool:
    """Whether a target answers but is no valid one just now; its conditions flap, so it is worth another look (D18)."""
    if is_turned_back(state, target):
        return False
    return target.reachable and not gates.valid_failover_target(_read(state, target)).allowed


def check_failover(state: AppState, request: MoveRequest, target: Observed, stores: StoresSeen) -> None:
    """The gates of a failover; the side that is being left has none (drpc.md 3.3, D12).

    With the loss accepted the target has to answer, and nothing more is asked of its state (S5).
    """
    if not target.reachable:
        raise Refused(
            f"{state.name} cannot fail over to {target.cluster}: {target.cluster} does not answer ({target.error}). "
            f"Check it: hubless cluster check {target.cluster}"
        )
    if running(state) is None and not state.interrupted and already_serves(state, target):
        raise Refused(f"{state.name} already serves on {target.cluster}.")
    verdict = gates.valid_failover_target(_read(state, target))
    if not verdict.allowed and not request.accept_data_loss and not is_turned_back(state, target):
        remedy = verdict.remedy.rstrip(".")
        raise Refused(
            f"{state.name} cannot fail over to {target.cluster}: {verdict.reason} {remedy}. "
            "--accept-data-loss goes on all the same."
        )
    check_copy(state, request)
    check_stores(state, request, stores, target.volumes)


def check_relocate(
    state: AppState, request: MoveRequest, source: Observed, target: Observed, stores: StoresSeen
) -> None:
    """The gates of a relocate: both clusters answer, the source may be left, the target holds a proven copy."""
    where = f"{state.name} -n {state.namespace}"
    for observed in (target, source):
        if not observed.reachable:
            survivor = source.cluster if observed is target else target.cluster
            raise Refused(
                f"{state.name} cannot be relocated to {request.target}: {observed.cluster} does not answer "
                f"({observed.error}). A relocate needs both clusters. Wait for {observed.cluster} "
                f"(hubless cluster check {observed.cluster}). If {observed.cluster} is lost: "
                f"hubless failover {where} --to {survivor}"
            )
    if state.interrupted:
        raise Refused(f"{state.name} cannot be relocated: {state.interrupted}")
    if state.decision.cluster == request.target:
        raise Refused(f"{state.name} already serves on {request.target}.")
    instead = f"If {source.cluster} is failing: hubless failover {where} --to {request.target}"
    left, entered = _read(state, source), _read(state, target)
    for verdict in (
        gates.multiple_primaries([left, entered]),
        gates.ready_to_switch_over(left),
        gates.valid_failover_target(entered),
    ):
        if not verdict.allowed:
            raise Refused(f"{state.name} cannot be relocated: {verdict.reason} {verdict.remedy} {instead}".strip())
    if source.role != "primary":
        # A Secondary has nothing to move: its conditions are those of an application that has been left (vrg.md 5).
        found = source.role or "no VRG"
        raise Refused(f"{state.name} cannot be relocated: {source.cluster} is {found}, not Primary. {instead}")
    check_copy(state, request)
    check_stores(state, request, stores, target.volumes)


def check_release(state: AppState, seen: list[Observed]) -> None:
    """Refuses to give away an application while anything is owed or unknown: afterwards nobody here remembers it.

    Every cluster has to show what is wanted of it at the present epoch (D4, D10).
    """
    check_nothing_runs(state)
    where = f"{state.name} -n {state.namespace}"
    if state.interrupted:
        raise Refused(f"{state.name} cannot be released: {state.interrupted}")
    for observed in seen:
        if not observed.reachable:
            raise Refused(
                f"{state.name} cannot be released: {observed.cluster} does not answer ({observed.error}), and its VRG "
                f"would stay ours. Wait for it (hubless cluster check {observed.cluster})."
            )
    if state.debts:
        owed = ", ".join(f"{debt.cluster} owes {debt.wants} since {clock(debt.since)}" for debt in state.debts)
        raise Refused(
            f"{state.name} cannot be released: {owed}, which nobody would see to afterwards. "
            f"Wait until it is re-protected: hubless status {where}"
        )
    for observed in seen:
        wanted = Role.PRIMARY if observed.cluster == state.decision.cluster else Role.SECONDARY
        if observed.role != wanted or observed.epoch != state.epoch:
            found, mine = (str(epoch.number) if epoch else "none" for epoch in (observed.epoch, state.epoch))
            what = f"is {observed.role} of epoch {found}" if observed.vrg else "is missing"
            raise Refused(
                f"{state.name} cannot be released: its VRG on {observed.cluster} {what}, where {wanted} of epoch "
                f"{mine} is wanted. See: hubless status {where}"
            )


def unproves(state: AppState) -> bool:
    """Whether an abort of what runs makes a proven copy doubtful: a failover's target is demoted and rebuilt (S2).

    A relocate's target is not touched by its undo, so that a failover there needs no consent while the source is being
    brought back. Once it is back, a clean-up proves all copies anew.
    """
    now = running(state)
    return now is not None and now.kind is ActionKind.FAILOVER


def unproven(state: AppState) -> AppState:
    """The state once a target is demoted again: no copy counts as proven until a clean-up has seen it rebuilt (S2)."""
    # When a proof was seen is later than the data that it was of, so what is known of those comes first.
    return state.model_copy(update={"protected": {}, "last_good": {**state.protected, **state.last_good}})


def given_away(state: AppState) -> AppState:
    """What may be told of an application that a hub drives from now on: nothing that was proven before (S2, S3)."""
    return state.model_copy(
        update={"wanted": {}, "volumes": [], "known_empty": False, "protected": {}, "last_good": {}, "debts": []}
    )


def _read(state: AppState, seen: Observed) -> VRGRead:
    return VRGRead.of(AppRef(namespace=state.namespace, name=state.name), seen)


def last_sync(seen: list[Observed]) -> datetime | None:
    """Newest group sync that a primary among these reported: the data of its peer's copy is as of then."""
    times = [
        datetime.fromisoformat(at)
        for observed in seen
        if observed.role == "primary" and (at := (observed.vrg or {}).get("status", {}).get("lastGroupSyncTime"))
    ]
    return max(times, default=None)


def demotion_action(app: AppRef, peer: Observed) -> str | None:
    """The VRG action with which a cluster that does not serve is made Secondary; None keeps its action, and with it
    its generation.

    A former primary is demoted as after a failover: it resynchronises, and its PVCs need not be gone before. So is
    one whose demotion of a relocate did not come to its end: under action Relocate its volumes would never be asked
    to resynchronise with the side that was promoted meanwhile (vrg.md 2.4), and it would stay degraded for good.
    """
    if peer.role is None:
        return None
    if peer.role == "primary":
        return "Failover"
    action = ((peer.vrg or {}).get("spec") or {}).get("action")
    unfinished = action == "Relocate" and not gates.is_secondary(VRGRead.of(app, peer)).allowed
    return "Failover" if unfinished else None


# --- after ---------------------------------------------------------------------------------------------------------


def issue(state: AppState, epoch: Epoch) -> AppState:
    """Remembers an epoch as issued here."""
    return state.model_copy(update={"issued": [*state.issued, epoch][-ISSUED:]})


def after(state: AppState, record: ActionRecord, result: ActionResult, now: datetime) -> AppState:
    """The entity's state after an action ended, whichever way (D4, D6, S2)."""
    protected, last_good = dict(state.protected), dict(state.last_good)
    decision = result.decision or state.decision
    volumes = [] if result.no_volumes else result.volumes or state.volumes
    if result.promoted and record.kind is not ActionKind.REPROTECT:
        # Whoever is not promoted is behind from this moment on, and the promoted side has no other copy yet.
        for cluster in list(protected):
            last_good[cluster] = result.data_as_of or protected[cluster]
        if record.source and record.source != record.target:
            last_good[record.source] = result.serving_at or now
        # A target that was not decided for yet has the copy that it was promoted from, and may be promoted again.
        protected = {c: at for c, at in protected.items() if c == record.target != decision.cluster}
    if result.outcome is Outcome.ABORTED:
        protected = {}
    if result.reprotected_at and state.app:
        for cluster in state.app.others(decision.cluster):
            protected[cluster] = result.reprotected_at
            last_good[cluster] = result.data_as_of or result.reprotected_at
    changes = {
        "outcome": result.outcome,
        "message": result.message,
        "serving_at": result.serving_at or record.serving_at,
        "cleaned_at": result.cleaned_at,
        "reprotected_at": result.reprotected_at,
        "data_as_of": result.data_as_of or record.data_as_of,
    }
    ended = record.model_copy(update=changes)
    return state.model_copy(
        update={
            "wanted": {**state.wanted, **result.wanted},
            "decision": decision,
            "volumes": volumes,
            "known_empty": not volumes and (state.known_empty or _looked_for_volumes(record, result)),
            "protected": protected,
            "last_good": last_good,
            "history": _remembered([*state.history, ended]),
            "superseded": result.message if _met_foreign(state, record, result) else state.superseded,
        }
    )


def _remembered(history: list[ActionRecord]) -> list[ActionRecord]:
    """The records that are kept: clean-ups, of which a store that is away makes a hundred a day, go before actions,
    from which phase and spec of the DRPC follow."""
    kept = list(history)
    while len(kept) > REMEMBERED:
        oldest = next((at for at, record in enumerate(kept) if record.kind is ActionKind.REPROTECT), 0)
        del kept[oldest]
    return kept


def _looked_for_volumes(record: ActionRecord, result: ActionResult) -> bool:
    """Whether an action that names no volumes saw that there are none, on the cluster that serves (S3)."""
    return result.outcome is Outcome.DONE and record.kind in (ActionKind.DEPLOY, ActionKind.REPROTECT)


def was_cut_off(state: AppState, record: ActionRecord, result: ActionResult) -> bool:
    """Whether a move ended for another one before it decided for its target, which may be promoted by now.

    `state` is that after the move. A clean-up in the name of the old decision would demote the target (S2).
    """
    is_move = record.kind in (ActionKind.FAILOVER, ActionKind.RELOCATE)
    is_decided = state.decision.cluster == record.target
    return is_move and result.outcome is Outcome.SUPERSEDED and not is_decided and not state.superseded


def how_to_go_on(state: AppState, record: ActionRecord, why: str) -> str:
    """What a person reads after a move ended in the middle: its target may be promoted, its source demoted."""
    move = f"hubless failover {state.name} -n {state.namespace} --to"
    back = f" Or back: {move} {record.source}." if record.source and record.source != record.target else ""
    return (
        f"{record.kind.value} to {record.target} {why}, so nothing is cleaned up by itself. "
        f"Go on: {move} {record.target}.{back}"
    )


def why_not_started(state: AppState, record: ActionRecord, why: str) -> str:
    """What a person reads of an action whose workflow ID is taken by one that this workflow does not know of."""
    if record.kind in (ActionKind.FAILOVER, ActionKind.RELOCATE):
        return how_to_go_on(state, record, f"could not be started ({record.workflow_id}: {why})")
    return (
        f"{record.kind.value} of {state.name} could not be started ({record.workflow_id}: {why}). "
        f"Look at it in Temporal Web and ask again; nothing but an epoch was written."
    )


def how_to_protect_again(state: AppState) -> str:
    """What a person reads after a deployment was ended in the middle: it may have placed the application, or not."""
    where = f"{state.name} -n {state.namespace}"
    return (
        f"its protection was ended from outside in the middle, so nobody knows whether it serves. Take it back, which "
        f"leaves the application running, and protect it again: hubless unprotect {where}"
    )


def _met_foreign(state: AppState, record: ActionRecord, result: ActionResult) -> bool:
    """Whether an action that met a newer epoch met somebody else's.

    One that our own next action is about to supersede meets the epoch that was just issued for it here.
    """
    return result.foreign_epoch and state.epoch is not None and record.epoch >= state.epoch.number


def with_three_facts(record: ActionRecord, result: ActionResult) -> ActionRecord:
    """Adds what a Reprotect found to the action that it followed: cleaned and re-protected, with their times."""
    return record.model_copy(
        update={
            "cleaned_at": result.cleaned_at or record.cleaned_at,
            "reprotected_at": result.reprotected_at or record.reprotected_at,
        }
    )


def debts_of(state: AppState, result: ActionResult | None, now: datetime) -> list[Debt]:
    """What every cluster that does not serve still owes, until a Reprotect ran to its end (D4, S8)."""
    if state.app is None or state.superseded or state.decision.cluster is None:
        return []
    if result and result.action is ActionKind.REPROTECT and result.outcome is Outcome.DONE:
        return []
    known = {debt.cluster: debt for debt in state.debts}
    return [
        known.get(cluster, Debt(cluster=cluster, wants="Secondary", since=now))
        for cluster in state.app.others(state.decision.cluster)
    ]
