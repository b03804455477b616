"""Two clusters and a store in memory, and the hand of the operator that moves their objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.access.fake import FakeCluster
from activities.access.protocol import ClusterAccess, Object
from activities.clusters import ClusterActivities
from activities.contracts import ClusterHealth, WriteVrg
from activities.mirror import Mirror
from activities.waiting import SharedWatch
from activities.waits import WaitTimes
from ramen import names
from ramen.app import AppSpec, Decision, PolicyCluster, Role, Volume, Wanted
from ramen.epoch import Epoch
from ramen.errors import GateClosed, HublessError, PreconditionFailed, StaleAttempt
from ramen.kinds import NAMESPACE, POD, PVC, VOLUME_REPLICATION, VRG

QUICK = WaitTimes(beat=0.05, poll=0.02, grace=0.2, live=1.0, users=0.0, witness=0.2)

APP = AppSpec(
    namespace="web",
    name="shop",
    uid="uid-1",
    policy="gold",
    clusters=[PolicyCluster(name="dr1", s3_profile="s3-dr1"), PolicyCluster(name="dr2", s3_profile="s3-dr2")],
    preferred_cluster="dr1",
    pvc_selector={"matchLabels": {"app": "shop"}},
    placement="shop-placement",
    scheduling_interval="1m",
)
VOLUMES = [Volume(namespace="web", name="data-0", pv="pv-0"), Volume(namespace="web", name="data-1", pv="pv-1")]


def epoch(number: int, token: str = "a") -> Epoch:
    """An epoch of a test."""
    return Epoch(number=number, token=token)


def write(role: Role, number: int = 1, cluster: str = "dr1", **more: Any) -> WriteVrg:
    """A write of the application's VRG."""
    wanted = Wanted(role=role, epoch=epoch(number), action=more.pop("action", None))
    return WriteVrg(app=APP, cluster=cluster, wanted=wanted, **more)


DECIDED_DR1 = Decision(cluster="dr1", previous="dr2", epoch=epoch(1))


