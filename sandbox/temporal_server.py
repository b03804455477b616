"""The Temporal service of the sandbox: the real development server, persistent, with its Web UI.

The settings that take Terminate and Reset out of Temporal Web are read by the UI server's own program only; the
development server (CLI 1.9.1, UI 2.54.1) ignores them, so in a sandbox these buttons stay.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from ramen.names import TEMPORAL_NAMESPACE
from sandbox.processes import Probe, ProcessFailed, Spec
from sandbox.state import SandboxState

SEARCH_ATTRIBUTES = {
    "HublessApp": "Keyword",
    "HublessNamespace": "Keyword",
    "HublessAction": "Keyword",
    "HublessCluster": "Keyword",
    "HublessPhase": "Keyword",
    "HublessPlan": "Keyword",
    "HublessEpoch": "Int",
}

RETENTION = "720h"
"""How long finished workflows stay visible; the server's default for a development namespace is one day."""

LONG_POLL = "10s"
"""How long the server holds a poll open. A worker that freezes takes one task with each of its open polls, and none
after this time; the server's default is a minute. The same as in deploy/temporal-dynamic-config.yaml,
which says why it is not less."""

COMMAND_SECONDS = 60.0
"""Limit of one call of the command line; half a second is normal."""


def spec(state: SandboxState, temporal: Path) -> Spec:
    """The process `temporal`."""
    data = state.directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    ports = state.ports
    arguments = [
        "server",
        "start-dev",
        "--ip=127.0.0.1",
        "--ui-ip=127.0.0.1",
        f"--port={ports['temporal']}",
        f"--ui-port={ports['temporal-ui']}",
        f"--http-port={ports['temporal-http']}",
        f"--metrics-port={ports['temporal-metrics']}",
        f"--db-filename={data / 'temporal.db'}",
        f"--namespace={TEMPORAL_NAMESPACE}",
        "--log-level=error",
        f'--dynamic-config-value=matching.longPollExpirationInterval="{LONG_POLL}"',
    ]
    return Spec(name="temporal", argv=[str(temporal), *arguments], probe=Probe(port=ports["temporal"]))


async def prepare(state: SandboxState, temporal: Path) -> None:
    """Creates the search attributes and sets the retention; what exists stays. Raises `ProcessFailed`."""
    attributes = [argument for name, kind in SEARCH_ATTRIBUTES.items() for argument in ("--name", name, "--type", kind)]
    await _run(state, temporal, "operator", "search-attribute", "create", *attributes)
    await _run(state, temporal, "operator", "namespace", "update", "--retention", RETENTION)


async def _run(state: SandboxState, temporal: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        str(temporal),
        *arguments,
        f"--namespace={TEMPORAL_NAMESPACE}",
        f"--address={state.temporal_address}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
    except TimeoutError as err:
        process.kill()
        raise ProcessFailed(f"temporal {' '.join(arguments[:3])}: no answer in {COMMAND_SECONDS:g} s") from err
    if process.returncode != 0:
        raise ProcessFailed(f"temporal {' '.join(arguments[:3])}: {output.decode(errors='replace').strip()[:500]}")
