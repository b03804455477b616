"""A cluster in memory for tests: `ClusterAccess` with the parts of an API server that writers rely on.

Resource versions, generations, uids, finalizers, status subresources, label selectors and watches behave as on a real
server; failures come to order. Namespaces must exist before objects are created in them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from activities.access.protocol import Object, WatchEvent
from ramen.errors import AlreadyExists, Conflict, Gone, HublessError, KindMissing, NotFound
from ramen.kinds import (
    CLUSTER_REGISTRY,
    DRCLUSTER,
    DRPC,
    DRPOLICY,
    NAMESPACE,
    PLACEMENT_DECISION,
    VOLUME_REPLICATION,
    VRG,
    Kind,
)

WITH_STATUS = frozenset({CLUSTER_REGISTRY, DRCLUSTER, DRPOLICY, VRG, DRPC, PLACEMENT_DECISION, VOLUME_REPLICATION})
"""Kinds with a status subresource: a main write leaves their status alone, and the reverse."""

Place = tuple[str, str]
BeforeCall = Callable[[str, Kind, str], None]
"""Called with verb, kind and name before each call takes effect; may change objects or raise."""


class FakeCluster:
    """All objects of one cluster, and the client of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failure: HublessError | None = None
        """Raised by every call while set."""
        self.missing: set[Kind] = set()
        """Kinds whose CRD is not installed."""
        self.before: BeforeCall | None = None
        self.calls: Counter[tuple[str, str]] = Counter()
        self._objects: dict[Kind, dict[Place, Object]] = {}
        self._history: list[tuple[int, Kind, WatchEvent]] = []
        self._version = 0
        self._oldest = 0
        self._changed = asyncio.Event()
        self._streams: set[asyncio.Future[None]] = set()

    # --- how tests speak to it -----------------------------------------------------------------------------------

    def put(self, kind: Kind, body: Object) -> Object:
        """Writes a whole object, status included, as a controller with every right would."""
        body = deepcopy(body)
        place = _place(body)
        old = self._objects.setdefault(kind, {}).get(place)
        return self._store(kind, place, {**body, "status": body.get("status") or {}}, old)

    def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """An object as it is now; counts as no call."""
        return deepcopy(self._objects.get(kind, {}).get((namespace, name)))

    def drop(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Removes an object at once, whatever its finalizers."""
        self._remove(kind, (namespace, name))

    def compact(self) -> None:
        """Forgets all history: watches from older versions get `Gone`."""
        self._oldest = self._version
        self._history.clear()
        self.cut()

    def cut(self) -> None:
        """Breaks all open watches."""
        for stream in list(self._streams):
            if not stream.done():
                stream.set_result(None)

    # --- ClusterAccess ---------------------------------------------------------------------------------------------

    async def read(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """See `ClusterAccess.read`."""
        await self._call("get", kind, name)
        return self.get(kind, name, (namespace or "") if kind.namespaced else "")

    async def list(
        self, kind: Kind, namespace: str | None = None, labels: str | None = None, fields: str | None = None
    ) -> tuple[list[Object], str]:
        """See `ClusterAccess.list`; `fields` is not supported."""
        await self._call("list", kind, "")
        found = [
            deepcopy(obj)
            for (where, _), obj in sorted(self._objects.get(kind, {}).items())
            if namespace in (None, where) and _matches(labels or "", obj["metadata"].get("labels") or {})
        ]
        return found, str(self._version)

    async def watch(
        self, kind: Kind, resource_version: str, namespace: str | None = None, seconds: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        """See `ClusterAccess.watch`."""
        await self._call("watch", kind, "")
        position = int(resource_version)
        if position < self._oldest:
            raise Gone(f"watch of {kind.plural} on {self.name}: too old resource version")
        stream: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._streams.add(stream)
        try:
            while not stream.done():
                changed = self._changed
                for version, of_kind, event in list(self._history):
                    if version > position and of_kind == kind:
                        position = version
                        yield WatchEvent(event.type, deepcopy(event.object))
                waiting = asyncio.ensure_future(changed.wait())
                await asyncio.wait((waiting, stream), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            if self.failure is not None:
                raise self.failure
        finally:
            self._streams.discard(stream)

    async def create(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        """See `ClusterAccess.create`."""
        body = deepcopy(body)
        if kind.namespaced:
            body["metadata"].setdefault("namespace", namespace or "")
        place = _place(body)
        await self._call("create", kind, place[1])
        if kind.namespaced and ("", place[0]) not in self._objects.get(NAMESPACE, {}):
            raise NotFound(f"namespace {place[0]} on {self.name} not found")
        if place in self._objects.get(kind, {}):
            raise AlreadyExists(f"{kind.kind} {place[1]} on {self.name} exists")
        if kind in WITH_STATUS:
            body.pop("status", None)
        return self._store(kind, place, body, None)

    async def replace(self, kind: Kind, body: Object, subresource: str | None = None) -> Object:
        """See `ClusterAccess.replace`."""
        await self._call("update", kind, body["metadata"]["name"])
        return self._update(kind, _place(body), deepcopy(body), subresource)

    async def patch(
        self, kind: Kind, name: str, patch: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """See `ClusterAccess.patch`."""
        await self._call("patch", kind, name)
        place = (namespace or "" if kind.namespaced else "", name)
        merged = _merged(self._existing(kind, place), patch)
        return self._update(kind, place, merged, subresource)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """See `ClusterAccess.delete`."""
        await self._call("delete", kind, name)
        place = (namespace or "" if kind.namespaced else "", name)
        old = self._objects.get(kind, {}).get(place)
        if old is None:
            return
        metadata = old["metadata"]
        if (uid or metadata["uid"], resource_version or metadata["resourceVersion"]) != (
            metadata["uid"],
            metadata["resourceVersion"],
        ):
            raise Conflict(f"{kind.kind} {name} on {self.name}: the preconditions do not hold")
        if metadata.get("finalizers"):
            if not metadata.get("deletionTimestamp"):
                new = deepcopy(old)
                new["metadata"]["deletionTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                new["metadata"]["generation"] = metadata.get("generation", 0) + 1
                self._write(kind, place, new, "MODIFIED")
            return
        self._remove(kind, place)

    async def version(self) -> str:
        """See `ClusterAccess.version`."""
        await self._call("version", NAMESPACE, "")
        return "v1.36.3"

    async def close(self) -> None:
        """Nothing to close."""

    # --- inside ----------------------------------------------------------------------------------------------------

    async def _call(self, verb: str, kind: Kind, name: str) -> None:
        self.calls[verb, kind.plural] += 1
        await asyncio.sleep(0)
        if self.before is not None:
            self.before(verb, kind, name)
        if self.failure is not None:
            raise self.failure
        if kind in self.missing:
            raise KindMissing(f"{kind.kind} on {self.name}: could not find the requested resource")

    def _existing(self, kind: Kind, place: Place) -> Object:
        found = self._objects.get(kind, {}).get(place)
        if found is None:
            raise NotFound(f"{kind.kind} {place[1]} on {self.name} not found")
        return found

    def _update(self, kind: Kind, place: Place, body: Object, subresource: str | None) -> Object:
        old = self._existing(kind, place)
        version = body["metadata"].get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise Conflict(f"{kind.kind} {place[1]} on {self.name}: the object has been modified")
        if subresource == "status":
            body = {**deepcopy(old), "status": body.get("status") or {}}
        elif kind in WITH_STATUS:
            body["status"] = old.get("status") or {}
        if old["metadata"].get("deletionTimestamp") and not body["metadata"].get("finalizers"):
            self._remove(kind, place)
            return body
        return self._store(kind, place, body, old)

    def _store(self, kind: Kind, place: Place, body: Object, old: Object | None) -> Object:
        metadata = body["metadata"]
        if old is None:
            metadata |= {"uid": metadata.get("uid") or str(uuid4()), "generation": metadata.get("generation", 1)}
            return self._write(kind, place, body, "ADDED")
        metadata["uid"] = old["metadata"]["uid"]
        generation = old["metadata"].get("generation", 1)
        metadata["generation"] = generation + (body.get("spec") != old.get("spec"))
        if _unversioned(body) == _unversioned(old):
            return deepcopy(old)  # as on a real server, a write that changes nothing makes no new version
        return self._write(kind, place, body, "MODIFIED")

    def _write(self, kind: Kind, place: Place, body: Object, event: Any) -> Object:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        body = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
        self._objects.setdefault(kind, {})[place] = body
        self._tell(kind, WatchEvent(event, deepcopy(body)))
        return deepcopy(body)

    def _remove(self, kind: Kind, place: Place) -> None:
        obj = self._objects[kind].pop(place)
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._tell(kind, WatchEvent("DELETED", obj))

    def _tell(self, kind: Kind, event: WatchEvent) -> None:
        self._history.append((self._version, kind, event))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _place(body: Object) -> Place:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _unversioned(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    return {**{key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}, "metadata": metadata}


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386: maps are merged, null removes, all else replaces."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result = deepcopy(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _matches(query: str, labels: dict[str, str]) -> bool:
    """Equality-based label selectors; a set-based one is an error of the test."""
    for part in filter(None, query.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise NotImplementedError(f"label selector {query}")
        if labels.get(key) != value:
            return False
    return True
