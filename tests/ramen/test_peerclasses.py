"""Peer classes by the cases of drpc.md 8.7: each row says which classes two clusters have, and what follows."""

from __future__ import annotations

from typing import Any

import pytest

from ramen import names
from ramen.parts import PeerClass
from ramen.peerclasses import Classes, Peers, discover, unmatched, update

CSI = "csi.example"


def labelled(name: str, **labels: str) -> dict[str, Any]:
    prefix = "ramendr.openshift.io/"
    return {"metadata": {"name": name, "labels": {prefix + key: value for key, value in labels.items()}}}


def sc(storageid: str, name: str = "block", provisioner: str = CSI, **labels: str) -> dict[str, Any]:
    """A StorageClass."""
    given = {"storageid": storageid} if storageid else {}
    return labelled(name, **given, **labels) | {"provisioner": provisioner}


def snap(storageid: str, driver: str = CSI, name: str = "snap") -> dict[str, Any]:
    """A VolumeSnapshotClass or VolumeGroupSnapshotClass."""
    return labelled(name, storageid=storageid) | {"driver": driver}


def vrc(storageid: str, replicationid: str = "r", interval: str = "1m", name: str = "vrc") -> dict[str, Any]:
    """A VolumeReplicationClass."""
    labels = {"storageid": storageid} | ({"replicationid": replicationid} if replicationid else {})
    return labelled(name, **labels) | {"spec": {"provisioner": CSI, "parameters": {"schedulingInterval": interval}}}


def vgrc(storageid: str, group: str = "g", name: str = "vgrc", **labels: str) -> dict[str, Any]:
    """A VolumeGroupReplicationClass."""
    return labelled(name, storageid=storageid, groupreplicationid=group, **labels) | {
        "spec": {"provisioner": CSI, "parameters": {"schedulingInterval": "1m"}}
    }


def cluster(number: int, *storage: dict[str, Any], **classes: Any) -> Classes:
    return Classes(f"dr{number}", f"uid{number}", list(storage), **classes)


def pair(first: dict[str, Any], second: dict[str, Any]) -> list[Classes]:
    return [
        Classes("dr1", "uid1", **{key: list(value) for key, value in first.items()}),
        Classes("dr2", "uid2", **{key: list(value) for key, value in second.items()}),
    ]


def missing(clusters: list[Classes], interval: str) -> list[str]:
    first, second = clusters
    return unmatched(first, second, interval)


def sync(name: str = "block", storage: str = "s") -> PeerClass:
    return PeerClass(storage_class_name=name, storage_id=[storage], cluster_ids=["uid1", "uid2"])


def peer(replication: str = "", group: str = "", name: str = "block", **more: Any) -> PeerClass:
    return PeerClass(
        storage_class_name=name,
        storage_id=more.pop("storage", ["s1", "s2"]),
        cluster_ids=more.pop("uids", ["uid1", "uid2"]),
        replication_id=replication,
        groupreplication_id=group,
        grouping=more.pop("grouping", bool(group)),
        **more,
    )


S1, S2 = {"storage": [sc("s1")]}, {"storage": [sc("s2")]}
OFF1, OFF2 = {"storage": [sc("s1", offloaded="")]}, {"storage": [sc("s2", offloaded="")]}
CHOOSY1 = {"storage": [sc("s1", groupreplicationid="g2")]}
CHOOSY2 = {"storage": [sc("s2", groupreplicationid="g2")]}


@pytest.mark.parametrize("clusters", [[], [cluster(1, sc("s"))]], ids=["no clusters", "one cluster"])
def test_less_than_two_clusters_have_no_peers(clusters: list[Classes]) -> None:
    assert discover(clusters, "1m") == Peers()


