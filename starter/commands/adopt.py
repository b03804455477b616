"""`hubless adopt`: hold applications again that no workflow holds, after a loss of Temporal or from a Ramen hub."""

from __future__ import annotations

import asyncio
import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from temporalio.exceptions import ApplicationError

from ramen.app import AppRef
from ramen.recovery import Inference, Verdict
from starter import complete, confirm, console, exitcodes, looks
from starter.client import Hubless
from starter.failures import Failed, Refused, Stopped
from starter.identity import requester
from starter.options import Reason, Yes
from starter.run import run
from workflows.inputs import AdoptRequest, AdoptResult

AT_ONCE = 10
"""Applications that are looked at side by side: each costs some ten activities."""

MARKS = {
    Verdict.ADOPT: "can be held again",
    Verdict.FINISH: "a promotion is to be finished",
    Verdict.BRING_BACK: "its source is to serve again",
    Verdict.ASK: "NEEDS YOU",
    Verdict.NOTHING: "nothing to adopt",
}


class Output(StrEnum):
    """`-o`: for people, or for machines."""

    TEXT = "text"
    JSON = "json"


def adopt(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the application (its DRPC).")] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Namespace of the application.")
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Every application that a store or a cluster knows.")
    ] = False,
    serving: Annotated[
        str,
        typer.Option(
            "--serving",
            metavar="CLUSTER",
            help="Where it is to serve, when clusters and stores contradict each other; what the other side wrote is "
            "lost.",
            autocompletion=complete.clusters,
        ),
    ] = "",
    policy: Annotated[
        str,
        typer.Option("--policy", metavar="NAME", help="DRPolicy of an application that no store knows (Ramen's)."),
    ] = "",
    placement: Annotated[
        str, typer.Option("--placement", metavar="NAME", help="With --policy: its Placement, if not named as it is.")
    ] = "",
    break_lock: Annotated[
        str, typer.Option("--break-lock", metavar="HOLDER", help="Take the advisory lock from this holder.")
    ] = "",
    reason: Reason = "",
    yes: Yes = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="text or json.")] = Output.TEXT,
) -> None:
    """Hold applications again that no workflow holds: after a loss of Temporal, or from a Ramen hub.

    Looks at every cluster and store, says what it infers of each application and why, asks, and goes on with what was
    cut off. What runs is not touched. Without a terminal and without --yes it only looks.

    \b
    Examples:
      # after Temporal came back empty: look, ask, hold all of them
      hubless adopt --all
    \b
      # a site was lost together with Temporal: where it has to be said, dr2 serves
      hubless adopt --all --serving dr2
    \b
      # one application, whose two sides contradict each other
      hubless adopt shop -n web --serving dr2
    \b
      # an application that a Ramen hub protected (stop the hub's operator first)
      hubless adopt shop -n web --policy gold
    """
    request = AdoptRequest(
        app=AppRef(namespace=namespace, name=name),
        serving=serving,
        policy=policy,
        placement=placement,
        break_lock=break_lock,
        requester=requester(),
        reason=reason,
    )
    run(_adopt(request, everything, yes, output))


async def _adopt(request: AdoptRequest, everything: bool, yes: bool, output: Output) -> int:
    hubless = await Hubless.connect()
    if everything == bool(request.app.name):
        raise Refused("Give one NAME with --namespace, or --all.")
    if everything and request.policy:
        raise Refused("--policy is for one application; name it.")
    apps = await _unheld(hubless) if everything else [request.app]
    named: list[AppRef] = []
    if everything and request.serving:
        # What can be inferred needs nobody's word; the word counts where it is asked for.
        plain = await _look(hubless, request.model_copy(update={"serving": ""}), apps)
        named = [app for app, each in plain if _asks(each, request.serving)]
        found = [pair for pair in plain if pair[0] not in named] + await _look(hubless, request, named)
        request_of_rest = request.model_copy(update={"serving": ""})
    else:
        found, request_of_rest = await _look(hubless, request, apps), request
    if output is Output.JSON and not yes:
        console.result(json.dumps([_row(app, each) for app, each in found], indent=2))
        return _code(found)
    if output is Output.TEXT:
        _show(found)
    willing = [app for app, each in found if isinstance(each, AdoptResult) and each.inference.verdict in _ACTIONABLE]
    if not willing:
        if not found:
            console.success("Every application that a store or a cluster knows is held: there is nothing to adopt.")
        return _code(found)
    confirm.ask(f"Go on with {', '.join(str(app) for app in willing)}?", yes)
    shown = {app: each.inference for app, each in found if isinstance(each, AdoptResult)}
    done = await _look(hubless, request_of_rest, [app for app in willing if app not in named], shown)
    done += await _look(hubless, request, [app for app in willing if app in named], shown)
    if output is Output.JSON:
        console.result(json.dumps([_row(app, each) for app, each in done], indent=2))
    else:
        _tell(done)
    is_left = any(isinstance(each, AdoptResult) and not each.adopted for _, each in done)
    return max(_code(found), exitcodes.FAILED if is_left else _code(done))


