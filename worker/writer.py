"""Which worker writes what belongs to a cluster as a whole: status, events, copies of objects (S16).

Several workers reach a cluster, and one of them writes there at a time: the holder of a Lease on that very cluster.
The cluster's own worker is preferred; a peer steps in when nobody renewed the Lease for its whole length, and steps
back when the own worker asks for it. Expiry is judged by the observer's monotonic clock alone: clocks lie. A worker
that takes the place of one that was killed on the same machine sees that its process is gone, and does not wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from activities.access.protocol import ClusterAccess, Object
from ramen import names
from ramen.errors import AlreadyExists, Conflict, GateClosed, HublessError, NotFound
from ramen.kinds import LEASE

log = logging.getLogger(__name__)

RENEW_SECONDS = 60.0
"""An idle installation writes at most once per cluster and minute."""

LEASE_SECONDS = 80.0
"""One renewal may fail and be tried again before another worker takes over."""

LOOK_SECONDS = 5.0
"""Between two looks at the Lease; a read only."""

CLOSED_SECONDS = 0.5
"""Between two looks while the cluster is out of reach, which this process knows without a call."""

YIELD_SECONDS = 15.0
"""A Lease that nobody holds is left to the cluster's own worker for so long: it is probably being (re)started."""

MARGIN_SECONDS = 5.0
"""The holder stops writing this much before others may take over."""

WANTED_BY = "hubless.io/wanted-by"
"""Set on the Lease by the cluster's own worker while a peer holds it."""


def process_is_gone(identity: str) -> bool:
    """Whether a worker ran on this machine and its process has ended; a worker elsewhere is not known to be gone.

    Where two machines have one name and the answer is wrong, two workers write for one look of the other's, and it
    steps back: it is not the holder any more.
    """
    _, _, place = identity.partition("@")
    host, _, pid = place.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # it is there, and somebody else's
    return False


class Writer:
    """This worker's claim to write on one cluster; `run` keeps it up to date until cancelled.

    `access` raises as the cluster's session does. All times in seconds, `now` is monotonic.
    """

    def __init__(
        self,
        cluster: str,
        own: str,
        identity: str,
        access: Callable[[], ClusterAccess],
        namespace: str = names.RAMEN_NAMESPACE,
        renew_seconds: float = RENEW_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        now: Callable[[], float] = time.monotonic,
        is_gone: Callable[[str], bool] = process_is_gone,
    ) -> None:
        self.cluster = cluster
        self._is_local = cluster == own
        self._identity = identity
        self._access = access
        self._namespace = namespace
        self._renew_seconds = renew_seconds
        self._lease_seconds = lease_seconds
        self._now = now
        self._is_gone = is_gone
        self._held_since: float | None = None
        """When the last renewal that succeeded began."""
        self._seen = ("", 0.0)
        """Version of the Lease as last seen, and since when it stands still."""

    @property
    def is_writer(self) -> bool:
        """Whether this worker, and no other, may write on the cluster now."""
        held = self._held_since
        return held is not None and self._now() < held + self._lease_seconds - MARGIN_SECONDS

    async def run(self) -> None:
        """Looks at the Lease until cancelled, and then gives it back so that the next worker need not wait."""
        try:
            while True:
                pause = LOOK_SECONDS
                try:
                    await self.look()
                except GateClosed:
                    pause = CLOSED_SECONDS
                except HublessError as err:
                    log.debug("Lease on %s: %s", self.cluster, err)
                await asyncio.sleep(pause)
        finally:
            await self._release()

    async def look(self) -> None:
        """One look at the Lease, with the write that follows from it; raises what the calls raise."""
        access = self._access()
        lease = await access.read(LEASE, names.WRITER_LEASE, self._namespace)
        began = self._now()
        was_writer = self.is_writer
        try:
            await self._judge(access, lease, began)
        except (Conflict, AlreadyExists, NotFound):
            self._held_since = None  # somebody else was faster; the next look sees who
        if self.is_writer != was_writer:
            verb = "writes" if self.is_writer else "does not write"
            log.info("this worker %s the objects of %s", verb, self.cluster, extra={"cluster": self.cluster})

    async def _judge(self, access: ClusterAccess, lease: Object | None, began: float) -> None:
        holder = str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")
        version = str(lease["metadata"].get("resourceVersion")) if lease else "none"
        if version != self._seen[0]:
            self._seen = (version, began)
        if lease is not None and holder == self._identity:
            await self._keep(access, lease, began)
            return
        self._held_since = None
        patience = self._lease_seconds if holder else (0.0 if self._is_local else YIELD_SECONDS)
        if self._is_local and self._belongs_here(holder) and self._is_gone(holder):
            patience = 0.0
        if began - self._seen[1] >= patience:
            if lease is None:
                await access.create(LEASE, self._taken(None), self._namespace)
            else:
                await access.replace(LEASE, self._taken(lease))
            self._held_since = began
        elif lease and self._is_local and not self._belongs_here(holder) and _wanted_by(lease) != self._identity:
            metadata = {"resourceVersion": version, "annotations": {WANTED_BY: self._identity}}
            await access.patch(LEASE, names.WRITER_LEASE, {"metadata": metadata}, self._namespace)

    async def _keep(self, access: ClusterAccess, lease: Object, began: float) -> None:
        if not self._is_local and _wanted_by(lease):
            self._held_since = None
            await access.replace(LEASE, self._given_back(lease))
        elif self._held_since is None or began >= self._held_since + self._renew_seconds:
            await access.replace(LEASE, self._taken(lease))
            self._held_since = began

    def _belongs_here(self, holder: str) -> bool:
        """Whether the holder is a worker of this very cluster; identities begin with the cluster's name."""
        return holder.partition("@")[0] == self.cluster

    def _taken(self, lease: Object | None) -> Object:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, Any] = dict((lease or {}).get("spec") or {})
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = moment
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (lease is not None)
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._lease_seconds),
            "renewTime": moment,
        }
        return {"metadata": self._metadata(lease), "spec": spec}

    def _given_back(self, lease: Object) -> Object:
        return {"metadata": self._metadata(lease), "spec": {**(lease.get("spec") or {}), "holderIdentity": ""}}

    def _metadata(self, lease: Object | None) -> dict[str, Any]:
        if lease is None:
            return {"name": names.WRITER_LEASE, "namespace": self._namespace}
        metadata = dict(lease["metadata"])
        kept = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != WANTED_BY}
        return {**metadata, "annotations": kept}

    async def _release(self) -> None:
        held, self._held_since = self._held_since, None
        if held is None:
            return
        try:
            access = self._access()
            lease = await access.read(LEASE, names.WRITER_LEASE, self._namespace)
            if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                await access.replace(LEASE, self._given_back(lease))
        except HublessError as err:
            log.info("the Lease on %s was not given back, it runs out by itself: %s", self.cluster, err)


def _wanted_by(lease: Object) -> str:
    return str((lease["metadata"].get("annotations") or {}).get(WANTED_BY, ""))
