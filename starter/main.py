"""Entry point of `hubless`: knows every command by name and loads only the one that is called.

`hubless --help` must answer at once and `hubless status` must work when another part is broken, so a command's module
is imported when the command runs. Commands that live above `starter` in the order of imports (worker, sandbox, demo)
register as entry points of the group `hubless.commands`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from starter import console, exitcodes
from starter.identity import ARGV

OWN: dict[str, tuple[str, str]] = {
    "protect": ("starter.commands.protect:protect", "Protect an application."),
    "failover": ("starter.commands.move:failover", "Serve from another cluster now; not replicated data is lost."),
    "relocate": ("starter.commands.move:relocate", "Move to another cluster without losing anything."),
    "abort": ("starter.commands.steer:abort", "Stop the action that runs and go back."),
    "retry": ("starter.commands.steer:retry", "Let the step that failed run again."),
    "resume": ("starter.commands.steer:resume", "Take up what was left open, now."),
    "unprotect": ("starter.commands.unprotect:unprotect", "End the protection of an application."),
    "release": ("starter.commands.release:release", "Give an application back to a Ramen hub."),
    "adopt": ("starter.commands.adopt:adopt", "Hold applications again after a loss of Temporal."),
    "status": ("starter.commands.status:status", "Show where applications serve and what is awaited."),
    "history": ("starter.commands.history:history", "Show what was done to an application, and by whom."),
    "mirror": ("starter.commands.mirror:app", "Show what lies in the stores; needs no Temporal."),
    "check": ("starter.commands.check:check", "Check everything that a failover would need."),
    "cluster": ("starter.commands.cluster:app", "Add, remove, list, check clusters; renew credentials."),
    "crds": ("starter.commands.crds:crds", "Print the CRDs to install."),
}
"""Where each command is, and its line in the list of commands."""

PLUGINS = "hubless.commands"
PLUGIN_HELP = {
    "worker": "Run the worker of a cluster.",
    "sandbox": "Two clusters, stores and Temporal on this machine.",
    "demo": "Lose a site, fail over, come home: on real servers.",
}
"""Lines for the commands that we ship; their modules are not imported to ask them."""


def plugins() -> dict[str, EntryPoint]:
    """Commands that other packages register, by name; none of ours can be replaced."""
    return {each.name: each for each in entry_points(group=PLUGINS) if each.name not in OWN}


def load(name: str) -> Any:
    """The command of that name, ready to be called. Raises whatever the import of its module raises."""
    if name in OWN:
        module, _, attribute = OWN[name][0].partition(":")
        target = getattr(importlib.import_module(module), attribute)
    else:
        target = plugins()[name].load()
    if not isinstance(target, typer.Typer):
        made = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        made.command(name)(target)
        target = made
    command = get_command(target)
    command.name = name
    return command


class LazyGroup(TyperGroup):
    """Lists commands from a table and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Our commands in the order of their use, then the plug-ins."""
        return [*OWN, *sorted(plugins())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that only knows its line of help: enough for lists and for completion of its name."""
        if cmd_name in OWN:
            return TyperGroup(name=cmd_name, help=OWN[cmd_name][1])
        if cmd_name in plugins():
            return TyperGroup(name=cmd_name, help=PLUGIN_HELP.get(cmd_name, "A plug-in command."))
        return None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keeps the arguments as typed, for the command that asks the same again."""
        ctx.meta[ARGV] = list(args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Imports the command that is called; a broken one ends only itself (exit 1)."""
        name, found, rest = super().resolve_command(ctx, args)
        if name is None or found is None:
            return name, found, rest
        try:
            return name, load(name), rest
        except Exception as err:
            console.failure(f"The command {name} cannot be loaded: {type(err).__name__}: {err}")
            if name in PLUGIN_HELP:
                console.tell("  Is all of it installed? pip install 'hubless[sandbox]'")
            raise typer.Exit(exitcodes.FAILED) from err


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=exitcodes.EPILOG,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def hubless() -> None:
    """Disaster recovery of Kubernetes applications without a hub.

    Protects applications on two clusters, fails them over when a site is lost, and brings them home. Temporal is found
    by TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and the other variables of its own tools.
    """


def main() -> NoReturn:
    """Runs the command line and leaves without the interpreter's teardown, which can crash in the SDK's threads."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a mark must not turn a success into a crash.
            stream.reconfigure(errors="replace")
    # What the SDK logs is for workers; a person gets our words only.
    logging.getLogger("temporalio").setLevel(logging.ERROR)
    code = exitcodes.DONE
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else exitcodes.FAILED
    except Exception as err:
        console.failure(f"Unexpected: {type(err).__name__}: {err}")
        if os.environ.get("HUBLESS_DEBUG"):
            logging.getLogger(__name__).exception("the failure in full")
        code = exitcodes.FAILED
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    logging.shutdown()
    os._exit(code)


if __name__ == "__main__":
    main()
