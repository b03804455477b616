"""One cluster's access as everybody in the process holds it, whichever client is behind it at the moment.

Credentials change while activities run and watches are open. They keep the session; only the client behind it is
replaced. The session also refuses every call while the gate is closed, so that nothing waits for a dead server, and
counts what is asked of each API server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from activities.access.protocol import ClusterAccess, Object, WatchEvent
from ramen.errors import GateClosed, Unauthorized
from ramen.kinds import Kind
from worker.gate import Gate


class Session:
    """`ClusterAccess` to one cluster; every method also raises `GateClosed` while the cluster is out of reach."""

    def __init__(self, name: str, gate: Gate) -> None:
        self.name = name
        self.calls: Counter[tuple[str, str]] = Counter()
        """Number of requests by (verb, resource)."""
        self.client: ClusterAccess | None = None
        """The client that probes use past the gate; None without usable credentials."""
        self.on_refused: Callable[[], None] = lambda: None
        """Called when the API server refused the credentials (401) of a call."""
        self._gate = gate

    async def read(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """See `ClusterAccess.read`."""
        with self._behind("get", kind) as client:
            return await client.read(kind, name, namespace)

    async def list(
        self, kind: Kind, namespace: str | None = None, labels: str | None = None, fields: str | None = None
    ) -> tuple[list[Object], str]:
        """See `ClusterAccess.list`."""
        with self._behind("list", kind) as client:
            return await client.list(kind, namespace, labels, fields)

    async def watch(
        self, kind: Kind, resource_version: str, namespace: str | None = None, seconds: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        """See `ClusterAccess.watch`."""
        with self._behind("watch", kind) as client:
            async for event in client.watch(kind, resource_version, namespace, seconds):
                yield event

    async def create(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        """See `ClusterAccess.create`."""
        with self._behind("create", kind) as client:
            return await client.create(kind, body, namespace)

    async def replace(self, kind: Kind, body: Object, subresource: str | None = None) -> Object:
        """See `ClusterAccess.replace`."""
        with self._behind("update", kind) as client:
            return await client.replace(kind, body, subresource)

    async def patch(
        self, kind: Kind, name: str, patch: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """See `ClusterAccess.patch`."""
        with self._behind("patch", kind) as client:
            return await client.patch(kind, name, patch, namespace, subresource)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """See `ClusterAccess.delete`."""
        with self._behind("delete", kind) as client:
            await client.delete(kind, name, namespace, uid, resource_version)

    async def version(self) -> str:
        """See `ClusterAccess.version`."""
        self._gate.require()
        return self._gate.version

    async def close(self) -> None:
        """Closes the client, if there is one; calls from now on raise `GateClosed`."""
        client, self.client = self.client, None
        if client is not None:
            await client.close()

    @contextmanager
    def _behind(self, verb: str, kind: Kind) -> Iterator[ClusterAccess]:
        """The client for one call. A refusal of its credentials is no end: they may just have been renewed."""
        self._gate.require()
        if self.client is None:
            raise GateClosed(f"this worker has no usable credentials for {self.name}")
        self.calls[(verb, kind.plural)] += 1
        try:
            yield self.client
        except Unauthorized as err:
            self.on_refused()
            raise GateClosed(f"{err}; this worker reads them again") from err
