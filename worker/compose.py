"""The composition root: builds every part of the process, and starts and ends them in the right order.

Gates, registry and the HTTP endpoint come first, so that a worker without Temporal says so; then the connection to
Temporal; then one worker per task queue, for as many clusters as the registry names at the moment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from temporalio.client import Client
from temporalio.runtime import Runtime

from activities.access.protocol import Object
from activities.mirror import Mirror
from activities.registry import register
from activities.surveying import SurveyActivities
from ramen import names
from worker import temporal
from worker.bootstrap import NotPreparedError
from worker.clusterreports import ClusterReports
from worker.clusters import Clusters, Connect, connect
from worker.copies import Copies
from worker.drpcs import Keeper
from worker.entities import Entities
from worker.health import Figures, HealthServer
from worker.isolation import Contact
from worker.members import Members
from worker.policies import PolicyKeeper
from worker.pool import Pool
from worker.reach import Reach
from worker.registrystatus import RegistryStatus
from worker.settings import Settings
from worker.stores import Stores
from worker.watches import EntitySignals, Hinter, Watches
from worker.writer import Writer

log = logging.getLogger(__name__)


CLOSE_SECONDS = 5.0
"""What workers may need to end beyond the graceful time; then the process leaves them behind."""


def identity_of(cluster: str) -> str:
    """How this process is called in Temporal, in logs and in health reports: cluster, host and process."""
    return f"{cluster}@{socket.gethostname()}:{os.getpid()}"


class Process:
    """One worker process, from `run` to its exit code."""

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        identity: str,
        sdk_metrics: str = "",
        connect: Connect = connect,
    ) -> None:
        self.clusters = Clusters(
            settings.cluster,
            settings.kubeconfig,
            settings.ramen_namespace,
            settings.probe_seconds,
            settings.refresh_seconds,
            connect,
            identity,
        )
        self.stores = Stores(settings.coordination_bucket, settings.ramen_namespace)
        self.clusters.on_refresh(self.stores.update)
        self.watches = Watches(self.clusters)
        self.writers: dict[str, Writer] = {}
        """By cluster: whether this worker is the one that writes there (S16)."""
        self.copies = Copies(self.clusters, self._writes_on, settings.ramen_namespace)
        self.clusters.on_refresh(lambda _config, _secrets: self.copies.notice())
        self.registry_status = RegistryStatus(
            self.clusters, self._writes_on, identity, self._workers_of, self.copies.conditions
        )
        self.reports = ClusterReports(
            self.clusters, self._writes_on, self.stores.coordination, identity, settings.ramen_namespace
        )
        self.policies = PolicyKeeper(self.clusters, self.stores, self._writes_on)
        self.http_port = 0
        """The port that is listened on, once it is."""
        self._settings = settings
        self._runtime = runtime
        self._identity = identity
        self._http = HealthServer(settings.http_host, settings.http_port, self.figures, sdk_metrics)
        self._stop = asyncio.Event()
        self._error = ""
        self._connection: temporal.Connection | None = None
        self._pool: Pool | None = None
        self._hinter: Hinter | None = None
        self._signals: EntitySignals | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._contact = Contact(self.clusters, lambda: self._is_temporal_up, self.stores.coordination)
        self._entities: Entities | None = None
        self._keepers: dict[str, Keeper] = {}
        """By cluster: who keeps the DRPC copies there while this worker is the writer."""
        self._keeping: dict[str, asyncio.Task[None]] = {}

    def stop(self) -> None:
        """Asks for an orderly end."""
        self._stop.set()

    async def run(self) -> int:
        """Works until `stop` or a fatal error; returns the exit code of the process."""
        try:
            self.http_port = await self._http.start()
        except OSError as err:
            log.error(
                "cannot listen on %s:%d: %s. Set HUBLESS_HTTP_PORT to a free port",
                *(self._settings.http_host, self._settings.http_port, err.strerror),
            )
            return 1
        log.info("worker of %s starts, http port %d", self._settings.cluster, self.http_port)
        self._spawn(self.clusters.run(), "clusters")
        self._spawn(self._serve(), "serve")
        self._spawn(self._follow_members(), "writers")
        self._spawn(self.registry_status.run(), "registry status")
        self._spawn(self.reports.run(), "cluster reports")
        self._spawn(self.copies.run(), "copies")
        self._spawn(self._contact.run(), "contact")
        self._spawn(self.policies.run(), "policies")
        await self._stop.wait()
        log.info("worker of %s stops", self._settings.cluster)
        await self._close()
        if self._error:
            log.error("%s", self._error)
        return 1 if self._error else 0

    def figures(self) -> Figures:
        """What the HTTP endpoint reports."""
        calls: dict[tuple[str, str, str], int] = {}
        for cluster in self.clusters.names():
            for (verb, resource), count in self.clusters.session(cluster).calls.items():
                calls[cluster, verb, resource] = count
        requests: Counter[tuple[str, str]] = Counter()
        for stores in (self.stores.coordination, self.stores.operator):
            for profile, store in stores.items():
                requests.update({(profile, verb): count for verb, count in store.requests.items()})
        return Figures(
            temporal_connected=self._is_temporal_up,
            own_gate_known=self.clusters.gate(self._settings.cluster).is_known,
            health=self.clusters.health(),
            slots_used=self._pool.slots_used() if self._pool else {},
            api_calls=calls,
            s3_requests=dict(requests),
            hints_sent=self._hinter.sent if self._hinter else 0,
            attention=self._hinter.attention if self._hinter else {},
        )

    async def _follow_members(self) -> None:
        """One writer for each cluster of the registry; needs no Temporal, for statuses are true without it too."""
        while True:
            revision = self.clusters.revision
            members = set(self.clusters.names())
            for cluster in self.writers.keys() - members:
                self.writers.pop(cluster)
                self._writing.pop(cluster).cancel()
                self._keepers.pop(cluster)
                self._keeping.pop(cluster).cancel()
            for cluster in members - self.writers.keys():
                writer = Writer(
                    cluster,
                    self._settings.cluster,
                    self._identity,
                    partial(self.clusters.access, cluster),
                    self._settings.ramen_namespace,
                )
                self.writers[cluster] = writer
                self._writing[cluster] = self._spawn(writer.run(), f"writer {cluster}")
                self._keep_drpcs(cluster, writer)
            await self.clusters.changed_since(revision)

    def _writes_on(self, cluster: str) -> bool:
        writer = self.writers.get(cluster)
        return writer is not None and writer.is_writer

    async def _workers_of(self, cluster: str) -> list[str] | None:
        """Who serves a cluster, as Temporal knows it; None without Temporal."""
        if self._pool is None or self._connection is None or not self._connection.is_up:
            return None
        return await temporal.workers(self._pool.client, names.cluster_queue(cluster))

    @property
    def _is_temporal_up(self) -> bool:
        return self._connection is not None and self._connection.is_up

    def _problems(self) -> list[str]:
        """What this worker knows to be wrong with the installation, each line once."""
        lines = [*self.copies.problems.values(), *self.copies.strangers.values()]
        differing = [problem for found in lines for problem in found]
        return list(dict.fromkeys([*self.stores.problems, *differing]))

    def _keep_drpcs(self, cluster: str, writer: Writer) -> None:
        keeper = Keeper(
            cluster,
            partial(self.clusters.access, cluster),
            lambda: writer.is_writer,
            self.watches.seen,
            lambda: self._entities if self._is_temporal_up else None,
            self._contact,
        )
        self._keepers[cluster] = keeper
        self._keeping[cluster] = self._spawn(keeper.run(), f"DRPCs of {cluster}")

        def moved(is_open: bool, was_known: bool) -> None:
            # A frozen server leaves streams open that never speak again.
            self._spawn(keeper.watch.restart(), f"DRPCs of {cluster}, again", may_end=True)
            self._show_again()

        self.clusters.gate(cluster).on_change(moved)

    def _vrg_changed(self, old: Object | None, new: Object | None) -> None:
        """A VRG on any cluster may change what the copies on all clusters say."""
        for keeper in self._keepers.values():
            keeper.vrg_changed(old, new)

    def _show_again(self) -> None:
        """A cluster came into sight or went out of it: what the copies say of its VRGs is judged anew."""
        for keeper in self._keepers.values():
            keeper.show_again()

    # --- parts that need Temporal --------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Connects to Temporal, then serves all clusters of the registry as they come and go."""
        client = await temporal.connect(self._identity, self._runtime)
        self._signals = EntitySignals(client)
        self._hinter = hinter = Hinter(
            self._settings.cluster, self.watches.seen, self._signals.send, policies=self.policies.policies
        )
        self.policies.on_policies.append(lambda: hinter.mark(self.watches.all_applications()))
        self._pool = self._make_pool(client)
        self._pool.start_control()
        self._pool.start_own(self._settings.cluster)
        self._connection = temporal.Connection(client)
        self._entities = Entities(client, SurveyActivities(Reach(self.clusters, self.watches)))
        self._spawn(self._connection.follow(), "temporal health")
        self._spawn(self._hinter.run(), "hints")
        self._spawn(self._watch_pool(self._pool), "pool")
        await Members(self.clusters, partial(self._join, pool=self._pool, hinter=hinter), self._leave).run()

    def _make_pool(self, client: Client) -> Pool:
        settings = self._settings
        mirror = Mirror(self.stores.coordination)
        return Pool(
            client=client,
            activities=register(
                Reach(self.clusters, self.watches), mirror, self.stores.operator, problems=self._problems
            ),
            identity=self._identity,
            slots=settings.slots,
            wait_slots=settings.wait_slots,
            control_slots=settings.control_slots,
            cached_workflows=settings.cached_workflows,
            graceful=timedelta(seconds=settings.graceful_seconds),
        )

    def _join(self, cluster: str, pool: Pool, hinter: Hinter) -> None:
        watch = self.watches.join(cluster)
        watch.on_vrg(self._vrg_changed, lambda _: self._show_again())
        watch.on_vrg(hinter.changed, lambda _: hinter.mark(self.watches.applications(cluster)))
        gate = self.clusters.gate(cluster)
        gate.on_change(lambda is_open, was_known: self._gate_moved(cluster, is_open, was_known))
        pool.join(cluster, gate)

    async def _leave(self, cluster: str) -> None:
        if self._pool is not None:
            await self._pool.leave(cluster)
        await self.watches.leave(cluster)

    def _gate_moved(self, cluster: str, is_open: bool, was_known: bool) -> None:
        """A cluster that was away and answers again: every application there may owe it something (S8)."""
        if is_open and was_known and self._signals is not None:
            apps = self.watches.applications(cluster)
            self._spawn(self._signals.returned(cluster, apps), f"returned {cluster}", may_end=True)

    async def _watch_pool(self, pool: Pool) -> None:
        await pool.failed.wait()
        self._fail(pool.error)

    # --- tasks and the end ---------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None], name: str, may_end: bool = False) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._task_ended(done, may_end))
        return task

    def _task_ended(self, task: asyncio.Task[None], may_end: bool) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        err = task.exception()
        if isinstance(err, temporal.ConfigurationError | NotPreparedError):
            self._fail(str(err))
        elif err is not None:
            log.error("%s ended", task.get_name(), exc_info=err)
            if not may_end:
                self._fail(f"{task.get_name()} ended: {err}")

    def _fail(self, error: str) -> None:
        """A part without which the process is of no use has ended; Kubernetes starts a new one."""
        self._error = self._error or error
        self._stop.set()

    async def _close(self) -> None:
        """Ends in the order of dependence: first what takes work, last what the work uses."""
        if self._pool is not None:
            try:
                async with asyncio.timeout(self._settings.graceful_seconds + CLOSE_SECONDS):
                    await self._pool.close()
            except TimeoutError:
                self._error = self._error or "workers did not end in time; their tasks go on elsewhere"
        for task in self._writing.values():
            task.cancel()  # each gives its Lease back, for which the clusters must still be open
        if self._writing:
            await asyncio.wait(self._writing.values(), timeout=CLOSE_SECONDS)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task
        await self.watches.close()
        await self.stores.close()
        await self._http.close()
