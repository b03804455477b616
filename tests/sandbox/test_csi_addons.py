"""VolumeReplications as csi-addons leaves them: marks, conditions and their order, faults, and what deletion does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from activities.access.protocol import Object
from ramen.kinds import PV, PVC, STORAGE_CLASS, VOLUME_REPLICATION
from sandbox import faults
from sandbox.faults import Faults
from sandbox.ledger import Ledger
from sandbox.standins.array import Cluster
from sandbox.standins.csi_addons import PVC_FINALIZER, VR_FINALIZER, Delays
from sandbox.standins.provisioner import DRIVER, PROVISIONER_ANNOTATION
from sandbox.standins.storage import Storage
from sandbox.standins.volumes import Health, Pace, Role
from tests.sandbox.watched_cluster import WatchedCluster

NAMES = ("dr1", "dr2")


class World:
    """The array at both clusters, without delays; a lag of zero syncs in every tick."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ledger = Ledger.open(directory)
        self.storage = Storage(directory, NAMES, self.ledger, Pace(lag=0, sync=0, copy=0), rate=50)
        self.servers = {name: WatchedCluster(name) for name in NAMES}
        self.ends = {name: Cluster(server, self.storage, Delays().scaled(0)) for name, server in self.servers.items()}
        self.storage.on_change = self._changed
        self.storage.on_faults = self._other_faults
        self.tasks = [asyncio.create_task(loop) for end in self.ends.values() for loop in end.loops()]

    def _changed(self, handle: str) -> None:
        for end in self.ends.values():
            end.replication.volume_changed(handle)

    def _other_faults(self) -> None:
        for end in self.ends.values():
            end.faults_changed()

    def claim(self, cluster: str) -> None:
        """A bound claim of the volume, as the kube-controller-manager leaves it."""
        server = self.servers[cluster]
        server.put(
            PV,
            {
                "metadata": {"name": "pv"},
                "spec": {
                    "csi": {"driver": DRIVER, "volumeHandle": "v"},
                    "claimRef": {"namespace": "web", "name": "data"},
                },
                "status": {"phase": "Bound"},
            },
        )
        server.put(
            PVC,
            {
                "metadata": {"name": "data", "namespace": "web"},
                "spec": {"volumeName": "pv"},
                "status": {"phase": "Bound"},
            },
        )

    def want(self, cluster: str, state: str, *, resync: bool = False) -> None:
        """Writes the VolumeReplication's spec as the dr-cluster operator does."""
        server = self.servers[cluster]
        wanted = {"replicationState": state, "autoResync": resync}
        if server.look(VOLUME_REPLICATION, "data", "web") is not None:
            server.edit(VOLUME_REPLICATION, "data", "web", lambda body: body["spec"].update(wanted))
            return
        spec = {**wanted, "dataSource": {"kind": "PersistentVolumeClaim", "name": "data"}}
        server.put(
            VOLUME_REPLICATION, {"metadata": {"name": "data", "namespace": "web", "generation": 1}, "spec": spec}
        )

    def conditions(self, cluster: str) -> tuple[str, ...]:
        return _words(self.servers[cluster].look(VOLUME_REPLICATION, "data", "web"))

    def shown(self, cluster: str) -> list[tuple[str, ...]]:
        """Statuses in the order in which a watch shows them, without repetitions."""
        found: list[tuple[str, ...]] = []
        for kind, body in self.servers[cluster].history:
            words = _words(body) if kind is VOLUME_REPLICATION else ()
            if words and words not in found[-1:]:
                found.append(words)
        return found

    async def until(self, cluster: str, *words: str) -> None:
        def reached() -> bool:
            self.storage.tick()
            return self.conditions(cluster) == words

        await self.servers[cluster].until(reached)

    def faulty(self, **what: Any) -> None:
        faults.save(self.directory, Faults.model_validate(what))

    async def protected(self) -> None:
        self.storage.provision("v", "dr1")
        self.claim("dr1")
        self.want("dr1", "primary")
        await self.until("dr1", *PROMOTED)
        self.storage.tick()
        self.claim("dr2")

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.ledger.close()


