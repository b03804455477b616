"""One shared watch per cluster, and the hints that follow from it (D3, S8).

Hints are level-triggered: an application is judged after each change and each list, and while its VRGs disagree its
entity is told again, ever more slowly. An application whose VRGs agree costs a comparison per change and no call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.access.protocol import Object
from activities.waiting import Key, SharedWatch, object_key
from ramen import names
from ramen.errors import GateClosed
from worker.attention import clusters_of, lacks_policy_classes, needs_attention
from worker.clusters import Clusters
from workflows.inputs import ClusterSignal

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.2
"""Changes come in bursts (an action stamps both sides); judged once when the burst is over."""

FIRST_PAUSE_SECONDS = 15.0
"""An application's entity is told at most once in this time; each hint costs four events of its history."""

LAST_PAUSE_SECONDS = 240.0
"""The pause doubles up to this: a debt that needs a person must not fill a history."""

FOLLOWER_SECONDS = 30.0
"""How much later than the first one in line a worker speaks up, in case that one is dead or blind."""

SIGNAL_LIMIT = timedelta(seconds=5)
"""Time limit of one signal."""

CONCURRENT_SIGNALS = 10
"""Signals at a time when a cluster with many applications returns."""

Send = Callable[[Key, str, ClusterSignal], Awaitable[None]]
"""Sends the signal of that name to an application's entity."""


class Watches:
    """A `SharedWatch` for every cluster, listing anew whenever its cluster comes or goes."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters
        self._watches: dict[str, SharedWatch] = {}
        self._restarts: set[asyncio.Task[None]] = set()

    def get(self, cluster: str) -> SharedWatch:
        """The watch of a cluster; raises `GateClosed` for one that is not registered."""
        try:
            return self._watches[cluster]
        except KeyError:
            raise GateClosed(f"this worker does not watch {cluster}; it is not in the ClusterRegistry") from None

    def join(self, cluster: str) -> SharedWatch:
        """Starts watching a cluster; it waits for the gate by itself."""
        watch = SharedWatch(cluster, lambda: self._clusters.access(cluster))
        self._watches[cluster] = watch
        self._clusters.gate(cluster).on_change(lambda _open, _known: self._restart(watch))
        watch.start()
        return watch

    async def leave(self, cluster: str) -> None:
        """Stops watching a cluster."""
        await self._watches.pop(cluster).stop()

    async def close(self) -> None:
        """Stops all watches."""
        for cluster in list(self._watches):
            await self.leave(cluster)

    def clusters(self) -> list[str]:
        """All clusters that are watched."""
        return list(self._watches)

    def _restart(self, watch: SharedWatch) -> None:
        """A frozen server leaves streams open that never speak again, so they are cut when the gate moves."""

        async def restart() -> None:
            if self._watches.get(watch.cluster) is watch:
                await watch.restart()

        task = asyncio.create_task(restart())
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    # --- what is seen of an application ------------------------------------------------------------------------------

    def seen(self, app: Key) -> dict[str, Object | None]:
        """By cluster: the application's VRG, None where there is none; without clusters that are out of sight."""
        found: dict[str, Object | None] = {}
        known = self._clusters.names()
        for cluster, watch in self._watches.items():
            # One that left the registry is watched for as long as its workers take to end.
            if cluster in known and self._clusters.gate(cluster).is_open and watch.vrgs.live:
                vrgs, _ = watch.vrgs.latest(app)
                found[cluster] = vrgs[0] if vrgs else None
        return found

    def all_applications(self) -> list[Key]:
        """Every application that any watch ever saw."""
        return sorted({app for cluster in self._watches for app in self.applications(cluster)})

    def applications(self, cluster: str) -> list[Key]:
        """Applications with anything to do with a cluster, as far as any watch ever saw."""
        found: set[Key] = set()
        for name, watch in self._watches.items():
            for vrg in watch.vrgs.objects():
                if cluster in clusters_of(vrg) or (name == cluster and clusters_of(vrg)):
                    found.add(object_key(vrg))
        return sorted(found)


@dataclass
class _Pending:
    """An application whose VRGs disagree."""

    reason: str
    due: float
    pause: float
    policy_changed: bool


