"""`hubless unprotect`: end the protection and leave the application running where it serves."""

from __future__ import annotations

from typing import Annotated

import typer

from starter import complete, confirm, console
from starter.client import Hubless
from starter.commands.move import finish
from starter.failures import NoWorker, Refused
from starter.identity import again, requester
from starter.identity import request_id as new_request_id
from starter.options import Name, Namespace, Reason, RequestId, Timeout, Wait, Yes
from starter.run import run
from starter.situation import gather
from workflows.inputs import UnprotectRequest


def unprotect(
    ctx: typer.Context,
    name: Name,
    namespace: Namespace,
    forget_cluster: Annotated[
        list[str] | None,
        typer.Option(
            "--forget-cluster",
            metavar="CLUSTER",
            help="Do not wait for this cluster, it never returns; repeat for more.",
            autocompletion=complete.clusters,
        ),
    ] = None,
    reason: Reason = "",
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
    request_id: RequestId = "",
) -> None:
    """End the protection: the application goes on where it serves, its copies elsewhere are removed.

    Stays open until every cluster has answered, so that nothing is left behind on one that is away now.

    \b
    Examples:
      # end the protection of shop
      hubless unprotect shop -n web
    \b
      # in a script, until both clusters are clean
      hubless unprotect shop -n web --yes --wait
    \b
      # dr2 was taken apart and never returns
      hubless unprotect shop -n web --forget-cluster dr2
    """
    request = UnprotectRequest(
        request_id=new_request_id(request_id),
        requester=requester(),
        reason=reason,
        forget_clusters=forget_cluster or [],
    )
    run(_unprotect(ctx, namespace, name, request, yes, wait, timeout))


async def _unprotect(
    ctx: typer.Context,
    namespace: str,
    name: str,
    request: UnprotectRequest,
    yes: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    hubless = await Hubless.connect()
    await hubless.require_protected(namespace, name)
    try:
        now = await gather(hubless, namespace, name)
    except NoWorker as err:
        console.warning(err.text)
    else:
        if unknown := [each for each in request.forget_clusters if now.clusters and each not in now.clusters]:
            raise Refused(f"{', '.join(unknown)} is not a cluster of {name} ({', '.join(now.clusters)}).")
        for text in confirm.present_state(now):
            console.tell(text)
        console.tell()
    console.tell(
        f"Unprotecting ends the replication of {name} and removes its copies; after that a loss of the site that "
        "serves loses the application's data."
    )
    confirm.ask(f"Unprotect {name}?", yes)
    for cluster in request.forget_clusters:
        confirm.ask(f"Forget {cluster}? What is left of {name} there stays, and may run when it returns.", yes)
    answer = await hubless.ask(
        "unprotect", namespace, name, request, request.request_id, again(ctx, request.request_id)
    )
    return await finish(hubless, answer, namespace, name, wait, timeout)
