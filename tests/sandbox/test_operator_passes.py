"""The stand-in operator's passes on an API server and stores in memory: rows of vrg.md 5.2 that no recording shows."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ramen import kinds, names
from sandbox.standins import vrg_reconcile as rules
from sandbox.standins.operator_store import decode
from tests.sandbox.operator_fakes import CONFIG, Driver, FakeBucket

Object = dict[str, Any]

NS, NAME = "web", "shop"
VRG_KEY = names.vrg_key(NS, NAME)
PREFIX = names.operator_prefix(NS, NAME)


def group(role: str = "primary", **spec: Any) -> Object:
    found = {
        "pvcSelector": {"matchLabels": {"app": "shop"}},
        "replicationState": role,
        "s3Profiles": ["s3-c1", "s3-c2"],
        "async": {"schedulingInterval": "5m"},
        "volSync": {"disabled": True},
    }
    return {"metadata": {"name": NAME, "namespace": NS, "generation": 1}, "spec": {**found, **spec}}


class World:
    """One cluster, two stores, and short words for what tests do."""

    def __init__(self) -> None:
        self.buckets = {"bucket-c1": FakeBucket(), "bucket-c2": FakeBucket()}
        self.first, self.second = self.buckets.values()
        self.driver = Driver("c1", self.buckets)
        self.cluster = self.driver.cluster

    async def create(self, body: Object) -> Object:
        self.cluster.put(kinds.VRG, body)
        return await self.settle()

    async def settle(self) -> Object:
        await self.driver.settle()
        return self.vrg()

    def vrg(self) -> Object:
        return self.cluster.look(kinds.VRG, NAME, NS) or {}

    async def write(self, **spec: Any) -> Object:
        self.cluster.edit(kinds.VRG, NAME, NS, lambda body: body["spec"].update(spec))
        return await self.settle()

    def volume(self, name: str, **labels: str) -> None:
        """A bound PVC with its PV."""
        claim = {"namespace": NS, "name": name}
        self.cluster.put(
            kinds.PV,
            {
                "metadata": {"name": f"pv-{name}", "finalizers": ["kubernetes.io/pv-protection"]},
                "spec": {
                    "claimRef": {**claim, "uid": f"uid-{name}", "resourceVersion": "7"},
                    "persistentVolumeReclaimPolicy": "Delete",
                    "storageClassName": "rook-ceph-block",
                    "csi": {"driver": "d", "volumeHandle": f"h-{name}"},
                },
                "status": {"phase": "Bound"},
            },
        )
        self.cluster.put(
            kinds.PVC,
            {
                "metadata": {**claim, "uid": f"uid-{name}", "labels": labels or {"app": "shop"}},
                "spec": {"storageClassName": "rook-ceph-block", "volumeName": f"pv-{name}"},
                "status": {"phase": "Bound"},
            },
        )

    def report(self, name: str, *true: str, state: str = "Primary", **fields: Any) -> None:
        """Writes a VolumeReplication's status at its generation: the named conditions True, the others False."""

        def change(body: Object) -> None:
            generation = body["metadata"]["generation"]
            conditions = [
                {"type": kind, "status": str(kind in true), "observedGeneration": generation}
                for kind in ("Completed", "Degraded", "Resyncing")
            ]
            body["status"] = {"state": state, "observedGeneration": generation, "conditions": conditions, **fields}

        self.cluster.edit(kinds.VOLUME_REPLICATION, name, NS, change)

    async def primary_with(self, *volumes: str) -> Object:
        for name in volumes:
            self.volume(name)
        await self.create(group())
        for name in volumes:
            self.report(name, "Completed")
        return await self.settle()


def condition(vrg: Object, kind: str) -> str:
    """`True/Ready@3`."""
    found = next(item for item in vrg["status"]["conditions"] if item["type"] == kind)
    return f"{found['status']}/{found['reason']}@{found['observedGeneration']}"


@pytest.fixture
def world() -> World:
    return World()