class Hinter:
    """Tells entities what the watches see. `now` is monotonic, in seconds."""

    def __init__(
        self,
        own: str,
        seen: Callable[[Key], dict[str, Object | None]],
        send: Send,
        now: Callable[[], float] = time.monotonic,
        settle_seconds: float = SETTLE_SECONDS,
        policies: Callable[[], Iterable[Object]] = tuple,
    ) -> None:
        """`policies` gives the DRPolicies as last seen, with their status."""
        self.sent = 0
        """Number of hints sent, for the metrics."""
        self._own = own
        self._seen = seen
        self._send = send
        self._policies = policies
        self._now = now
        self._settle_seconds = settle_seconds
        self._dirty: set[Key] = set()
        self._wake = asyncio.Event()
        self._pending: dict[Key, _Pending] = {}
        self._last: dict[Key, float] = {}

    @property
    def attention(self) -> dict[str, str]:
        """By application: why its entity is being told, for people."""
        return {f"{namespace}/{name}": pending.reason for (namespace, name), pending in self._pending.items()}

    def changed(self, old: Object | None, new: Object | None) -> None:
        """For `SharedWatch.on_vrg`: a VRG came, changed or went."""
        self.mark(object_key(obj) for obj in (old, new) if obj is not None and clusters_of(obj))

    def mark(self, apps: Iterable[Key]) -> None:
        """Judges these applications soon; after a list that is every application of the cluster, so that a VRG
        that is not there is noticed too."""
        self._dirty.update(apps)
        self._wake.set()

    async def run(self) -> None:
        """Judges and tells until cancelled."""
        while True:
            due = min((pending.due for pending in self._pending.values()), default=None)
            limit = None if due is None else max(0.0, due - self._now())
            try:
                async with asyncio.timeout(limit):
                    await self._wake.wait()
                await asyncio.sleep(self._settle_seconds)
            except TimeoutError:
                pass
            self._wake.clear()
            await self.judge()

    async def judge(self) -> None:
        """Judges every application that changed or is due, and tells the entities of those that are due."""
        dirty, self._dirty = self._dirty, set()
        for app in dirty | {app for app, pending in self._pending.items() if pending.due <= self._now()}:
            self._judge(app)
        now = self._now()
        ready = [(app, pending) for app, pending in self._pending.items() if pending.due <= now]
        for app, pending in ready:
            pending.due = now + pending.pause
            pending.pause = min(pending.pause * 2, LAST_PAUSE_SECONDS)
            self._last[app] = now
            self.sent += 1
        await _all(
            self._send(
                app,
                "vrg_observed",
                ClusterSignal(cluster=self._own, reason=pending.reason, policy_changed=pending.policy_changed),
            )
            for app, pending in ready
        )
        for app in [
            app for app, last in self._last.items() if app not in self._pending and now >= last + FIRST_PAUSE_SECONDS
        ]:
            del self._last[app]

    def _judge(self, app: Key) -> None:
        seen = self._seen(app)
        lacking = lacks_policy_classes(seen, self._policies())
        reason = "; ".join(text for text in (needs_attention(seen), lacking) if text)
        if not reason:
            self._pending.pop(app, None)
            return
        known = self._pending.get(app)
        if known is not None and known.reason == reason:
            return
        present = sorted(cluster for cluster, vrg in seen.items() if vrg is not None)
        # One sender: the worker of the first cluster in sight; the others only when the difference lasts.
        wait = 0.0 if self._own == present[0] or self._own not in seen else FOLLOWER_SECONDS
        earliest = self._last.get(app, float("-inf")) + FIRST_PAUSE_SECONDS
        due = max(self._now() + wait, earliest)
        self._pending[app] = _Pending(reason, due, FIRST_PAUSE_SECONDS, lacking is not None)


class EntitySignals:
    """Sends hints to entities through Temporal; a hint that does not arrive is sent again by its sender's beat."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._absent: set[Key] = set()

    async def send(self, app: Key, signal: str, content: ClusterSignal) -> None:
        """Sends one signal; never raises: Temporal away or no such entity is logged."""
        workflow_id = names.entity_id(*app)
        try:
            await self._client.get_workflow_handle(workflow_id).signal(signal, content, rpc_timeout=SIGNAL_LIMIT)
        except RPCError as err:
            if err.status is not RPCStatusCode.NOT_FOUND:
                log.warning("%s could not be told: %s", workflow_id, err.message, extra={"app": workflow_id})
            elif app not in self._absent:
                self._absent.add(app)
                log.info(
                    "%s has no running workflow; if it is protected: hubless adopt",
                    workflow_id,
                    extra={"app": workflow_id},
                )
        else:
            self._absent.discard(app)
            log.info("told %s: %s", workflow_id, content.reason, extra={"app": workflow_id, "cluster": content.cluster})

    async def returned(self, cluster: str, apps: list[Key]) -> None:
        """Tells every application of a cluster that it answers again."""
        content = ClusterSignal(cluster=cluster, reason=f"{cluster} answers again")
        await _all(self.send(app, "cluster_returned", content) for app in apps)


async def _all(calls: Iterable[Awaitable[None]]) -> None:
    """Awaits all, a few at a time."""
    slots = asyncio.Semaphore(CONCURRENT_SIGNALS)

    async def one(call: Awaitable[None]) -> None:
        async with slots:
            await call

    await asyncio.gather(*(one(call) for call in calls))
