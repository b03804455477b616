"""Runs a command's coroutine and turns every ending into lines on stderr and an exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn

import typer

from starter import console, exitcodes
from starter.failures import Stopped


def run(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Runs `work` to its exit code and leaves the command with it; see `exitcodes`."""
    try:
        code = asyncio.run(work)
    except Stopped as stop:
        show(stop)
        code = stop.code
    except KeyboardInterrupt:
        console.tell()
        console.failure("Interrupted. What was already asked for goes on: hubless status")
        code = exitcodes.UNFINISHED
    raise typer.Exit(code)


def show(stop: Stopped) -> None:
    """Prints why a command ended, marked by how it ended."""
    if stop.code == exitcodes.UNFINISHED:
        console.waiting(stop.text)
    elif stop.code != exitcodes.DONE:
        console.failure(stop.text)
