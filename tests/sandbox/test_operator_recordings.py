"""The stand-in operator against recordings of the real one: same spec changes, same storage events, same writes.

Who wrote what is derived from each recorded version: the operator under test makes its own writes, everybody else's
are played. Compared is the sequence of what an orchestrator can gate on.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ramen import kinds, names
from ramen.kinds import Kind
from sandbox.standins import vrg_conditions as cond
from sandbox.standins import vrg_reconcile as rules
from sandbox.standins.operator_store import decode
from tests.sandbox.operator_fakes import Driver, FakeBucket

Object = dict[str, Any]

HERE = Path(__file__).resolve().parents[2]
RECORDINGS = Path(os.environ.get("HUBLESS_RECORDINGS") or HERE.parent / "shared" / "ramen" / "traces")

pytestmark = pytest.mark.skipif(
    not (RECORDINGS / "async-deploy").is_dir(),
    reason="no recordings of the real operator: set HUBLESS_RECORDINGS to their directory",
)

KINDS = {"vrg": kinds.VRG, "pvc": kinds.PVC, "pv": kinds.PV, "vr": kinds.VOLUME_REPLICATION}
GATED = (
    cond.DATA_READY,
    cond.DATA_PROTECTED,
    cond.CLUSTER_DATA_READY,
    cond.KUBE_OBJECTS_READY,
    cond.CLUSTER_DATA_PROTECTED,
    cond.NO_CONFLICT,
)
BEGINNING = 0.35
"""Seconds: versions before that are the state at the beginning of a recording (the first action is at 0.38)."""

FOREIGN_FINALIZERS = (
    "kubernetes.io/pvc-protection",
    "kubernetes.io/pv-protection",
    "replication.storage.openshift.io",
    "replication.storage.openshift.io/pvc-protection",
)
FOREIGN_ANNOTATIONS = ("pv.kubernetes.io/", "replication.storage.openshift.io/")


@dataclass(frozen=True)
class Line:
    """One recorded version of an object."""

    at: float
    kind: Kind
    cluster: str
    type: str
    object: Object


def read(folder: str) -> list[Line]:
    lines = []
    for short, kind in KINDS.items():
        for path in sorted((RECORDINGS / folder).glob(f"{short}.*.jsonl")):
            for text in path.read_text().splitlines():
                row = json.loads(text)
                lines.append(Line(row["t"], kind, path.name.split(".")[1], row["type"], row["object"]))
    return sorted(lines, key=lambda line: line.at)


def seed(folder: str, buckets: dict[str, FakeBucket]) -> None:
    """Fills the stores with what the recording found in them at its start."""
    looks = json.loads((RECORDINGS / folder / "s3.json").read_text())
    start = next((look for look in looks if look["after"] == "start"), None)
    for name, found in ((start or {}).get("changed") or {}).items():
        for key, item in found.items():
            source = found if "object" in item else start["changed"]["bucket-c1"]
            buckets[name].seed(key, source[key]["object"])


def signature(vrg: Object) -> tuple[Any, ...]:
    """What an orchestrator can gate on in one version of a VRG."""
    status = vrg.get("status") or {}
    found = {item["type"]: item for item in status.get("conditions") or ()}
    shown = tuple(
        (kind, found[kind]["status"][0], found[kind]["reason"], found[kind].get("observedGeneration"))
        for kind in GATED
        if kind in found
    )
    flags = (bool(status.get("prepareForFinalSyncComplete")), bool(status.get("finalSyncComplete")))
    return (
        vrg["metadata"]["generation"],
        "deletionTimestamp" in vrg["metadata"],
        bool(vrg["metadata"].get("finalizers")),
        status.get("observedGeneration"),
        status.get("state"),
        bool(status.get("lastGroupSyncTime")),
        flags,
        shown,
    )


def collapsed(versions: Iterable[Object]) -> list[tuple[Any, ...]]:
    result: list[tuple[Any, ...]] = []
    for vrg in versions:
        item = signature(vrg)
        if not result or result[-1] != item:
            result.append(item)
    return result


class Replay:
    """Plays one recording's foreign writes to an operator per cluster."""

    def __init__(self, folder: str) -> None:
        self.lines = read(folder)
        self.buckets = {"bucket-c1": FakeBucket(), "bucket-c2": FakeBucket()}
        seed(folder, self.buckets)
        self.drivers = {cluster: Driver(cluster, self.buckets) for cluster in ("c1", "c2")}
        self.previous: dict[tuple[str, Kind, str], Object] = {}

    async def run(self, at: dict[float, Callable[[Replay], None]] | None = None) -> None:
        pending = sorted((at or {}).items())
        begun = False
        for line in self.lines:
            if line.at >= BEGINNING and not begun:
                begun = True
                await self._begin()
            while pending and pending[0][0] <= line.at:
                pending.pop(0)[1](self)
                await self._settle()
            key = (line.cluster, line.kind, line.object["metadata"]["name"])
            if line.kind is kinds.VRG and line.type == "DELETED":
                await self._settle()
            if line.at < BEGINNING:
                self._preload(line)
            elif not self._play(line, self.previous.get(key)):
                # A write of the real operator: it had seen what came before.
                await self._settle()
            self.previous[key] = line.object
        await self._settle()

    async def _settle(self) -> None:
        for driver in self.drivers.values():
            await driver.settle()

    async def _begin(self) -> None:
        """The operators have been running for long: what they would do first is done, and not compared."""
        await self._settle()
        for driver in self.drivers.values():
            driver.versions.clear()

    def _preload(self, line: Line) -> None:
        body = copy.deepcopy(line.object)
        driver = self.drivers[line.cluster]
        if line.kind is kinds.PVC:
            # Both operators hash a spec, each in its own way; the mark only has to be the operator's own.
            body["metadata"]["annotations"][rules.ARCHIVED] = rules.archive_mark(body)
            driver.cluster.put(kinds.POD, pod(body))
        if line.kind in (kinds.PVC, kinds.PV, kinds.VRG, kinds.VOLUME_REPLICATION):
            driver.cluster.put(line.kind, body)

    def _play(self, line: Line, before: Object | None) -> bool:
        """Applies what others than the operator did; True if that was anything."""
        cluster, body = self.drivers[line.cluster].cluster, line.object
        meta = body["metadata"]
        where = (line.kind, meta["name"], meta.get("namespace") or "")
        if line.kind is kinds.VRG:
            return self._play_vrg(line, before)
        if line.type == "ADDED":
            if line.kind is kinds.VOLUME_REPLICATION or "ramen-restore" in json.dumps(meta.get("annotations") or {}):
                return False
            cluster.put(line.kind, body)
            return True
        if line.type == "DELETED":
            if cluster.look(*where) is not None:
                cluster.remove(*where)
                if cluster.look(*where) is not None:
                    cluster.edit(*where, without_foreign_finalizers)
            return True
        assert before is not None
        if "deletionTimestamp" in meta and "deletionTimestamp" not in before["metadata"]:
            if line.kind is kinds.VOLUME_REPLICATION:
                return False
            if line.kind is kinds.PVC:
                for name, namespace in [(name, ns) for ns, name in cluster.objects.get(kinds.POD, {})]:
                    cluster.remove(kinds.POD, name, namespace)
            cluster.remove(*where)
            return True
        changed = foreign_change(before, body)
        if changed is None:
            return False
        cluster.edit(*where, changed)
        return True

    def _play_vrg(self, line: Line, before: Object | None) -> bool:
        cluster, body = self.drivers[line.cluster].cluster, line.object
        meta = body["metadata"]
        where = (kinds.VRG, meta["name"], meta["namespace"])
        if line.type == "ADDED":
            cluster.put(kinds.VRG, body)
            return True
        if line.type == "DELETED":
            assert cluster.look(*where) is None, "the stand-in still holds a VRG that the real operator let go"
            return False
        assert before is not None
        if "deletionTimestamp" in meta and "deletionTimestamp" not in before["metadata"]:
            cluster.remove(*where)
            return True
        if body["spec"] != before["spec"]:
            cluster.edit(*where, lambda found: found.update(spec=copy.deepcopy(body["spec"])))
            return True
        return False


