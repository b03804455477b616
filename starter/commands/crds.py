"""`hubless crds`: prints the CRDs, generated from the models that this very version reads and writes."""

from __future__ import annotations

from typing import Annotated

import typer

from ramen.crds import dump_yaml, generate
from starter.exitcodes import REFUSED


def crds(
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="KIND", help="Print the CRD of this kind alone."),
    ] = None,
) -> None:
    """Print the CRDs as YAML.

    \b
    # Install all of them on the current cluster
    hubless crds | kubectl apply --server-side -f -
    # Where Ramen's own CRDs are installed already, add the registry alone
    hubless crds --only ClusterRegistry | kubectl apply --server-side -f -
    # See what a change of version changes
    hubless crds | kubectl diff --server-side -f -
    """
    definitions = generate()
    if only is not None:
        kinds = [definition["spec"]["names"]["kind"] for definition in definitions]
        definitions = [
            definition for definition in definitions if definition["spec"]["names"]["kind"].lower() == only.lower()
        ]
        if not definitions:
            typer.echo(f"✗ There is no CRD of kind {only}. There are: {', '.join(kinds)}.", err=True)
            raise typer.Exit(REFUSED)
    typer.echo(dump_yaml(definitions), nl=False)
