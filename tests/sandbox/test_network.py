"""A way that is cut is silent, and goes on when it is mended."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.network import Way


async def test_a_cut_way_is_silent_and_goes_on_when_it_is_mended() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    way = Way(server.sockets[0].getsockname()[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", await way.start())
    try:
        writer.write(b"one")
        assert await reader.read(100) == b"one"
        way.cut()
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(100)
        way.mend()
        assert await reader.read(100) == b"two"
    finally:
        writer.close()
        await way.close()
        server.close()