async def test_primary_without_volumes_is_ready_in_one_write_and_stored_by_the_next_pass(world: World) -> None:
    vrg = await world.create(group())
    generation = vrg["metadata"]["generation"]
    assert generation == 2, "the finalizer's update wrote the spec in its normal form"
    assert vrg["status"]["state"] == "Primary"
    assert condition(vrg, "DataReady") == "True/Unused@2"
    assert condition(vrg, "ClusterDataReady") == "True/Restored@2"
    assert condition(vrg, "KubeObjectsReady") == "True/KubeObjectsRestored@2"
    assert condition(vrg, "ClusterDataProtected") == "True/Uploaded@2"
    for bucket in world.buckets.values():
        stored = decode(bucket.items[VRG_KEY])
        assert stored["status"]["state"] == "Primary", "uploaded by a later pass than the one that became Primary"
    written = [version for version in world.driver.versions if version.get("status")]
    assert [condition(version, "ClusterDataProtected") for version in written] == ["True/Unused@2", "True/Uploaded@2"]


async def test_annotation_only_change_writes_nothing(world: World) -> None:
    await world.create(group("secondary"))
    before = world.cluster.writes
    world.cluster.edit(kinds.VRG, NAME, NS, lambda body: body["metadata"].update(annotations={"a": "b"}))
    await world.settle()
    assert world.cluster.writes == before


async def test_volumes_are_marked_replicated_and_stored(world: World) -> None:
    vrg = await world.primary_with("one", "two")
    assert vrg["status"]["state"] == "Primary"
    assert condition(vrg, "DataProtected") == "False/Replicating@2"
    assert "lastGroupSyncTime" not in vrg["status"]
    claim = world.cluster.look(kinds.PVC, "one", NS) or {}
    assert rules.has_finalizer(claim)
    assert rules.owner_of(claim) == (NS, NAME)
    pv = world.cluster.look(kinds.PV, "pv-one") or {}
    assert pv["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    replication = world.cluster.look(kinds.VOLUME_REPLICATION, "one", NS) or {}
    owner = replication["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"]) == (
        "VolumeReplicationGroup",
        vrg["metadata"]["uid"],
        True,
    )
    assert sorted(world.first.items) == sorted(world.second.items)
    assert sorted(key.removeprefix(PREFIX) for key in world.first.items) == [
        "v1.PersistentVolume/pv-one",
        "v1.PersistentVolume/pv-two",
        "v1.PersistentVolumeClaim/web/one",
        "v1.PersistentVolumeClaim/web/two",
        "v1alpha1.VolumeReplicationGroup/a",
    ]
    world.report("one", "Completed", lastSyncTime="2026-01-01T00:00:00Z")
    assert "lastGroupSyncTime" not in (await world.settle())["status"]
    world.report("two", "Completed", lastSyncTime="2026-01-02T00:00:00Z")
    assert (await world.settle())["status"]["lastGroupSyncTime"] == "2026-01-01T00:00:00Z"


async def test_unbound_volume_waits_for_its_event(world: World) -> None:
    world.volume("one")
    world.cluster.edit(kinds.PVC, "one", NS, lambda body: body.update(status={"phase": "Pending"}))
    vrg = await world.create(group())
    assert condition(vrg, "DataReady") == "False/Progressing@2"
    assert world.cluster.look(kinds.VOLUME_REPLICATION, "one", NS) is None
    world.cluster.edit(kinds.PVC, "one", NS, lambda body: body.update(status={"phase": "Bound"}))
    await world.settle()
    assert world.cluster.look(kinds.VOLUME_REPLICATION, "one", NS) is not None


async def test_simultaneous_write_of_storage_flashes_annotation_failed(world: World) -> None:
    world.volume("one")
    original = world.first.put

    async def interrupted(key: str, body: bytes) -> str:
        world.first.put = original  # type: ignore[method-assign]
        world.cluster.edit(kinds.PVC, "one", NS, lambda claim: claim["metadata"]["annotations"].update(storage="x"))
        return await original(key, body)

    world.first.put = interrupted  # type: ignore[method-assign]
    await world.create(group())
    shown = [condition(v, "ClusterDataProtected") for v in world.driver.versions if v.get("status")]
    assert shown == ["False/AnnotationFailed@2", "True/Uploaded@2"]


