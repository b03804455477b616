"""The two activities that wait: for a gate of a VRG, and for a relocate's demotion with its witness.

A wait costs no call while nothing changes: it sleeps on the shared watch and heartbeats what it waits for. It looks
at this worker's gate at each turn, so that it moves to a worker that reaches the cluster when this one does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio import activity

from activities import looking
from activities.access.protocol import ClusterAccess, Object
from activities.beats import beat_seconds, beating
from activities.contracts import AwaitVrg, DemoteResult, DemoteWitnessed, Gate, WriteVrg
from activities.judges import RESTORE_GRACE_SECONDS, Judge, judge_of, secondary, users_of
from activities.mirror import Mirror
from activities.waiting import Key, SharedWatch
from ramen.app import AppRef, AppSpec, Observed, Role, Volume, Witness
from ramen.epoch import Epoch, check_write
from ramen.errors import ClusterUnreachable, NotFound, ServerBusy
from ramen.s3layout import WitnessDocument

log = logging.getLogger(__name__)

Write = Callable[[WriteVrg], Awaitable[Observed]]


@dataclass(frozen=True)
class WaitTimes:
    """Seconds of the waits; tests shorten them."""

    beat: float = 1.5
    """Longest sleep between two looks at the gate, and the shortest between two heartbeats that say nothing new."""
    poll: float = 0.5
    """Between two direct reads while the VRG says yes and something else does not."""
    grace: float = RESTORE_GRACE_SECONDS
    live: float = 5.0
    """For the list that a watch begins with; more means that the server does not answer."""
    users: float = 5.0
    """Between two lists of the pods that hold a demotion up; they are read for the text only."""
    witness: float = 1.0
    """VRG and VolumeReplications come on two streams: how far the second may be behind the first."""


def writing(cluster: str, seconds: float = WaitTimes.beat) -> contextlib.AbstractAsyncContextManager[None]:
    """Heartbeats every `seconds` while the body writes to a cluster: on a busy machine a write takes its time too."""
    return beating({"waiting": f"{cluster} to take the write"}, after=0.0, every=seconds)


class Waits:
    """Waits on the clusters of one worker."""

    def __init__(
        self,
        access: Callable[[str], ClusterAccess],
        watch: Callable[[str], SharedWatch],
        mirror: Mirror,
        times: WaitTimes,
    ) -> None:
        self._access, self._watch, self._mirror, self._times = access, watch, mirror, times

    async def await_vrg(self, request: AwaitVrg) -> Observed:
        """Returns the VRG of the read that proved the gate; raises StaleEpoch, VolumesMissing, GateClosed."""
        watch, key = self._watch(request.cluster), _key(request.app)
        judge = judge_of(request, lambda: watch.replications.latest(key)[0], self._times.grace)
        began = time.monotonic()
        vrg = await self._until(judge, request.epoch)
        waited = {"waited_seconds": time.monotonic() - began}
        if request.gate in (Gate.READY, Gate.REPROTECTED):
            # Whoever waits for these wants to remember the volumes that they hold for (S3).
            seen = await looking.look(self._access(request.cluster), request.app, request.cluster)
            # A PVC that was made anew under a name that was gone a moment ago has proven nothing (D16).
            volumes = [volume for volume in seen.volumes if (volume.namespace, volume.name) not in judge.gone]
            return seen.model_copy(update=waited | {"volumes": volumes})
        return looking.observed(request.cluster, vrg).model_copy(update=waited)

    async def demote_witnessed(self, request: DemoteWitnessed, write: Write) -> DemoteResult:
        """Writes the demotion with the watch of the volumes already running, and waits until the VRG is Secondary.

        Facts are stored in the mirror as they appear. After a retry they come from the mirror and from the latch of
        the process that runs the retry, which watched all the time. Raises NotFound where there is no VRG.
        """
        app, cluster, epoch = request.write.app, request.write.cluster, request.write.wanted.epoch
        watch = self._watch(cluster)
        await watch.replications.ensure_live(self._times.live)
        before = await looking.read_vrg(self._access(cluster), app.ref)
        if ((before or {}).get("spec") or {}).get("replicationState") == Role.PRIMARY.value:
            check_write(epoch, Epoch.of(before), looking.what(app.ref, cluster))
            watch.witness.forget(app.ref)
        async with self._storing_witness(watch, app, epoch, request.volumes):
            async with writing(cluster, self._times.beat):
                written = await write(request.write)
            if written.vrg is None:
                raise NotFound(f"{cluster} has no VRG {app.ref}: nothing to demote.")
            began = time.monotonic()
            vrg = await self._until(Judge(app.ref, cluster, secondary), epoch)
            await self._await_latch(watch, app.ref, request.volumes)
            waited = time.monotonic() - began
        witness = await self._witness(watch, app, epoch, request.volumes)
        observed = looking.observed(cluster, vrg).model_copy(update={"waited_seconds": waited})
        return DemoteResult(observed=observed, witness=witness)

    async def _until(self, judge: Judge, epoch: Epoch) -> Object | None:
        """Waits until the judge is content twice: with the watch's version, and with one that was read after it."""
        app, cluster, times = judge.app, judge.cluster, self._times
        watch, key = self._watch(cluster), _key(judge.app)
        source = watch.replications if judge.follows_replications else watch.vrgs
        watch.start()
        explained, users = 0.0, ""
        said, said_at, every = "", 0.0, beat_seconds(times.beat)
        while True:
            access = self._access(cluster)
            (vrgs, _), tick = watch.vrgs.latest(key), source.latest(key)[1]
            pause, vrg = times.beat, vrgs[0] if vrgs else None
            if not watch.vrgs.live:
                reason = f"{cluster} cannot be watched now: {watch.vrgs.error or 'its first list is under way'}"
            else:
                check_write(epoch, Epoch.of(vrg), looking.what(app, cluster))
                reason = judge.glance(vrg)
                try:
                    if not reason:
                        pause = times.poll
                        fresh = await looking.read_vrg(access, app)
                        check_write(epoch, Epoch.of(fresh), looking.what(app, cluster))
                        reason = await judge.verify(access, fresh)
                        if not reason:
                            return fresh
                    elif vrg is not None and time.monotonic() - explained >= times.users:
                        explained, users = time.monotonic(), await users_of(access, app, vrg)
                except (ClusterUnreachable, ServerBusy) as err:
                    # One lost answer is not for a wait to judge: the gate closes if it lasts.
                    reason, pause = str(err), times.beat
            if (waiting := reason + users) != said or time.monotonic() + pause >= said_at + every:
                # Each one is a write of Temporal's: a thousand applications may wait for a first sync for hours. It
                # comes before the sleep in which it would be due, so that a time-out always holds three of them.
                said, said_at = waiting, time.monotonic()
                activity.heartbeat({"waiting": waiting})
            await source.await_change(key, tick, pause)

    @contextlib.asynccontextmanager
    async def _storing_witness(
        self, watch: SharedWatch, app: AppSpec, epoch: Epoch, volumes: list[Volume]
    ) -> AsyncIterator[None]:
        """Writes to the mirror what the latch takes up meanwhile, and all of it once more at the end."""
        key = _key(app.ref)

        async def follow() -> None:
            stored = 0
            while True:
                tick = watch.replications.latest(key)[1]
                found = self._latched(watch, app.ref, volumes)
                if len(found.volumes) > stored:
                    await self._store(app, epoch, found)
                    stored = len(found.volumes)
                await watch.replications.await_change(key, tick, self._times.beat)

        task = asyncio.create_task(follow(), name=f"witness {app.ref}")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        found = self._latched(watch, app.ref, volumes)
        if found.volumes:
            await self._store(app, epoch, found)

    async def _store(self, app: AppSpec, epoch: Epoch, witness: Witness) -> None:
        seen_at = witness.seen_at or datetime.now(UTC)
        document = WitnessDocument(epoch=epoch, volumes=witness.volumes, seen_at=seen_at)
        written = await self._stores(app).write_witness(app.namespace, app.name, document)
        for profile, why in written.failed.items():
            log.warning("the witness of %s epoch %s is not in S3 profile %s: %s", app.ref, epoch.number, profile, why)

    async def _await_latch(self, watch: SharedWatch, app: AppRef, volumes: list[Volume]) -> None:
        """Gives the stream of VolumeReplications the time to catch up with the one of VRGs."""
        end = time.monotonic() + self._times.witness
        wanted = {(volume.namespace, volume.name) for volume in volumes}
        while (left := end - time.monotonic()) > 0 and not wanted <= watch.witness.of(app).keys():
            tick = watch.replications.latest(_key(app))[1]
            if wanted <= watch.witness.of(app).keys():
                return
            await watch.replications.await_change(_key(app), tick, left)

    async def _witness(self, watch: SharedWatch, app: AppSpec, epoch: Epoch, volumes: list[Volume]) -> Witness:
        """What this process saw, and what the stores hold of this epoch from an earlier attempt."""
        latched = self._latched(watch, app.ref, volumes)
        seen = {(volume.namespace, volume.name): volume for volume in latched.volumes}
        times = [latched.seen_at] if latched.seen_at else []
        if len(seen) < len(volumes):
            stored = (await self._stores(app).read_witness(app.namespace, app.name, epoch)).value
            if stored is not None:
                seen = {(volume.namespace, volume.name): volume for volume in stored.volumes} | seen
                times.append(stored.seen_at)
        return Witness(volumes=[seen[key] for key in sorted(seen)], seen_at=max(times, default=None))

    @staticmethod
    def _latched(watch: SharedWatch, app: AppRef, volumes: list[Volume]) -> Witness:
        known = {(volume.namespace, volume.name): volume for volume in volumes}
        seen = watch.witness.of(app)
        found = [known.get(key) or Volume(namespace=key[0], name=key[1]) for key in sorted(seen)]
        return Witness(volumes=found, seen_at=max(seen.values(), default=None))

    def _stores(self, app: AppSpec) -> Mirror:
        return self._mirror.of(cluster.s3_profile for cluster in app.clusters)


def _key(app: AppRef) -> Key:
    return app.namespace, app.name
