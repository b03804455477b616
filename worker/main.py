"""The entry point of the process: settings, logs, signals, and an exit code that survives the interpreter's end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from worker import settings as settings_module
from worker import telemetry
from worker.compose import Process, identity_of
from worker.settings import Settings, SettingsError

EXIT_SETTINGS = 2
"""Settings or configuration are wrong: starting again changes nothing."""


def main(config: Path | None) -> NoReturn:
    """Runs the worker until SIGTERM or SIGINT; exit code 0, 1 after a fatal error, 2 for wrong settings."""
    try:
        settings = settings_module.load(config)
    except SettingsError as err:
        sys.stderr.write(f"{err}\n")
        _leave(EXIT_SETTINGS)
    identity = identity_of(settings.cluster)
    telemetry.configure_logging(identity, settings.log_level)
    try:
        code = asyncio.run(_run(settings, identity))
    except Exception:
        logging.getLogger(__name__).exception("the worker of %s failed", settings.cluster)
        code = 1
    _leave(code)


async def _run(settings: Settings, identity: str) -> int:
    runtime, sdk_metrics = telemetry.make_runtime(settings.cluster)
    process = Process(settings, runtime, identity, sdk_metrics)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    return await process.run()


def _leave(code: int) -> NoReturn:
    """Leaves without tearing the interpreter down: the SDK's threads can crash there and change the exit code
    (guides/temporal.md 8.6)."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