@pytest.mark.parametrize("left", [("two",), ()])
async def test_volume_deleted_on_a_stable_primary_loses_its_stored_copies(world: World, left: tuple[str, ...]) -> None:
    await world.primary_with("one", *left)
    world.cluster.remove(kinds.PVC, "one", NS)
    vrg = await world.settle()
    assert vrg["status"]["state"] == "Primary"
    assert [item["name"] for item in vrg["status"].get("protectedPVCs", [])] == list(left)
    assert condition(vrg, "DataReady").split("@")[0] == ("True/Ready" if left else "True/Unused")
    assert not [key for bucket in world.buckets.values() for key in bucket.items if key.endswith("one")]
    assert (world.cluster.look(kinds.PV, "pv-one") or {})["spec"]["persistentVolumeReclaimPolicy"] == "Delete"


async def test_volume_that_loses_its_label_stays_without_marks(world: World) -> None:
    await world.primary_with("one", "two")
    world.cluster.edit(kinds.PVC, "one", NS, lambda body: body["metadata"]["labels"].pop("app"))
    vrg = await world.settle()
    claim = world.cluster.look(kinds.PVC, "one", NS) or {}
    assert rules.owner_of(claim) is None
    assert not rules.has_finalizer(claim)
    assert [item["name"] for item in vrg["status"]["protectedPVCs"]] == ["two"]


async def test_deleted_volume_keeps_its_copies_while_a_final_sync_is_asked_for(world: World) -> None:
    await world.primary_with("one")
    vrg = await world.write(prepareForFinalSync=True)
    assert vrg["status"]["prepareForFinalSyncComplete"] is True
    world.cluster.remove(kinds.PVC, "one", NS)
    vrg = await world.write(prepareForFinalSync=False, runFinalSync=True)
    assert vrg["status"]["finalSyncComplete"] is True
    assert vrg["status"]["prepareForFinalSyncComplete"] is True, "only becoming secondary resets it"
    assert vrg["status"]["protectedPVCs"][0]["conditions"][0]["observedGeneration"] == 3
    assert [key for key in world.first.items if key.endswith("one")]
    vrg = await world.write(runFinalSync=False)
    assert "finalSyncComplete" not in vrg["status"]


async def test_secondary_needs_two_writes_and_a_stray_volume_shows_as_error(world: World) -> None:
    vrg = await world.create(group("secondary"))
    assert vrg["status"]["state"] == "Secondary"
    states = [version["status"]["state"] for version in world.driver.versions if version.get("status")]
    assert states == ["Unknown", "Secondary"]
    world.driver.versions.clear()
    world.volume("stray")
    vrg = await world.settle()
    assert vrg["status"]["state"] == "Unknown"
    assert condition(vrg, "DataReady").startswith("False/Error")
    conflicts = [condition(version, "NoClusterDataConflict")[:5] for version in world.driver.versions]
    assert conflicts == ["False", "True/"], "the conflict shows for one write only"


async def test_demotion_waits_for_pods_and_ends_when_the_volume_is_gone(world: World) -> None:
    await world.primary_with("one")
    world.cluster.edit(
        kinds.PVC, "one", NS, lambda body: body["metadata"]["finalizers"].append("kubernetes.io/pvc-protection")
    )
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "one"}}
    world.cluster.put(kinds.POD, {"metadata": {"name": "app", "namespace": NS}, "spec": {"volumes": [volume]}})
    vrg = await world.write(replicationState="secondary", action="Failover")
    assert condition(vrg, "DataReady") == "False/Progressing@3"
    replication = world.cluster.look(kinds.VOLUME_REPLICATION, "one", NS) or {}
    assert replication["spec"]["replicationState"] == "primary"
    world.cluster.remove(kinds.POD, "app", NS)
    world.driver.wakes.add((NS, NAME))
    await world.settle()
    replication = world.cluster.look(kinds.VOLUME_REPLICATION, "one", NS) or {}
    assert (replication["spec"]["replicationState"], replication["spec"]["autoResync"]) == ("secondary", True)
    world.report("one", "Completed", "Degraded", "Resyncing", state="Unknown")
    vrg = await world.settle()
    assert world.cluster.look(kinds.VOLUME_REPLICATION, "one", NS) is None
    assert (vrg["status"]["state"], condition(vrg, "DataReady")) == ("Unknown", "False/Error@3")
    assert condition(vrg, "DataProtected") == "True/DataProtected@3"
    claim = world.cluster.look(kinds.PVC, "one", NS) or {}
    assert rules.owner_of(claim) is None
    world.cluster.edit(kinds.PVC, "one", NS, lambda body: body["metadata"].update(finalizers=[], deletionTimestamp="t"))
    vrg = await world.settle()
    assert (vrg["status"]["state"], condition(vrg, "DataReady")) == ("Secondary", "True/Unused@3")


