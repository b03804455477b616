"""`hubless abort`, `retry` and `resume`: what an operator says to an action that runs or waits."""

from __future__ import annotations

import typer

from starter import confirm, console, exitcodes
from starter.client import Hubless
from starter.failures import NoWorker
from starter.identity import again, request_id, requester
from starter.options import AcceptDataLoss, AcceptMissing, Name, Namespace, Reason, RequestId, Yes
from starter.run import run
from starter.screen import awaited
from starter.situation import gather
from workflows.inputs import OperatorRequest


def abort(
    ctx: typer.Context,
    name: Name,
    namespace: Namespace,
    reason: Reason = "",
    yes: Yes = False,
    request_id: RequestId = "",
) -> None:
    """Stop the action that runs and go back, as long as there is a way back.

    A failover is given up before its decision is published, a relocate before its target is promoted. After that the
    answer names the way back instead.

    \b
    Examples:
      # the relocate hangs in its final sync: serve from the old side again
      hubless abort shop -n web
    \b
      # in a script, with the reason for the history
      hubless abort shop -n web --yes --reason "maintenance window is over"
    \b
      # see afterwards where it serves
      hubless status shop -n web
    """
    run(_abort(ctx, namespace, name, _request(request_id, reason), yes))


def retry(
    ctx: typer.Context,
    name: Name,
    namespace: Namespace,
    accept_data_loss: AcceptDataLoss = False,
    accept_missing_volumes: AcceptMissing = None,
    reason: Reason = "",
    yes: Yes = False,
    request_id: RequestId = "",
) -> None:
    """Let the step that failed run again, with what is accepted from now on.

    \b
    Examples:
      # the store is back: go on
      hubless retry shop -n web
    \b
      # volume data-1 is in no store: go on without it
      hubless retry shop -n web --accept-missing-volumes data-1
    \b
      # the witness of the final sync is missing: accept what may be lost
      hubless retry shop -n web --accept-data-loss
    """
    request = _request(request_id, reason, accept_data_loss, accept_missing_volumes)
    run(_retry(ctx, namespace, name, request, yes))


def resume(
    ctx: typer.Context, name: Name, namespace: Namespace, reason: Reason = "", request_id: RequestId = ""
) -> None:
    """Take up what was left open: clean up and re-protect now, without waiting for the next look.

    \b
    Examples:
      # dr1 is back; do not wait until the workers notice
      hubless resume shop -n web
    """
    run(_say(ctx, "resume", namespace, name, _request(request_id, reason)))


def _request(
    given_id: str, reason: str, accept_data_loss: bool = False, missing: list[str] | None = None
) -> OperatorRequest:
    return OperatorRequest(
        request_id=request_id(given_id),
        requester=requester(),
        reason=reason,
        accept_data_loss=accept_data_loss,
        accept_missing_volumes=missing or [],
    )


async def _abort(ctx: typer.Context, namespace: str, name: str, request: OperatorRequest, yes: bool) -> int:
    hubless = await Hubless.connect()
    await hubless.require_protected(namespace, name)
    await _show(hubless, namespace, name)
    confirm.ask(f"Abort it? {name} goes back to where it was before.", yes)
    return await _say(ctx, "abort", namespace, name, request, hubless)


async def _retry(ctx: typer.Context, namespace: str, name: str, request: OperatorRequest, yes: bool) -> int:
    hubless = await Hubless.connect()
    await hubless.require_protected(namespace, name)
    if request.accept_data_loss or request.accept_missing_volumes:
        await _show(hubless, namespace, name)
        confirm.ask_about_loss("the target", request.accept_missing_volumes, request.accept_data_loss, yes)
    return await _say(ctx, "retry", namespace, name, request, hubless)


async def _show(hubless: Hubless, namespace: str, name: str) -> None:
    """Prints what runs and what it waits for."""
    try:
        now = await gather(hubless, namespace, name, live=False)
    except NoWorker as err:
        console.warning(err.text)
        return
    action = now.action
    if action is None or not now.view.child:
        console.tell(f"No action of {name} runs.")
        return
    console.tell(f"{action.kind.value} of {name} to {action.target} runs, epoch {action.epoch} ({now.view.child}).")
    if now.steps and now.steps.needs_operator:
        console.tell(f"  {now.steps.needs_operator}")
    elif now.waiting:
        console.tell(f"  {awaited(now.waiting)}")


async def _say(
    ctx: typer.Context, update: str, namespace: str, name: str, request: OperatorRequest, hubless: Hubless | None = None
) -> int:
    hubless = hubless or await Hubless.connect()
    answer = await hubless.ask(update, namespace, name, request, request.request_id, again(ctx, request.request_id))
    console.success(answer.message)
    console.result(answer.workflow_id)
    console.tell(f"Follow it:   hubless status {name} -n {namespace} --watch")
    return exitcodes.DONE