class MemoryStore:
    """`S3Store` in a dict, ETags included."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.failure: HublessError | None = None
        self.looks = 0

    async def head_bucket(self) -> None:
        self.looks += 1
        self._answer()

    async def delete(self, key: str, if_match: str | None = None) -> None:
        self._answer()
        del self.objects[key]

    def _answer(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def get(self, key: str) -> bytes | None:
        self._answer()
        return self.objects[key][0] if key in self.objects else None

    async def get_with_etag(self, key: str) -> tuple[bytes, str] | None:
        self._answer()
        return self.objects.get(key)

    async def put(self, key: str, body: bytes, if_none_match: bool = False, if_match: str | None = None) -> str:
        self._answer()
        present = self.objects.get(key)
        if (if_none_match and present) or (if_match and (present is None or present[1] != if_match)):
            raise PreconditionFailed(key)
        self.objects[key] = (body, str(uuid4()))
        return self.objects[key][1]

    async def list(self, prefix: str) -> list[str]:
        self._answer()
        return sorted(key for key in self.objects if key.startswith(prefix))

    async def read_below(self, prefix: str) -> dict[str, bytes]:
        return {key: self.objects[key][0] for key in await self.list(prefix)}


class World:
    """dr1 and dr2 as one worker has them."""

    own = "dr1"

    def __init__(self) -> None:
        self.clusters = {name: FakeCluster(name) for name in ("dr1", "dr2")}
        self.closed: set[str] = set()
        self.silent: set[str] = set()
        self.store = MemoryStore("s3-dr1")
        self.mirror = Mirror({"s3-dr1": self.store})  # type: ignore[dict-item]
        self.asked = 0
        self.is_stale = False
        """Temporal has given the tasks of this worker to other attempts."""
        for cluster in self.clusters.values():
            cluster.put(NAMESPACE, {"metadata": {"name": "web"}})
        self._watches = self.new_watches()
        self.activities = self.worker()

    def new_watches(self) -> dict[str, SharedWatch]:
        """Watches as another process has them."""
        return {name: SharedWatch(name, lambda name=name: self.access(name), 5.0, 0.01, 0.02) for name in self.clusters}

    def worker(self) -> ClusterActivities:
        """The activities of a worker process."""
        return ClusterActivities(self, self.mirror, self._silent_profiles, QUICK, self._still_current)

    async def restart(self) -> None:
        """A new process: what the old one had in memory is gone."""
        await self.stop()
        self._watches = self.new_watches()
        self.activities = self.worker()

    async def stop(self) -> None:
        for watch in self._watches.values():
            await watch.stop()

    async def _still_current(self) -> None:
        if self.is_stale:
            raise StaleAttempt("attempt 1 is over, and nothing more is written.")

    async def _silent_profiles(self, profiles: Collection[str]) -> set[str]:
        self.asked += len(profiles)
        return self.silent & set(profiles)

    # --- activities.clusters.Clusters

    def names(self) -> list[str]:
        return list(self.clusters)

    def access(self, name: str) -> ClusterAccess:
        if name in self.closed:
            raise GateClosed(f"this worker does not reach {name}")
        return self.clusters[name]

    def watch(self, name: str) -> SharedWatch:
        return self._watches[name]

    def health(self) -> list[ClusterHealth]:
        return [ClusterHealth(cluster=name, reachable=name not in self.closed) for name in self.clusters]

    # --- the hands of operator, storage and users

    def vrg(self, cluster: str = "dr1") -> Object:
        found = self.clusters[cluster].get(VRG, "shop", "web")
        assert found is not None
        return found

    def settle(self, cluster: str = "dr1", state: str = "", generation: int | None = None, **status: Any) -> Object:
        """The operator reports on the VRG: by default that all is well with the role it is wanted in."""
        vrg = self.vrg(cluster)
        at = vrg["metadata"]["generation"] if generation is None else generation
        state = state or vrg["spec"]["replicationState"].capitalize()
        ready = "True" if state in ("Primary", "Secondary") else "False"
        kinds = ("DataReady", "ClusterDataReady")
        message = status.pop("message", "")
        vrg["status"] = {
            "state": state,
            "observedGeneration": at,
            "conditions": [_condition(kind, ready, "Ready", at, message) for kind in kinds],
            **status,
        }
        return self.clusters[cluster].put(VRG, vrg)

    def bind(self, *volumes: Volume, cluster: str = "dr1", restored: bool = False) -> None:
        for volume in volumes:
            notes = {names.RESTORED_BY_RAMEN: "True"} if restored else {}
            self.clusters[cluster].put(
                PVC,
                {
                    "metadata": {
                        "name": volume.name,
                        "namespace": volume.namespace,
                        "labels": {"app": "shop"},
                        "annotations": notes,
                    },
                    "spec": {"volumeName": volume.pv, "storageClassName": "block"},
                    "status": {"phase": "Bound"},
                },
            )

    def run_pod(self, name: str, *claims: str, cluster: str = "dr1") -> None:
        self.clusters[cluster].put(
            POD,
            {
                "metadata": {"name": name, "namespace": "web"},
                "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": claim}} for claim in claims]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            },
        )

    def replicate(
        self,
        name: str,
        role: str,
        cluster: str = "dr1",
        in_sync: bool = True,
        synced: str = "",
        promoted: str = "2026-01-01T10:00:00Z",
    ) -> Object:
        """The storage reports on a VolumeReplication."""
        fake = self.clusters[cluster]
        old = fake.get(VOLUME_REPLICATION, name, "web")
        spec = {"replicationState": role, "dataSource": {"name": name}}
        body = {
            "metadata": {
                **(old["metadata"] if old else {}),
                "name": name,
                "namespace": "web",
                "labels": {names.OWNER_NAME: "shop", names.OWNER_NAMESPACE: "web"},
            },
            "spec": spec,
        }
        at = (old["metadata"]["generation"] + (old["spec"] != spec)) if old else 1
        reason = "Promoted" if role == "primary" else "Demoted"
        degraded = "False" if in_sync else "True"
        body["status"] = {
            "state": role.capitalize(),
            "observedGeneration": at,
            "conditions": [
                _condition("Completed", "True", reason, at) | {"lastTransitionTime": promoted},
                _condition("Degraded", degraded, "Healthy", at),
                _condition("Resyncing", degraded, "NotResyncing", at),
            ],
        }
        if synced:
            body["status"]["lastSyncTime"] = synced
        return fake.put(VOLUME_REPLICATION, body)


def _condition(kind: str, status: str, reason: str, generation: int, message: str = "") -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": "2026-01-01T10:00:00Z",
    }


class Told:
    """An activity environment that keeps what was heartbeaten; `heartbeat` is the time-out in seconds."""

    def __init__(self, heartbeat: float | None = None) -> None:
        self.beats: list[str] = []
        self.environment = ActivityEnvironment()
        if heartbeat:
            timeout = timedelta(seconds=heartbeat)
            self.environment.info = dataclasses.replace(self.environment.info, heartbeat_timeout=timeout)
        self.environment.on_heartbeat = self._beaten

    def _beaten(self, *details: Any) -> None:
        self.beats.append(str(details[0]["waiting"]) if details and isinstance(details[0], dict) else "")

    async def run(self, activity: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return await self.environment.run(activity, *args)


async def failure(activity: Callable[..., Awaitable[Any]], *args: Any) -> ApplicationError:
    """The error that an activity ends with, as Temporal gets it."""
    try:
        answer = await ActivityEnvironment().run(activity, *args)
    except ApplicationError as err:
        return err
    raise AssertionError(f"no error but {answer}")
