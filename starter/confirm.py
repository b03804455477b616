"""What a person is told and asked before a dangerous command: the present state, the consequence, the question."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import typer

from starter import console
from starter.durations import clock, is_ahead, since, span
from starter.failures import Refused
from starter.situation import Situation


def can_ask() -> bool:
    """Whether a person can answer a question."""
    return console.is_terminal(sys.stdin)


def ask(question: str, yes: bool) -> None:
    """Asks on stderr; returns on yes. Raises `Refused` on no, and where nobody can be asked."""
    if yes:
        return
    if not can_ask():
        raise Refused(
            f"Not asked, because this is no terminal: {question}\n  Nothing was changed. To say yes beforehand: --yes"
        )
    if not typer.confirm(question, err=True):
        raise Refused("Not confirmed. Nothing was changed.")


def present_state(now: Situation, target: str = "") -> list[str]:
    """Where the application serves, and for each cluster: reachable or since when not, and its copy."""
    epoch = f", epoch {now.epoch}" if now.epoch else ""
    where = f"serves on {now.serving}" if now.serving else "does not serve yet"
    lines = [f"{now.name} ({now.namespace}) {where}{epoch}."]
    width = max((len(name) for name in now.clusters), default=0)
    for name in now.clusters:
        says = _reach(now, name)
        if name != now.serving and now.serving:
            says += f"; {_copy(now, name)}"
        lines.append(f"  {name:<{width}}   {says}")
    if target and now.action and now.action.outcome is None:
        lines.append(f"  {now.action.kind.value} to {now.action.target} runs (epoch {now.action.epoch}).")
    return lines


def _copy(now: Situation, cluster: str) -> str:
    """Up to when that cluster's copy holds everything, or when it last did (S2)."""
    moment = now.copy_as_of(cluster)
    if moment is None:
        return "no proven copy"
    if cluster in now.view.state.protected:
        return f"copy of {now.serving} from {clock(moment)}"
    return f"copy not proven good, last good {clock(moment)}"


def _reach(now: Situation, cluster: str) -> str:
    seen = now.seen.get(cluster)
    if seen is None:
        return "not looked at"
    if seen.reachable:
        return "reachable"
    known = now.health.get(cluster)
    last = known.last_answer if known and not known.reachable else None
    if known and not known.reachable and (began := known.since or last):
        answered = f" (last answer {clock(last)})" if last else ""
        return f"unreachable for {since(began)}{answered}"
    return f"unreachable ({seen.error})" if seen.error else "unreachable"


def failover_consequence(now: Situation, target: str) -> list[str]:
    """What a failover to `target` costs, in words that promise nothing."""
    source = now.serving or "the old side"
    source_seen = now.seen.get(source)
    alive = bool(source_seen and source_seen.reachable) and source != target
    lines: list[str] = []
    if alive:
        lines += [f"{source} answers: hubless relocate would lose nothing.", ""]
    moment = now.copy_as_of(target)
    if moment:
        known = now.health.get(source)
        # Writes are possible up to the last answer of the source for certain, and beyond it out of our sight.
        end = datetime.now(UTC) if alive or not (known and known.last_answer) else known.last_answer
        least = f"at least {span((end - moment).total_seconds())}"
        if is_ahead(moment):
            least = "by a clock that is ahead of this machine's, so how much that is cannot be told"
        more = "." if alive else f", and more for as long as {source} runs out of our sight."
        lines.append(
            f"Failing over to {target} accepts the loss of everything written on {source} after {clock(moment)}: "
            f"{least}{more}"
        )
    else:
        lines.append(
            f"Failing over to {target} accepts the loss of everything written on {source} that was not replicated; "
            "when the last sync was is not known."
        )
    if not alive:
        lines.append(
            f"When {source} comes back, its old pods may run until it is demoted (usually seconds); "
            "what they write is discarded."
        )
    return lines


def ask_about_loss(target: str, missing: list[str], accepts_loss: bool, yes: bool) -> None:
    """Asks once more for each loss that is accepted beyond that of an ordinary failover; raises as `ask` does."""
    if missing:
        ask(f"{', '.join(missing)} will not be restored on {target}. Go on without?", yes)
    if accepts_loss:
        ask(f"The copy on {target} may be unusable. Accept the loss of data on it?", yes)
