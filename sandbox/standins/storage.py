"""The storage array without Kubernetes: volumes, the pods that write to them, faults, and the ledger.

Everything that happens to a volume goes through here, in one order: first the writes up to this moment are offered
to the sides as they are, then the change takes place, then it is recorded. So no write is credited to a role that
the side no longer had.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError

from sandbox import faults
from sandbox.ledger import EventKind, Ledger, Writes
from sandbox.standins.volumes import Link, Pace, Role, Side, Volume

log = logging.getLogger(__name__)


class Writer:
    """One pod that writes to one volume, `rate` times a second, from `started` on."""

    def __init__(self, pod: str, handle: str, cluster: str, rate: float, started: float) -> None:
        self.pod, self.handle, self.cluster, self.rate, self.started = pod, handle, cluster, rate, started
        self._done = 0
        self._refused = 0
        self._row: Writes | None = None

    def offer(self, volume: Volume, now: float) -> Writes | None:
        """Offers the writes that are due to the pod's side; the row of the ledger that they belong to, if any were."""
        total = int((now - self.started) * self.rate)
        number = total - self._done
        if number <= 0:
            return None
        first, last = self.started + (self._done + 1) / self.rate, self.started + total / self.rate
        self._done = total
        role = volume.sides[self.cluster].role.value
        taken = volume.write(self.cluster, number)
        if taken is None:
            branch, low, high = 0, self._refused + 1, self._refused + number
            self._refused = high
        else:
            branch, low, high = taken
        row = self._row
        if row is not None and (row.branch, row.role, row.to_seq + 1) == (branch, role, low):
            row.to_seq, row.t_last = high, last
        else:
            row = Writes(self.handle, self.cluster, role, taken is not None, branch, low, high, first, last, self.pod)
            self._row = row
        return row