async def test_empty_store_at_promotion_gives_a_primary_with_nothing(world: World) -> None:
    await world.create(group("secondary"))
    vrg = await world.write(replicationState="primary", action="Failover")
    assert vrg["status"]["state"] == "Primary"
    assert condition(vrg, "ClusterDataReady") == "True/Restored@3"
    assert "protectedPVCs" not in vrg["status"]


async def stored_application(world: World) -> None:
    """Fills the stores as another cluster's primary does, and leaves this cluster as secondary."""
    source = World()
    source.buckets = world.buckets
    source.driver = Driver("c2", world.buckets)
    source.cluster = source.driver.cluster
    await source.primary_with("one", "two")
    await world.create(group("secondary"))


async def test_promotion_restores_pvs_and_pvcs(world: World) -> None:
    await stored_application(world)
    vrg = await world.write(replicationState="primary", action="Failover")
    pv = world.cluster.look(kinds.PV, "pv-one") or {}
    assert pv["spec"]["claimRef"] == {"namespace": NS, "name": "one"}
    assert pv["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert pv["metadata"]["annotations"] == {names.RESTORED_BY_RAMEN: "True", rules.RETAINED: "retained"}
    claim = world.cluster.look(kinds.PVC, "one", NS) or {}
    assert claim["spec"]["volumeName"] == "pv-one"
    assert claim["metadata"]["annotations"] == {names.RESTORED_BY_RAMEN: "True"}
    assert rules.owner_of(claim) == (NS, NAME)
    shown = [(condition(v, "ClusterDataReady"), condition(v, "DataReady")) for v in world.driver.versions[-2:]]
    assert shown == [("True/Restored@3", "False/Error@3"), ("True/Restored@3", "False/Progressing@3")]
    assert vrg["status"]["state"] == "Unknown"


async def test_promotion_with_stores_down_waits_and_goes_on(world: World) -> None:
    await stored_application(world)
    world.first.down = world.second.down = True
    vrg = await world.write(replicationState="primary", action="Failover")
    assert condition(vrg, "ClusterDataReady") == "False/Error@3"
    assert condition(vrg, "DataReady") == "True/Unused@2", "not reached, so of the old generation"
    assert vrg["status"]["state"] == "Unknown"
    world.second.down = False
    vrg = await world.settle()
    assert condition(vrg, "ClusterDataReady") == "True/Restored@3"
    assert world.cluster.look(kinds.PVC, "two", NS) is not None


async def test_unequal_numbers_of_pvs_and_pvcs_count_as_nothing_to_restore(world: World) -> None:
    await stored_application(world)
    for bucket in world.buckets.values():
        del bucket.items[names.pv_prefix(NS, NAME) + "pv-one"]
    vrg = await world.write(replicationState="primary", action="Failover")
    assert condition(vrg, "ClusterDataReady") == "True/Restored@3"
    assert world.cluster.look(kinds.PVC, "two", NS) is None


async def test_two_pvs_for_one_claim_stop_the_restore(world: World) -> None:
    await stored_application(world)
    for bucket in world.buckets.values():
        key = names.pv_prefix(NS, NAME) + "pv-one"
        twin = decode(bucket.items[key])
        twin["spec"]["claimRef"]["name"] = "two"
        bucket.seed(key, twin)
    vrg = await world.write(replicationState="primary", action="Failover")
    assert condition(vrg, "ClusterDataReady") == "False/Error@3"
    assert world.cluster.look(kinds.PV, "pv-one") is None


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        ({}, True),
        ({"metadata": {"deletionTimestamp": "t", "finalizers": ["x"]}}, False),
        ({"spec": {"volumeName": "other"}}, False),
        ({"status": {"phase": "Pending"}}, False),
    ],
)
async def test_existing_objects_are_adopted_only_if_they_fit(world: World, change: Object, accepted: bool) -> None:
    await stored_application(world)
    for name in ("one", "two"):
        world.volume(name, app="left-over")
    for part, values in change.items():
        world.cluster.edit(kinds.PVC, "one", NS, lambda body, p=part, v=values: body[p].update(copy.deepcopy(v)))
    vrg = await world.write(replicationState="primary", action="Failover")
    assert condition(vrg, "ClusterDataReady") == ("True/Restored@3" if accepted else "False/Error@3")


