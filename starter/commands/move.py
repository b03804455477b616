"""`hubless failover` and `hubless relocate`: the two ways to another cluster."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from ramen.app import ActionKind
from ramen.words import counted
from starter import confirm, console, exitcodes, follow
from starter.client import Hubless
from starter.durations import clock, precise
from starter.failures import NoWorker, Refused
from starter.identity import again, request_id, requester
from starter.options import (
    AcceptDataLoss,
    AcceptMissing,
    Name,
    Namespace,
    Reason,
    RequestId,
    Timeout,
    To,
    Wait,
    Yes,
)
from starter.run import run
from starter.situation import Situation, gather, look_at
from workflows.inputs import ActionResult, Answer, MoveRequest

BreakLock = Annotated[
    str, typer.Option("--break-lock", metavar="HOLDER", help="Take the advisory lock from this holder.")
]


def failover(
    ctx: typer.Context,
    name: Name,
    namespace: Namespace,
    to: To,
    accept_data_loss: AcceptDataLoss = False,
    accept_missing_volumes: AcceptMissing = None,
    break_lock: BreakLock = "",
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
    request_id: RequestId = "",
) -> None:
    """Serve from another cluster now; what was not replicated is lost.

    For a site that is lost or failing. Accepted at any time, also while another action runs. The side that is left is
    demoted and resynchronised by itself when it comes back.

    \b
    Examples:
      # dr1 is lost: look at the state, then decide
      hubless failover shop -n web --to dr2 --reason "site dr1 lost power"
    \b
      # in a script: no question, follow until it serves, for at most ten minutes
      hubless failover shop -n web --to dr2 --yes --wait --timeout 10m
    \b
      # the copy on dr1 is still being rebuilt, and dr2 is lost as well
      hubless failover shop -n web --to dr1 --accept-data-loss
    """
    request = _request(to, request_id, reason, accept_data_loss, accept_missing_volumes, break_lock)
    run(_move(ctx, ActionKind.FAILOVER, namespace, name, request, yes, wait, timeout))


def relocate(
    ctx: typer.Context,
    name: Name,
    namespace: Namespace,
    to: To,
    accept_data_loss: AcceptDataLoss = False,
    accept_missing_volumes: AcceptMissing = None,
    break_lock: BreakLock = "",
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
    request_id: RequestId = "",
) -> None:
    """Move to another cluster without losing anything; the application stops meanwhile.

    Needs both clusters, and a copy on the target that is proven good. The application is stopped, synchronised to the
    last write, and started on the other side.

    \b
    Examples:
      # move home after a failover, once it is re-protected
      hubless relocate shop -n web --to dr1
    \b
      # before maintenance on dr1, in a script
      hubless relocate shop -n web --to dr2 --yes --wait --reason "maintenance of dr1"
    \b
      # not known whether the last request arrived: ask the same again, nothing starts twice
      hubless relocate shop -n web --to dr2 --yes --request-id 4ab1c1e2-7f0f-4f4e-a3d4-0b1f0a6f3a52
    """
    request = _request(to, request_id, reason, accept_data_loss, accept_missing_volumes, break_lock)
    run(_move(ctx, ActionKind.RELOCATE, namespace, name, request, yes, wait, timeout))


def _request(
    to: str, given_id: str, reason: str, accept_data_loss: bool, missing: list[str] | None, break_lock: str
) -> MoveRequest:
    return MoveRequest(
        target=to,
        request_id=request_id(given_id),
        requester=requester(),
        reason=reason,
        accept_data_loss=accept_data_loss,
        accept_missing_volumes=missing or [],
        break_lock=break_lock,
        requested_at=datetime.now(UTC),
    )


async def _move(
    ctx: typer.Context,
    kind: ActionKind,
    namespace: str,
    name: str,
    request: MoveRequest,
    yes: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    hubless = await Hubless.connect()
    await hubless.require_protected(namespace, name)
    now: Situation | None
    try:
        now = await gather(hubless, namespace, name)
    except NoWorker as err:
        console.warning(err.text)
        now = None
    if now is not None:
        _check_target(now, request.target)
    _show(kind, now, name, request.target)
    confirm.ask(f"{_verb(kind)} {name} to {request.target}?", yes)
    confirm.ask_about_loss(request.target, request.accept_missing_volumes, request.accept_data_loss, yes)
    update = kind.value.lower()
    answer = await hubless.ask(update, namespace, name, request, request.request_id, again(ctx, request.request_id))
    return await finish(hubless, answer, namespace, name, wait, timeout)


def _verb(kind: ActionKind) -> str:
    return "Fail over" if kind is ActionKind.FAILOVER else "Relocate"


def _check_target(now: Situation, target: str) -> None:
    """Refuses an unknown cluster before a question is asked; everything else is for the application to judge."""
    app = now.view.state.app
    if app and target not in app.cluster_names:
        raise Refused(f"{target} is not a cluster of policy {app.policy} ({', '.join(app.cluster_names)}).")


def _show(kind: ActionKind, now: Situation | None, name: str, target: str) -> None:
    """Prints the present state and the consequence, on stderr."""
    if now is None:
        console.tell(f"The state of {name} is not known, because no worker answers.")
        return
    for text in confirm.present_state(now, target):
        console.tell(text)
    console.tell()
    if target == now.serving:
        # Nothing is left behind by going where it is; whether that is refused is for the application to judge.
        return
    if kind is ActionKind.FAILOVER:
        consequence = confirm.failover_consequence(now, target)
    else:
        consequence = [
            f"Relocating stops {name} on {now.serving}, brings the last writes over, and starts it on {target}. "
            "Nothing is lost; it does not serve meanwhile."
        ]
    for text in consequence:
        console.tell(text)


async def finish(hubless: Hubless, answer: Answer, namespace: str, name: str, wait: bool, timeout: float | None) -> int:
    """Prints the action's ID, follows it if asked to, and ends with the next useful command."""
    where = f"{name} -n {namespace}"
    if not wait:
        console.made(f"{answer.message}, epoch {answer.epoch}")
        console.result(answer.workflow_id)
        console.tell(f"Follow it:   hubless status {where} --watch")
        return exitcodes.DONE
    result = await follow.follow(hubless, answer, where, timeout)
    code = follow.exit_code(result)
    if code != exitcodes.DONE:
        console.failure(f"{answer.action.value} {result.outcome.value}: {result.message or 'see its history'}")
        console.tell(f"See:   hubless history {where}")
        return code
    await _serving(hubless, answer, result, namespace, name)
    console.result(answer.workflow_id)
    console.tell(f"Follow it:   hubless status {where} --watch")
    return code


