"""What an activity may ask of a cluster, whichever way leads there (`direct` now, `acm` for migrations)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ramen.kinds import Kind

Object = dict[str, Any]
"""A Kubernetes object as JSON: `apiVersion`, `kind`, `metadata`, …"""


@dataclass(frozen=True)
class WatchEvent:
    """One line of a watch: what happened to which object."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object


class ClusterAccess(Protocol):
    """Reads and writes the objects of one cluster.

    Every method raises `ClusterUnreachable` when the API server does not answer in time, `Unauthorized`,
    `Forbidden`, `KindMissing`, `ServerBusy` or `Invalid` (see `ramen.errors`); a missing object is `None` from
    `read` and `NotFound` from the writes. Every call has a time limit.
    """

    name: str

    async def read(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None: ...

    async def list(
        self, kind: Kind, namespace: str | None = None, labels: str | None = None, fields: str | None = None
    ) -> tuple[list[Object], str]:
        """All objects, and the list's resourceVersion to watch from."""
        ...

    def watch(
        self, kind: Kind, resource_version: str, namespace: str | None = None, seconds: float = 300.0
    ) -> AsyncIterator[WatchEvent]:
        """Events after `resource_version` until the server ends the watch; raises `Gone` when it is too old."""
        ...

    async def create(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        """Raises `AlreadyExists`."""
        ...

    async def replace(self, kind: Kind, body: Object, subresource: str | None = None) -> Object:
        """Whole-object update guarded by the resourceVersion in `body`; raises `Conflict`."""
        ...

    async def patch(
        self, kind: Kind, name: str, patch: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """Merge patch; a `metadata.resourceVersion` in it is a precondition (`Conflict`)."""
        ...

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Deletes under the given preconditions (S7); an object already gone is no error."""
        ...

    async def version(self) -> str:
        """The API server's git version; the cheapest proof that it answers."""
        ...

    async def close(self) -> None: ...
