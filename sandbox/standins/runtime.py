"""What every stand-in process shares: its arguments, its client, watched copies of objects, a work queue, its end.

A stand-in plays a controller, so it is built like one: one list and one watch per kind keep a local copy of the
objects (`Mirror`), events put keys into a queue that never works twice on one key at a time (`WorkQueue`), and work
that could not be finished comes back later. Nothing here knows what a stand-in plays.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml

from activities.access.direct import DirectAccess
from activities.access.protocol import ClusterAccess, Object, WatchEvent
from ramen.errors import Gone, HublessError, Invalid
from ramen.kinds import Kind

log = logging.getLogger(__name__)

User = Literal["operator", "array", "gitops"]
"""Identities of the stand-ins; each has a kubeconfig of its own on each cluster."""

Name = tuple[str, str]
"""Namespace (empty for cluster-scoped kinds) and name of an object."""

Key = TypeVar("Key")

Next = float | Literal["back-off"] | None
"""What a pass asks for: nothing, another pass after so many seconds, or one after the key's growing back-off."""

RELIST_FIRST, RELIST_LAST = 0.2, 5.0
"""Pauses (seconds) between attempts to list again: quick after a restart of the server, quiet while it is away."""

CONCURRENCY = 20
"""Passes at a time: enough to hide the latency of writes, few enough for a small machine."""


@dataclass(frozen=True)
class Options:
    """Arguments common to all stand-ins."""

    directory: Path
    """Directory of the sandbox: kubeconfigs, faults, ledgers."""
    cluster: str
    delay_scale: float
    """Multiplies every delay that the real component has; 0 means none."""


