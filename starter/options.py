"""Arguments and options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

from typing import Annotated

import typer

from starter import complete
from starter.durations import parse_span


def seconds(text: str) -> float:
    """A duration as an option; a bad one is bad input (exit 2)."""
    try:
        return parse_span(text)
    except ValueError as err:
        raise typer.BadParameter(str(err)) from err


Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the application (its DRPC).", autocompletion=complete.applications),
]
Namespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAMESPACE",
        help="Namespace of the application.",
        autocompletion=complete.namespaces,
    ),
]
To = Annotated[
    str, typer.Option("--to", metavar="CLUSTER", help="Cluster that is to serve.", autocompletion=complete.clusters)
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the history and for Temporal Web.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer every question with yes.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the action, live, until it has done what was asked.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", parser=seconds, metavar="DURATION", help="Stop following after this long (exit 3)."),
]
RequestId = Annotated[
    str,
    typer.Option(
        "--request-id", metavar="ID", help="Ask again under the ID of an earlier request: starts nothing twice."
    ),
]
AcceptDataLoss = Annotated[
    bool, typer.Option("--accept-data-loss", help="Go on although the copy there is not proven good.")
]
AcceptMissing = Annotated[
    list[str] | None,
    typer.Option("--accept-missing-volumes", metavar="PVC", help="Go on without this volume; repeat for several."),
]
Context = Annotated[
    str,
    typer.Option(
        "--context",
        metavar="CONTEXT",
        help="Context of your own kubeconfig that reaches a cluster of the installation.",
    ),
]