async def _serving(hubless: Hubless, answer: Answer, result: ActionResult, namespace: str, name: str) -> None:
    """The facts at the end of a followed action: serving with its pods, then what goes on by itself."""
    if answer.action is ActionKind.UNPROTECT:
        console.success(f"{name} is no longer protected.")
        return
    if answer.action is ActionKind.RELEASE:
        console.success(f"{name} is given back. Nobody here moves it until a hub, or hubless adopt, takes it.")
        return
    now = await gather(hubless, namespace, name, live=False)
    if now.serving:
        await look_at(hubless, now, [now.serving])
    action = now.action
    took = ""
    if result.serving_at and action and action.requested_at:
        took = f" after {precise((result.serving_at - action.requested_at).total_seconds())}"
    parts = []
    if result.data_as_of:
        parts.append(f"data as of {clock(result.data_as_of)}")
    expected = len(now.view.state.volumes)
    parts.append(counted(len(result.volumes), "volume", max(expected, len(result.volumes))))
    parts.append(f"pods {now.pods.ready} of {now.pods.total} Ready")
    console.tell(f"  {console.marked('●', f'Serving on {now.serving}{took}', sys.stderr)}   {', '.join(parts)}")
    for debt in now.view.state.debts:
        console.tell(f"  ◎ Clean up {debt.cluster}   since {clock(debt.since)}")
    if now.view.state.debts or now.view.child:
        console.tell("  ◎ Re-protect   after that")
        console.tell()
        console.tell("Clean-up goes on by itself, also when this terminal is closed.")