SYNC_CASES: dict[str, tuple[Any, Any, list[PeerClass]]] = {
    "same storageid": ({"storage": [sc("s")]}, {"storage": [sc("s")]}, [sync()]),
    "same storageid on several classes": (
        {"storage": [sc("s"), sc("t", "file")]},
        {"storage": [sc("t", "file"), sc("s")]},
        [sync(), sync("file", "t")],
    ),
    "two classes share a storageid, provisioners differ": (
        {"storage": [sc("s"), sc("s", "file", "file.csi")]},
        {"storage": [sc("s"), sc("s", "file", "file.csi")]},
        [sync(), sync("file")],
    ),
    "provisioners of the two clusters are not compared": (
        {"storage": [sc("s")]},
        {"storage": [sc("s", provisioner="other")]},
        [sync()],
    ),
    "same storageid, different names": ({"storage": [sc("s", "a")]}, {"storage": [sc("s", "b")]}, []),
    "same name once without storageid": ({"storage": [sc("s")]}, {"storage": [sc("")]}, []),
    "a cluster without DR storage": ({"storage": [sc("s")]}, {}, []),
    "offloaded with equal storageid": (
        {"storage": [sc("s", offloaded="")]},
        {"storage": [sc("s", offloaded="")]},
        [sync()],
    ),
}


@pytest.mark.parametrize("case", SYNC_CASES)
@pytest.mark.parametrize("interval", ["", "1m"])
def test_sync_peers(case: str, interval: str) -> None:
    first, second, wanted = SYNC_CASES[case]
    assert discover(pair(first, second), interval) == Peers(sync=wanted)


