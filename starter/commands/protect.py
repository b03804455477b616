"""`hubless protect`: bring an application under protection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from temporalio.exceptions import ApplicationError

from activities.contracts import ProtectRequest, SurveyResult
from ramen.app import AppSpec
from starter import complete, console, looks
from starter.client import Hubless
from starter.commands.move import finish
from starter.failures import Refused
from starter.identity import again, request_id, requester
from starter.manifest import build
from starter.options import Reason, RequestId, Timeout, Wait
from starter.run import run
from workflows.inputs import ProtectUpdate


def protect(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Name of the application; may come from the file.")
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Its namespace; may come from the file.")
    ] = "",
    policy: Annotated[
        str, typer.Option("--policy", metavar="POLICY", help="DRPolicy that names the two clusters.")
    ] = "",
    preferred: Annotated[
        str,
        typer.Option(
            "--preferred",
            metavar="CLUSTER",
            help="Cluster that serves first; without it one is chosen.",
            autocompletion=complete.clusters,
        ),
    ] = "",
    selector: Annotated[
        list[str] | None, typer.Option("--selector", metavar="KEY=VALUE", help="Labels of its PVCs; repeat for more.")
    ] = None,
    placement: Annotated[
        str, typer.Option("--placement", metavar="PLACEMENT", help="Placement that GitOps follows.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="A DRPC in YAML instead of flags.")
    ] = None,
    reason: Reason = "",
    wait: Wait = False,
    timeout: Timeout = None,
    request_id: RequestId = "",
) -> None:
    """Protect an application: replicate its volumes and remember what a restore needs.

    Both clusters are looked at first; a request that cannot work is refused before anything starts.

    \b
    Examples:
      # protect the volumes labelled app=shop, serving on dr1
      hubless protect shop -n web --policy gold --preferred dr1 --selector app=shop --placement shop
    \b
      # the same from a manifest, following until it is protected
      hubless protect -f drpc.yaml --wait
    \b
      # where its volumes are, or else on the first cluster of the policy that is ready
      hubless protect shop -n web --policy gold --selector app=shop --placement shop
    \b
      # a manifest, but serving on the other cluster first
      hubless protect -f drpc.yaml --preferred dr2
    """
    run(
        _protect(
            ctx,
            build_arguments=(name, namespace, file, policy, preferred, placement, selector or []),
            given_id=request_id,
            reason=reason,
            wait=wait,
            timeout=timeout,
        )
    )


async def _protect(
    ctx: typer.Context,
    build_arguments: tuple[str, str, Path | None, str, str, str, list[str]],
    given_id: str,
    reason: str,
    wait: bool,
    timeout: float | None,
) -> int:
    request = build(*build_arguments)
    hubless = await Hubless.connect()
    await preflight(hubless, request)
    update = ProtectUpdate(request=request, request_id=request_id(given_id), requester=requester(), reason=reason)
    answer = await hubless.apply(update, again(ctx, update.request_id))
    return await finish(hubless, answer, request.namespace, request.name, wait, timeout)


async def preflight(hubless: Hubless, request: ProtectRequest) -> AppSpec:
    """Resolves the request and looks at both clusters; a refusal here leaves no trace anywhere (S15).

    Raises `Refused` with what is wrong and the remedy. A silent peer is only reported: it is prepared when it is back.
    """
    app = await looks.resolve(hubless.client, request)
    found = await asyncio.gather(*(_survey(hubless, app, cluster) for cluster in app.cluster_names))
    for cluster, survey in zip(app.cluster_names, found, strict=True):
        _judge(app, cluster, survey)
    return app


async def _survey(hubless: Hubless, app: AppSpec, cluster: str) -> SurveyResult | str:
    """What is there, or why nobody could look."""
    try:
        survey = await looks.survey(hubless.client, app, cluster)
    except looks.NotServed:
        return f"no worker reaches {cluster}"
    except ApplicationError as err:
        if err.type == "ClusterUnreachable":
            return err.message
        raise Refused(err.message) from err
    return survey if survey.observed.reachable else survey.observed.error or "no answer"


def _judge(app: AppSpec, cluster: str, survey: SurveyResult | str) -> None:
    if isinstance(survey, str):
        if cluster == app.preferred_cluster:
            raise Refused(
                f"{app.name} cannot be protected on {cluster}: {cluster} does not answer ({survey}).\n"
                f"  Check it: hubless cluster check {cluster}"
            )
        console.warning(f"{cluster} does not answer ({survey}): its side was not looked at.")
        return
    if survey.missing_kinds:
        raise Refused(
            f"{cluster} lacks the kinds {', '.join(survey.missing_kinds)}.\n"
            f"  Install them: hubless crds | kubectl apply -f -   (with the kubeconfig of {cluster})"
        )
    if survey.unsupported:
        raise Refused(
            f"{app.name} cannot be protected: this release does not carry {'; '.join(survey.unsupported)} "
            f"(seen on {cluster}).\n  Nothing was started. Leave it out of the selector, or keep it with Ramen."
        )
