"""Long-lived processes of a sandbox: started detached, found again by a later command, ended by nobody else.

A record per process (`run/<name>.json`) keeps what was started and which process it became. A process is known by
its ID **and** the time it started, so an ID that the system gave to another program since is never signalled.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel

START_SECONDS = 120.0
"""Limit for a server to answer. Two to five seconds are normal; sixty were seen with six times more work than cores."""

TERM_SECONDS = 10.0
"""Time between TERM and KILL; etcd and Temporal close their files in well under a second."""

SIGNAL_SECONDS, SIGNAL_POLL_SECONDS = 2.0, 0.002
"""The kernel delivers STOP and CONT when the process is next scheduled: at once, or later on a busy machine."""

POLL_SECONDS = 0.05
"""Pause between two looks at a condition: short against a start of seconds, cheap against a local connection."""

LOG_LINES = 12
"""Last lines of a log that an error quotes; enough for a Go program's fatal line and its cause."""

START_SLACK_SECONDS = 1.0
"""psutil derives a start time from the clock at boot, so the same process may differ by a rounding."""

ENVIRONMENT = {"GOGC": "200"}
"""For every process that does not say otherwise. The servers are Go programs with small heaps that collect garbage all
the time: with twice the default a failover costs a fifth less CPU, for about 1 GB more memory in all."""

Status = Literal["running", "frozen", "stopped"]


class ProcessFailed(Exception):
    """A process ended early or did not become ready in time; the text quotes its log."""


class Probe(BaseModel):
    """How to see that a server serves: its port answers, or a URL path answers 200."""

    port: int
    path: str | None = None
    tls: bool = False


class Spec(BaseModel):
    """What to start."""

    name: str
    argv: list[str]
    env: dict[str, str] = {}
    """Added to the environment of the caller."""
    probe: Probe | None = None
    """None: alive is all that can be asked."""
    grace: float = TERM_SECONDS
    """Seconds between TERM and KILL."""


class Record(BaseModel):
    """A spec and the process it became; `pid` 0 means stopped on purpose."""

    spec: Spec
    pid: int = 0
    started: float = 0.0


