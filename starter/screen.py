"""The screens of `hubless status`: one application in full, all applications as a table."""

from __future__ import annotations

from datetime import UTC, datetime

from ramen.app import ActionKind, Observed
from ramen.epoch import Epoch
from starter import console
from starter.durations import clock, is_ahead, precise, since
from starter.situation import Situation
from workflows.inputs import Outcome, Waiting

HEADER = ("NAMESPACE", "NAME", "SERVES ON", "SINCE", "SERVING", "CLEANED", "RE-PROTECTED", "LAST SYNC", "NOW")
WIDE = (*HEADER, "EPOCH", "ACTION", "POLICY", "CLUSTERS")


def awaited(waiting: Waiting) -> str:
    """`waiting for dr1 to come back, 2 min`; the cluster is named once."""
    text = f"waiting for {waiting.reason}"
    if waiting.cluster and waiting.cluster not in waiting.reason:
        text += f" on {waiting.cluster}"
    return f"{text}, {since(waiting.since)}" if waiting.since else text


def unanswered_row(namespace: str, name: str, why: str, wide: bool) -> list[str]:
    """The row of an application whose workflow does not answer: nothing is claimed about it."""
    row = [namespace, name, *["?"] * 6, why]
    return [*row, *["?"] * 4] if wide else row


def row(now: Situation, wide: bool) -> list[str]:
    """One line of the table; the three facts stay three columns."""
    state = now.view.state
    began = now.serving_since
    cells = [
        now.namespace,
        now.name,
        now.serving or "-",
        since(began) if began and now.serving else "-",
        serving_word(now),
        cleaned_word(now),
        reprotected_word(now),
        "-" if not now.last_sync else "?" if is_ahead(now.last_sync) else since(now.last_sync),
        present(now),
    ]
    if wide:
        action = f"{state.action.kind.value} by {state.action.requester or '-'}" if state.action else "-"
        policy = state.app.policy if state.app else "-"
        cells += [str(now.epoch or "-"), action, policy, ",".join(now.clusters)]
    return cells


def serving_word(now: Situation) -> str:
    """Whether the application serves where the decision says.

    Of a move that nobody carries on it is not known here: its source may be demoted, and the table looks nowhere.
    """
    if now.view.state.interrupted:
        return "?"
    action = now.action
    if action and action.outcome is None and action.kind is not ActionKind.REPROTECT and not action.serving_at:
        return "moving" if now.serving else "no"
    return "yes" if now.serving else "no"


def cleaned_word(now: Situation) -> str:
    """Whether every other cluster has given up the application; an absent one is a debt, never clean."""
    if now.view.state.debts:
        return f"waiting {', '.join(debt.cluster for debt in now.view.state.debts)}"
    return "yes" if now.action and now.action.cleaned_at else "no"


def reprotected_word(now: Situation) -> str:
    """Whether a loss of the serving side would be survivable, as proven by a sync."""
    return "yes" if now.action and now.action.reprotected_at else "no"


def present(now: Situation) -> str:
    """What happens or is awaited at this moment."""
    if now.view.state.superseded:
        return "superseded"
    if now.needs_you:
        return f"needs you: {now.needs_you}"
    if now.waiting:
        return awaited(now.waiting)
    return f"{now.view.child.rsplit('/', 1)[-1]} runs" if now.view.child else "-"


def table(rows: list[list[str]], wide: bool) -> str:
    """All applications, sorted by namespace and name."""
    return console.table(WIDE if wide else HEADER, sorted(rows))


def screen(now: Situation) -> str:
    """One application: where it serves, whether it is protected, what is awaited, each cluster, the last action."""
    lines = [_headline(now), *(f"  {line}" for line in _verdict(now)), ""]
    lines += _clusters(now)
    lines += _pods(now)
    lines += _action(now)
    lines += _chosen(now)
    lines.append(f"{'Next':<10} {_next(now)}")
    return "\n".join(lines)


def _headline(now: Situation) -> str:
    epoch = f", epoch {now.epoch}" if now.epoch else ""
    if not now.serving:
        return f"{now.name} ({now.namespace}) does not serve yet{epoch}."
    look = now.seen.get(now.serving)
    if look is not None and look.reachable and look.role == "secondary":
        # A relocate, or its way back, has taken the application away there; the decision follows at its end.
        return f"{now.name} ({now.namespace}) serves nowhere now, last on {now.serving}{epoch}."
    began = f" since {clock(now.serving_since)}" if now.serving_since else ""
    return f"{now.name} ({now.namespace}) serves on {now.serving}{began}{epoch}."


def _verdict(now: Situation) -> list[str]:
    """Protected or not, and what is awaited, in sentences."""
    state = now.view.state
    lines: list[str] = []
    if state.superseded:
        lines.append(f"Stopped: {state.superseded}. Hubless changes nothing here any more.")
    if now.serving:
        lines.append(_protection(now))
    if now.needs_you:
        lines.append(f"Needs you: {now.needs_you}")
    elif now.waiting:
        lines.append(f"{_capital(awaited(now.waiting))}.{_then(now)}")
        if now.obstacle:
            lines.append(f"Held up: {now.obstacle}")
    return lines


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _then(now: Situation) -> str:
    state = now.view.state
    if not state.debts or (now.steps and now.steps.needs_operator):
        return ""
    # What a Reprotect awaits of the side that serves comes after the others were cleaned.
    is_clean = now.waiting is not None and now.waiting.cluster in ("", state.decision.cluster)
    ahead = "" if is_clean else " Then: demote, resynchronise, protect."
    return f"{ahead} Nothing to do for you until then."