async def test_upload_stops_at_the_first_store_that_fails(world: World) -> None:
    world.volume("one")
    world.first.down = True
    await world.create(group())
    world.report("one", "Completed")
    vrg = await world.settle()
    assert condition(vrg, "ClusterDataReady") == "True/Restored@2", "the second store could be read"
    assert vrg["status"]["state"] == "Primary", "uploads do not hold the promotion"
    assert condition(vrg, "ClusterDataProtected").startswith("False/")
    assert world.second.items == {}
    world.first.down = False
    vrg = await world.settle()
    assert condition(vrg, "ClusterDataProtected") == "True/Uploaded@2"
    assert VRG_KEY in world.second.items


async def test_store_that_fails_after_the_volumes_shows_in_the_vrg_upload(world: World) -> None:
    await world.primary_with("one")
    world.second.down = True
    world.report("one", "Completed", lastSyncTime="2026-01-01T00:00:00Z")
    await world.settle()
    world.report("one", "Completed", lastSyncTime="2026-01-01T00:00:05Z")
    vrg = await world.settle()
    assert condition(vrg, "ClusterDataProtected") == "False/VolumeReplicationGroupObjectCaptureError@2"


async def test_one_unknown_profile_keeps_the_vrg_out_of_all_stores(world: World) -> None:
    world.volume("one")
    await world.create(group(s3Profiles=["s3-c1", "unknown"]))
    world.report("one", "Completed")
    vrg = await world.settle()
    assert condition(vrg, "ClusterDataProtected") == "False/UploadError@2"
    assert names.pv_prefix(NS, NAME) + "pv-one" in world.first.items, "the store before the unknown name was written"
    assert VRG_KEY not in world.first.items
    extra = CONFIG.replace("s3-c2", "unknown")
    world.driver.configure(extra)
    vrg = await world.settle()
    assert condition(vrg, "ClusterDataProtected") == "True/Uploaded@2", "a changed configuration wakes the VRG"
    assert VRG_KEY in world.first.items


async def test_empty_profile_list_stops_before_everything(world: World) -> None:
    vrg = await world.create(group(s3Profiles=[]))
    assert condition(vrg, "ClusterDataReady") == "False/Error@2"
    assert condition(vrg, "DataReady") == "Unknown/Initializing@2"


async def test_no_s3_marker_is_skipped_for_the_vrg_and_fails_volumes(world: World) -> None:
    world.volume("one")
    await world.create(group(s3Profiles=["NoS3"]))
    world.report("one", "Completed")
    vrg = await world.settle()
    assert vrg["status"]["state"] == "Primary"
    assert condition(vrg, "ClusterDataProtected") == "False/UploadError@2"


async def test_restarted_operator_uploads_every_primary_once(world: World) -> None:
    await world.primary_with("one")
    await world.settle()
    for bucket in world.buckets.values():
        bucket.puts.clear()
    world.driver.start()
    world.driver.wakes.add((NS, NAME))
    await world.settle()
    assert world.first.puts == [VRG_KEY], "volumes are archived already"
    assert world.second.puts == [VRG_KEY]


async def test_secondary_goes_without_touching_the_stores(world: World) -> None:
    await stored_application(world)
    before = [dict(bucket.items) for bucket in world.buckets.values()]
    world.cluster.remove(kinds.VRG, NAME, NS)
    world.driver.versions.clear()
    assert await world.settle() == {}
    assert [bucket.items for bucket in world.buckets.values()] == before
    assert world.driver.versions == [], "no status is written during a deletion"


