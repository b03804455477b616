"""One sandbox on real servers for the whole run, started when the first test asks for it."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator

import pytest

from sandbox import faults, sites
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from sandbox.state import Options
from starter.client import Hubless
from starter.failures import Unreachable

LAG = 1.0
"""Seconds between two syncs of the array: short, so that a test sees a proof of re-protection soon."""


START_SECONDS = 300
"""Limit of a test that may be the one for which the sandbox starts: 15 s alone, minutes on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses the sandbox may have to wait for its start; those that do not, run before it is there.

    Two clusters and the applications that tests leave in them would keep a small machine busy beside tests whose waits
    are short.
    """
    items.sort(key=_uses_sandbox)
    for item in items:
        if _uses_sandbox(item) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(START_SECONDS))


def _uses_sandbox(item: pytest.Item) -> bool:
    return "sandbox" in getattr(item, "fixturenames", ())


def _say(line: str) -> None:
    sys.stderr.write(f"  {line}\n")


@pytest.fixture(scope="session")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Two clusters, stores, Temporal, stand-ins without delays, one worker per cluster."""
    directory = tmp_path_factory.mktemp("sandbox")
    found = Sandbox(directory, "test", say=_say)
    try:
        await found.up(Options(delays="zero", lag=LAG, audit=True))
        os.environ.update(found.environment())
        yield found
    finally:
        await found.down()


@pytest.fixture
async def driver(sandbox: Sandbox) -> AsyncIterator[Driver]:
    """A driver of the sandbox; whatever the test broke is mended after it."""
    found = Driver(sandbox, await _connected())
    try:
        yield found
    finally:
        await mend(sandbox)
        await found.close()


async def _connected() -> Hubless:
    """A Temporal that an earlier test has started again listens before it answers."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await Hubless.connect()
            except Unreachable:
                await asyncio.sleep(0.2)


@pytest.fixture
def application() -> Application:
    """An application with a name of its own, so that tests can share the sandbox."""
    return Application.of("web", f"shop-{uuid.uuid4().hex[:6]}")


async def mend(sandbox: Sandbox) -> None:
    """Everything runs again and no fault is in force."""
    now = faults.load(sandbox.directory)
    for cluster in {*now.lost, *now.cut_off}:
        await sites.give_back(sandbox, cluster)
    faults.save(sandbox.directory, faults.Faults())
    for name in sandbox.processes.names():
        if sandbox.processes.status(name) == "frozen":
            sandbox.processes.thaw(name)
    # Servers before their clients.
    order = ("etcd", "s3", "temporal", "apiserver")
    names = sorted(
        sandbox.processes.names(), key=lambda name: [not name.endswith(part) for part in order], reverse=False
    )
    for name in names:
        if sandbox.processes.status(name) == "stopped":
            await sandbox.processes.start_again(name)
