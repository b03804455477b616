"""What an application is doing, inferred from its clusters and stores after Temporal forgot it (drpc.md 3.9, D13).

The clusters are the truth, the stores say what no cluster shows any more. The newest epoch decides which of two
contradicting objects counts. A cluster that does not answer is unknown, never absent (D10): where it might hold the
newer truth, a person decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ramen import names
from ramen.app import ActionKind, AppRef, Observed, Wire
from ramen.desired import is_released
from ramen.epoch import Epoch

MOVES = (ActionKind.FAILOVER.value, ActionKind.RELOCATE.value)
"""Actions that may promote another cluster than the one that serves."""


class Verdict(StrEnum):
    """What can be done about an application that no workflow holds."""

    ADOPT = "adopt"
    """It serves, or served last, on a known cluster: hold it again, and pay what is owed."""
    FINISH = "finish"
    """A promotion was under way: carry it to its decision."""
    BRING_BACK = "bring back"
    """A relocate had demoted its source and promoted nothing: the source has every write, so it serves again."""
    ASK = "ask"
    """A person has to say where it is to serve."""
    NOTHING = "nothing"
    """No cluster and no store knows it, its first protection had hardly begun, or a hub drives it."""


class Inference(Wire):
    """The verdict with its reasons, as a person reads it before consenting."""

    verdict: Verdict
    serving: str = ""
    """The cluster that serves, or is to."""
    why: str
    """One line: what was seen."""
    plan: str
    """One line: what will be done, or what to say."""
    epoch: Epoch | None = None
    """The newest epoch seen anywhere."""
    choices: list[str] = []
    """ASK: clusters that can be named."""


@dataclass(frozen=True)
class Evidence:
    """All that was read of one application."""

    app: AppRef
    looks: list[Observed]
    """One per cluster of its policy."""
    placed: dict[str, str | None]
    """By cluster that answers: whom its PlacementDecision names."""
    claim: Epoch | None = None
    """The newest epoch claimed in a store."""
    decided: str | None = None
    """Whom the newest decision in a store that answers names."""
    silent_stores: tuple[str, ...] = ()
    """Profiles whose store does not answer: what it holds is unknown."""
    decided_at: Epoch | None = None
    """The epoch of the decision."""


def infer(seen: Evidence) -> Inference:
    """The verdict by the first rule that fits; each is a row of `tests/ramen/test_recovery.py`."""
    vrgs = {look.cluster: look for look in seen.looks if look.reachable and look.vrg is not None}
    silent = [look.cluster for look in seen.looks if not look.reachable]
    epochs = [epoch for epoch in (seen.claim, *(look.epoch for look in seen.looks)) if epoch]
    newest = max(epochs, key=lambda epoch: epoch.number, default=None)
    if not vrgs:
        return _without_vrg(seen, silent, newest)
    if newest and len({epoch.token for epoch in epochs if epoch.number == newest.number}) > 1:
        return _ask(
            seen,
            newest,
            f"epoch {newest.number} was claimed by two different actions: two Temporals drove it at the same time",
            list(vrgs),
        )
    primaries = [cluster for cluster, look in vrgs.items() if look.role == "primary"]
    if not primaries:
        return _without_primary(seen, vrgs, silent, newest)
    home = _newest_primary(vrgs, primaries)
    if home is None:
        return _ask(seen, newest, f"{' and '.join(primaries)} are both Primary and neither is the newer", primaries)
    mine = own_epoch(vrgs[home])
    if mine is None and silent:
        return _ask(
            seen,
            newest,
            f"{home} is Primary, but a hub drove it, which leaves no epoch that would tell whether "
            f"{' and '.join(silent)}, which does not answer, is Primary since",
            [home, *silent],
        )
    if newest and mine and mine.number < newest.number and silent and not _holds(vrgs, newest):
        return _ask(
            seen,
            newest,
            f"{home} is Primary of epoch {mine.number}, but epoch {newest.number} was claimed, and "
            f"{' and '.join(silent)}, which may carry it, does not answer",
            [home, *silent],
        )
    if mine and seen.decided not in (None, home) and seen.decided_at and seen.decided_at.number >= mine.number:
        return _ask(
            seen,
            newest,
            f"{home} is Primary of epoch {mine.number}, but the stores say that epoch {seen.decided_at.number} decided "
            f"for {seen.decided}",
            [home, seen.decided or ""],
        )
    if silent and mine and _may_be_left(seen, vrgs[home], mine):
        return _ask(
            seen,
            newest,
            f"{home} is Primary, but a move claimed it with epoch {mine.number}, and {' and '.join(silent)}, which may "
            "have been promoted since, does not answer",
            [home, *silent],
        )
    if silent and seen.silent_stores and seen.decided != home:
        return _ask(
            seen,
            newest,
            f"{home} is Primary, but {' and '.join(silent)} and store {' and '.join(seen.silent_stores)} do not "
            "answer, so a later move there would not be seen",
            [home, *silent],
        )
    others = "".join(f"; {c} is Primary of an older epoch and will be demoted" for c in primaries if c != home)
    at = f"of epoch {mine.number}" if mine else "and driven by a Ramen hub"
    if mine and seen.placed.get(home, home) != home and (silent or seen.decided != home):
        return Inference(
            verdict=Verdict.FINISH,
            serving=home,
            why=f"{home} is Primary {at}, and no decision there names it yet: its promotion was cut off{others}",
            plan=f"Wait until {home} is ready, decide for it, then clean up and re-protect. What had not been "
            "replicated to it before its promotion is lost.",
            epoch=newest,
        )
    spec = (vrgs[home].vrg or {}).get("spec") or {}
    if mine and (spec.get("prepareForFinalSync") or spec.get("runFinalSync")):
        return Inference(
            verdict=Verdict.BRING_BACK,
            serving=home,
            why=f"{home} is Primary {at} and prepares its final sync: a relocate away from it was cut off, which may "
            f"have begun to take the application away{others}",
            plan=f"Let {home} give up the volumes whose removal was begun, make it Primary again, which holds every "
            "write, and place the application there; then relocate again.",
            epoch=newest,
        )
    lost = ""
    if newest and mine and mine.number < newest.number:
        lost = f"; an action had claimed epoch {newest.number} and changed nothing yet: ask for it again"
    return Inference(
        verdict=Verdict.ADOPT,
        serving=home,
        why=f"{home} is Primary {at}{others}{lost}",
        plan=f"Hold it as serving on {home}; clean up and re-protect the other side where that is owed.",
        epoch=newest,
    )


def told(seen: Evidence, serving: str) -> Inference:
    """The inference after a person said where the application is to serve."""
    look = next((look for look in seen.looks if look.cluster == serving), None)
    epochs = [epoch for epoch in (seen.claim, *(each.epoch for each in seen.looks)) if epoch]
    newest = max(epochs, key=lambda epoch: epoch.number, default=None)
    if look is None or not look.reachable:
        return Inference(
            verdict=Verdict.ADOPT,
            serving=serving,
            why=f"{serving} was named by a person; it does not answer now",
            plan=f"Hold it as serving on {serving}. Nothing is written there until it answers.",
            epoch=newest,
        )
    if look.role == "primary" and (seen.placed.get(serving) == serving or own_epoch(look) is None):
        return Inference(
            verdict=Verdict.ADOPT,
            serving=serving,
            why=f"{serving} was named by a person; it is Primary, and nothing decides against it",
            plan=f"Hold it as serving on {serving}; what the other side holds is discarded when it answers.",
            epoch=newest,
        )
    return Inference(
        verdict=Verdict.FINISH,
        serving=serving,
        why=f"{serving} was named by a person",
        plan=f"Make {serving} serve, whatever the other side holds and however good its copy is; then clean up and "
        "re-protect.",
        epoch=newest,
    )


def given_back(app: AppRef, policy: str) -> Inference:
    """Of an application that a hub drives: whoever wants it here has to say so by its policy."""
    return Inference(
        verdict=Verdict.NOTHING,
        why="it was given back to a Ramen hub",
        plan=f"To take it over, stop the hub's operator, then: hubless adopt {app.name} -n {app.namespace} "
        f"--policy {policy}",
    )


def own_epoch(look: Observed) -> Epoch | None:
    """The epoch by which a VRG is ours; None for one that a hub made, and for one that was given back to a hub, whose
    epoch is older than whatever the hub did since."""
    return None if is_released(look.vrg) else Epoch.of(look.vrg)


def is_left_by_deployment(look: Observed) -> bool:
    """Whether a VRG is the Secondary of a protection that never ended: a deployment made it, and nothing was ever
    recorded as protected. It promises nothing and holds nothing, so a new deployment may take it over."""
    return (
        look.role == "secondary"
        and own_epoch(look) is not None
        and _annotation(look, names.ACTION) == ActionKind.DEPLOY.value
        and not _annotation(look, names.VOLUMES)
    )


def _without_vrg(seen: Evidence, silent: list[str], newest: Epoch | None) -> Inference:
    if not silent:
        return Inference(
            verdict=Verdict.NOTHING,
            why="every cluster answers and none has a VRG of it",
            plan=f"Protect it: hubless protect {seen.app.name} -n {seen.app.namespace}",
            epoch=newest,
        )
    if seen.decided in silent and len(silent) == 1:
        return Inference(
            verdict=Verdict.ADOPT,
            serving=seen.decided or "",
            why=f"the stores say that it serves on {seen.decided}, which does not answer, and nobody else has a VRG",
            plan=f"Hold it as serving on {seen.decided}; nothing is written until it answers or you fail over.",
            epoch=newest,
        )
    return _ask(seen, newest, f"no VRG was found, and {' and '.join(silent)} does not answer", silent)


def _without_primary(seen: Evidence, vrgs: dict[str, Observed], silent: list[str], newest: Epoch | None) -> Inference:
    if silent:
        relocated = [c for c, look in vrgs.items() if ((look.vrg or {}).get("spec") or {}).get("action") == "Relocate"]
        if relocated and seen.decided not in silent:
            return _ask(
                seen,
                newest,
                f"{relocated[0]} was demoted by a relocate, and whether {' and '.join(silent)} was promoted is not "
                "known, because it does not answer",
                [*relocated, *silent],
            )
        presumed = seen.decided if seen.decided in silent else silent[0] if len(silent) == 1 else None
        if presumed is None:
            return _ask(seen, newest, "no cluster that answers is Primary", [*vrgs, *silent])
        return Inference(
            verdict=Verdict.ADOPT,
            serving=presumed,
            why=f"every cluster that answers is Secondary, so the Primary is taken to be {presumed}, which is silent",
            plan=f"Hold it as serving on {presumed}. If {presumed} is lost: hubless failover {seen.app.name} "
            f"-n {seen.app.namespace} --to {next(iter(vrgs))}",
            epoch=newest,
        )
    if len(vrgs) < len(seen.looks) and all(map(is_left_by_deployment, vrgs.values())):
        return Inference(
            verdict=Verdict.NOTHING,
            why=f"its protection was cut off in the beginning: {' and '.join(vrgs)} has a Secondary VRG without any "
            "volume, and no other cluster has one",
            plan=f"Protect it again: hubless protect {seen.app.name} -n {seen.app.namespace}",
            epoch=newest,
        )
    quiesced = [c for c, look in vrgs.items() if ((look.vrg or {}).get("spec") or {}).get("action") == "Relocate"]
    if len(quiesced) == 1 and seen.decided in vrgs and seen.decided != quiesced[0]:
        why = f"every cluster is Secondary; {quiesced[0]} was demoted by a relocate, but the stores name {seen.decided}"
        return _ask(seen, newest, why, list(vrgs))  # the store that knew of a later decision may be silent
    source = seen.decided if seen.decided in vrgs else quiesced[0] if len(quiesced) == 1 else None
    if source is None:
        return _ask(seen, newest, "every VRG is Secondary, and nothing says which cluster served last", list(vrgs))
    return Inference(
        verdict=Verdict.BRING_BACK,
        serving=source,
        why=f"every cluster is Secondary: a relocate away from {source} was cut off after its demotion",
        plan=f"Make {source} Primary again, which holds every write; then relocate again.",
        epoch=newest,
    )


def _newest_primary(vrgs: dict[str, Observed], primaries: list[str]) -> str | None:
    """The Primary of the newest epoch; of two, the one that was promoted away from the other (S10)."""
    numbers = {c: epoch.number if (epoch := own_epoch(vrgs[c])) else -1 for c in primaries}
    best = [c for c in primaries if numbers[c] == max(numbers.values())]
    if len(best) == 1:
        return best[0]
    promoted = [
        c for c in best if _annotation(vrgs[c], names.PREVIOUS) in best and _annotation(vrgs[c], names.DECISION) == c
    ]
    return promoted[0] if len(promoted) == 1 else None


def _may_be_left(seen: Evidence, look: Observed, mine: Epoch) -> bool:
    """Whether a Primary carries the epoch of a move that may have promoted another cluster.

    A failover claims the side that it leaves as well, if that answers. What the VRG says of a decision is then older
    than its epoch, unless the stores say how the move ended.
    """
    number = _annotation(look, names.DECISION_EPOCH)
    is_older = number.isdigit() and int(number) < mine.number
    is_known = seen.decided == look.cluster and seen.decided_at is not None and seen.decided_at.number >= mine.number
    return is_older and _annotation(look, names.ACTION) in MOVES and not is_known


def _holds(vrgs: dict[str, Observed], epoch: Epoch) -> bool:
    """Whether a cluster that answers carries that epoch: then the claim went no further than what it shows."""
    return any(look.epoch == epoch for look in vrgs.values())


def _ask(seen: Evidence, newest: Epoch | None, why: str, choices: list[str]) -> Inference:
    where = f"hubless adopt {seen.app.name} -n {seen.app.namespace} --serving"
    return Inference(
        verdict=Verdict.ASK,
        why=why,
        plan=f"Say where it is to serve: {where} {' | '.join(choices)}. What the other side wrote is lost.",
        epoch=newest,
        choices=choices,
    )


def _annotation(look: Observed, name: str) -> str:
    return str((((look.vrg or {}).get("metadata") or {}).get("annotations") or {}).get(name, ""))