class Processes:
    """The processes of one directory: `<dir>/run/<name>.json` and `<dir>/logs/<name>.log`."""

    def __init__(self, directory: Path) -> None:
        self._run = directory / "run"
        self._logs = directory / "logs"

    def log_path(self, name: str) -> Path:
        """Where a process writes its standard output and error."""
        return self._logs / f"{name}.log"

    def names(self) -> list[str]:
        """All processes ever started here, in the order of their names."""
        return sorted(path.stem for path in self._run.glob("*.json"))

    def status(self, name: str) -> Status:
        """What became of a process."""
        process = self._find(name)
        if process is None:
            return "stopped"
        with contextlib.suppress(psutil.NoSuchProcess):
            return "frozen" if process.status() == psutil.STATUS_STOPPED else "running"
        return "stopped"

    def pid(self, name: str) -> int | None:
        """Process ID of a living process."""
        process = self._find(name)
        return process.pid if process else None

    async def start(self, spec: Spec, seconds: float = START_SECONDS) -> None:
        """Starts a process, unless it runs, and waits until its probe answers; one that runs otherwise is restarted.

        Raises `ProcessFailed` when it ends before that, or after `seconds`; then it is stopped again.
        """
        if self.status(spec.name) == "frozen":
            self.thaw(spec.name)
        if self.status(spec.name) != "stopped" and self._known(spec.name).spec != spec:
            await self.stop(spec.name)
        if self.status(spec.name) == "stopped":
            self._spawn(spec)
        await self.ready(spec.name, seconds)

    async def restart(self, name: str) -> None:
        """Stops a process and starts it again with the same arguments; raises `ProcessFailed`."""
        await self.stop(name)
        await self.start(self._known(name).spec)

    async def start_again(self, name: str) -> None:
        """Starts a process that was stopped, as it was started before; raises `ProcessFailed`."""
        await self.start(self._known(name).spec)

    async def ready(self, name: str, seconds: float = START_SECONDS) -> None:
        """Waits for the probe of a process; raises `ProcessFailed` when it ends first or the time is up."""
        spec = self._known(name).spec
        limit = time.monotonic() + seconds
        while True:
            if self._find(name) is None:
                raise ProcessFailed(f"{name} ended while it was starting.{self._tail(name)}")
            if spec.probe is None or await asyncio.to_thread(answers, spec.probe):
                return
            if time.monotonic() > limit:
                await self.stop(name)
                raise ProcessFailed(f"{name} was not ready after {seconds:g} s.{self._tail(name)}")
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self, name: str) -> bool:
        """Ends a process and its children: TERM, after its grace KILL. False when there was none to end."""
        process = self._find(name)
        if process is None:
            return False
        record = self._known(name)
        family = [process, *_children(process)]
        _signal(process, signal.SIGTERM)
        _signal(process, signal.SIGCONT)  # a frozen process meets TERM only once it runs again
        ended = await _until(lambda: not any(_alive(member) for member in family[:1]), record.spec.grace)
        for member in family:
            if not ended or member is not process:
                _signal(member, signal.SIGKILL)
        await _until(lambda: not any(_alive(member) for member in family), TERM_SECONDS)
        self._write(Record(spec=record.spec))
        return True

    async def kill(self, name: str) -> bool:
        """Ends a process at once, as a power cut would."""
        process = self._find(name)
        if process is None:
            return False
        family = [process, *_children(process)]
        for member in family:
            _signal(member, signal.SIGKILL)
        await _until(lambda: not any(_alive(member) for member in family), TERM_SECONDS)
        self._write(Record(spec=self._known(name).spec))
        return True

    def spec(self, name: str) -> Spec:
        """How a process is started; raises `ProcessFailed` for one that never was."""
        return self._known(name).spec

    def forget(self, name: str) -> None:
        """Takes a process that was stopped off the list, so that nobody starts it again."""
        if self.status(name) == "stopped":
            (self._run / f"{name}.json").unlink(missing_ok=True)

    def freeze(self, name: str) -> bool:
        """Stops a process from running without ending it (SIGSTOP): connections stay open and silent."""
        return self._signal_named(name, signal.SIGSTOP, "frozen")

    def thaw(self, name: str) -> bool:
        """Lets a frozen process run on."""
        return self._signal_named(name, signal.SIGCONT, "running")

    def _signal_named(self, name: str, number: signal.Signals, wanted: Status) -> bool:
        process = self._find(name)
        if process is None:
            return False
        for member in (process, *_children(process)):
            _signal(member, number)
        limit = time.monotonic() + SIGNAL_SECONDS
        while self.status(name) != wanted and time.monotonic() < limit:
            time.sleep(SIGNAL_POLL_SECONDS)
        return True

    def _spawn(self, spec: Spec) -> None:
        self._run.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log_path(spec.name).open("ab") as log:
            started = subprocess.Popen(
                spec.argv,
                env={**ENVIRONMENT, **os.environ, **spec.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is not meant for the servers
            )
        _OWN_CHILDREN.append(started)
        with contextlib.suppress(psutil.NoSuchProcess):
            self._write(Record(spec=spec, pid=started.pid, started=psutil.Process(started.pid).create_time()))

    def _find(self, name: str) -> psutil.Process | None:
        path = self._run / f"{name}.json"
        if not path.exists():
            return None
        record = Record.model_validate_json(path.read_text())
        if not record.pid:
            return None
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(record.pid)
            if abs(process.create_time() - record.started) <= START_SLACK_SECONDS and _alive(process):
                return process
        return None

    def _known(self, name: str) -> Record:
        path = self._run / f"{name}.json"
        if not path.exists():
            raise ProcessFailed(f"no process {name} was ever started here")
        return Record.model_validate_json(path.read_text())

    def _write(self, record: Record) -> None:
        path = self._run / f"{record.spec.name}.json"
        temporary = path.with_suffix(".new")
        temporary.touch(mode=0o600)  # the environment of a spec may hold a credential
        temporary.write_text(record.model_dump_json(indent=2))
        os.replace(temporary, path)

    def _tail(self, name: str) -> str:
        path = self.log_path(name)
        lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:] if path.exists() else []
        return f" Last lines of {path}:\n" + "\n".join(f"    {line[:300]}" for line in lines)


_OWN_CHILDREN: list[subprocess.Popen[bytes]] = []
"""Children of this very process: it has to collect them when they end, or they stay as zombies. Others are collected
by init."""


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return True
    for child in [child for child in _OWN_CHILDREN if child.pid == process.pid]:
        child.wait()
        _OWN_CHILDREN.remove(child)
    return False


def _children(process: psutil.Process) -> Sequence[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def answers(probe: Probe, seconds: float = 1.0) -> bool:
    """Whether the probe succeeds now; a server's certificate is not checked, as no secret is sent to it."""
    try:
        if probe.path is None:
            with socket.create_connection(("127.0.0.1", probe.port), timeout=seconds):
                return True
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(
                "127.0.0.1", probe.port, timeout=seconds, context=ssl._create_unverified_context()
            )
            if probe.tls
            else http.client.HTTPConnection("127.0.0.1", probe.port, timeout=seconds)
        )
        with contextlib.closing(connection):
            connection.request("GET", probe.path)
            return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
