"""Names for shell completion: quick, and silent when anything is wrong, because a shell is waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import typer

COMPLETE_SECONDS = 1.5
"""Longer than that, a person has typed the name."""


def _within(work: Coroutine[Any, Any, list[str]]) -> list[str]:
    async def limited() -> list[str]:
        async with asyncio.timeout(COMPLETE_SECONDS):
            return await work

    try:
        return asyncio.run(limited())
    except Exception:  # noqa: BLE001 - a completion that fails offers nothing; a trace would garble the prompt
        return []


def applications(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of protected applications, of the namespace if `-n` was typed already."""
    return _within(_applications(str(ctx.params.get("namespace") or ""), incomplete, 1))


def namespaces(incomplete: str) -> list[str]:
    """Namespaces with protected applications."""
    return _within(_applications("", incomplete, 0))


async def _applications(namespace: str, incomplete: str, part: int) -> list[str]:
    # Imported late: completion of a command's name must not pay for the Temporal client.
    from starter.client import Hubless

    hubless = await Hubless.connect()
    found = {app[part] async for app in hubless.applications() if not namespace or app[0] == namespace}
    return sorted(name for name in found if name.startswith(incomplete))


def clusters(incomplete: str) -> list[str]:
    """Clusters of the registry, as a worker knows them."""
    return _within(_clusters(incomplete))


async def _clusters(incomplete: str) -> list[str]:
    from starter import looks
    from starter.client import Hubless

    hubless = await Hubless.connect()
    return sorted(each.cluster for each in await looks.health(hubless.client) if each.cluster.startswith(incomplete))
