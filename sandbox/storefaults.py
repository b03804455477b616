"""A store that misbehaves: a proxy in front of one real S3 server, which spoils what passes as it is told.

What it plays is what real stores were seen to do: late and trickling answers, no space left, a bucket that is
read-only, conditional writes that are refused or silently ignored, and writes that are acknowledged and lost. The
signature of a request covers its host, so it is passed on as it came. As a process of the sandbox
(`python -m sandbox.storefaults`) it reads its orders from the sandbox's faults; a test hands them in.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

from activities.access.s3 import S3Store
from ramen.errors import HublessError
from sandbox import faults, s3server, state
from sandbox.faults import StoreFault

log = logging.getLogger(__name__)

CONDITIONS = ("If-None-Match", "If-Match")

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "date", "server"})
"""Headers that belong to one connection and not to the message, and those that each server adds by itself."""

TRICKLE_SECONDS = 0.2
"""Between two bytes of an answer that trickles: no read ever times out, and no answer ever ends in time."""

FULL = {
    "minio": (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),
    "ceph": (403, "QuotaExceeded", "The user or bucket quota is used up."),
    "busy": (503, "ServiceUnavailable", "Reduce your request rate."),
}
"""How stores say that they take nothing more: status, code and text, by their kind."""

PAGE = "<html><body><h1>We will be back soon</h1></body></html>"

READ_ONLY = (403, "AccessDenied", "The bucket is read-only.")

NOT_IMPLEMENTED = (501, "NotImplemented", "A header you provided implies functionality that is not implemented.")

MAX_BODY = 64 * 2**20


class FaultyStore:
    """A proxy to the S3 server at one port of this machine; `order` says what is wrong at the moment."""

    def __init__(self, port: int, order: Callable[[], StoreFault], plain: Callable[[str], S3Store]) -> None:
        """`plain` makes a client of one bucket of the server itself."""
        self._plain = plain
        self._target = f"http://127.0.0.1:{port}"
        self._order = order
        self._runner: web.AppRunner | None = None
        self._session: ClientSession | None = None

    async def start(self, port: int = 0) -> int:
        """Begins to listen; returns the port."""
        self._session = ClientSession(
            connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None), auto_decompress=False
        )
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._pass)
        # A client that gave up must not leave its answer trickling for ever.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Ends the proxy and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        fault = self._order()
        bucket = request.path.lstrip("/").split("/")[0]
        if not bucket or (fault.bucket and bucket != fault.bucket):
            fault = StoreFault()
        answer = await self._answer(request, bucket, fault)
        if fault.slow:
            await asyncio.sleep(fault.slow)
        if not fault.trickle:
            return answer
        return await _trickle(request, answer)

    async def _answer(self, request: web.Request, bucket: str, fault: StoreFault) -> web.Response:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        if fault.page:
            return web.Response(status=200, text=PAGE, content_type="text/html")
        is_write = request.method in ("PUT", "POST", "DELETE")
        if is_write and fault.read_only:
            return _error(request, *READ_ONLY)
        if request.method in ("PUT", "POST") and fault.full:
            return _error(request, *FULL[fault.full])
        if any(name in request.headers for name in CONDITIONS) and is_write:
            if fault.conditions == "refused":
                return _error(request, *NOT_IMPLEMENTED)
            if fault.conditions == "ignored" and not fault.lying:
                return await self._write_without_conditions(request, bucket, body)
        if fault.lying and request.method == "PUT":
            return web.Response(status=200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        assert self._session is not None
        try:
            async with self._session.request(
                request.method,
                URL(self._target + request.raw_path, encoded=True),
                headers=headers,
                data=body or None,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            ) as found:
                kept = {name: value for name, value in found.headers.items() if name.lower() not in HOP_BY_HOP}
                return web.Response(status=found.status, headers=kept, body=await found.read())
        except ClientError as err:
            return _error(request, 502, "BadGateway", str(err))

    async def _write_without_conditions(self, request: web.Request, bucket: str, body: bytes) -> web.Response:
        """The signature covers the conditions, so the write is made anew instead of passed on without them."""
        store = self._plain(bucket)
        key = request.path.lstrip("/").partition("/")[2]
        try:
            if request.method == "DELETE":
                await store.delete(key)
                return web.Response(status=204)
            return web.Response(status=200, headers={"ETag": await store.put(key, body)})
        except HublessError as err:
            return _error(request, 502, "BadGateway", str(err))
        finally:
            await store.close()


async def _trickle(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """The same answer, a byte at a time: its first byte comes at once, its last one after minutes."""
    text = answer.body if isinstance(answer.body, bytes) else b""
    # An answer without a body trickles too: blanks before an XML document are no error to its reader.
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
    slow = web.StreamResponse(status=answer.status, headers=headers)
    slow.enable_chunked_encoding()
    await slow.prepare(request)
    for place in range(max(len(text), 1000)):
        await slow.write(text[place : place + 1] or b" ")
        await asyncio.sleep(TRICKLE_SECONDS)
    await slow.write_eof()
    return slow


def _error(request: web.Request, status: int, code: str, message: str) -> web.Response:
    """A refusal in the words of S3; the answer to a HEAD has no body."""
    text = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return web.Response(status=status, text=None if request.method == "HEAD" else text, content_type="application/xml")


async def _serve(directory: Path, cluster: str, port: int, target: int) -> None:
    def order() -> StoreFault:
        return faults.load(directory).stores.get(cluster, StoreFault())

    current = state.load(directory)
    if current is None:
        raise SystemExit(f"no sandbox in {directory}")
    store = FaultyStore(target, order, lambda bucket: s3server.store(current, cluster, bucket, "s3-behind"))
    await store.start(port)
    log.info("the store of %s is reached through port %d", cluster, port)
    try:
        await asyncio.Event().wait()
    finally:
        await store.close()


def main() -> None:
    """Plays the store of one cluster until the process is ended."""
    parser = argparse.ArgumentParser(description="Stands in front of a store and spoils what passes")
    parser.add_argument("--dir", type=Path, required=True, help="directory of the sandbox")
    parser.add_argument("--cluster", required=True, help="whose store")
    parser.add_argument("--port", type=int, required=True, help="where clients look for the store")
    parser.add_argument("--target", type=int, required=True, help="where the store is")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_serve(given.dir, given.cluster, given.port, given.target))


if __name__ == "__main__":
    main()
