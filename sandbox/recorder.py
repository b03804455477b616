"""Records every version of every VolumeReplicationGroup and PlacementDecision on all clusters, for later judgement.

A status can say anything; what an API server held, version by version, is what the operators acted on. A watch that
breaks goes on from the last version that it saw, so a server that was away leaves no gap (etcd keeps its history).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from activities.access.direct import DirectAccess
from ramen.errors import Gone, HublessError
from ramen.kinds import PLACEMENT_DECISION, VRG, Kind
from sandbox.invariants import KNOWN, Version

PAUSE_SECONDS = 0.1
"""Between two attempts to watch a server that does not answer."""

WATCH_SECONDS = 60.0


@dataclass
class Recorder:
    """What was seen so far, in the order of its arrival."""

    versions: list[Version] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    """Where a server had forgotten versions that nobody saw: the recording proves less there."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, accesses: list[DirectAccess]) -> None:
        """Watches both kinds on each of these clusters from now on."""
        for access in accesses:
            for kind in (VRG, PLACEMENT_DECISION):
                self._tasks.append(asyncio.create_task(self._follow(access, kind)))

    async def stop(self) -> None:
        """Ends all watches; what was recorded stays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def of(self, namespace: str, since: float = 0.0) -> list[Version]:
        """Versions of one namespace from a moment on."""
        return [v for v in self.versions if v.obj["metadata"].get("namespace") == namespace and v.at >= since]

    async def _follow(self, access: DirectAccess, kind: Kind) -> None:
        version = ""
        while True:
            try:
                if not version:
                    found, version = await access.list(kind)
                    for obj in found:
                        self._add(access.name, kind, "MODIFIED", obj)
                async for event in access.watch(kind, version, seconds=WATCH_SECONDS):
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        self._add(access.name, kind, event.type, event.object)
            except Gone:
                self.gaps.append(f"{kind.plural} on {access.name} at {time.time():.1f}")
                version = ""
            except HublessError:
                await asyncio.sleep(PAUSE_SECONDS)

    def forget(self, namespace: str) -> None:
        """Keeps of a namespace what is there now, as if it had always been: what led to it was judged."""
        mine = self.of(namespace)
        begin = min((version.at for version in mine), default=0.0)
        latest = {version.key: version for version in mine}
        kept = [replace(v, at=begin, event=KNOWN) for v in latest.values() if v.event != "DELETED"]
        self.versions = [*kept, *(v for v in self.versions if v.obj["metadata"].get("namespace") != namespace)]

    def _add(self, cluster: str, kind: Kind, event: str, obj: dict[str, Any]) -> None:
        at = time.time() if event == "DELETED" else min(time.time(), written_at(obj))
        self.versions.append(Version(at=at, cluster=cluster, kind=kind.kind, event=event, obj=obj))


def written_at(obj: dict[str, Any]) -> float:
    """The latest moment at which a version can have been written, by the server's own clock, which counts seconds.

    A busy machine brings a version late; it was written in the second that its managers' newest entry names.
    """
    times = [entry["time"] for entry in obj["metadata"].get("managedFields") or [] if entry.get("time")]
    return max((datetime.fromisoformat(each).timestamp() + 1.0 for each in times), default=time.time())