def pod(pvc: Object) -> Object:
    """A pod that uses the PVC."""
    meta = pvc["metadata"]
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": meta["name"]}}
    return {
        "metadata": {"name": f"pod-{meta['name']}", "namespace": meta["namespace"]},
        "spec": {"volumes": [volume]},
    }


def without_foreign_finalizers(body: Object) -> None:
    kept = [item for item in body["metadata"].get("finalizers") or () if item not in FOREIGN_FINALIZERS]
    body["metadata"]["finalizers"] = kept


def foreign_change(before: Object, after: Object) -> Callable[[Object], None] | None:
    """The part of a change that binder, protection controllers and storage made; None if it was the operator's."""
    status = after.get("status") if after.get("status") != before.get("status") else None
    spec = {
        key: after["spec"][key]
        for key in ("volumeName", "claimRef")
        if after["spec"].get(key) != before["spec"].get(key)
    }

    def finalizers(body: Object) -> set[str]:
        return {item for item in body["metadata"].get("finalizers") or () if item in FOREIGN_FINALIZERS}

    def annotations(body: Object) -> Object:
        found = body["metadata"].get("annotations") or {}
        return {key: value for key, value in found.items() if key.startswith(FOREIGN_ANNOTATIONS)}

    added, removed = finalizers(after) - finalizers(before), finalizers(before) - finalizers(after)
    new_annotations, old_annotations = annotations(after), annotations(before)
    if status is None and not spec and not added and not removed and new_annotations == old_annotations:
        return None

    def change(body: Object) -> None:
        if status is not None:
            body["status"] = copy.deepcopy(status)
        body["spec"].update(copy.deepcopy(spec))
        meta = body["metadata"]
        meta["finalizers"] = [item for item in meta.get("finalizers") or () if item not in removed] + sorted(added)
        kept = {key: value for key, value in (meta.get("annotations") or {}).items() if key not in old_annotations}
        meta["annotations"] = {**kept, **new_annotations}

    return change


