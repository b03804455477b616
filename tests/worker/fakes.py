"""An API server in memory, with the failures that a worker has to live with."""

from __future__ import annotations

import asyncio
import copy
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import yaml

from activities.access.protocol import Object, WatchEvent
from ramen import names
from ramen.errors import Conflict, HublessError, NotFound
from ramen.kinds import CLUSTER_REGISTRY, CONFIG_MAP, NAMESPACE, SECRET, VRG, Kind

Place = tuple[str, str, str]
"""Resource, namespace, name."""


class FakeServer:
    """One cluster's objects; several clients may read them."""

    def __init__(self, uid: str = "uid-dr1") -> None:
        self.objects: dict[Place, Object] = {}
        self.failure: HublessError | None = None
        """Raised by every call while set."""
        self.thawed = asyncio.Event()
        """Calls do not answer while it is not set."""
        self.thawed.set()
        self.requests: list[tuple[str, str]] = []
        self._version = 0
        self._watchers: list[tuple[Kind, asyncio.Queue[WatchEvent]]] = []
        self.put(NAMESPACE, {"metadata": {"name": "kube-system", "uid": uid}})

    def put(self, kind: Kind, body: Object) -> Object:
        """Writes an object and tells the watches."""
        self._version += 1
        body = copy.deepcopy(body)
        body["metadata"]["resourceVersion"] = str(self._version)
        place = (kind.plural, body["metadata"].get("namespace", ""), body["metadata"]["name"])
        event = WatchEvent("MODIFIED" if place in self.objects else "ADDED", body)
        self.objects[place] = body
        self._tell(kind, event)
        return body

    def drop(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Deletes an object and tells the watches."""
        self._tell(kind, WatchEvent("DELETED", self.objects.pop((kind.plural, namespace, name))))

    def _tell(self, kind: Kind, event: WatchEvent) -> None:
        for watched, queue in self._watchers:
            if watched == kind:
                queue.put_nowait(event)

    async def answer(self, verb: str, kind: Kind) -> None:
        """Counts a call, and fails or hangs as ordered."""
        self.requests.append((verb, kind.plural))
        await self.thawed.wait()
        if self.failure is not None:
            raise self.failure

    async def events(self, kind: Kind) -> AsyncIterator[WatchEvent]:
        queue: asyncio.Queue[WatchEvent] = asyncio.Queue()
        entry = (kind, queue)
        self._watchers.append(entry)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(entry)


def merged(old: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    kept = dict(old) if isinstance(old, dict) else {}
    kept |= {key: merged(kept.get(key), value) for key, value in patch.items()}
    return {key: value for key, value in kept.items() if value is not None}


class FakeClient:
    """`ClusterAccess` to a `FakeServer`."""

    def __init__(self, name: str, server: FakeServer) -> None:
        self.name = name
        self.server = server
        self.closed = False

    async def read(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        await self.server.answer("get", kind)
        return copy.deepcopy(self.server.objects.get((kind.plural, namespace or "", name)))

    async def list(
        self, kind: Kind, namespace: str | None = None, labels: str | None = None, fields: str | None = None
    ) -> tuple[list[Object], str]:
        await self.server.answer("list", kind)
        found = [
            copy.deepcopy(body)
            for (plural, where, _), body in self.server.objects.items()
            if plural == kind.plural and namespace in (None, where)
        ]
        return found, str(self.server._version)

    async def watch(
        self, kind: Kind, resource_version: str, namespace: str | None = None, seconds: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        await self.server.answer("watch", kind)
        async for event in self.server.events(kind):
            yield event

    async def create(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        await self.server.answer("create", kind)
        return self.server.put(kind, body)

    async def replace(self, kind: Kind, body: Object, subresource: str | None = None) -> Object:
        await self.server.answer("update", kind)
        found = self.server.objects[(kind.plural, body["metadata"].get("namespace", ""), body["metadata"]["name"])]
        if found["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        return self.server.put(kind, body)

    async def patch(
        self, kind: Kind, name: str, patch: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        await self.server.answer("patch", kind)
        found = self.server.objects.get((kind.plural, namespace or "", name))
        if found is None:
            raise NotFound(name)
        return self.server.put(kind, merged(found, patch))

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        await self.server.answer("delete", kind)
        self.server.drop(kind, name, namespace or "")

    async def version(self) -> str:
        await self.server.answer("version", NAMESPACE)
        return "v1.36.3"

    async def close(self) -> None:
        self.closed = True


class World:
    """Clusters by address: a kubeconfig `{server: address}` leads to the server of that address."""

    def __init__(self) -> None:
        self.servers: dict[str, FakeServer] = {}
        self.clients: list[FakeClient] = []
        self.connected: dict[str, list[dict[str, Any]]] = {}
        """Kubeconfigs that clients were made from, by cluster name."""

    def add(self, address: str, uid: str) -> FakeServer:
        self.servers[address] = FakeServer(uid)
        return self.servers[address]

    async def connect(self, name: str, kubeconfig: dict[str, Any] | None) -> FakeClient:
        """The `Connect` of this world."""
        self.connected.setdefault(name, []).append(kubeconfig or {})
        address = (kubeconfig or {"server": name})["server"]
        client = FakeClient(name, self.servers[address])
        self.clients.append(client)
        return client

    def tokens(self, name: str) -> list[str]:
        """Tokens of the clients that were made for a cluster, in order."""
        return [made["users"][0]["user"]["token"] for made in self.connected.get(name, [])]


def kubeconfig_secret(name: str, address: str, token: str = "secret-token") -> Object:
    """A Secret that leads to an address."""
    text = yaml.safe_dump({"server": address, "users": [{"user": {"token": token}}]})
    return {
        "metadata": {"name": name, "namespace": names.RAMEN_NAMESPACE},
        "data": {names.KUBECONFIG_KEY: b64encode(text.encode()).decode()},
    }


def registry(**uids: str) -> Object:
    """A ClusterRegistry of clusters by name and UID; the Secret of `drN` is `kubeconfig-drN`."""
    clusters = [
        {"name": name, "clusterUID": uid, "kubeconfigSecret": f"kubeconfig-{name}"} for name, uid in uids.items()
    ]
    return {"metadata": {"name": names.REGISTRY_NAME}, "spec": {"clusters": clusters}}


def two_clusters() -> World:
    """dr1 and dr2, registered on dr1 with a Secret that leads to dr2."""
    world = World()
    own = world.add("dr1", "uid-dr1")
    world.add("dr2", "uid-dr2")
    own.put(CLUSTER_REGISTRY, registry(dr1="uid-dr1", dr2="uid-dr2"))
    own.put(SECRET, kubeconfig_secret("kubeconfig-dr2", "dr2"))
    own.put(CONFIG_MAP, operator_config())
    return world


def operator_config(*profiles: dict[str, Any]) -> Object:
    """The dr-cluster operator's ConfigMap with these S3 profiles."""
    return {
        "metadata": {"name": names.RAMEN_CONFIG_MAP, "namespace": names.RAMEN_NAMESPACE},
        "data": {names.RAMEN_CONFIG_KEY: yaml.safe_dump({"s3StoreProfiles": list(profiles)})},
    }


def vrg(
    role: str = "primary",
    epoch: str = "7.abc",
    clusters: str = "dr1,dr2",
    decision: str = "",
    volumes: str = "",
    protected: tuple[str, ...] = (),
    settled: bool = True,
    name: str = "shop",
) -> Object:
    """A VRG as `write_vrg` leaves it; empty annotations are left out."""
    annotations = {
        names.EPOCH: epoch,
        names.CLUSTERS: clusters,
        names.DECISION: decision,
        names.VOLUMES: volumes,
    }
    return {
        "apiVersion": VRG.api_version,
        "kind": VRG.kind,
        "metadata": {
            "name": name,
            "namespace": "web",
            "generation": 2,
            "annotations": {key: value for key, value in annotations.items() if value},
        },
        "spec": {"replicationState": role},
        "status": {
            "state": role.capitalize(),
            "observedGeneration": 2 if settled else 1,
            "protectedPVCs": [{"namespace": "web", "name": pvc} for pvc in protected],
        },
    }


def classes(*storage_classes: str) -> list[Object]:
    """Peer classes between dr1 and dr2, one for each name."""
    return [
        {"storageClassName": name, "clusterIDs": ["id-1", "id-2"], "storageID": ["s-1", "s-2"], "replicationID": "r"}
        for name in storage_classes
    ]


def policy(*storage_classes: str, interval: str = "5m", clusters: tuple[str, ...] = ("dr1", "dr2")) -> Object:
    """A DRPolicy that found peer classes of these names."""
    return {
        "metadata": {"name": "gold"},
        "spec": {"drClusters": list(clusters), "schedulingInterval": interval, "replicationClassSelector": {}},
        "status": {"async": {"peerClasses": classes(*storage_classes)}},
    }


def under_policy(body: Object, *storage_classes: str, interval: str = "5m") -> Object:
    """A VRG of that policy which was given these peer classes."""
    body["spec"]["async"] = {"schedulingInterval": interval, "peerClasses": classes(*storage_classes)}
    return body
