"""An API server and a store in memory, and a driver that lets the operator's passes run until nothing more happens."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

from activities.access.protocol import Object, WatchEvent
from ramen import kinds, names
from ramen.errors import AlreadyExists, Conflict, HublessError, NotFound, StoreUnreachable
from ramen.kinds import Kind
from sandbox.standins.operator import Operator
from sandbox.standins.operator_pass import reconcile
from sandbox.standins.operator_store import Profile, encode
from sandbox.standins.runtime import Name

PASSES = 300
"""More passes than any transition needs; reaching it means that the operator never comes to rest."""


class FakeCluster:
    """`ClusterAccess` in memory: versions, generations, finalizers, status subresource, instant watches."""

    name = "fake"

    def __init__(self) -> None:
        self.objects: dict[Kind, dict[Name, Object]] = {}
        self.version = 0
        self.writes = 0
        self.listeners: list[Callable[[Kind, WatchEvent], None]] = []

    def put(self, kind: Kind, body: Object) -> Object:
        """Stores an object as it is, as somebody else's write."""
        body = {"apiVersion": kind.api_version, "kind": kind.kind, **copy.deepcopy(body)}
        key = (body["metadata"].get("namespace") or "", body["metadata"]["name"])
        known = self.objects.setdefault(kind, {})
        event = "MODIFIED" if key in known else "ADDED"
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        body["metadata"].setdefault("uid", f"uid-{self.version}")
        gone = "deletionTimestamp" in body["metadata"] and not body["metadata"].get("finalizers")
        if gone:
            known.pop(key, None)
        else:
            known[key] = body
        if not gone or event == "MODIFIED":
            for listener in self.listeners:
                listener(kind, WatchEvent("DELETED" if gone else event, copy.deepcopy(body)))  # type: ignore[arg-type]
        return copy.deepcopy(body)

    def look(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        found = self.objects.get(kind, {}).get((namespace if kind.namespaced else "", name))
        return copy.deepcopy(found)

    def edit(self, kind: Kind, name: str, namespace: str, change: Callable[[Object], None]) -> None:
        """Changes an object as somebody else; a changed spec raises the generation."""
        body = self.look(kind, name, namespace)
        assert body is not None, f"{kind.kind} {namespace}/{name} does not exist"
        spec = copy.deepcopy(body.get("spec"))
        change(body)
        if body.get("spec") != spec and kind in (kinds.VRG, kinds.VOLUME_REPLICATION):
            body["metadata"]["generation"] += 1
        self.put(kind, body)

    def remove(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Deletes as the API server does: a mark while finalizers hold the object, which costs a generation."""

        def mark(body: Object) -> None:
            if "deletionTimestamp" not in body["metadata"]:
                body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                if "generation" in body["metadata"]:
                    body["metadata"]["generation"] += 1

        if self.look(kind, name, namespace) is not None:
            self.edit(kind, name, namespace, mark)

    async def read(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        return self.look(kind, name, namespace or "")

    async def list(
        self, kind: Kind, namespace: str | None = None, labels: str | None = None, fields: str | None = None
    ) -> tuple[list[Object], str]:
        return [copy.deepcopy(body) for body in self.objects.get(kind, {}).values()], str(self.version)

    async def watch(
        self, kind: Kind, resource_version: str, namespace: str | None = None, seconds: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        raise NotImplementedError("the driver hands events to the mirrors")
        yield

    async def create(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        body = copy.deepcopy(body)
        if self.look(kind, body["metadata"]["name"], body["metadata"].get("namespace") or "") is not None:
            raise AlreadyExists(body["metadata"]["name"])
        if kind in (kinds.VRG, kinds.VOLUME_REPLICATION):
            body["metadata"]["generation"] = 1
        if kind in (kinds.PVC, kinds.PV):
            guard = "kubernetes.io/pvc-protection" if kind is kinds.PVC else "kubernetes.io/pv-protection"
            body["metadata"]["finalizers"] = [guard]
            body["status"] = {"phase": "Pending"}
        self.writes += 1
        return self.put(kind, body)

    async def replace(self, kind: Kind, body: Object, subresource: str | None = None) -> Object:
        meta = body["metadata"]
        current = self.look(kind, meta["name"], meta.get("namespace") or "")
        if current is None:
            raise NotFound(meta["name"])
        if current["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise Conflict(meta["name"])
        self.writes += 1
        if subresource == "status":
            return self.put(kind, {**current, "status": copy.deepcopy(body["status"])})
        result = {**copy.deepcopy(body), "status": current.get("status")}
        if result["status"] is None:
            del result["status"]
        if result.get("spec") != current.get("spec") and "generation" in current["metadata"]:
            result["metadata"]["generation"] = current["metadata"]["generation"] + 1
        return self.put(kind, result)

    async def patch(
        self, kind: Kind, name: str, patch: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        raise NotImplementedError("the operator never patches")

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        self.writes += 1
        self.remove(kind, name, namespace or "")

    async def version_of_server(self) -> str:
        return "v0"

    async def close(self) -> None:
        return None


class FakeBucket:
    """A store in memory that can be down."""

    def __init__(self) -> None:
        self.items: dict[str, bytes] = {}
        self.down = False
        self.puts: list[str] = []

    def _check(self) -> None:
        if self.down:
            raise StoreUnreachable("store is down")

    async def get(self, key: str) -> bytes | None:
        self._check()
        return self.items.get(key)

    async def put(self, key: str, body: bytes) -> str:
        self._check()
        self.puts.append(key)
        self.items[key] = body
        return "etag"

    async def list(self, prefix: str) -> list[str]:
        self._check()
        return sorted(key for key in self.items if key.startswith(prefix))

    async def delete(self, key: str) -> None:
        self._check()
        self.items.pop(key, None)

    def seed(self, key: str, body: Object) -> None:
        self.items[key] = encode(body)


class _Wakes:
    """Stands for the work queue: remembers who was woken."""

    def __init__(self) -> None:
        self.keys: list[Name] = []

    def add(self, key: Name) -> None:
        if key not in self.keys:
            self.keys.append(key)

    def add_after(self, key: Name, seconds: float) -> None:
        self.add(key)

    def add_all(self, keys: Any) -> None:
        for key in list(keys):
            self.add(key)


CONFIG = """
s3StoreProfiles:
- {s3ProfileName: s3-c1, s3Bucket: bucket-c1, s3CompatibleEndpoint: "http://c1", s3Region: r, s3SecretRef: {name: s3}}
- {s3ProfileName: s3-c2, s3Bucket: bucket-c2, s3CompatibleEndpoint: "http://c2", s3Region: r, s3SecretRef: {name: s3}}
"""


class Driver:
    """One operator on one cluster in memory; time passes only in `settle`."""

    def __init__(self, cluster: str, buckets: dict[str, FakeBucket]) -> None:
        self.cluster = FakeCluster()
        self.buckets = buckets
        self.versions: list[Object] = []
        """Every version of every VRG, as a watch would show it, without the last event of a deleted one."""
        self._set_up(cluster)
        self.start()

    def _set_up(self, cluster: str) -> None:
        put = self.cluster.put
        system = {"namespace": names.RAMEN_NAMESPACE}
        put(kinds.CONFIG_MAP, {"metadata": {"name": names.RAMEN_CONFIG_MAP, **system}, "data": {}})
        put(kinds.SECRET, {"metadata": {"name": "s3", **system}, "data": {}})
        self.configure(CONFIG)
        labels = {names.STORAGE_ID: f"sid-{cluster}", names.REPLICATION_ID: "rid-1"}
        put(
            kinds.STORAGE_CLASS,
            {"metadata": {"name": "rook-ceph-block", "labels": labels}, "provisioner": "rook-ceph.rbd.csi.ceph.com"},
        )
        put(
            kinds.VOLUME_REPLICATION_CLASS,
            {
                "metadata": {"name": "vrc-5m", "labels": labels},
                "spec": {"provisioner": "rook-ceph.rbd.csi.ceph.com", "parameters": {"schedulingInterval": "5m"}},
            },
        )

    def configure(self, text: str) -> None:
        self.cluster.edit(
            kinds.CONFIG_MAP,
            names.RAMEN_CONFIG_MAP,
            names.RAMEN_NAMESPACE,
            lambda body: body.update(data={names.RAMEN_CONFIG_KEY: text}),
        )

    def start(self) -> None:
        """Starts the operator, or starts it again with nothing remembered."""
        operator = Operator(self.cluster)  # type: ignore[arg-type]
        self.wakes = _Wakes()
        operator.queue = self.wakes  # type: ignore[assignment]
        self.world = operator.world
        self.world.stores._make = self._bucket
        self._waiting: list[Name] = []
        for kind, known in self.cluster.objects.items():
            for body in known.values():
                if kind in self.world.mirrors:
                    self.world.mirrors[kind].apply(WatchEvent("ADDED", copy.deepcopy(body)))
        self.cluster.listeners = [self._deliver]

    def stop(self) -> None:
        """Stops the operator: nothing is noticed any more."""
        self.cluster.listeners = []
        self.wakes.keys, self._waiting = [], []

    def _bucket(self, profile: Profile) -> FakeBucket:
        return self.buckets[profile.bucket]

    def _deliver(self, kind: Kind, event: WatchEvent) -> None:
        if kind is kinds.VRG and event.type != "DELETED":
            self.versions.append(copy.deepcopy(event.object))
        if kind in self.world.mirrors:
            self.world.mirrors[kind].apply(event)

    async def one_pass(self, key: Name) -> bool:
        """True if the pass asks for another one."""
        try:
            return await reconcile(self.world, key) is not None
        except HublessError:
            return True

    async def settle(self) -> int:
        """Lets passes run until no event is left and a repetition changes nothing; answers their number."""
        for count in range(PASSES):
            if self.wakes.keys:
                key = self.wakes.keys.pop(0)
                self._waiting = [other for other in self._waiting if other != key]
                if await self.one_pass(key):
                    self._waiting.append(key)
                continue
            version = self.cluster.version
            stored = [dict(bucket.items) for bucket in self.buckets.values()]
            waiting, self._waiting = self._waiting, []
            for key in waiting:
                if await self.one_pass(key):
                    self._waiting.append(key)
            unchanged = version == self.cluster.version and stored == [b.items for b in self.buckets.values()]
            if unchanged and not self.wakes.keys:
                return count
        raise AssertionError("the operator does not come to rest")
