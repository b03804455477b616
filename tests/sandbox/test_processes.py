"""Processes that outlive the command that started them, and the promise to end no other."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from sandbox.processes import Probe, Processes, ProcessFailed, Spec

SLEEPER = Spec(name="sleeper", argv=[sys.executable, "-c", "import time; time.sleep(600)"])
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    """Processes of an empty directory, all ended after the test."""
    found = Processes(tmp_path)
    yield found
    for name in found.names():
        await found.kill(name)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that nobody here started."""
    with subprocess.Popen(SLEEPER.argv) as process:
        yield process
        process.kill()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken but does not answer."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


async def test_start_stop_and_start_again(processes: Processes) -> None:
    await processes.start(SLEEPER)
    first = processes.pid("sleeper")
    assert processes.status("sleeper") == "running"
    assert await processes.stop("sleeper")
    assert processes.status("sleeper") == "stopped"
    assert first is not None
    assert not psutil.pid_exists(first)
    assert not await processes.stop("sleeper")
    await processes.start_again("sleeper")
    assert processes.pid("sleeper") not in (None, first)


async def test_a_second_start_changes_nothing_but_other_arguments_restart(processes: Processes) -> None:
    await processes.start(SLEEPER)
    first = processes.pid("sleeper")
    await processes.start(SLEEPER)
    assert processes.pid("sleeper") == first
    await processes.start(SLEEPER.model_copy(update={"env": {"HUBLESS_CLUSTER": "dr2"}}))
    assert processes.pid("sleeper") not in (None, first)


async def test_another_command_finds_what_the_first_one_started(processes: Processes, tmp_path: Path) -> None:
    await processes.start(SLEEPER)
    later = Processes(tmp_path)
    assert later.status("sleeper") == "running"
    await later.stop("sleeper")
    assert processes.status("sleeper") == "stopped"


async def test_a_process_id_that_belongs_to_somebody_else_now_is_left_alone(
    processes: Processes, tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    await processes.start(SLEEPER)
    await processes.stop("sleeper")
    record = tmp_path / "run" / "sleeper.json"
    started = psutil.Process(stranger.pid).create_time() - 3600
    record.write_text(json.dumps({**json.loads(record.read_text()), "pid": stranger.pid, "started": started}))
    assert processes.status("sleeper") == "stopped"
    assert not await processes.stop("sleeper")
    assert not await processes.kill("sleeper")
    assert not processes.freeze("sleeper")
    assert stranger.poll() is None


async def test_frozen_and_thawed(processes: Processes) -> None:
    await processes.start(SLEEPER)
    assert processes.freeze("sleeper")
    assert processes.status("sleeper") == "frozen"
    assert processes.thaw("sleeper")
    assert processes.status("sleeper") == "running"


async def test_a_frozen_process_can_be_stopped_and_is_thawed_by_a_start(processes: Processes) -> None:
    await processes.start(SLEEPER)
    processes.freeze("sleeper")
    await processes.start(SLEEPER)
    assert processes.status("sleeper") == "running"
    processes.freeze("sleeper")
    await processes.stop("sleeper")
    assert processes.status("sleeper") == "stopped"


async def test_who_does_not_listen_to_term_is_killed(processes: Processes) -> None:
    await processes.start(Spec(name="deaf", argv=[sys.executable, "-c", DEAF], grace=0.1))
    pid = processes.pid("deaf")
    async with asyncio.timeout(30):
        while "deaf" not in processes.log_path("deaf").read_text():
            await asyncio.sleep(0.02)
    await processes.stop("deaf")
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_an_early_end_is_reported_with_the_last_lines_of_the_log(processes: Processes, closed_port: int) -> None:
    broken = Spec(
        name="broken",
        argv=[sys.executable, "-c", "print('bind: address already in use'); raise SystemExit(3)"],
        probe=Probe(port=closed_port),
    )
    with pytest.raises(ProcessFailed, match=r"(?s)broken ended.*address already in use"):
        await processes.start(broken)


async def test_a_server_that_never_answers_is_reported_and_not_left_behind(
    processes: Processes, closed_port: int
) -> None:
    silent = SLEEPER.model_copy(update={"probe": Probe(port=closed_port), "grace": 0.1})
    with pytest.raises(ProcessFailed, match=r"not ready after 0\.2 s"):
        await processes.start(silent, seconds=0.2)
    assert processes.status("sleeper") == "stopped"


async def test_records_can_be_read_by_their_owner_only(processes: Processes, tmp_path: Path) -> None:
    await processes.start(SLEEPER)
    assert (tmp_path / "run" / "sleeper.json").stat().st_mode & 0o077 == 0


async def test_restarting_what_was_never_started_says_so(processes: Processes) -> None:
    with pytest.raises(ProcessFailed, match="no process nothing"):
        await processes.restart("nothing")