ASYNC_CASES: dict[str, tuple[Any, Any, list[PeerClass]]] = {
    "no further classes": (S1, S2, []),
    "unrelated VRC": (S1 | {"replication": [vrc("x")]}, S2 | {"replication": [vrc("y")]}, []),
    "unrelated VSC": (S1 | {"snapshot": [snap("x")]}, S2 | {"snapshot": [snap("y")]}, []),
    "unrelated VRC and VSC": (
        S1 | {"replication": [vrc("x")], "snapshot": [snap("x")]},
        S2 | {"replication": [vrc("y")], "snapshot": [snap("y")]},
        [],
    ),
    "VRC pair": (S1 | {"replication": [vrc("s1")]}, S2 | {"replication": [vrc("s2")]}, [peer("r")]),
    "VRC pair among others": (
        S1 | {"replication": [vrc("x"), vrc("s1", "q"), vrc("s1")]},
        S2 | {"replication": [vrc("s2"), vrc("s2", "z")]},
        [peer("r")],
    ),
    "VRC and VSC pairs: replication wins": (
        S1 | {"replication": [vrc("s1")], "snapshot": [snap("s1")]},
        S2 | {"replication": [vrc("s2")], "snapshot": [snap("s2")]},
        [peer("r")],
    ),
    "VSC pair": (S1 | {"snapshot": [snap("s1")]}, S2 | {"snapshot": [snap("s2")]}, [peer()]),
    "VSC on one side only": (S1 | {"snapshot": [snap("s1")]}, S2, []),
    "VSC driver is not the provisioner": (
        S1 | {"snapshot": [snap("s1")]},
        S2 | {"snapshot": [snap("s2", "other")]},
        [],
    ),
    "VRC without replicationid": (
        S1 | {"replication": [vrc("s1", "")]},
        S2 | {"replication": [vrc("s2", "")]},
        [],
    ),
    "VRC on one side without replicationid": (
        S1 | {"replication": [vrc("s1")]},
        S2 | {"replication": [vrc("s2", "")]},
        [],
    ),
    "VRC of another schedule": (
        S1 | {"replication": [vrc("s1")]},
        S2 | {"replication": [vrc("s2", interval="5m")]},
        [],
    ),
    "VRC replicationids differ": (
        S1 | {"replication": [vrc("s1", "a")]},
        S2 | {"replication": [vrc("s2", "b")]},
        [],
    ),
    "several classes with the same IDs": (
        {"storage": [sc("s1"), sc("s1", "fast")], "replication": [vrc("s1")], "group_replication": [vgrc("s1")]},
        {"storage": [sc("s2"), sc("s2", "fast")], "replication": [vrc("s2")], "group_replication": [vgrc("s2")]},
        [peer("r", "g"), peer("r", "g", "fast")],
    ),
    "VGRC pair beside a VRC pair": (
        S1 | {"replication": [vrc("s1")], "group_replication": [vgrc("s1")]},
        S2 | {"replication": [vrc("s2")], "group_replication": [vgrc("s2")]},
        [peer("r", "g")],
    ),
    "VGRC pair without VRC": (S1 | {"group_replication": [vgrc("s1")]}, S2 | {"group_replication": [vgrc("s2")]}, []),
    "VGRC pair without VRC: the group is dropped, snapshots serve": (
        S1 | {"group_replication": [vgrc("s1")], "snapshot": [snap("s1")]},
        S2 | {"group_replication": [vgrc("s2")], "snapshot": [snap("s2")]},
        [peer()],
    ),
    "VGSC pair": (
        S1 | {"group_snapshot": [snap("s1")]},
        S2 | {"group_snapshot": [snap("s2")]},
        [peer(grouping=True)],
    ),
    "VGSC and VSC pairs": (
        S1 | {"group_snapshot": [snap("s1")], "snapshot": [snap("s1")]},
        S2 | {"group_snapshot": [snap("s2")], "snapshot": [snap("s2")]},
        [peer(grouping=True)],
    ),
    "VGSC on one side, VSC on both": (
        S1 | {"group_snapshot": [snap("s1")], "snapshot": [snap("s1")]},
        S2 | {"snapshot": [snap("s2")]},
        [peer()],
    ),
    "several VGRCs and VGSCs": (
        S1
        | {
            "replication": [vrc("s1")],
            "group_replication": [vgrc("x", "h"), vgrc("s1")],
            "group_snapshot": [snap("x"), snap("s1")],
        },
        S2
        | {
            "replication": [vrc("s2")],
            "group_replication": [vgrc("s2"), vgrc("y", "h")],
            "group_snapshot": [snap("s2"), snap("y")],
        },
        [peer("r", "g")],
    ),
    "two VGRCs share a storageid: the StorageClass chooses": (
        CHOOSY1 | {"replication": [vrc("s1")], "group_replication": [vgrc("s1", "g1"), vgrc("s1", "g2")]},
        CHOOSY2 | {"replication": [vrc("s2")], "group_replication": [vgrc("s2", "g1"), vgrc("s2", "g2")]},
        [peer("r", "g2")],
    ),
    "the StorageClass chooses a group that is not there": (
        CHOOSY1 | {"replication": [vrc("s1")], "group_replication": [vgrc("s1", "g1")]},
        CHOOSY2 | {"replication": [vrc("s2")], "group_replication": [vgrc("s2", "g1")]},
        [peer("r")],
    ),
    "offloaded with a group": (
        OFF1 | {"group_replication": [vgrc("s1")]},
        OFF2 | {"group_replication": [vgrc("s2")]},
        [peer("", "g", offloaded=True)],
    ),
    "offloaded with a group and a VRC pair": (
        OFF1 | {"group_replication": [vgrc("s1")], "replication": [vrc("s1")]},
        OFF2 | {"group_replication": [vgrc("s2")], "replication": [vrc("s2")]},
        [peer("", "g", offloaded=True)],
    ),
    "offloaded without a group": (
        OFF1 | {"replication": [vrc("s1")], "snapshot": [snap("s1")]},
        OFF2 | {"replication": [vrc("s2")], "snapshot": [snap("s2")]},
        [],
    ),
    "offloaded on one side only": (
        OFF1 | {"group_replication": [vgrc("s1")], "replication": [vrc("s1")]},
        S2 | {"group_replication": [vgrc("s2")], "replication": [vrc("s2")]},
        [],
    ),
    "global on both": (
        OFF1 | {"group_replication": [vgrc("s1", **{"global": "true"})]},
        OFF2 | {"group_replication": [vgrc("s2", **{"global": "true"})]},
        [peer("", "g", offloaded=True, global_=True)],
    ),
    "global on one": (
        OFF1 | {"group_replication": [vgrc("s1", **{"global": "true"})]},
        OFF2 | {"group_replication": [vgrc("s2")]},
        [peer("", "g", offloaded=True)],
    ),
    "global but not offloaded": (
        S1 | {"replication": [vrc("s1")], "group_replication": [vgrc("s1", **{"global": "true"})]},
        S2 | {"replication": [vrc("s2")], "group_replication": [vgrc("s2", **{"global": "true"})]},
        [peer("r", "g")],
    ),
}


@pytest.mark.parametrize("case", ASYNC_CASES)
def test_async_peers(case: str) -> None:
    first, second, wanted = ASYNC_CASES[case]
    assert discover(pair(first, second), "1m") == Peers(async_=wanted)


