"""Replicated volumes as a storage array keeps them: pure bookkeeping, no clock, no I/O.

A volume has one side per cluster. What a side holds is known write by write: each time a side becomes writable it
opens a *branch*, and the writes of a branch are numbered from 1. A side's content is therefore a few ranges of
numbers per branch, and two sides can be compared exactly however long they have been written.

The array never refuses what a real one would carry out: a promotion by force leaves two histories, a resync throws
one of them away, a copy that is promoted half-way has holes, a primary that is deleted is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel

STUCK_AT = 0.5
"""Part of a full copy that is moved when it hangs: half shows holes and survivors alike."""

Content = dict[int, list[tuple[int, int]]]
"""By branch: ascending, disjoint, closed ranges of write numbers."""


# --- Algebra of contents -------------------------------------------------------------------------------------------


def count(content: Content) -> int:
    """Number of writes in a content."""
    return sum(high - low + 1 for ranges in content.values() for low, high in ranges)


def add(content: Content, branch: int, low: int, high: int) -> None:
    """Adds the writes `low` to `high` (inclusive) of a branch to `content`, in place."""
    ranges = content.setdefault(branch, [])
    if ranges and ranges[-1][1] + 1 == low:
        ranges[-1] = (ranges[-1][0], high)
        return
    merged: list[tuple[int, int]] = []
    for first, last in sorted([*ranges, (low, high)]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    content[branch] = merged


def missing(expected: Content, actual: Content) -> Content:
    """The writes of `expected` that `actual` lacks."""
    found: Content = {}
    for branch, ranges in expected.items():
        holes: list[tuple[int, int]] = []
        for first, last in ranges:
            start = first
            for low, high in actual.get(branch, []):
                if high < start or low > last:
                    continue
                if low > start:
                    holes.append((start, low - 1))
                start = high + 1
            if start <= last:
                holes.append((start, last))
        if holes:
            found[branch] = holes
    return found


def same(content: Content) -> Content:
    """A copy that does not change with the original."""
    return {branch: list(ranges) for branch, ranges in content.items()}


def newest_part(content: Content, fraction: float) -> Content:
    """What a full copy has moved when `fraction` (0 to 1) of it is done: the newest end of each range.

    A block copy knows nothing of the order of writes. Playing it from the newest end makes the holes of a copy
    that is used too early as visible as can be: old writes are absent while new ones are there.
    """
    part: Content = {}
    for branch, ranges in content.items():
        for low, high in ranges:
            copied = int((high - low + 1) * fraction)
            if copied:
                add(part, branch, high - copied + 1, high)
    return part


# --- Sides ---------------------------------------------------------------------------------------------------------


class Role(StrEnum):
    """What a side is to the array."""

    ABSENT = "absent"
    STANDALONE = "standalone"
    """Provisioned, not replicated: writable."""
    PRIMARY = "primary"
    SECONDARY = "secondary"


class Health(StrEnum):
    """What the content of a side is worth."""

    EMPTY = "empty"
    """Never copied to."""
    COPYING = "copying"
    """A full copy is under way: unusable until it ends."""
    GOOD = "good"
    """Consistent as of some moment."""
    DIVERGED = "diverged"
    """Consistent, but of a history that the other side does not share; only a resync ends it."""


class Transfer(BaseModel):
    """A copy of the source's content on its way to a side."""

    started: float
    seconds: float
    """Time the whole transfer takes."""
    left: float
    """Time still to go; stands still while the sides cannot reach each other."""
    content: Content
    """The source as it was when the transfer began."""


class Side(BaseModel):
    """One cluster's end of a volume."""

    role: Role = Role.ABSENT
    health: Health = Health.EMPTY
    content: Content = {}
    branch: int | None = None
    """Branch that is being written; None while the side accepts nothing."""
    next_number: int = 1
    """Number of the next write of that branch."""
    transfer: Transfer | None = None

    @property
    def writable(self) -> bool:
        """Whether the side accepts writes."""
        return self.role in (Role.PRIMARY, Role.STANDALONE)

    def usable(self) -> Content:
        """What a promotion would find: the last complete copy, or what a full copy has moved so far."""
        if self.health is Health.COPYING and self.transfer is not None:
            total = self.transfer.seconds
            return newest_part(self.transfer.content, 1.0 - self.transfer.left / total if total else STUCK_AT)
        return same(self.content)