PROMOTED = ("True/Promoted", "False/Healthy", "False/NotResyncing")
DEGRADED = ("True/Demoted", "True/VolumeDegraded", "False/NotResyncing")
RESYNCING = ("True/Demoted", "True/VolumeDegraded", "True/ResyncTriggered")
IN_SYNC = ("True/Demoted", "False/Healthy", "False/NotResyncing")


def _words(body: Object | None) -> tuple[str, ...]:
    """Completed, Degraded, Resyncing as `status/reason`; empty unless all are of the object's generation."""
    found = ((body or {}).get("status") or {}).get("conditions") or []
    if body is None or any(entry["observedGeneration"] != body["metadata"]["generation"] for entry in found):
        return ()
    return tuple(f"{entry['status']}/{entry['reason']}" for entry in found)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


async def test_a_promotion_marks_both_objects_and_reports_syncs(world: World) -> None:
    await world.protected()
    server = world.servers["dr1"]
    replication = server.look(VOLUME_REPLICATION, "data", "web")
    claim = server.look(PVC, "data", "web")
    assert replication is not None
    assert claim is not None
    assert replication["metadata"]["finalizers"] == [VR_FINALIZER]
    assert PVC_FINALIZER in claim["metadata"]["finalizers"]
    assert replication["status"]["state"] == "Primary"

    def synced() -> bool:
        world.storage.tick()
        body = server.look(VOLUME_REPLICATION, "data", "web")
        return body is not None and "lastSyncTime" in body["status"]

    await server.until(synced)


async def test_a_clean_demotion_shows_degraded_first_and_then_in_sync(world: World) -> None:
    await world.protected()
    world.want("dr1", "secondary")
    await world.until("dr1", *IN_SYNC)
    assert world.shown("dr1")[-2:] == [DEGRADED, IN_SYNC]
    body = world.servers["dr1"].look(VOLUME_REPLICATION, "data", "web")
    assert body is not None
    assert body["status"]["state"] == "Secondary"
    assert "lastSyncTime" not in body["status"]


async def test_a_demotion_that_cannot_reach_the_other_side_stays_degraded(world: World) -> None:
    await world.protected()
    world.faulty(replication="paused")
    world.storage.tick()
    volume = world.storage.volume("v")
    assert volume is not None
    volume.write("dr1", 5)
    world.want("dr1", "secondary")
    await world.until("dr1", *DEGRADED)
    world.storage.tick()
    assert world.conditions("dr1") == DEGRADED
    world.faulty()
    await world.until("dr1", *IN_SYNC)


async def split(world: World) -> None:
    """Promoted on dr2 while dr1 is out of reach, with writes that only dr1 has."""
    await world.protected()
    world.faulty(cut_off=["dr1"])
    world.storage.tick()
    volume = world.storage.volume("v")
    assert volume is not None
    volume.write("dr1", 5)
    world.want("dr2", "primary")
    await world.until("dr2", *PROMOTED)
    world.faulty()
    world.storage.tick()


async def test_a_diverged_side_is_copied_anew_when_it_is_told_to(world: World) -> None:
    await split(world)
    world.faulty(resync={"dr1": "hang"})
    world.storage.tick()
    world.want("dr1", "secondary", resync=True)
    await world.until("dr1", *RESYNCING)
    world.faulty()
    await world.until("dr1", *IN_SYNC)
    assert world.shown("dr1")[-3:] == [DEGRADED, RESYNCING, IN_SYNC]
    assert world.storage.side("v", "dr1").content == world.storage.side("v", "dr2").content


async def test_a_diverged_side_that_is_not_told_to_stays_as_it_is(world: World) -> None:
    await split(world)
    world.want("dr1", "secondary", resync=False)
    await world.until("dr1", *DEGRADED)
    world.storage.tick()
    assert world.storage.side("v", "dr1").health is Health.DIVERGED


async def test_a_resync_that_hangs_shows_resyncing_and_deletion_does_not_wait_for_it(world: World) -> None:
    await split(world)
    world.faulty(resync={"dr1": "hang"})
    world.storage.tick()
    world.want("dr1", "secondary", resync=True)
    await world.until("dr1", *RESYNCING)
    server = world.servers["dr1"]
    server.remove(VOLUME_REPLICATION, "data", "web")
    await server.until(lambda: server.look(VOLUME_REPLICATION, "data", "web") is None)
    claim = server.look(PVC, "data", "web")
    assert claim is not None
    assert PVC_FINALIZER not in claim["metadata"]["finalizers"]
    world.faulty()
    world.storage.tick()
    assert world.storage.side("v", "dr1").health is Health.GOOD, "the array goes on without the object"