class Storage:
    """Both ends of the array.

    `on_change` is called with a volume's handle after its replication state changed by itself, `on_faults` after
    other faults came into force; neither may block.
    """

    def __init__(
        self,
        directory: Path,
        clusters: tuple[str, str],
        ledger: Ledger,
        pace: Pace,
        rate: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clusters = clusters
        self.ledger = ledger
        self.faults = faults.Faults()
        self.on_change: Callable[[str], None] = lambda _: None
        self.on_faults: Callable[[], None] = lambda: None
        self._directory = directory
        self._pace = pace
        self._rate = rate
        self._clock = clock
        self._stamp: int | None = None
        self._volumes = ledger.volumes()
        self._pods: dict[tuple[str, str], tuple[str, ...]] = {}
        self._writers: dict[str, dict[tuple[str, str], Writer]] = {}
        self._silent: set[str] = set()

    # --- What the controllers ask ------------------------------------------------------------------------------------

    def now(self) -> float:
        """The array's clock."""
        return self._clock()

    def side(self, handle: str, cluster: str) -> Side:
        """A cluster's side of a volume; a handle never heard of is a volume without data."""
        return self._volume(handle, cluster).sides[cluster]

    def volume(self, handle: str) -> Volume | None:
        """The volume, if the array has it."""
        return self._volumes.get(handle)

    def answers(self, cluster: str) -> bool:
        """Whether the array's end at a cluster can be talked to."""
        return cluster not in self.faults.lost and cluster not in self.faults.cut_off

    @property
    def link(self) -> Link:
        """What works between the two sides now."""
        whole = all(self.answers(cluster) for cluster in self.clusters)
        return Link(up=whole and self.faults.replication == "ok", stuck=frozenset(self.faults.resync))

    # --- What the controllers do -------------------------------------------------------------------------------------

    def provision(self, handle: str, cluster: str) -> None:
        """Makes an empty volume, unless it is there already (a retry after a lost answer)."""
        volume = self._settled(handle, cluster)
        if any(side.role is not Role.ABSENT for side in volume.sides.values()):
            return
        branch = volume.provision(cluster)
        self._record("provisioned", volume, cluster, {"branch": branch, "content": {}})

    def promote(self, handle: str, cluster: str) -> None:
        """Makes a side primary, by force if need be; does nothing to a primary."""
        volume = self._settled(handle, cluster)
        before = volume.sides[cluster].role
        found = volume.promote(cluster, self.link)
        if found is not None:
            sync = found.last_sync
            detail = {
                "branch": found.branch,
                "content": found.content,
                "forced": found.forced,
                "whole": found.whole,
                "last_sync_start": sync.started if sync else None,
            }
            self._record("promoted", volume, cluster, detail)
        elif before is Role.STANDALONE:
            self._record("enabled", volume, cluster)
        self._settled(handle, cluster)

    def demote(self, handle: str, cluster: str) -> None:
        """Makes a side secondary; does nothing to a secondary."""
        volume = self._settled(handle, cluster)
        if volume.demote(cluster):
            self._record("demoted", volume, cluster, {"health": volume.sides[cluster].health.value})
        self._settled(handle, cluster)

    def resync(self, handle: str, cluster: str) -> bool:
        """Throws away what a diverged side holds and copies the primary; False while there is none in reach."""
        volume = self._settled(handle, cluster)
        now = self._clock()
        self._settle(handle, now)  # a copy carries what was written up to the moment from which it is dated
        if not volume.resync(cluster, now, self.link, self._pace):
            return False
        self._record("resync", volume, cluster)
        self._settled(handle, cluster)
        return True

    def destroy(self, handle: str, cluster: str) -> None:
        """Deletes what a writable side holds; a side that only receives stays, its data belong to the primary."""
        volume = self._settled(handle, cluster)
        if volume.destroy(cluster):
            self._record("destroyed", volume, cluster)

    def disable(self, handle: str, cluster: str) -> None:
        """Ends replication from a primary side; does nothing to another one."""
        volume = self._settled(handle, cluster)
        if volume.disable(cluster):
            self._record("disabled", volume, cluster)

    def set_pod(self, cluster: str, pod: str, handles: Iterable[str]) -> None:
        """Says which volumes a pod writes to from now on; none: it is not running."""
        wanted, known = tuple(sorted(set(handles))), self._pods.get((cluster, pod), ())
        if wanted == known:
            return
        now = self._clock()
        for handle in set(known) - set(wanted):
            self._settle(handle, now)
            self._writers.get(handle, {}).pop((cluster, pod), None)
        for handle in set(wanted) - set(known):
            self._start(cluster, pod, handle, now)
        if wanted:
            self._pods[(cluster, pod)] = wanted
        else:
            self._pods.pop((cluster, pod), None)

    def resume(self, cluster: str) -> None:
        """Lets the pods of a site that was lost write again, once it is known which of them run."""
        if cluster not in self._silent or cluster in self.faults.lost:
            return
        self._silent.discard(cluster)
        now = self._clock()
        for (where, pod), handles in self._pods.items():
            if where == cluster:
                for handle in handles:
                    self._start(cluster, pod, handle, now)

    # --- Time --------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Lets pods write and replication work up to now, and commits; call it a few times a second."""
        self._read_faults()
        now = self._clock()
        for volume in list(self._volumes.values()):
            self._settle(volume.handle, now)
            self._advance(volume, now)
        self.ledger.commit()

    def _read_faults(self) -> None:
        path = self._directory / faults.FILE
        try:
            found = path.stat()
            stamp, since = found.st_mtime_ns, found.st_mtime
        except FileNotFoundError:
            stamp, since = 0, self._clock()
        if stamp == self._stamp:
            return
        first, self._stamp = self._stamp is None, stamp
        try:
            ordered = faults.load(self._directory)
        except ValidationError as err:
            log.error("%s is not understood, the faults before it stay: %s", faults.FILE, err.errors()[0]["msg"])
            return
        if ordered == self.faults and not first:
            return
        # What was written before the order counts under the rules before it.
        moment = min(self._clock(), since)
        for volume in self._volumes.values():
            self._settle(volume.handle, moment)
        self.faults = ordered
        for cluster in ordered.lost:
            self._silent.add(cluster)
            for writers in self._writers.values():
                for key in [key for key in writers if key[0] == cluster]:
                    del writers[key]
        self.ledger.add_event(moment, "fault", "", "", detail={"faults": ordered.model_dump()})
        self.on_faults()

    def _settle(self, handle: str, now: float) -> None:
        """Offers the writes that are due up to now to the sides as they are."""
        volume = self._volumes.get(handle)
        if volume is None:
            return
        for writer in self._writers.get(handle, {}).values():
            row = writer.offer(volume, now)
            if row is not None:
                self.ledger.add_writes(row)

    def _settled(self, handle: str, cluster: str) -> Volume:
        """The volume with everything done that was due before a change of it."""
        self._read_faults()
        volume = self._volume(handle, cluster)
        now = self._clock()
        self._settle(handle, now)
        self._advance(volume, now)
        return volume

    def _advance(self, volume: Volume, now: float) -> None:
        """Lets replication work up to `now`, up to which the writes were offered: a sync that would be dated later
        than the writes that it carries would seem to have lost the newest of them."""
        if volume.advance(now, self.link, self._pace):
            self.ledger.save_volume(volume)
            self.on_change(volume.handle)

    def _volume(self, handle: str, cluster: str) -> Volume:
        if handle not in self._volumes:
            self._volumes[handle] = Volume.of(handle, self.clusters, cluster)
        return self._volumes[handle]

    def _start(self, cluster: str, pod: str, handle: str, now: float) -> None:
        if cluster not in self._silent:
            writers = self._writers.setdefault(handle, {})
            writers[(cluster, pod)] = Writer(pod, handle, cluster, self._rate, now)

    def _record(self, kind: EventKind, volume: Volume, cluster: str, detail: dict[str, object] | None = None) -> None:
        """Puts a change into the ledger at once: nobody may learn of it before the ledger knows."""
        log.info("%s %s on %s", volume.handle, kind, cluster)
        self.ledger.add_event(self._clock(), kind, cluster, volume.handle, detail=detail)
        self.ledger.save_volume(volume)
        self.ledger.commit()
        self.on_change(volume.handle)