_ACTIONABLE = (Verdict.ADOPT, Verdict.FINISH, Verdict.BRING_BACK)

Found = list[tuple[AppRef, AdoptResult | Stopped]]


def _asks(each: AdoptResult | Stopped, serving: str) -> bool:
    """Whether a person has to say where it serves, and may say this cluster."""
    return isinstance(each, AdoptResult) and each.inference.verdict is Verdict.ASK and serving in each.inference.choices


async def _unheld(hubless: Hubless) -> list[AppRef]:
    """Applications that a store or a cluster knows and that no open workflow holds."""
    try:
        known = await looks.mirrored(hubless.client)
    except (looks.NotServed, ApplicationError) as err:
        raise Failed(f"The applications cannot be listed: {err}. See which workers run: hubless check") from err
    held = {each async for each in hubless.applications()}
    return [app for app in known if (app.namespace, app.name) not in held]


async def _look(
    hubless: Hubless, request: AdoptRequest, apps: list[AppRef], consented: dict[AppRef, Inference] | None = None
) -> Found:
    """Looks at applications; at those that a person consented to, by what was shown, to hold them again."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(app: AppRef) -> tuple[AppRef, AdoptResult | Stopped]:
        async with slots:
            try:
                given: dict[str, Any] = {"app": app}
                if consented is not None:
                    given |= {"consent": True, "shown": consented[app]}
                return app, await hubless.adopt(request.model_copy(update=given))
            except Stopped as err:
                if request.app.name:  # one was named: its refusal is the answer
                    raise
                return app, err

    return list(await asyncio.gather(*map(one, apps)))


def _show(found: Found) -> None:
    for app, each in found:
        if isinstance(each, Stopped):
            console.failure(f"{app}: {each.text}")
            continue
        said = each.inference
        console.tell(f"{app}: {MARKS[said.verdict]}{f' ({said.serving})' if said.serving else ''}")
        width = max((len(cluster) for cluster in each.clusters), default=0)
        for cluster, words in each.clusters.items():
            console.tell(f"  {cluster:<{width}}   {words}")
        console.tell(f"  Because   {said.why}.")
        console.tell(f"  Next      {said.plan}")
        console.tell()


def _tell(done: Found) -> None:
    for app, each in done:
        if isinstance(each, Stopped):
            console.failure(f"{app}: {each.text}")
        elif each.adopted:
            console.success(
                f"{app} is held again, epoch {each.epoch}{f': {each.workflow_id}' if each.workflow_id else ''}"
            )
        else:
            console.warning(f"{app}: it changed meanwhile: {each.inference.why}. {each.inference.plan}")
    console.tell("\nFollow them: hubless status")


def _row(app: AppRef, each: AdoptResult | Stopped) -> dict[str, Any]:
    row: dict[str, Any] = {"namespace": app.namespace, "name": app.name}
    if isinstance(each, Stopped):
        return {**row, "error": each.text}
    said = each.inference
    return {
        **row,
        "verdict": said.verdict.value,
        "serving": said.serving,
        "why": said.why,
        "plan": said.plan,
        "clusters": each.clusters,
        "adopted": each.adopted,
        "epoch": each.epoch,
        "workflowId": each.workflow_id,
    }


def _code(found: Found) -> int:
    """2 while a person has to decide about any application, 1 when one could not be looked at."""
    if any(isinstance(each, Stopped) and each.code != exitcodes.REFUSED for _, each in found):
        return exitcodes.FAILED
    open_questions = [each for _, each in found if isinstance(each, Stopped) or each.inference.verdict is Verdict.ASK]
    return exitcodes.REFUSED if open_questions else exitcodes.DONE