async def test_a_promotion_that_fails_says_so_and_one_that_hangs_says_nothing(world: World) -> None:
    await world.protected()
    world.faulty(promotion={"dr2": "fail"})
    world.want("dr2", "primary")
    await world.until("dr2", "False/FailedToPromote", "False/Healthy", "False/NotResyncing")
    assert not world.storage.side("v", "dr2").writable
    world.faulty()
    await world.until("dr2", *PROMOTED)


async def test_a_promotion_that_hangs_goes_on_when_the_fault_ends(world: World) -> None:
    await world.protected()
    world.faulty(promotion={"dr2": "hang"})
    world.storage.tick()
    world.want("dr2", "primary")
    server = world.servers["dr2"]
    await server.until(
        lambda: VR_FINALIZER in (server.look(VOLUME_REPLICATION, "data", "web") or {})["metadata"].get("finalizers", [])
    )
    assert world.conditions("dr2") == ()
    assert world.storage.side("v", "dr2").role is Role.SECONDARY
    world.faulty()
    await world.until("dr2", *PROMOTED)


async def test_the_array_does_not_answer_at_a_lost_site(world: World) -> None:
    await world.protected()
    world.faulty(lost=["dr1"])
    world.storage.tick()
    world.want("dr1", "secondary")
    world.want("dr2", "primary")
    await world.until("dr2", *PROMOTED)
    assert world.storage.side("v", "dr1").role is Role.PRIMARY
    world.faulty()
    await world.until("dr1", *DEGRADED)


async def test_the_end_of_a_primarys_replication_drops_the_copy(world: World) -> None:
    await world.protected()
    server = world.servers["dr1"]
    server.remove(VOLUME_REPLICATION, "data", "web")
    await server.until(lambda: server.look(VOLUME_REPLICATION, "data", "web") is None)
    assert world.storage.side("v", "dr1").role is Role.STANDALONE
    assert world.storage.side("v", "dr2").role is Role.ABSENT


async def test_a_claim_gets_a_volume_and_a_released_one_is_destroyed(world: World) -> None:
    server = world.servers["dr1"]
    server.put(STORAGE_CLASS, {"metadata": {"name": "array"}, "provisioner": DRIVER, "reclaimPolicy": "Delete"})
    claim = server.put(
        PVC,
        {
            "metadata": {"name": "data", "namespace": "web", "annotations": {PROVISIONER_ANNOTATION: DRIVER}},
            "spec": {
                "storageClassName": "array",
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    )
    name, handle = f"pvc-{claim['metadata']['uid']}", f"array-{claim['metadata']['uid']}"
    await server.until(lambda: server.look(PV, name) is not None)
    volume = server.look(PV, name)
    assert volume is not None
    assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    assert volume["spec"]["csi"]["volumeHandle"] == handle
    assert world.storage.side(handle, "dr1").role is Role.STANDALONE
    server.edit(PV, name, "", lambda body: body.update(status={"phase": "Released"}))

    def deleted() -> bool:
        body = server.look(PV, name)
        return body is None or "deletionTimestamp" in body["metadata"]

    await server.until(deleted)
    assert world.storage.side(handle, "dr1").role is Role.ABSENT


async def test_a_released_volume_that_is_retained_stays(world: World) -> None:
    await world.protected()
    server = world.servers["dr1"]

    def release(body: Object) -> None:
        body["status"] = {"phase": "Released"}
        body["spec"]["persistentVolumeReclaimPolicy"] = "Retain"

    server.edit(PV, "pv", "", release)
    world.want("dr1", "secondary")
    await world.until("dr1", *IN_SYNC)
    assert server.look(PV, "pv") is not None
    server.edit(PV, "pv", "", lambda body: body["spec"].update(persistentVolumeReclaimPolicy="Delete"))
    await server.until(lambda: server.look(PV, "pv") is None)
    assert world.storage.side("v", "dr1").role is Role.SECONDARY, "what only receives is not destroyed"
