"""One list and watch per kind, cluster and process, shared by all waits.

A thousand applications that wait cost one stream and no further call: each wait sleeps until the object it is about
has changed (D3). What a watch says is a hint that may lag; whoever ends a wait reads the object again (D18).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from activities.access.protocol import ClusterAccess, Object, WatchEvent
from activities.witness import WitnessLatch
from ramen.errors import ClusterUnreachable, Gone, HublessError, KindMissing
from ramen.kinds import VOLUME_REPLICATION, VRG, Kind
from ramen.names import OWNER_NAME, OWNER_NAMESPACE

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name."""
OnChange = Callable[[Object | None, Object | None], None]
"""Old and new version of an object; None for the side on which it does not exist."""
OnList = Callable[[list[Object]], None]
"""All objects of the kind, right after they were listed (again)."""

FIRST_BACK_OFF = 0.2
LAST_BACK_OFF = 2.0
"""Seconds between attempts to reach a server: a cluster that returns is noticed within two seconds."""

SHORT_WATCH = 1.0
"""Seconds: a watch that ended sooner and showed nothing was not ended by its time limit."""

MISSING_BACK_OFF = 15.0
"""Seconds between attempts for a kind whose CRD is not installed; that changes by a person's hand."""

WATCH_SECONDS = 300.0
"""Length of one watch request; a new one goes on from the last version without listing again."""


def object_key(obj: Object) -> Key:
    """Namespace and name of an object."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def owner_key(obj: Object) -> Key:
    """Namespace and name of the VRG that a VolumeReplication belongs to, from the operator's labels (vrg.md 2.2)."""
    labels = obj["metadata"].get("labels") or {}
    return labels.get(OWNER_NAMESPACE, ""), labels.get(OWNER_NAME, "")