def optional(item: tuple[Any, ...]) -> bool:
    """AnnotationFailed shows only when storage and operator write a PVC at the same moment (vrg.md 1.5.3)."""
    return any(kind == cond.CLUSTER_DATA_PROTECTED and reason == "AnnotationFailed" for kind, _, reason, _ in item[7])


def real_writes(replay: Replay, cluster: str) -> list[tuple[Any, ...]]:
    lines = (line for line in replay.lines if line.kind is kinds.VRG and line.cluster == cluster)
    versions = [line.object for line in lines if line.at >= BEGINNING and line.type != "DELETED"]
    return [item for item in collapsed(versions) if not optional(item)]


def own_writes(replay: Replay, cluster: str) -> list[tuple[Any, ...]]:
    return [item for item in collapsed(replay.drivers[cluster].versions) if not optional(item)]


@pytest.mark.parametrize("folder", ["async-deploy", "failover-source-alive", "relocate", "unprotect"])
async def test_same_writes_as_the_real_operator(folder: str) -> None:
    replay = Replay(folder)
    await replay.run()
    for cluster in ("c1", "c2"):
        assert real_writes(replay, cluster), "the recording shows nothing of this cluster"
        assert own_writes(replay, cluster) == real_writes(replay, cluster)


async def test_unprotect_empties_the_stores() -> None:
    replay = Replay("unprotect")
    assert all(bucket.items for bucket in replay.buckets.values())
    await replay.run()
    assert [bucket.items for bucket in replay.buckets.values()] == [{}, {}]


async def test_former_primary_that_returns_overwrites_the_vrg_in_all_stores() -> None:
    replay = Replay("failover-source-down")
    key = names.vrg_key("web", "web-drpc")
    seen: dict[str, list[int]] = {"before": [], "after": []}

    def generations() -> list[int]:
        return [decode(bucket.items[key])["metadata"]["generation"] for bucket in replay.buckets.values()]

    def stops(replay: Replay) -> None:
        replay.drivers["c1"].stop()

    def returns(replay: Replay) -> None:
        seen["before"] = generations()
        replay.drivers["c1"].start()

    def later(replay: Replay) -> None:
        seen["after"] = generations()

    await replay.run({0.44: stops, 17.39: returns, 17.5: later})
    assert seen == {"before": [2, 2], "after": [1, 1]}
    assert generations() == [2, 2], "the new primary's next pass with a new version repairs it"
    for cluster in ("c1", "c2"):
        assert own_writes(replay, cluster) == real_writes(replay, cluster)
