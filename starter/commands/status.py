"""`hubless status`: where are we, and what are we waiting for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from starter import complete, console, exitcodes, output, screen
from starter.client import Hubless
from starter.failures import Failed, NoWorker, Refused, Unfinished
from starter.output import Format
from starter.run import run
from starter.situation import Situation, ask_obstacle, gather, look_at

AT_ONCE = 16
"""Applications asked at the same time: enough to hide latency, few enough to leave the workers alone."""
WATCH_SECONDS = 1.0
"""Between two looks of `--watch`."""

Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]


def status(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", help="Name of the application; all without it.", autocompletion=complete.applications
        ),
    ] = "",
    namespace: Annotated[
        str,
        typer.Option(
            "--namespace",
            "-n",
            metavar="NAMESPACE",
            help="Namespace of the application.",
            autocompletion=complete.namespaces,
        ),
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every second until Ctrl-C.")] = False,
    form: Output = Format.TABLE,
) -> None:
    """Show where applications serve, whether they are protected, and what is awaited.

    Three facts are never merged: serving, cleaned, re-protected. Clusters and pods are looked at live.

    \b
    Examples:
      # all applications
      hubless status
    \b
      # one application, followed
      hubless status shop -n web --watch
    \b
      # for a script: the DRPC in Ramen's shape with the key `hubless`
      hubless status shop -n web -o json | jq .hubless.action.waiting
    """
    run(_status(name, namespace, watch, form))


async def _status(name: str, namespace: str, watch: bool, form: Format) -> int:
    if name and not namespace:
        raise Refused(f"In which namespace is {name}? hubless status {name} -n NAMESPACE")
    hubless = await Hubless.connect()

    async def once() -> str:
        if name:
            return await _one(hubless, namespace, name, form)
        return await _all(hubless, namespace, form)

    if not watch:
        console.result(await once())
        return exitcodes.DONE
    if form in (Format.JSON, Format.YAML):
        raise Refused(f"--watch does not go with -o {form.value}. Ask again in a loop instead.")
    try:
        return await _watch(once)
    except asyncio.CancelledError as err:
        raise Unfinished("Stopped watching. Nothing was changed by it.") from err


async def _watch(once: Callable[[], Awaitable[str]]) -> int:
    """Looks again and again: in place on a terminal, else whenever the text changed."""
    if console.is_terminal(sys.stdout):
        with Live(Text(await once()), console=Console(highlight=False), auto_refresh=False) as live:
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                live.update(Text(await once()), refresh=True)
    shown = ""
    while True:
        now = await once()
        if now != shown:
            console.result(now if not shown else f"\n{now}")
            shown = now
        await asyncio.sleep(WATCH_SECONDS)


async def _one(hubless: Hubless, namespace: str, name: str, form: Format) -> str:
    await hubless.require_protected(namespace, name)
    now = await gather(hubless, namespace, name)
    if not known(now):
        raise Refused(
            f"{name} in namespace {namespace} is not protected.\n  To protect it: hubless protect --help. "
            f"If it was before its workflow was lost or reset: hubless adopt {name} -n {namespace}"
        )
    if form in (Format.JSON, Format.YAML):
        return output.text(output.document(now.view, now.steps, now.pods, now.obstacle), form)
    return screen.screen(now)


def known(now: Situation) -> bool:
    """Whether the application is or was protected; a refused `protect` may leave a workflow that knows nothing."""
    return now.view.state.app is not None or now.action is not None


async def _all(hubless: Hubless, namespace: str, form: Format) -> str:
    names = [app async for app in hubless.applications() if not namespace or app[0] == namespace]
    machine = form in (Format.JSON, Format.YAML)
    bound = asyncio.Semaphore(AT_ONCE)

    async def ask(app: tuple[str, str]) -> Situation | str:
        async with bound:
            try:
                now = await gather(hubless, *app, live=False)
                if machine:
                    await ask_obstacle(hubless, now)
                if machine and now.serving:
                    await look_at(hubless, now, [now.serving])
            except (NoWorker, Failed, Refused) as err:
                return err.text.splitlines()[0]
            return now

    asked = await asyncio.gather(*(ask(app) for app in names))
    found = [(app, now) for app, now in zip(names, asked, strict=True) if isinstance(now, str) or known(now)]
    if machine:
        items = [
            output.document(now.view, now.steps, now.pods, now.obstacle)
            for _, now in found
            if isinstance(now, Situation)
        ]
        for app, now in found:
            if isinstance(now, str):
                console.warning(f"{'/'.join(app)} is left out: {now}")
        items.sort(key=lambda each: (each["metadata"].get("namespace", ""), each["metadata"].get("name", "")))
        return output.text(output.as_list(items), form)
    if not found:
        console.tell("No application is protected. To protect one: hubless protect --help")
    wide = form is Format.WIDE
    rows = [
        screen.row(now, wide) if isinstance(now, Situation) else screen.unanswered_row(*app, now, wide)
        for app, now in found
    ]
    return screen.table(rows, wide)
