"""`hubless history`: what was done to an application, by whom, and how long each fact took."""

from __future__ import annotations

from typing import Any

from ramen.app import ActionKind
from starter import console, exitcodes, output
from starter.client import Hubless
from starter.commands.status import Output
from starter.durations import clock, precise
from starter.options import Name, Namespace
from starter.output import Format
from starter.run import run
from workflows.inputs import ActionRecord, AppState

HEADER = ("EPOCH", "ACTION", "FROM", "TO", "ASKED", "BY", "SERVING", "CLEANED", "RE-PROTECTED", "OUTCOME", "REASON")


def history(name: Name, namespace: Namespace, form: Output = Format.TABLE) -> None:
    """Show the actions of an application, oldest first, with the times from the request to each fact.

    \b
    Examples:
      # all actions that the application remembers
      hubless history shop -n web
    \b
      # with their workflow IDs, to be found in Temporal Web
      hubless history shop -n web -o wide
    """
    run(_history(namespace, name, form))


async def _history(namespace: str, name: str, form: Format) -> int:
    hubless = await Hubless.connect()
    view = await hubless.status(namespace, name)
    records = _records(view.state)
    if form in (Format.JSON, Format.YAML):
        console.result(output.text([_document(each) for each in records], form))
        return exitcodes.DONE
    wide = form is Format.WIDE
    header = (*HEADER, "WORKFLOW") if wide else HEADER
    console.result(console.table(header, [_row(each, wide) for each in records]))
    return exitcodes.DONE


def _records(state: AppState) -> list[ActionRecord]:
    """Finished actions and the one that runs; the newest account of each workflow wins."""
    newest = {each.workflow_id: each for each in state.history}
    if state.action:
        newest[state.action.workflow_id] = state.action
    return sorted(newest.values(), key=lambda each: (each.epoch, each.kind is ActionKind.REPROTECT))


def _row(each: ActionRecord, wide: bool) -> list[str]:
    def after(fact: str) -> str:
        moment = getattr(each, fact)
        if moment is None:
            return "-"
        return precise((moment - each.requested_at).total_seconds()) if each.requested_at else clock(moment)

    cells = [
        str(each.epoch),
        each.kind.value,
        each.source or "-",
        each.target or "-",
        clock(each.requested_at) if each.requested_at else "-",
        each.requester or "-",
        after("serving_at"),
        after("cleaned_at"),
        after("reprotected_at"),
        each.outcome.value if each.outcome else "running",
        each.reason or "-",
    ]
    return [*cells, each.workflow_id] if wide else cells


def _document(each: ActionRecord) -> dict[str, Any]:
    found: dict[str, Any] = output.normal(
        {
            "epoch": each.epoch,
            "kind": each.kind.value,
            "workflowId": each.workflow_id,
            "source": each.source or None,
            "target": each.target or None,
            "requester": each.requester,
            "reason": each.reason,
            "requestedAt": each.requested_at,
            "servingAt": each.serving_at,
            "cleanedAt": each.cleaned_at,
            "reprotectedAt": each.reprotected_at,
            "dataAsOf": each.data_as_of,
            "outcome": each.outcome.value if each.outcome else None,
            "message": each.message,
        }
    )
    return found