@pytest.mark.parametrize("case", ASYNC_CASES)
def test_without_an_interval_nothing_is_async(case: str) -> None:
    first, second, _ = ASYNC_CASES[case]
    assert discover(pair(first, second), "") == Peers()


@pytest.mark.parametrize("case", ASYNC_CASES)
def test_a_class_without_a_peer_is_named(case: str) -> None:
    first, second, wanted = ASYNC_CASES[case]
    lines = missing(pair(first, second), "1m")
    assert bool(lines) != bool(wanted)
    assert all(line.startswith("StorageClass block") for line in lines)


def test_four_clusters_in_two_async_pairs_are_reported_separately() -> None:
    clusters = [
        cluster(1, sc("s1"), replication=[vrc("s1", "left")]),
        cluster(2, sc("s2"), replication=[vrc("s2", "left")]),
        cluster(3, sc("s3"), replication=[vrc("s3", "right")]),
        cluster(4, sc("s4"), replication=[vrc("s4", "right")]),
    ]
    assert discover(clusters, "1m").async_ == [
        peer("left"),
        peer("right", storage=["s3", "s4"], uids=["uid3", "uid4"]),
    ]


def test_mixed_sync_and_async_are_reported_separately() -> None:
    first = {"storage": [sc("shared", "metro"), sc("s1")], "replication": [vrc("s1")]}
    second = {"storage": [sc("shared", "metro"), sc("s2")], "replication": [vrc("s2")]}
    assert discover(pair(first, second), "1m") == Peers([sync("metro", "shared")], [peer("r")])


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({}, "StorageClass block of dr1 does not exist on dr2"),
        ({"storage": [sc("")]}, "has no label ramendr.openshift.io/storageid on dr2"),
        (S2, "dr2 has none of provisioner csi.example"),
        (S2 | {"replication": [vrc("s2", interval="5m", name="slow")]}, "dr2: slow has schedulingInterval 5m"),
        (S2 | {"replication": [vrc("zz", name="odd")]}, "odd has ramendr.openshift.io/storageid zz"),
        (S2 | {"replication": [vrc("s2", "", name="bare")]}, "bare has no label ramendr.openshift.io/replicationid"),
        (S2 | {"replication": [vrc("s2", "q")]}, "differ: r on dr1; q on dr2"),
        (OFF2, "has the label ramendr.openshift.io/offloaded on dr2 only"),
    ],
)
def test_what_does_not_match_is_said(second: dict[str, Any], words: str) -> None:
    lines = missing(pair(S1 | {"replication": [vrc("s1")]}, second), "1m")
    assert len(lines) == 1
    assert words in lines[0]


def test_two_storages_need_an_interval() -> None:
    assert "needs a policy with a schedulingInterval" in missing(pair(S1, S2), "")[0]


A, B, C = (peer("r", name=name) for name in "abc")


@pytest.mark.parametrize(
    ("known", "found", "wanted"),
    [
        ([], [A, B], [A, B]),
        ([B, A], [A, B], [B, A]),
        ([B, A], [A, C], [A, C]),
        ([A], [A.model_copy(update={"replication_id": "new"})], [A.model_copy(update={"replication_id": "new"})]),
        ([peer("r", "g", "a")], [peer("r", "h", "a")], [peer("r", "h", "a")]),
        ([peer("r", "g", "a"), B], [B, peer("r", "h", "a")], [B, peer("r", "h", "a")]),
        ([A, B], [B, peer("r", "g", "a")], [peer("r", "g", "a"), B]),
        ([A], [], []),
    ],
    ids=[
        "new",
        "order is kept",
        "gone and new",
        "refreshed",
        "one of another group",
        "moved",
        "group came",
        "all gone",
    ],
)
def test_the_stored_list_keeps_its_order(known: Any, found: Any, wanted: Any) -> None:
    assert update(known, found) == wanted


def test_names_are_ramens() -> None:
    assert {names.OFFLOADED, names.GLOBAL, names.GROUP_REPLICATION_ID} == {
        f"ramendr.openshift.io/{name}" for name in ("offloaded", "global", "groupreplicationid")
    }
