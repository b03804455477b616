"""Watches on the own cluster for what configures a worker: registry, credentials, the operator's S3 profiles.

Three streams, however many applications there are. They only say that something changed; what it is now is read by
whoever is told, so a lost event costs one beat and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable

from activities.access.protocol import ClusterAccess, Object
from ramen import names
from ramen.errors import Gone, HublessError
from ramen.kinds import CLUSTER_REGISTRY, CONFIG_MAP, SECRET, Kind
from worker.gate import Gate

log = logging.getLogger(__name__)

STREAM_SECONDS = 300.0
"""The API server ends a watch after this; the next one goes on from its last version."""

AGAIN_SECONDS = 5.0
"""Pause after a stream broke."""


class Follower:
    """Calls `changed` when the content of a watched object is another one than before."""

    def __init__(self, session: ClusterAccess, gate: Gate, namespace: str, changed: Callable[[], None]) -> None:
        self._session = session
        self._gate = gate
        self._namespace = namespace
        self._changed = changed
        self._contents: dict[Kind, dict[str, str]] = {}
        """Hash by name, for each kind."""
        self._streams: set[asyncio.Task[None]] = set()
        gate.on_change(lambda _open, _known: self._cut())

    async def run(self) -> None:
        """Watches until cancelled."""
        await asyncio.gather(
            self._follow(CLUSTER_REGISTRY, None),
            self._follow(SECRET, self._namespace),
            self._follow(CONFIG_MAP, self._namespace),
        )

    async def _follow(self, kind: Kind, namespace: str | None) -> None:
        while True:
            await self._gate.opened()
            stream = asyncio.create_task(self._stream(kind, namespace), name=f"follow {kind.plural}")
            self._streams.add(stream)
            try:
                await asyncio.wait({stream})
            finally:
                self._streams.discard(stream)
                stream.cancel()
            if not stream.cancelled() and (error := stream.exception()) is not None:
                if not isinstance(error, HublessError):
                    log.error("watch of %s ended", kind.plural, exc_info=error)
                if not isinstance(error, Gone):
                    log.debug("watch of %s: %s", kind.plural, error)
                    await asyncio.sleep(AGAIN_SECONDS)

    async def _stream(self, kind: Kind, namespace: str | None) -> None:
        """Lists, then watches until an error; a list that differs from what was known is a change too."""
        items, version = await self._session.list(kind, namespace)
        found = {item["metadata"]["name"]: _digest(item) for item in items if _concerns(kind, item)}
        if self._contents.get(kind, found) != found:
            self._changed()
        self._contents[kind] = found
        while True:
            began = time.monotonic()
            async for event in self._session.watch(kind, version, namespace, STREAM_SECONDS):
                version = event.object["metadata"]["resourceVersion"]
                if event.type == "BOOKMARK" or not _concerns(kind, event.object):
                    continue
                name = event.object["metadata"]["name"]
                digest = "" if event.type == "DELETED" else _digest(event.object)
                if found.get(name, "") != digest:
                    found[name] = digest
                    self._changed()
            if time.monotonic() - began < AGAIN_SECONDS:
                await asyncio.sleep(AGAIN_SECONDS)  # whoever ends watches at once must not be asked without a pause

    def _cut(self) -> None:
        """A frozen server leaves streams open that never speak again, so they end when the gate moves."""
        for stream in list(self._streams):
            stream.cancel()


def _concerns(kind: Kind, obj: Object) -> bool:
    return kind is not CONFIG_MAP or obj["metadata"]["name"] == names.RAMEN_CONFIG_MAP


def _digest(obj: Object) -> str:
    """Of what somebody asked for, so that a status that is written makes no change."""
    text = json.dumps([obj.get("spec"), obj.get("data")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
