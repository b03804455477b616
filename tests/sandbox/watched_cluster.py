"""The API server in memory, with real watches and merge patches, for stand-ins that run as they do in a process."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

from activities.access.protocol import Object, WatchEvent
from ramen.errors import Conflict, NotFound
from ramen.kinds import Kind
from tests.sandbox.operator_fakes import FakeCluster


class WatchedCluster(FakeCluster):
    """`FakeCluster` under a cluster's name, whose watches end only with their reader."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.history: list[tuple[Kind, Object]] = []
        """Every version of every object, oldest first."""
        self.listeners.append(lambda kind, event: self.history.append((kind, event.object)))
        self._changed = asyncio.Event()
        self.listeners.append(lambda kind, event: self._changed.set())

    async def watch(
        self, kind: Kind, resource_version: str, namespace: str | None = None, seconds: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        events: asyncio.Queue[WatchEvent] = asyncio.Queue()

        def listen(changed: Kind, event: WatchEvent) -> None:
            if changed is kind:
                events.put_nowait(event)

        self.listeners.append(listen)
        try:
            while True:
                yield await events.get()
        finally:
            self.listeners.remove(listen)

    async def patch(
        self, kind: Kind, name: str, patch: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        current = self.look(kind, name, namespace or "")
        if current is None:
            raise NotFound(name)
        wanted = patch.get("metadata", {}).get("resourceVersion")
        if wanted is not None and wanted != current["metadata"]["resourceVersion"]:
            raise Conflict(name)
        self.writes += 1
        return self.put(kind, _merge(current, patch))

    async def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        """Waits until a condition holds, looking again after each change; fails the test after `seconds`."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                try:
                    # Some conditions depend on the clock as well.
                    await asyncio.wait_for(self._changed.wait(), 0.02)
                except TimeoutError:
                    continue


def _merge(current: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result