class KindWatch:
    """The latest version of every object of one kind on one cluster, and who waits for a change of which.

    Waits are by *topic*, which groups objects: a VRG is its own topic, VolumeReplications share their VRG's.
    """

    def __init__(
        self,
        access: Callable[[], ClusterAccess],
        kind: Kind,
        topic: Callable[[Object], Key] = object_key,
        watch_seconds: float = WATCH_SECONDS,
        first_back_off: float = FIRST_BACK_OFF,
        last_back_off: float = LAST_BACK_OFF,
    ) -> None:
        self.kind = kind
        self.on_change: list[OnChange] = []
        self.on_list: list[OnList] = []
        self.lists = 0
        """How often the kind was listed: once, plus once for each lost connection."""
        self._access = access
        self._topic = topic
        self._watch_seconds = watch_seconds
        self._back_off = (first_back_off, last_back_off)
        self._objects: dict[Key, Object] = {}
        self._topics: dict[Key, dict[Key, Object]] = {}
        self._ticks: dict[Key, int] = {}
        self._tick = 0
        self._waiters: dict[Key, set[asyncio.Future[None]]] = {}
        self._live = asyncio.Event()
        self.error = ""
        """Why the watch is not live, in one line."""
        self.kind_missing = False
        """Whether the API server said that it has no such kind, so that there are no such objects either."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts listing and watching on the running loop; does nothing when it runs already."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"watch {self.kind.plural}")

    async def stop(self) -> None:
        """Ends the watch; what was seen stays readable."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self._live.clear()

    async def restart(self) -> None:
        """Lists anew on a fresh connection; for a server that stopped answering without closing (kubernetes.md)."""
        running = self._task is not None
        await self.stop()
        if running:
            self.start()

    @property
    def live(self) -> bool:
        """Whether the kind was listed and every change since has arrived or is on its way."""
        return self._live.is_set()

    async def ensure_live(self, seconds: float) -> None:
        """Starts the watch if need be and returns once the kind is listed; raises ClusterUnreachable, saying why."""
        self.start()
        try:
            async with asyncio.timeout(seconds):
                await self._live.wait()
        except TimeoutError:
            why = self.error or f"no list in {seconds:g} s"
            raise ClusterUnreachable(f"{self.kind.plural} cannot be watched: {why}") from None

    def latest(self, topic: Key) -> tuple[list[Object], int]:
        """The topic's objects as last seen, and the tick to hand to `await_change`. Not to be changed."""
        return list(self._topics.get(topic, {}).values()), self._ticks.get(topic, 0)

    def objects(self) -> list[Object]:
        """All objects of the kind as last seen. Not to be changed."""
        return list(self._objects.values())

    async def await_change(self, topic: Key, after: int, seconds: float) -> None:
        """Returns when the topic has changed since tick `after`, or when the time is over."""
        self.start()
        if self._ticks.get(topic, 0) != after:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(topic, set()).add(future)
        try:
            await asyncio.wait((future,), timeout=seconds)
        finally:
            future.cancel()
            waiting = self._waiters.get(topic, set())
            waiting.discard(future)
            if not waiting:
                self._waiters.pop(topic, None)

    async def _run(self) -> None:
        delay = self._back_off[0]
        while True:
            try:
                async for _ in self._stream():
                    delay = self._back_off[0]
            except Gone as err:
                self._lost(err)
                await asyncio.sleep(self._back_off[0])
            except KindMissing as err:
                self._replace_all([])
                self._lost(err)
                self.kind_missing = True
                await asyncio.sleep(max(delay, MISSING_BACK_OFF))
            except HublessError as err:
                self._lost(err)
                await asyncio.sleep(delay)
                delay = min(delay * 2, self._back_off[1])
            except Exception as err:
                log.exception("watch of %s failed", self.kind.plural)
                self._lost(err)
                await asyncio.sleep(self._back_off[1])

    async def _stream(self) -> AsyncIterator[None]:
        """Lists once, then watches for as long as the server lets us go on; yields after each sign of life."""
        access = self._access()
        items, version = await access.list(self.kind)
        self._replace_all(items)
        self.error = ""
        self.kind_missing = False
        self._live.set()
        yield
        while True:
            began, is_silent = time.monotonic(), True
            async for event in self._access().watch(self.kind, version, seconds=self._watch_seconds):
                version = event.object["metadata"].get("resourceVersion") or version
                self._take(event)
                is_silent = False
                yield
            if is_silent and time.monotonic() - began < min(SHORT_WATCH, self._watch_seconds / 2):
                # Whoever stands before the API server and ends watches at once must not be asked without a pause.
                await asyncio.sleep(self._back_off[1])

    def _lost(self, err: Exception) -> None:
        self._live.clear()
        self.kind_missing = False
        self.error = str(err)

    def _replace_all(self, items: list[Object]) -> None:
        self.lists += 1
        found = {object_key(item): item for item in items}
        # The list comes first: what hangs on continuity has to know of the gap before it sees what lies behind it.
        for on_list in self.on_list:
            self._tell(on_list, items)
        for key in [key for key in self._objects if key not in found]:
            self._change(self._objects[key], None)
        for key, item in found.items():
            old = self._objects.get(key)
            if old is None or old["metadata"].get("resourceVersion") != item["metadata"].get("resourceVersion"):
                self._change(old, item)

    def _take(self, event: WatchEvent) -> None:
        if event.type == "BOOKMARK":
            return
        old = self._objects.get(object_key(event.object))
        if event.type != "DELETED":
            self._change(old, event.object)
            return
        # The last version may say more than any before it, so it is shown before it goes.
        if old is None or old["metadata"].get("resourceVersion") != event.object["metadata"].get("resourceVersion"):
            self._change(old, event.object)
        self._change(event.object, None)

    def _change(self, old: Object | None, new: Object | None) -> None:
        topics = set()
        for obj, known in ((old, False), (new, True)):
            if obj is None:
                continue
            key, topic = object_key(obj), self._topic(obj)
            topics.add(topic)
            if known:
                self._objects[key] = obj
                self._topics.setdefault(topic, {})[key] = obj
                continue
            self._objects.pop(key, None)
            members = self._topics.get(topic, {})
            members.pop(key, None)
            if not members:
                self._topics.pop(topic, None)
        for on_change in self.on_change:
            self._tell(on_change, old, new)
        self._tick += 1
        for topic in topics:
            if topic in self._topics or topic in self._waiters:
                self._ticks[topic] = self._tick
            else:
                # Nobody waits and nothing is left: keeping the tick of every topic ever seen would grow for ever.
                self._ticks.pop(topic, None)
            for future in self._waiters.get(topic, ()):
                if not future.done():
                    future.set_result(None)

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            callback(*args)
        except Exception:
            log.exception("a callback of the watch of %s failed", self.kind.plural)


class SharedWatch:
    """What one process sees of one cluster: its VRGs, its VolumeReplications, and the witness fed by the latter."""

    def __init__(
        self,
        cluster: str,
        access: Callable[[], ClusterAccess],
        watch_seconds: float = WATCH_SECONDS,
        first_back_off: float = FIRST_BACK_OFF,
        last_back_off: float = LAST_BACK_OFF,
    ) -> None:
        """`access` is asked for the client before each list and watch, so that a new one is taken up; it may raise."""
        self.cluster = cluster
        times = (watch_seconds, first_back_off, last_back_off)
        self.vrgs = KindWatch(access, VRG, object_key, *times)
        self.replications = KindWatch(access, VOLUME_REPLICATION, owner_key, *times)
        self.witness = WitnessLatch()
        self.replications.on_list.append(self.witness.listed)
        self.replications.on_change.append(self.witness.changed)

    def on_vrg(self, changed: OnChange, listed: OnList | None = None) -> None:
        """Registers what is called with each change of a VRG, and with all of them after each list (S8)."""
        self.vrgs.on_change.append(changed)
        if listed is not None:
            self.vrgs.on_list.append(listed)

    def start(self) -> None:
        """Starts both watches; the witness needs its own also while no action runs (S4)."""
        self.vrgs.start()
        self.replications.start()

    async def stop(self) -> None:
        """Ends both watches."""
        await asyncio.gather(self.vrgs.stop(), self.replications.stop())

    async def restart(self) -> None:
        """Lists both anew on fresh connections."""
        await asyncio.gather(self.vrgs.restart(), self.replications.restart())
