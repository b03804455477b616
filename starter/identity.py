"""Who asks, under which request ID, and the command that asks the same again."""

from __future__ import annotations

import getpass
import shlex
from uuid import uuid4

import typer

ARGV = "hubless.starter.argv"
"""Key of the typed arguments in the context that all commands of one call share."""


def requester() -> str:
    """The login name, shown as claimed unless Temporal authenticates its callers (design 9)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def request_id(given: str) -> str:
    """The given ID, or a new one."""
    return given or str(uuid4())


def again(ctx: typer.Context, request_id: str) -> str:
    """The command as it was typed, with `--request-id`: running it again starts nothing twice."""
    typed = list(ctx.meta.get(ARGV, []))
    if not any(word == "--request-id" or word.startswith("--request-id=") for word in typed):
        typed += ["--request-id", request_id]
    return shlex.join(["hubless", *typed])
