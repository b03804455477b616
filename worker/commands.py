"""`hubless worker`: the command that a cluster's Deployment runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The worker process of a cluster.", no_args_is_help=True)


@app.callback()
def worker() -> None:
    """The worker process of a cluster."""


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings; a variable HUBLESS_<NAME> wins over it.")
    ] = None,
) -> None:
    """Serves the cluster HUBLESS_CLUSTER, and every other cluster that its ClusterRegistry names.

    Temporal is found as the `temporal` command line finds it: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_PROFILE.
    """
    from worker.main import main  # the other commands of `hubless` need not load Temporal and Kubernetes clients

    main(config)
