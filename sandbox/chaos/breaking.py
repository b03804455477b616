"""Breaks a part, and mends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from sandbox import sites
from sandbox.chaos.plan import LOST_HISTORY, PARTS, Fault
from sandbox.lifecycle import Sandbox, together
from sandbox.network import Way

Mend = Callable[[], Awaitable[None]]


async def break_part(
    sandbox: Sandbox, ways: Mapping[tuple[str, str], Way], part: str, fault: Fault, source: str, target: str
) -> Mend:
    """Breaks a part; returns what mends it. `ways`: by cluster of the worker and of the API server (`Bench.ways`)."""
    processes = sandbox.processes
    if part == LOST_HISTORY:
        await sites.lose_history(sandbox)
        return _nothing
    if part.startswith("network"):
        way = ways[(source, target) if part.endswith("target") else (target, source)]
        way.cut()

        async def mend() -> None:
            way.mend()

        return mend
    site = source if part == "site of the source" else target
    if fault == "lose":
        await sites.lose(sandbox, site)
    elif fault == "cut off":
        await sites.cut_off(sandbox, site)
    if fault in ("lose", "cut off"):
        return lambda: sites.give_back(sandbox, site)
    members = [name.format(source=source, target=target) for name in PARTS[part]]
    if fault == "freeze":
        for name in members:
            processes.freeze(name)

        async def thaw() -> None:
            for name in members:
                processes.thaw(name)

        return thaw
    await together(*(_killed(sandbox, name) for name in members))
    # An API server that is gone for long takes its controllers with it; they end by themselves and return with it.
    followers = [
        f"{cluster}-{part}"
        for cluster in (source, target)
        if f"{cluster}-apiserver" in members
        for part in sites.CONTROLLERS
    ]

    async def start() -> None:
        await together(*(sites.start_again(sandbox, name) for name in members))
        for name in followers:
            if processes.status(name) == "stopped":
                await sites.start_again(sandbox, name)

    return start


async def _nothing() -> None:
    """Mends what came back by itself."""


async def _killed(sandbox: Sandbox, name: str) -> None:
    await sandbox.processes.kill(name)