def _protection(now: Situation) -> str:
    if came := now.unproven_volumes:
        it = "it" if len(came) == 1 else "them"
        return f"Not protected: {', '.join(came)} came lately, and a loss of {now.serving} now would lose {it}."
    if now.view.state.known_empty:
        return "No volumes: there is nothing to replicate."
    if now.action and now.action.reprotected_at:
        last = f", last sync {since(now.last_sync)} ago" if now.last_sync else ""
        if now.last_sync and is_ahead(now.last_sync):
            last = f", last sync at {clock(now.last_sync)} by a clock that is ahead of this machine's"
        return f"Protected since {clock(now.action.reprotected_at)}{last}."
    others = [name for name in now.clusters if name != now.serving]
    good = max((moment for name in others if (moment := now.view.state.last_good.get(name))), default=None)
    as_of = good or (now.action.data_as_of if now.action else None)
    lost = f"everything since {clock(as_of)}" if as_of else "everything: no copy is proven yet"
    return f"Not protected: a loss of {now.serving} now would lose {lost}."


def _clusters(now: Situation) -> list[str]:
    rows: list[tuple[str, str, str]] = []
    for name in now.clusters:
        seen = now.seen.get(name)
        if seen and seen.reachable:
            rows.append((name, "reachable", _role(seen)))
            continue
        rows.append((name, f"unreachable{_since_when(now, name)}", _wanted(now, name)))
    width = max((len(reach) for _, reach, _ in rows), default=0)
    names = max((len(name) for name, _, _ in rows), default=0)
    return [
        f"{'Clusters' if index == 0 else '':<10} {name:<{names}} {reach:<{width}}   {says}".rstrip()
        for index, (name, reach, says) in enumerate(rows)
    ]


def _since_when(now: Situation, cluster: str) -> str:
    known = now.health.get(cluster)
    if known and not known.reachable:
        moment = known.last_answer or known.since
        return f" since {clock(moment)}" if moment else ""
    return f" ({now.seen[cluster].error})" if cluster in now.seen and now.seen[cluster].error else ""


def _role(seen: Observed) -> str:
    """`Primary, ready, epoch 8` of a cluster that answers."""
    if seen.vrg is None:
        return "no VRG" + (f", epoch {seen.tombstone.number} kept" if seen.tombstone else "")
    status = seen.vrg.get("status") or {}
    settled = status.get("observedGeneration") == seen.vrg.get("metadata", {}).get("generation")
    words = [(seen.role or "unknown").capitalize()]
    ready = [c for c in status.get("conditions") or [] if c.get("type") == "DataReady" and c.get("status") == "True"]
    if settled and ready and status.get("state", "").lower() == seen.role:
        words.append("ready")
    elif not settled or status.get("state", "").lower() != seen.role:
        words.append("in transition")
    if epoch := Epoch.of(seen.vrg):
        words.append(f"epoch {epoch.number}")
    return ", ".join(words)


def _wanted(now: Situation, cluster: str) -> str:
    words = []
    if wanted := now.view.state.wanted.get(cluster):
        words.append(f"wants {wanted.role.value.capitalize()}")
    if memory := now.remembered.get(cluster):
        epoch = f" (epoch {memory.epoch.number})" if memory.epoch else ""
        words.append(f"last seen {(memory.role or 'unknown').capitalize()}{epoch}")
    return ", ".join(words)


def _pods(now: Situation) -> list[str]:
    if not now.serving:
        return []
    seen = now.seen.get(now.serving)
    if not seen or not seen.reachable:
        return [f"{'Pods':<10} not known: {now.serving} does not answer"]
    runs = ": the application runs" if now.runs else ""
    return [f"{'Pods':<10} {now.pods.ready} of {now.pods.total} Ready on {now.serving}{runs}"]


def _chosen(now: Situation) -> list[str]:
    """Why the application was put where it was put, where nobody had named a cluster."""
    app = now.view.state.app
    if app is None or not app.placement_reason:
        return []
    return [f"{'Preferred':<10} {app.preferred_cluster}, chosen: {app.placement_reason}"]


def _action(now: Situation) -> list[str]:
    action = now.action
    if action is None:
        return []
    said = [action.kind.value]
    if action.requester:
        said.append(f"asked by {action.requester}")
    head = ", ".join(said) + (f" at {clock(action.requested_at)}" if action.requested_at else "")
    if action.reason:
        head += f', "{action.reason}"'
    if now.steps and now.steps.aborting:
        head += f" (being aborted: {now.steps.aborting})"
    if action.outcome and action.outcome is not Outcome.DONE:
        head += f" ({action.outcome.value}{': ' + action.message if action.message else ''})"
    return [f"{'Action':<10} {head}", f"{'':<10} {facts(now)}"]


def facts(now: Situation) -> str:
    """`requested 0 s · serving 1.6 s · cleaned - · re-protected -`, each from the request on."""
    action = now.action
    if action is None:
        return ""
    zero = action.requested_at

    def after(moment: datetime | None) -> str:
        if moment is None:
            return "-"
        return precise((moment - zero).total_seconds()) if zero else clock(moment, datetime.now(UTC))

    return (
        f"requested 0 s · serving {after(action.serving_at)} · cleaned {after(action.cleaned_at)} · "
        f"re-protected {after(action.reprotected_at)}"
    )


def _next(now: Situation) -> str:
    if now.steps and now.steps.needs_operator:
        return f"hubless retry {now.where}, or hubless abort {now.where}"
    if now.view.state.interrupted:
        return "what is said above"
    if now.view.child or now.view.state.debts:
        return f"hubless status {now.where} --watch"
    return f"hubless history {now.where}"