async def test_primary_goes_when_its_stores_are_empty_and_its_volumes_free(world: World) -> None:
    await world.primary_with("one")
    world.second.down = True
    world.cluster.remove(kinds.VRG, NAME, NS)
    vrg = await world.settle()
    assert vrg["status"]["observedGeneration"] == vrg["metadata"]["generation"] - 1
    world.second.down = False
    assert await world.settle() == {}
    assert world.first.items == world.second.items == {}
    claim = world.cluster.look(kinds.PVC, "one", NS) or {}
    assert not rules.has_finalizer(claim)
    assert (world.cluster.look(kinds.PV, "pv-one") or {})["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert world.cluster.look(kinds.VOLUME_REPLICATION, "one", NS) is None


async def test_primary_whose_promotion_hangs_cannot_be_deleted(world: World) -> None:
    world.volume("one")
    await world.create(group())
    world.cluster.remove(kinds.VRG, NAME, NS)
    assert (await world.settle())["metadata"]["finalizers"] == [names.VRG_FINALIZER]
    world.report("one", "Completed")
    assert await world.settle() == {}


async def test_aborted_failover_leaves_the_restored_volumes_unmarked(world: World) -> None:
    await stored_application(world)
    await world.write(replicationState="primary", action="Failover")
    for name in ("one", "two"):
        world.cluster.edit(kinds.PVC, name, NS, lambda body: body.update(status={"phase": "Bound"}))
        world.cluster.edit(kinds.PV, f"pv-{name}", "", lambda body: body.update(status={"phase": "Bound"}))
    await world.settle()
    await world.write(replicationState="secondary")
    for name in ("one", "two"):
        world.report(name, "Completed", state="Secondary")
    vrg = await world.settle()
    assert (vrg["status"]["state"], condition(vrg, "DataReady")[:11]) == ("Unknown", "False/Error")
    assert rules.owner_of(world.cluster.look(kinds.PVC, "one", NS) or {}) is None


async def test_invalid_spec(world: World) -> None:
    vrg = await world.create(group("Primary"))
    assert (vrg["status"]["state"], condition(vrg, "DataReady")) == ("Unknown", "False/Error@1")
    assert "finalizers" not in vrg["metadata"]
    world.cluster.remove(kinds.VRG, NAME, NS)
    assert await world.settle() == {}


async def test_spec_made_invalid_and_repaired_during_deletion(world: World) -> None:
    await world.create(group("secondary"))
    await world.write(replicationState="nonsense")
    world.cluster.remove(kinds.VRG, NAME, NS)
    vrg = await world.settle()
    assert vrg["status"]["observedGeneration"] == vrg["metadata"]["generation"]
    assert condition(vrg, "DataReady").startswith("False/Error")
    assert await world.write(replicationState="secondary") == {}


async def test_unclassifiable_volume_fails_the_list_until_its_class_exists(world: World) -> None:
    world.volume("one")
    world.cluster.edit(kinds.PVC, "one", NS, lambda body: body["spec"].update(storageClassName="other"))
    vrg = await world.create(group())
    assert condition(vrg, "DataReady") == "False/Error@1"
    assert "finalizers" not in vrg["metadata"]
    other = world.cluster.look(kinds.STORAGE_CLASS, "rook-ceph-block") or {}
    other["metadata"]["name"] = "other"
    world.cluster.put(kinds.STORAGE_CLASS, other)
    vrg = await world.settle()
    assert condition(vrg, "DataReady") == "False/Progressing@2"


async def test_dry_run_restores_but_uploads_nothing(world: World) -> None:
    await stored_application(world)
    for bucket in world.buckets.values():
        bucket.puts.clear()
    await world.write(replicationState="primary", action="Failover", dryRun=True)
    for name in ("one", "two"):
        world.cluster.edit(kinds.PVC, name, NS, lambda body: body.update(status={"phase": "Bound"}))
    await world.settle()
    for name in ("one", "two"):
        world.report(name, "Completed")
    vrg = await world.settle()
    assert vrg["status"]["state"] == "Primary"
    assert condition(vrg, "ClusterDataProtected") == "False/Uploading@3"
    assert world.first.puts == []