def parse(description: str, arguments: Sequence[str] | None = None) -> Options:
    """Reads `--dir`, `--cluster` and `--delay-scale` from the command line (or from `arguments`)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--dir", type=Path, required=True, help="directory of the sandbox")
    parser.add_argument("--cluster", required=True, help="name of the cluster to serve")
    parser.add_argument("--delay-scale", type=float, default=1.0, help="1 = delays of the real component, 0 = none")
    found = parser.parse_args(arguments)
    return Options(found.dir, found.cluster, max(0.0, found.delay_scale))


async def connect(directory: Path, cluster: str, user: User) -> DirectAccess:
    """Makes the client from `<directory>/kubeconfigs/<cluster>-<user>.yaml`.

    Raises `Invalid` when the file is missing or is no kubeconfig; the server is not contacted yet.
    """
    path = directory / "kubeconfigs" / f"{cluster}-{user}.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as err:
        raise Invalid(f"kubeconfig {path.name}: {err}") from err
    return await DirectAccess.from_kubeconfig(cluster, content)


def name_of(body: Object) -> Name:
    """Namespace and name of an object; the namespace is empty for cluster-scoped kinds."""
    meta = body["metadata"]
    return meta.get("namespace") or "", meta["name"]


def _version(body: Object) -> int:
    """resourceVersion as a number: the API promises since 1.35 that they compare this way; 0 if it is none."""
    text = str(body["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0


OnChange = Callable[[Object | None, Object | None], None]
"""Called with the object before (None: new) and after (None: deleted) an event; must not block."""


class Mirror:
    """A local copy of all objects of one kind on one cluster, kept by one list and one watch.

    Objects handed out belong to the mirror: copy before changing them.
    """

    def __init__(
        self, access: ClusterAccess, kind: Kind, on_change: OnChange | None = None, namespace: str | None = None
    ) -> None:
        self.kind = kind
        self.synced = asyncio.Event()
        """Set once the first list is complete."""
        self._access = access
        self._on_change = on_change
        self._namespace = namespace
        self._items: dict[Name, Object] = {}
        self._by_namespace: dict[str, dict[str, Object]] = {}
        self._gone: dict[Name, int] = {}
        """Version at which a name was last deleted, so that a late answer of an own write does not revive it."""

    def get(self, name: str, namespace: str = "") -> Object | None:
        """The object as last seen, or None."""
        return self._items.get((namespace, name))

    def all(self) -> Iterator[Object]:
        """Every object as last seen."""
        return iter(list(self._items.values()))

    def within(self, namespace: str) -> Iterator[Object]:
        """Every object of one namespace as last seen."""
        return iter(list(self._by_namespace.get(namespace, {}).values()))

    def remember(self, body: Object) -> Object:
        """Takes over the answer of an own write at once, so that the next pass does not see the state before it.

        The answer to removing the last finalizer of an object in deletion is its last breath, and is not taken.
        """
        meta = body["metadata"]
        current = self._items.get(name_of(body))
        known = _version(current) if current else self._gone.get(name_of(body), -1) + 1
        if _version(body) >= known and not ("deletionTimestamp" in meta and not meta.get("finalizers")):
            self._set(body)
        return body

    def apply(self, event: WatchEvent) -> None:
        """Takes over one event of a watch and tells `on_change`; an event older than an own write is skipped."""
        body = event.object
        before = self._items.get(name_of(body))
        if event.type == "DELETED":
            self._drop(name_of(body), _version(body))
            self._tell(before or body, None)
        elif event.type != "BOOKMARK" and (before is None or _version(body) >= _version(before)):
            self._set(body)
            self._tell(before, self._items[name_of(body)])

    async def run(self) -> None:
        """Lists and watches until cancelled; an unreachable server or a missing kind is asked again, ever slower."""
        pause = RELIST_FIRST
        while True:
            try:
                version = await self._list()
                pause = RELIST_FIRST
                while True:
                    version = await self._watch(version)
            except Gone:
                continue
            except HublessError as err:
                log.warning("%s; next attempt in %.1f s", err, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RELIST_LAST)

    async def _list(self) -> str:
        items, version = await self._access.list(self.kind, self._namespace)
        found = {name_of(item) for item in items}
        listed = int(version) if version.isdigit() else 0
        for key, old in list(self._items.items()):
            # An own write may be newer than the list.
            if key not in found and _version(old) <= listed:
                self._drop(key, listed)
                self._tell(old, None)
        for item in items:
            before = self._items.get(name_of(item))
            if before is None or _version(item) > _version(before):
                self.apply(WatchEvent("MODIFIED" if before else "ADDED", item))
        self.synced.set()
        return version

    async def _watch(self, version: str) -> str:
        async for event in self._access.watch(self.kind, version, self._namespace):
            version = event.object["metadata"].get("resourceVersion", version)
            if event.type != "BOOKMARK":
                self.apply(event)
        return version

    def _drop(self, key: Name, version: int) -> None:
        self._items.pop(key, None)
        self._by_namespace.get(key[0], {}).pop(key[1], None)
        self._gone[key] = version

    def _set(self, body: Object) -> None:
        # Items of a list come with these two keys, events of custom resources too; the copy must not differ.
        body = {"apiVersion": self.kind.api_version, "kind": self.kind.kind, **body}
        namespace, name = name_of(body)
        self._items[(namespace, name)] = body
        self._by_namespace.setdefault(namespace, {})[name] = body

    def _tell(self, before: Object | None, after: Object | None) -> None:
        if self._on_change is not None:
            self._on_change(before, after)


class WorkQueue(Generic[Key]):
    """Works on keys, each by one pass at a time, several keys side by side.

    A key added during its pass is worked on once more. A pass that raises `HublessError` counts as "back-off". Every
    pass answers the requests made before it: what it still waits for it has to ask for again.
    """

    def __init__(
        self,
        handle: Callable[[Key], Awaitable[Next]],
        back_off: Callable[[int], float],
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._handle = handle
        self._back_off = back_off
        self._concurrency = concurrency
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._active: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._attempts: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Asks for a pass as soon as possible."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._active:
            self._ready.put_nowait(key)

    def add_all(self, keys: Iterable[Key]) -> None:
        """Asks for a pass of each key."""
        for key in keys:
            self.add(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Asks for a pass after a time; of two pending requests the earlier one stays."""
        loop = asyncio.get_running_loop()
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= loop.time() + seconds:
                return
            pending.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._worker())

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._active.add(key)
            timer = self._timers.pop(key, None)
            if timer is not None:
                timer.cancel()
            try:
                wanted = await self._pass(key)
            finally:
                self._active.discard(key)
            if key in self._waiting:
                self._ready.put_nowait(key)
            if wanted == "back-off":
                attempt = self._attempts.get(key, 0)
                self._attempts[key] = attempt + 1
                self.add_after(key, self._back_off(attempt))
                continue
            self._attempts.pop(key, None)
            if wanted is not None:
                self.add_after(key, wanted)

    async def _pass(self, key: Key) -> Next:
        try:
            return await self._handle(key)
        except HublessError as err:
            log.info("%s: %s", key, err)
            return "back-off"
        except Exception:
            # Like a controller's recovered panic: one broken object must not take the process down.
            log.exception("pass over %s failed", key)
            return "back-off"


def growing(first: float, last: float, floor: float) -> Callable[[int], float]:
    """Back-off that doubles from `first` to `last` seconds, never below a floor that doubles up to one second.

    The floor keeps a scale of zero from spinning while something is waited for.
    """

    def seconds(attempt: int) -> float:
        steps = 2.0 ** min(attempt, 30)
        return max(min(first * steps, last), min(floor * steps, 1.0))

    return seconds


async def until_stopped(loops: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Runs all loops until SIGTERM or SIGINT, then cancels them; raises what a loop raises."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(loop) for loop in loops]
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        for task in [*tasks, stopping]:
            task.cancel()
        for task in [*tasks, stopping]:
            with suppress(asyncio.CancelledError, Exception):
                await task


def configure_logging() -> None:
    """Logs to standard error, one line per event, with the time: the sandbox keeps it in a file per process."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
