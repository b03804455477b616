"""Whether a cluster answers, and the supplier of activity slots that follows it (D2).

A queue is closed by withholding slots, not by stopping its worker: a stopped worker loses the task that the server
just handed to it until that task times out (guides/temporal.md 5.5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from temporalio.worker import (
    CustomSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
)

from activities.contracts import ClusterHealth
from ramen.errors import GateClosed

FAILURES_TO_CLOSE = 2
"""One lost answer is a hiccup of the network; the second comes fast, see `clusters.PROBE_AGAIN_SECONDS`."""

Transition = Callable[[bool, bool], None]
"""Called with (open now, known before): the first opening after the start is no return of the cluster."""


def utc_now() -> datetime:
    """The present moment; a parameter of `Gate` so that tests bring a clock of their own."""
    return datetime.now(UTC)


class Gate:
    """What this process knows of one cluster: does it answer, since when, what was the last error.

    Closed until the first good answer, closed again after `FAILURES_TO_CLOSE` failures in a row, opened by one answer.
    """

    def __init__(self, cluster: str, now: Callable[[], datetime] = utc_now) -> None:
        self.cluster = cluster
        self.since: datetime | None = None
        """When the gate took its present position; None before anything is known."""
        self.last_answer: datetime | None = None
        self.error = "not asked yet"
        self.version = ""
        self._now = now
        self._failures = 0
        self._opened = asyncio.Event()
        self._listeners: list[Transition] = []

    @property
    def is_open(self) -> bool:
        """Whether the cluster answers."""
        return self._opened.is_set()

    @property
    def is_known(self) -> bool:
        """Whether anything is known at all: the cluster was asked and did or did not answer."""
        return self.since is not None

    @property
    def is_failing(self) -> bool:
        """Whether the gate is open although the last probe failed."""
        return self.is_open and self._failures > 0

    def on_change(self, listener: Transition) -> None:
        """Calls `listener` at each opening and closing."""
        self._listeners.append(listener)

    async def opened(self) -> None:
        """Waits until the gate is open."""
        while not self._opened.is_set():
            await self._opened.wait()

    def require(self) -> None:
        """Raises `GateClosed`, with the reason, while the cluster does not answer."""
        if not self.is_open:
            raise GateClosed(f"this worker does not reach {self.cluster}: {self.error}")

    def answered(self, version: str) -> None:
        """Takes down a good answer of the cluster's API server."""
        self._failures = 0
        self.last_answer = self._now()
        self.version = version
        self.error = ""
        self._move(True)

    def failed(self, error: str) -> None:
        """Takes down a missing answer; the second in a row closes the gate."""
        self._failures += 1
        self.error = error
        if self._failures >= FAILURES_TO_CLOSE:
            self._move(False)

    def shut(self, error: str) -> None:
        """Closes at once, for what no second probe can heal: another cluster, refused credentials (S11)."""
        self._failures = FAILURES_TO_CLOSE
        self.error = error
        self._move(False)

    def health(self, worker: str) -> ClusterHealth:
        """The gate as it is reported; `worker` is the identity of this process."""
        return ClusterHealth(
            cluster=self.cluster,
            reachable=self.is_open,
            since=self.since,
            last_answer=self.last_answer,
            error=self.error,
            version=self.version,
            worker=worker,
        )

    def _move(self, to_open: bool) -> None:
        was_known, was_open = self.is_known, self.is_open
        if was_known and was_open == to_open:
            return
        self.since = self._now()
        if to_open:
            self._opened.set()
        else:
            self._opened.clear()
        for listener in self._listeners:
            listener(to_open, was_known)


class HealthGate(CustomSlotSupplier):
    """Hands out activity slots only while the cluster answers.

    Polls that were open when the gate closed, two per queue, may still bring a task each; the activity meets
    `GateClosed` at its first look then and the task goes to another worker.
    """

    def __init__(self, slots: int, gate: Gate) -> None:
        self.used = 0
        """Slots that are at work, for the metrics."""
        self._gate = gate
        self._free = asyncio.Semaphore(slots)
        self._loop = asyncio.get_running_loop()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Waits for a free slot and then for the cluster."""
        await self._free.acquire()
        try:
            await self._gate.opened()
        except asyncio.CancelledError:
            self._free.release()
            raise
        return SlotPermit()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        """Never: eager start would skip the queue, and with it the peers that may reach the cluster."""
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Counts for the metrics."""
        self._on_loop(self._count, 1)

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """Gives the slot back."""
        if ctx.slot_info is not None:
            self._on_loop(self._count, -1)
        self._on_loop(self._free.release)

    def _count(self, change: int) -> None:
        self.used += change

    def _on_loop(self, call: Callable[..., None], *args: int) -> None:
        """The SDK marks and releases from threads of its own, which must not touch a semaphore of asyncio."""
        with suppress(RuntimeError):  # the loop is closed: the process ends and nobody waits for a slot
            self._loop.call_soon_threadsafe(call, *args)
