"""`hubless release`: give an application back to a Ramen hub, with workload, volumes and VRGs as they are."""

from __future__ import annotations

import typer

from starter import confirm, console
from starter.client import Hubless
from starter.commands.move import finish
from starter.identity import again, requester
from starter.identity import request_id as new_request_id
from starter.options import Name, Namespace, Reason, RequestId, Timeout, Wait, Yes
from starter.run import run
from starter.situation import gather
from workflows.inputs import ReleaseRequest


def release(
    ctx: typer.Context,
    name: Name,
    namespace: Namespace,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
    request_id: RequestId = "",
) -> None:
    """Give an application back to a Ramen hub: it goes on running, its VRGs stay, and nobody here drives it any more.

    Refused while an action runs, while a cluster owes anything or does not answer. See docs/migration.md.

    \b
    Examples:
      # the hub is to adopt the VRGs of shop
      hubless release shop -n web
    \b
      # in a script, until no VRG is ours
      hubless release shop -n web --yes --wait
    """
    request = ReleaseRequest(request_id=new_request_id(request_id), requester=requester(), reason=reason)
    run(_release(ctx, namespace, name, request, yes, wait, timeout))


async def _release(
    ctx: typer.Context,
    namespace: str,
    name: str,
    request: ReleaseRequest,
    yes: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    hubless = await Hubless.connect()
    await hubless.require_protected(namespace, name)
    now = await gather(hubless, namespace, name)
    for text in confirm.present_state(now):
        console.tell(text)
    console.tell()
    console.tell(
        f"Releasing {name} changes nothing that runs. From then on a loss of {now.serving or 'its site'} is no concern "
        "of ours: no failover and no relocate starts here until a hub, or hubless adopt, takes the VRGs."
    )
    confirm.ask(f"Release {name}?", yes)
    answer = await hubless.ask("release", namespace, name, request, request.request_id, again(ctx, request.request_id))
    return await finish(hubless, answer, namespace, name, wait, timeout)
