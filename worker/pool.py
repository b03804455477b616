"""The Temporal workers of the process: one for control, two for each cluster, coming and going with the registry."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import version
from typing import Any

from temporalio.client import Client
from temporalio.worker import (
    FixedSizeSlotSupplier,
    PollerBehaviorSimpleMaximum,
    Worker,
    WorkerTuner,
)

from activities.registry import Activities, Registered
from ramen import names
from worker.gate import Gate, HealthGate
from workflows.registry import WORKFLOWS, sandbox_runner

log = logging.getLogger(__name__)

POLLERS = PollerBehaviorSimpleMaximum(maximum=1)
"""Each poll that is open when a worker freezes takes one task with it, and costs an application its time-out; each
that is open when a gate closes brings one task that must be sent back (temporal.md 5.5). One fetches a hundred a
second and more."""

WORKFLOW_POLLERS = PollerBehaviorSimpleMaximum(maximum=2)
"""One for the worker's own cache and one for everybody's queue: fewer are not possible."""

STICKY_SECONDS = 1.0
"""How long a workflow waits for the cache of a worker that was killed (temporal.md 5.3)."""

HEARTBEAT_SECONDS = 2.0
"""Longest hold-back of heartbeats, so that a cancel reaches a wait within about two seconds."""

OWN_SLOTS = 2
"""A check at a time, and one more for somebody else who asks."""

WORKFLOW_SLOTS = 20
"""Workflow tasks at a time; each takes milliseconds, and one core carries no more. More of them would wait here, where
their time-out runs, instead of in the queue, where another worker may take them."""


BUILD_ID = f"hubless {version('hubless')}"
"""Shown beside the worker in Temporal Web. Without one the SDK hashes the code of every module that is loaded, which
holds the event loop up for a second, and for many on a busy machine."""


@dataclass
class _Running:
    worker: Worker
    task: asyncio.Task[None]
    slots: HealthGate | None = None


@dataclass
class Pool:
    """All workers that run, by task queue."""

    client: Client
    activities: Registered
    identity: str
    slots: int
    wait_slots: int
    control_slots: int
    cached_workflows: int
    graceful: timedelta
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a worker ended by an error that no retry heals; `error` tells which."""
    error: str = ""
    _running: dict[str, _Running] = field(default_factory=dict)

    def start_control(self) -> None:
        """Serves workflows and the activities that need no cluster."""
        worker = self._worker(
            names.CONTROL_QUEUE,
            self.activities.control,
            workflows=WORKFLOWS,
            workflow_runner=sandbox_runner(),
            max_concurrent_workflow_tasks=WORKFLOW_SLOTS,
            max_concurrent_activities=self.control_slots,
            workflow_task_poller_behavior=WORKFLOW_POLLERS,
            activity_task_poller_behavior=POLLERS,
            max_cached_workflows=self.cached_workflows,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=STICKY_SECONDS),
        )
        self._start(names.CONTROL_QUEUE, worker)

    def start_own(self, cluster: str) -> None:
        """Serves what only the cluster's own worker can answer."""
        queue = names.own_queue(cluster)
        worker = self._worker(
            queue, self.activities.own, max_concurrent_activities=OWN_SLOTS, activity_task_poller_behavior=POLLERS
        )
        self._start(queue, worker)

    def join(self, cluster: str, gate: Gate) -> None:
        """Serves the two queues of a cluster while its gate is open; waits have slots of their own (S12)."""
        for queue, number in ((names.cluster_queue(cluster), self.slots), (names.wait_queue(cluster), self.wait_slots)):
            slots = HealthGate(number, gate)
            # Cluster queues carry no workflows and no local activities; the SDK wants a supplier for each all the same.
            tuner = WorkerTuner.create_composite(
                workflow_supplier=FixedSizeSlotSupplier(1),
                activity_supplier=slots,
                local_activity_supplier=FixedSizeSlotSupplier(1),
                nexus_supplier=FixedSizeSlotSupplier(1),
            )
            worker = self._worker(queue, self.activities.cluster, tuner=tuner, activity_task_poller_behavior=POLLERS)
            self._start(queue, worker, slots)

    async def leave(self, cluster: str) -> None:
        """Stops serving a cluster that left the registry."""
        await self._stop([names.cluster_queue(cluster), names.wait_queue(cluster)])

    async def close(self) -> None:
        """Stops all workers; activities get the graceful time to end."""
        await self._stop(list(self._running))

    def slots_used(self) -> dict[str, int]:
        """Activities at work by gated task queue."""
        return {queue: running.slots.used for queue, running in self._running.items() if running.slots}

    def _worker(self, queue: str, activities: Activities, **more: Any) -> Worker:
        return Worker(
            self.client,
            task_queue=queue,
            activities=activities,
            identity=self.identity,
            build_id=BUILD_ID,
            graceful_shutdown_timeout=self.graceful,
            max_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_SECONDS),
            **more,
        )

    def _start(self, queue: str, worker: Worker, slots: HealthGate | None = None) -> None:
        task = asyncio.create_task(worker.run(), name=f"worker {queue}")
        task.add_done_callback(lambda done: self._ended(queue, done))
        self._running[queue] = _Running(worker, task, slots)

    def _ended(self, queue: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (err := task.exception()) is not None:
            self.error = f"the worker of {queue} ended: {err}"
            self.failed.set()

    async def _stop(self, queues: list[str]) -> None:
        stopped = [self._running.pop(queue) for queue in queues]
        await asyncio.gather(*(running.worker.shutdown() for running in stopped if not running.task.done()))
        await asyncio.gather(*(running.task for running in stopped), return_exceptions=True)
