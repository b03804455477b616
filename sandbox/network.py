"""The way from one cluster's worker to another cluster's API server, which can be cut in this one direction.

On one machine every server is reached by loopback, so a way of its own is a small proxy, and the kubeconfig for
its peer names it. A way that is cut is silent, as a broken network is: connections stay open, nothing arrives.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib

import yaml

from activities.access.direct import DirectAccess
from ramen.kinds import SECRET
from ramen.names import KUBECONFIG_KEY, RAMEN_NAMESPACE

CHUNK = 65536


class Way:
    """A proxy to one port of this machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Begins to listen; returns the port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """From now on nothing passes in either direction of a connection, and no end is told."""
        self._open.clear()

    def mend(self) -> None:
        """Lets pass what waits and what comes."""
        self._open.set()

    async def close(self) -> None:
        """Ends the proxy and its connections."""
        if self._server is not None:
            self._server.close()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            pipe = asyncio.create_task(self._pipe(source, sink))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


async def lead_through(access: DirectAccess, peer: str, port: int) -> None:
    """Makes the kubeconfig with which a cluster's worker reaches its peer name the proxy at `port`."""
    name = f"kubeconfig-{peer}"
    secret = await access.read(SECRET, name, RAMEN_NAMESPACE)
    if secret is None:
        raise LookupError(f"Secret {RAMEN_NAMESPACE}/{name} is not on {access.name}")
    kubeconfig = yaml.safe_load(base64.b64decode(secret["data"][KUBECONFIG_KEY]))
    for cluster in kubeconfig["clusters"]:
        cluster["cluster"]["server"] = f"https://127.0.0.1:{port}"
    text = yaml.safe_dump(kubeconfig, sort_keys=False)
    await access.replace(SECRET, {**secret, "data": {KUBECONFIG_KEY: base64.b64encode(text.encode()).decode()}})