class Sync(BaseModel):
    """A completed copy to the side that is not the author."""

    started: float
    """When the source's content was taken: all that was accepted before is on both sides."""
    completed: float


@dataclass(frozen=True)
class Pace:
    """How long the array takes, in seconds; zero is allowed everywhere."""

    lag: float = 5.0
    """From the start of a sync to the start of the next one."""
    sync: float = 1.0
    copy: float = 5.0
    """A full copy: the first one, and each resynchronisation."""


@dataclass(frozen=True)
class Link:
    """What works between the sides at a moment."""

    up: bool = True
    stuck: frozenset[str] = frozenset()
    """Clusters whose full copies never end."""


@dataclass(frozen=True)
class Promotion:
    """What a promotion found."""

    branch: int
    content: Content
    forced: bool
    """The other side was not known to be demoted with the same content."""
    whole: bool
    """False when an unfinished or empty copy was promoted."""
    last_sync: Sync | None
    """Last completed sync into the promoted side; None if none, or if the side was itself the source."""


class Volume(BaseModel):
    """A volume of the array, the same on both clusters under one CSI volume handle.

    Times are seconds of one clock. `author` is the side that the other one has to follow: the last one promoted,
    until it is demoted under a primary peer.
    """

    handle: str
    sides: dict[str, Side]
    author: str
    mirrored: bool = False
    next_branch: int = 1
    advanced: float = 0.0
    last_sync: Sync | None = None
    """Last completed sync from the author since it became one."""

    @classmethod
    def of(cls, handle: str, clusters: tuple[str, str], author: str) -> Volume:
        """A volume without any data, on any side."""
        return cls(handle=handle, sides={cluster: Side() for cluster in clusters}, author=author)

    def peer(self, cluster: str) -> str:
        """The other cluster."""
        return next(name for name in self.sides if name != cluster)

    def provision(self, cluster: str) -> int:
        """Makes a new, empty, unreplicated volume on one cluster; returns its branch."""
        side = self.sides[cluster]
        side.role, side.health = Role.STANDALONE, Health.GOOD
        self.author = cluster
        return self._open(side)

    def write(self, cluster: str, number: int) -> tuple[int, int, int] | None:
        """Offers `number` writes to a side: `(branch, first, last)` of what it accepted, None when it refuses."""
        side = self.sides[cluster]
        if not side.writable or side.branch is None:
            return None
        first, last = side.next_number, side.next_number + number - 1
        add(side.content, side.branch, first, last)
        side.next_number = last + 1
        return side.branch, first, last

    def promote(self, cluster: str, link: Link) -> Promotion | None:
        """Makes a side primary, by force if need be; None if it is writable already.

        A volume that was not replicated keeps its branch and becomes the source of the first copy.
        """
        side, peer = self.sides[cluster], self.sides[self.peer(cluster)]
        if side.writable:
            if side.role is Role.STANDALONE:
                side.role, self.mirrored, self.author, self.last_sync = Role.PRIMARY, True, cluster, None
            return None
        whole = side.health in (Health.GOOD, Health.DIVERGED)
        content = side.usable()
        last_sync = self.last_sync if cluster != self.author and side.health is Health.GOOD else None
        clean = link.up and peer.role is Role.SECONDARY and peer.content == content
        if self.author != cluster:
            # The former author follows from now on. It can do so incrementally only if nothing is on it alone.
            ahead = peer.role is Role.PRIMARY or bool(missing(peer.content, content))
            if peer.health is Health.GOOD and ahead:
                peer.health = Health.DIVERGED
            peer.transfer = None
        side.role, side.health, side.content, side.transfer = Role.PRIMARY, Health.GOOD, content, None
        self.author, self.mirrored, self.last_sync = cluster, True, None
        return Promotion(self._open(side), same(content), not clean, whole, last_sync)

    def demote(self, cluster: str) -> bool:
        """Makes a side secondary: it accepts nothing from now on. False if it was none of the writable roles.

        Under a primary peer its content is of a history of its own (`DIVERGED`); else it stays the author until
        its last writes have reached the other side (`advance`).
        """
        side, peer = self.sides[cluster], self.sides[self.peer(cluster)]
        if not side.writable:
            return False
        side.role, side.branch, self.mirrored = Role.SECONDARY, None, True
        if peer.role is Role.PRIMARY:
            side.health, peer.health = Health.DIVERGED, Health.GOOD
            self.author, self.last_sync = self.peer(cluster), None
        return True

    def resync(self, cluster: str, now: float, link: Link, pace: Pace) -> bool:
        """Discards a diverged side and starts to copy it anew; False while there is no primary in reach to copy."""
        side, source = self.sides[cluster], self.sides[self.author]
        if side.health is not Health.DIVERGED or self.author == cluster or not link.up:
            return False
        if side.role is not Role.SECONDARY or source.role is not Role.PRIMARY:
            return False
        self.advanced = now
        self._start_copy(side, source, now, pace)
        return True

    def destroy(self, cluster: str) -> bool:
        """Deletes the data of a writable side; False for a side that only receives, which the array keeps."""
        side = self.sides[cluster]
        if not side.writable:
            return False
        self.sides[cluster] = Side()
        return True

    def disable(self, cluster: str) -> bool:
        """Ends replication from a primary side: it goes on alone and the copy on the other side is deleted."""
        side, other = self.sides[cluster], self.peer(cluster)
        if side.role is not Role.PRIMARY:
            return False
        side.role = Role.STANDALONE
        if self.sides[other].role is Role.SECONDARY:
            self.sides[other] = Side()
            self.mirrored, self.author, self.last_sync = False, cluster, None
        return True

    def in_sync(self, cluster: str) -> bool:
        """Whether a secondary side is all that it can be: a healthy copy, or demoted with its last writes moved."""
        side, peer = self.sides[cluster], self.sides[self.peer(cluster)]
        if side.role is not Role.SECONDARY or side.health is not Health.GOOD:
            return False
        if self.author != cluster:
            return True
        return peer.role is Role.SECONDARY and peer.health is Health.GOOD and peer.content == side.content

    def advance(self, now: float, link: Link, pace: Pace) -> bool:
        """Lets replication work until `now`; True when something other than remaining times changed.

        Call it after the writes up to `now` were offered: a sync that begins takes all of them along.
        """
        elapsed, self.advanced = max(0.0, now - self.advanced), now
        source, other = self.sides[self.author], self.peer(self.author)
        target = self.sides[other]
        if not self.mirrored or source.role not in (Role.PRIMARY, Role.SECONDARY):
            return False
        changed = False
        if target.role is Role.ABSENT and source.role is Role.PRIMARY and link.up:
            target = self.sides[other] = Side(role=Role.SECONDARY)
            changed = True
        if target.role is not Role.SECONDARY or target.health is Health.DIVERGED:
            return changed
        if target.transfer is not None:
            changed |= self._continue(target, other, elapsed, now, link)
        if target.transfer is None and link.up and self._due(source, target, now, pace):
            if target.health is Health.GOOD:
                target.transfer = Transfer(started=now, seconds=pace.sync, left=pace.sync, content=same(source.content))
            else:
                self._start_copy(target, source, now, pace)
            changed = True
            self._continue(target, other, 0.0, now, link)
        return changed

    def _due(self, source: Side, target: Side, now: float, pace: Pace) -> bool:
        if target.health is not Health.GOOD:
            return True
        if source.role is Role.SECONDARY:
            return source.content != target.content
        return self.last_sync is None or now >= self.last_sync.started + pace.lag

    def _continue(self, target: Side, cluster: str, elapsed: float, now: float, link: Link) -> bool:
        transfer, full = target.transfer, target.health is Health.COPYING
        if transfer is None:
            return False
        if not link.up:
            if not full:
                # An interrupted sync leaves the copy as of the one before it.
                target.transfer = None
            return not full
        stuck = full and cluster in link.stuck
        transfer.left = max(transfer.seconds * STUCK_AT if stuck else 0.0, transfer.left - elapsed)
        if stuck or transfer.left > 0:
            return False
        target.content, target.health, target.transfer = transfer.content, Health.GOOD, None
        self.last_sync = Sync(started=transfer.started, completed=now)
        return True

    def _start_copy(self, target: Side, source: Side, now: float, pace: Pace) -> None:
        target.health, target.content, self.last_sync = Health.COPYING, {}, None
        target.transfer = Transfer(started=now, seconds=pace.copy, left=pace.copy, content=same(source.content))

    def _open(self, side: Side) -> int:
        side.branch, side.next_number = self.next_branch, 1
        self.next_branch += 1
        return side.branch
