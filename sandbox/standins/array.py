"""Stand-in for a replicated storage array with its CSI driver and csi-addons, for both clusters.

One process, because the array is one thing: it goes on while an API server is down, and it alone knows which of two
sides is right. Run it as `python -m sandbox.standins.array --dir DIRECTORY`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activities.access.protocol import ClusterAccess, Object
from ramen.errors import Invalid
from ramen.kinds import POD, PV, PVC, STORAGE_CLASS, VOLUME_REPLICATION, VRG
from sandbox.ledger import Ledger
from sandbox.standins.csi_addons import Delays, Mirrors, Replication
from sandbox.standins.provisioner import Provisioner
from sandbox.standins.runtime import Mirror, configure_logging, connect, name_of, until_stopped
from sandbox.standins.storage import Storage
from sandbox.standins.volumes import Pace

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
"""Writes, faults and replication are looked at this often; roles change at once, whenever they are asked to."""


@dataclass(frozen=True)
class Settings:
    """How fast the array and its applications are."""

    pace: Pace
    delays: Delays
    rate: float
    """Writes per second of each pod to each of its volumes."""


class Cluster:
    """The array's end at one cluster: local copies, and the two controllers that work on them."""

    def __init__(self, access: ClusterAccess, storage: Storage, delays: Delays) -> None:
        self.name = access.name
        self._access = access
        self._storage = storage
        self._mirrors = Mirrors(
            claims=Mirror(access, PVC, self._claim_changed),
            volumes=Mirror(access, PV, self._volume_changed),
            replications=Mirror(access, VOLUME_REPLICATION, self._replication_changed),
        )
        self._pods = Mirror(access, POD, self._pod_changed)
        self._groups = Mirror(access, VRG, self._group_changed)
        self._classes = Mirror(access, STORAGE_CLASS)
        self._provisioner = Provisioner(access, storage, self._mirrors, self._classes)
        self.replication = Replication(access, storage, self._mirrors, delays, storage.now)
        self._roles = {
            (event.namespace, event.name): str(event.detail["role"])
            for event in storage.ledger.events("vrg")
            if event.cluster == self.name
        }
        self._lost = False
        self._returned = asyncio.Event()

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Everything that has to run for this cluster."""
        mirrors = (self._mirrors.claims, self._mirrors.volumes, self._mirrors.replications, self._groups, self._classes)
        return [
            *(mirror.run() for mirror in mirrors),
            self._follow_pods(),
            self._provisioner.queue.run(),
            self.replication.queue.run(),
        ]

    def faults_changed(self) -> None:
        """Notes whether the site is lost, and wakes what waited for a fault to end."""
        lost = self.name in self._storage.faults.lost
        if self._lost and not lost:
            self._returned.set()
        self._lost = lost
        self.replication.wake_all()

    async def _follow_pods(self) -> None:
        """Keeps the copy of the pods; after the loss of the site they write again only once they were listed anew."""
        while True:
            self._returned.clear()
            self._pods.synced.clear()
            following = asyncio.create_task(self._pods.run())
            returned = asyncio.create_task(self._returned.wait())
            try:
                await self._pods.synced.wait()
                self._storage.resume(self.name)
                await asyncio.wait([following, returned], return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    following.result()
            finally:
                for task in (following, returned):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task

    def _claim_changed(self, before: Object | None, after: Object | None) -> None:
        self._provisioner.claim_changed(before, after)
        body = after or before
        if body is not None:
            namespace, name = name_of(body)
            self.replication.claim_changed(namespace, name)
            self._pods_of(namespace)

    def _volume_changed(self, before: Object | None, after: Object | None) -> None:
        self._provisioner.volume_changed(before, after)
        reference = ((after or before or {}).get("spec") or {}).get("claimRef")
        if reference:
            self.replication.claim_changed(reference["namespace"], reference["name"])
            self._pods_of(reference["namespace"])

    def _replication_changed(self, before: Object | None, after: Object | None) -> None:
        self.replication.changed(before, after)

    def _group_changed(self, before: Object | None, after: Object | None) -> None:
        body = after or before
        if body is None:
            return
        key = name_of(body)
        role = "gone" if after is None else str(after["spec"].get("replicationState", ""))
        if self._roles.get(key, "gone") != role:
            self._roles[key] = role
            self._storage.ledger.add_event(
                self._storage.now(), "vrg", self.name, key[1], namespace=key[0], detail={"role": role}
            )

    def _pods_of(self, namespace: str) -> None:
        for pod in self._pods.within(namespace):
            self._pod_changed(pod, pod)

    def _pod_changed(self, before: Object | None, after: Object | None) -> None:
        body = after or before
        if body is None:
            return
        meta = body["metadata"]
        handles = []
        if after is not None and _writes(after):
            for volume in after["spec"].get("volumes") or []:
                claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
                handle = self._mirrors.handle(meta["namespace"], claim) if claim else None
                if handle is not None:
                    handles.append(handle)
        self._storage.set_pod(self.name, f"{meta['namespace']}/{meta['name']}/{meta['uid']}", handles)


def _writes(pod: Object) -> bool:
    """Whether a pod writes: running and ready. One in deletion goes on until it is gone, as containers do."""
    status = pod.get("status") or {}
    conditions = {entry["type"]: entry["status"] for entry in status.get("conditions") or []}
    return status.get("phase") == "Running" and conditions.get("Ready") == "True"


async def run(directory: Path, settings: Settings) -> None:
    """Plays the array until the process is told to stop.

    Raises `Invalid` unless the sandbox has kubeconfigs of the user `array` for exactly two clusters.
    """
    suffix = "-array.yaml"
    names = sorted(path.name.removesuffix(suffix) for path in (directory / "kubeconfigs").glob(f"*{suffix}"))
    if len(names) != 2:
        raise Invalid(f"the array needs kubeconfigs for two clusters, found {names or 'none'}")
    ledger = Ledger.open(directory)
    storage = Storage(directory, (names[0], names[1]), ledger, settings.pace, settings.rate)
    clients = [await connect(directory, name, "array") for name in names]
    clusters = [Cluster(access, storage, settings.delays) for access in clients]

    def changed(handle: str) -> None:
        for cluster in clusters:
            cluster.replication.volume_changed(handle)

    def faults_changed() -> None:
        for cluster in clusters:
            cluster.faults_changed()

    storage.on_change, storage.on_faults = changed, faults_changed

    async def ticks() -> None:
        while True:
            storage.tick()
            await asyncio.sleep(TICK_SECONDS)

    log.info("array between %s and %s: %s", *names, settings)
    try:
        await until_stopped([ticks(), *(loop for cluster in clusters for loop in cluster.loops())])
    finally:
        storage.tick()
        ledger.close()
        for access in clients:
            await access.close()


def _parse(arguments: Sequence[str] | None = None) -> tuple[Path, Settings]:
    parser = argparse.ArgumentParser(description="Stand-in for a replicated storage array with csi-addons")
    parser.add_argument("--dir", type=Path, required=True, help="directory of the sandbox")
    parser.add_argument("--lag", type=float, default=5.0, help="seconds from one sync of a volume to the next")
    parser.add_argument("--rate", type=float, default=5.0, help="writes per second of a pod to each of its volumes")
    parser.add_argument("--delay-scale", type=float, default=1.0, help="1 = delays of the real component, 0 = none")
    delays, pace = Delays(), Pace()
    for name, default, text in (
        ("promote", delays.promote, "a promotion"),
        ("demote", delays.demote, "a demotion"),
        ("before-resync", delays.before_resync, "the wait before a degraded secondary is copied anew"),
        ("disable", delays.disable, "the end of replication of a volume"),
        ("sync", pace.sync, "one sync"),
        ("copy", pace.copy, "a full copy"),
    ):
        parser.add_argument(f"--{name}-seconds", type=float, default=default, help=f"{text}, before scaling")
    found = parser.parse_args(arguments)
    scale = max(0.0, found.delay_scale)
    return found.dir, Settings(
        pace=Pace(lag=found.lag, sync=found.sync_seconds * scale, copy=found.copy_seconds * scale),
        delays=Delays(
            found.promote_seconds, found.demote_seconds, found.before_resync_seconds, found.disable_seconds
        ).scaled(scale),
        rate=found.rate,
    )


if __name__ == "__main__":
    configure_logging()
    asyncio.run(run(*_parse()))
