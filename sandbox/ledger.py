"""The ledger of writes: what every application really wrote, where, and what of it a switch kept.

The storage array stand-in writes it, GitOps adds when it saw which decision, and tests, demos and the command line
compute figures from it, so that nobody has to believe a status. One SQLite file in the sandbox's directory, in WAL
mode: several processes may write, readers never wait.

A write is known by volume, branch and number (`sandbox.standins.volumes`). Successive writes of one pod form one row
for as long as nothing changes; they are equally spaced in time, so a row still tells exactly how many of its writes
came before a given moment. All times are seconds since 1970 by the clock of the one machine.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter

from ramen.errors import NotFound
from ramen.names import RETAINED_FOR_FAILOVER
from sandbox.standins.volumes import Content, Health, Promotion, Role, Volume, add, count, missing, same

FILE = "ledger.db"

LOCK_SECONDS = 10.0
"""Longest wait for another writer's transaction; they take milliseconds."""

SPACING_TOLERANCE = 1e-6
"""Seconds. Sums of floating-point steps must not push a write across the moment that is asked for."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS writes (
    id INTEGER PRIMARY KEY,
    handle TEXT NOT NULL, cluster TEXT NOT NULL, role TEXT NOT NULL, accepted INTEGER NOT NULL,
    branch INTEGER NOT NULL, from_seq INTEGER NOT NULL, to_seq INTEGER NOT NULL,
    t_first REAL NOT NULL, t_last REAL NOT NULL, pod TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS writes_by_volume ON writes (handle, cluster, branch);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL, kind TEXT NOT NULL, cluster TEXT NOT NULL,
    namespace TEXT NOT NULL, name TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_object ON events (kind, namespace, name, at);
CREATE TABLE IF NOT EXISTS claims (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL, cluster TEXT NOT NULL, namespace TEXT NOT NULL, claim TEXT NOT NULL,
    application TEXT NOT NULL, handle TEXT NOT NULL, owner TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS claims_by_application ON claims (namespace, application, at);
CREATE TABLE IF NOT EXISTS volumes (handle TEXT PRIMARY KEY, state TEXT NOT NULL, updated REAL NOT NULL);
"""

EventKind = Literal[
    "vrg",
    "decision",
    "provisioned",
    "enabled",
    "promoted",
    "demoted",
    "resync",
    "copied",
    "destroyed",
    "disabled",
    "fault",
]
"""What happened. `vrg`: a VolumeReplicationGroup's wanted role changed (object: the VRG; detail: `role`).
`decision`: GitOps of `cluster` saw other decisions (object: the application; detail: `decisions`). `fault`: the array
met other faults (detail: `faults`). All others: a volume's side on `cluster` (name: the handle)."""

_CONTENT = TypeAdapter(Content)


# --- What is recorded ------------------------------------------------------------------------------------------------


@dataclass
class Writes:
    """Equally spaced writes of one pod to one side; `branch` is 0 where the side refused them."""

    handle: str
    cluster: str
    role: str
    accepted: bool
    branch: int
    from_seq: int
    to_seq: int
    t_first: float
    t_last: float
    pod: str
    id: int | None = None

    @property
    def number(self) -> int:
        """How many writes."""
        return self.to_seq - self.from_seq + 1

    def before(self, moment: float) -> int:
        """How many of them came strictly before a moment."""
        if self.number == 1 or self.t_last <= self.t_first:
            return self.number if self.t_first < moment - SPACING_TOLERANCE else 0
        step = (self.t_last - self.t_first) / (self.number - 1)
        return max(0, min(self.number, math.ceil((moment - SPACING_TOLERANCE - self.t_first) / step)))

    def time_of(self, seq: int) -> float:
        """When the write of that number came."""
        if self.number == 1:
            return self.t_first
        return self.t_first + (seq - self.from_seq) * (self.t_last - self.t_first) / (self.number - 1)


@dataclass(frozen=True)
class Event:
    """Something that happened; see `EventKind`."""

    at: float
    kind: EventKind
    cluster: str
    namespace: str
    name: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """From `at` on, this PVC of an application is bound to this volume; an empty handle: the PVC is gone."""

    at: float
    cluster: str
    namespace: str
    claim: str
    application: str
    handle: str
    owner: str
    """`namespace/name` of the VolumeReplicationGroup that protects it, or empty."""


# --- What is computed ------------------------------------------------------------------------------------------------


class VolumeFigures(BaseModel):
    """What one switch meant for one PVC."""

    claim: str
    handle: str
    promoted: float | None
    """When the array made the volume primary on the new side; None = never, and then all of it counts as lost."""
    forced: bool
    whole: bool
    """False: an unfinished copy was promoted; the content has holes."""
    last_sync_start: float | None
    checked: int
    lost: int
    lost_older_than_last_sync: int
    oldest_lost: float | None
    during_switch: int
    orphaned: int


class SwitchFigures(BaseModel):
    """What one switch of an application from one cluster to another kept and lost (design 10).

    * `checked`: writes that the side left behind had accepted before `promotion_asked`, with all that it had taken
      over when it became primary itself;
    * `lost`: those of them that are absent on the new side. Data destroyed on the old side, a volume that was not
      promoted and a claim bound to another volume all count;
    * `lost_older_than_last_sync`: lost although accepted before the start of the last sync that had completed: must
      be 0. Without a completed sync every lost write counts;
    * `during_switch`: accepted by the side left behind from `promotion_asked` until `decided` (until now, if nothing
      was decided);
    * `orphaned`: accepted by that side after `decided`.
    """

    namespace: str
    name: str
    from_cluster: str
    to_cluster: str
    promotion_asked: float
    """When the target's VolumeReplicationGroup was first seen with the wanted role primary."""
    promoted: float | None
    """When the last volume became primary on the target; None while one is not."""
    decided: float | None
    """When the first GitOps saw a decision that names the target and does not merely retain it."""
    last_sync_start: float | None
    """Data as of: the oldest among the volumes; None if a volume has no completed sync."""
    checked: int
    lost: int
    lost_older_than_last_sync: int
    oldest_lost_age: float | None
    """Seconds from the oldest lost write to `promotion_asked`."""
    during_switch: int
    orphaned: int
    volumes: list[VolumeFigures]


class Divergence(BaseModel):
    """How the two sides of an application's volumes differ, beyond what the lag of replication explains.

    Replication is asynchronous, so the follower may lack what was written since the last completed sync began;
    anything else that differs is divergence. At rest after a re-protection all figures are 0.
    """

    absent_on_follower: int
    """On the primary since before the last completed sync began (all of it, if no sync completed), not on the
    other side."""
    only_on_follower: int
    """On the other side, but not on the primary."""
    total: int
    primaries: dict[str, list[str]]
    """By claim: clusters where its volume is writable."""


class Totals(BaseModel):
    """Writes of an application on one cluster."""

    accepted: int = 0
    rejected: int = 0
    first: float | None = None
    last: float | None = None


class Ledger:
    """The open ledger. Recording is buffered until `commit`; reading sees what was committed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._new: dict[int, Writes] = {}
        self._grown: dict[int, Writes] = {}
        self._events: list[Event] = []
        self._claims: list[Claim] = []
        self._volumes: dict[str, Volume] = {}

    @classmethod
    def open(cls, directory: Path) -> Ledger:
        """Opens `<directory>/ledger.db`, and makes it if it is not there."""
        connection = sqlite3.connect(directory / FILE, timeout=LOCK_SECONDS, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        # A crash of the machine may cost the last moments of a playground; waiting for the disk each tick costs more.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
        return cls(connection)

    def close(self) -> None:
        """Closes the file; what was not committed is dropped."""
        self._db.close()

    # --- Recording ---------------------------------------------------------------------------------------------------

    def add_writes(self, row: Writes) -> None:
        """Records a new row, or one that has grown since the last commit."""
        if row.id is not None:
            self._grown[row.id] = row
        else:
            self._new[id(row)] = row

    def add_event(
        self,
        at: float,
        kind: EventKind,
        cluster: str,
        name: str,
        namespace: str = "",
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Records that something happened; see `EventKind`."""
        self._events.append(Event(at, kind, cluster, namespace, name, detail or {}))

    def add_claim(self, claim: Claim) -> None:
        """Records which volume a claim is bound to from now on."""
        self._claims.append(claim)

    def save_volume(self, volume: Volume) -> None:
        """Keeps the state of a volume for the figures, and for a restart of the array."""
        self._volumes[volume.handle] = volume

    def commit(self) -> None:
        """Writes all that was recorded in one transaction; does nothing if nothing was."""
        if not (self._new or self._grown or self._events or self._claims or self._volumes):
            return
        now = time.time()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for row in self._new.values():
                row.id = self._db.execute(
                    "INSERT INTO writes"
                    " (handle, cluster, role, accepted, branch, from_seq, to_seq, t_first, t_last, pod)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (row.handle, row.cluster, row.role, row.accepted, row.branch, row.from_seq, row.to_seq,
                     row.t_first, row.t_last, row.pod),
                ).lastrowid  # fmt: skip
            self._db.executemany(
                "UPDATE writes SET to_seq = ?, t_last = ? WHERE id = ?",
                [(row.to_seq, row.t_last, row.id) for row in self._grown.values()],
            )
            self._db.executemany(
                "INSERT INTO events (at, kind, cluster, namespace, name, detail) VALUES (?, ?, ?, ?, ?, ?)",
                [(e.at, e.kind, e.cluster, e.namespace, e.name, json.dumps(e.detail)) for e in self._events],
            )
            self._db.executemany(
                "INSERT INTO claims (at, cluster, namespace, claim, application, handle, owner)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(c.at, c.cluster, c.namespace, c.claim, c.application, c.handle, c.owner) for c in self._claims],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO volumes (handle, state, updated) VALUES (?, ?, ?)",
                [(volume.handle, volume.model_dump_json(), now) for volume in self._volumes.values()],
            )
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        self._new, self._grown, self._events, self._claims, self._volumes = {}, {}, [], [], {}

    # --- Reading -----------------------------------------------------------------------------------------------------

    def volumes(self) -> dict[str, Volume]:
        """Every volume by its handle, with all writes recorded so far: what the array starts from."""
        found = {}
        for (state,) in self._db.execute("SELECT state FROM volumes"):
            volume = self._with_writes(Volume.model_validate_json(state))
            found[volume.handle] = volume
        return found

    def volume(self, handle: str) -> Volume | None:
        """One volume with all writes recorded so far."""
        row = self._db.execute("SELECT state FROM volumes WHERE handle = ?", (handle,)).fetchone()
        return self._with_writes(Volume.model_validate_json(row[0])) if row else None

    def events(
        self, kind: EventKind | None = None, namespace: str | None = None, name: str | None = None, since: float = 0.0
    ) -> list[Event]:
        """Events in the order in which they happened, filtered."""
        query, values = "SELECT at, kind, cluster, namespace, name, detail FROM events WHERE at >= ?", [since]
        wanted: list[Any] = list(values)
        for column, value in (("kind", kind), ("namespace", namespace), ("name", name)):
            if value is not None:
                query += f" AND {column} = ?"
                wanted.append(value)
        rows = self._db.execute(query + " ORDER BY at, id", wanted)
        return [Event(at, k, cluster, ns, n, json.loads(detail)) for at, k, cluster, ns, n, detail in rows]

    def claims(self, namespace: str, name: str) -> list[Claim]:
        """Every binding of the application's PVCs, oldest first."""
        rows = self._db.execute(
            "SELECT at, cluster, namespace, claim, application, handle, owner FROM claims"
            " WHERE namespace = ? AND application = ? ORDER BY at, id",
            (namespace, name),
        )
        return [Claim(*row) for row in rows]

    def writes(self, handle: str, cluster: str | None = None, branch: int | None = None) -> list[Writes]:
        """Rows of a volume, oldest first; refused writes have branch 0."""
        query = (
            "SELECT handle, cluster, role, accepted, branch, from_seq, to_seq, t_first, t_last, pod, id"
            " FROM writes WHERE handle = ?"
        )
        values: list[Any] = [handle]
        for column, value in (("cluster", cluster), ("branch", branch)):
            if value is not None:
                query += f" AND {column} = ?"
                values.append(value)
        return [Writes(*row) for row in self._db.execute(query + " ORDER BY t_first, id", values)]

    def totals(self, namespace: str, name: str) -> dict[str, Totals]:
        """By cluster: how many writes the application's volumes accepted and refused there, ever."""
        found: dict[str, Totals] = {}
        for handle in {claim.handle for claim in self.claims(namespace, name) if claim.handle}:
            for row in self.writes(handle):
                entry = found.setdefault(row.cluster, Totals())
                if not row.accepted:
                    entry.rejected += row.number
                    continue
                entry.accepted += row.number
                entry.first = row.t_first if entry.first is None else min(entry.first, row.t_first)
                entry.last = row.t_last if entry.last is None else max(entry.last, row.t_last)
        return found

    def data_as_of(self, namespace: str, name: str) -> float | None:
        """Start of the last completed sync, the oldest among the application's volumes; None if one has none."""
        return _oldest(
            volume.last_sync.started if volume.last_sync else None for _, volume in self._current(namespace, name)
        )

    def switch(self, namespace: str, name: str, since: float, until: float = math.inf) -> SwitchFigures:
        """Figures of the last switch of an application that was asked for in `[since, until)`.

        Raises `NotFound` when no VolumeReplicationGroup that protects the application was made primary then.
        """
        claims = self.claims(namespace, name)
        asked = self._asked(claims, since, until)
        if asked is None:
            raise NotFound(f"ledger: no promotion of {namespace}/{name} was asked for since {since:.3f}")
        decided = self._decided(namespace, name, asked)
        volumes, origins = [], []
        for claim in sorted({c.claim for c in claims if c.at <= asked.at}):
            found = self._switched(claim, [c for c in claims if c.claim == claim], asked, decided)
            if found is not None:
                origins.append(found[0])
                volumes.append(found[1])
        if not volumes:
            raise NotFound(f"ledger: {namespace}/{name} had no volume when its promotion was asked for")
        promotions = [volume.promoted for volume in volumes if volume.promoted is not None]
        oldest = min((v.oldest_lost for v in volumes if v.oldest_lost is not None), default=None)
        return SwitchFigures(
            namespace=namespace,
            name=name,
            from_cluster=origins[0],
            to_cluster=asked.cluster,
            promotion_asked=asked.at,
            promoted=max(promotions) if len(promotions) == len(volumes) else None,
            decided=decided,
            last_sync_start=_oldest(volume.last_sync_start for volume in volumes),
            checked=sum(volume.checked for volume in volumes),
            lost=sum(volume.lost for volume in volumes),
            lost_older_than_last_sync=sum(volume.lost_older_than_last_sync for volume in volumes),
            oldest_lost_age=None if oldest is None else asked.at - oldest,
            during_switch=sum(volume.during_switch for volume in volumes),
            orphaned=sum(volume.orphaned for volume in volumes),
            volumes=volumes,
        )

    def divergence(self, namespace: str, name: str) -> Divergence:
        """How the two sides of the application's volumes differ now."""
        absent = only = 0
        primaries: dict[str, list[str]] = {}
        for claim, volume in self._current(namespace, name):
            primary, follower = volume.sides[volume.author], volume.sides[volume.peer(volume.author)]
            primaries[claim] = sorted(cluster for cluster, side in volume.sides.items() if side.writable)
            held = {} if follower.role is Role.ABSENT else same(follower.content)
            due = same(primary.content)
            if follower.health is Health.GOOD and volume.last_sync is not None:
                due = self._accepted_before(volume, due, volume.last_sync.started)
            absent += count(missing(due, held))
            only += count(missing(held, primary.content))
        return Divergence(absent_on_follower=absent, only_on_follower=only, total=absent + only, primaries=primaries)

    # --- Parts of the figures --------------------------------------------------------------------------------------

    def _current(self, namespace: str, name: str) -> list[tuple[str, Volume]]:
        """Claims of the application with the volume that they were last bound to, on whichever cluster."""
        latest = {c.claim: c.handle for c in self.claims(namespace, name) if c.handle}
        found = [(claim, self.volume(handle)) for claim, handle in sorted(latest.items())]
        return [(claim, volume) for claim, volume in found if volume is not None]

    def _asked(self, claims: list[Claim], since: float, until: float) -> Event | None:
        found: Event | None = None
        for owner in {claim.owner for claim in claims if claim.owner}:
            namespace, _, group = owner.partition("/")
            for event in self.events("vrg", namespace, group, since):
                if event.detail["role"] == "primary" and event.at < until and (found is None or event.at > found.at):
                    found = event
        return found

    def _decided(self, namespace: str, name: str, asked: Event) -> float | None:
        for event in self.events("decision", namespace, name, asked.at):
            if any(
                entry["clusterName"] == asked.cluster and entry.get("reason") != RETAINED_FOR_FAILOVER
                for entry in event.detail["decisions"] or []
            ):
                return event.at
        return None

    def _switched(
        self, claim: str, bindings: list[Claim], asked: Event, decided: float | None
    ) -> tuple[str, VolumeFigures] | None:
        """Cluster that was left, and the figures of one PVC; None if it had no volume then."""
        handle = self._served_by(bindings, asked)
        if handle is None:
            return None
        opened = sorted(
            self.events("provisioned", name=handle) + self.events("promoted", name=handle), key=lambda event: event.at
        )
        served = next((event for event in reversed(opened) if event.at < asked.at), None)
        if served is None:
            return None
        branch = int(served.detail["branch"])
        expected = _CONTENT.validate_python(served.detail["content"])
        during = orphaned = 0
        for row in self.writes(handle, served.cluster, branch):
            early = row.before(asked.at)
            if early:
                add(expected, branch, row.from_seq, row.from_seq + early - 1)
            moved = max(early, row.number if decided is None else row.before(decided))
            during += moved - early
            orphaned += row.number - moved
        promotion = next(
            (e for e in opened if e.kind == "promoted" and e.at >= asked.at and e.cluster == asked.cluster), None
        )
        stayed = served.cluster == asked.cluster
        bound = [binding.handle for binding in bindings if binding.cluster == asked.cluster and binding.handle]
        if stayed and promotion is None:
            # Asked for where it is primary already: a deployment, or the way back from an aborted relocate.
            held, found = expected, Promotion(branch, expected, forced=False, whole=True, last_sync=None)
        elif promotion is None or (bound and bound[-1] != handle):
            held, found = {}, None
        else:
            held = _CONTENT.validate_python(promotion.detail["content"])
            found = Promotion(branch, held, promotion.detail["forced"], promotion.detail["whole"], None)
        sync = promotion.detail["last_sync_start"] if promotion else None
        lost = missing(expected, held)
        times = self._times(handle, lost)
        return served.cluster, VolumeFigures(
            claim=claim,
            handle=handle,
            promoted=None if found is None else (promotion or served).at,
            forced=found is not None and found.forced,
            whole=found is not None and found.whole,
            last_sync_start=sync,
            checked=count(expected),
            lost=count(lost),
            lost_older_than_last_sync=len(times) if sync is None else sum(moment < sync for moment in times),
            oldest_lost=min(times, default=None),
            during_switch=0 if stayed else during,
            orphaned=0 if stayed else orphaned,
        )

    def _served_by(self, bindings: list[Claim], asked: Event) -> str | None:
        """The volume behind a claim where its VolumeReplicationGroup was primary before.

        A claim that GitOps created empty on the target must not be taken for the application's data.
        """
        former = [
            event.cluster
            for event in reversed(self.events("vrg", asked.namespace, asked.name))
            if event.at < asked.at and event.detail["role"] == "primary"
        ]
        for cluster in [*former, asked.cluster]:
            handles = [b.handle for b in bindings if b.cluster == cluster and b.handle and b.at <= asked.at]
            if handles:
                return handles[-1]
        return None

    def _times(self, handle: str, content: Content) -> list[float]:
        """When each write of a content was accepted."""
        found = []
        for branch, ranges in content.items():
            rows = self.writes(handle, branch=branch)
            for low, high in ranges:
                for row in rows:
                    first, last = max(low, row.from_seq), min(high, row.to_seq)
                    found += [row.time_of(seq) for seq in range(first, last + 1)]
        return found

    def _accepted_before(self, volume: Volume, content: Content, moment: float) -> Content:
        """The part of a content that was accepted before a moment."""
        late: Content = {}
        for branch in content:
            for row in self.writes(volume.handle, branch=branch):
                early = row.before(moment)
                if early < row.number:
                    add(late, branch, row.from_seq + early, row.to_seq)
        return missing(content, late)

    def _with_writes(self, volume: Volume) -> Volume:
        """Adds what writable sides accepted since the state was saved: it is not saved with each write."""
        for cluster, side in volume.sides.items():
            if side.branch is None:
                continue
            for row in self.writes(volume.handle, cluster, side.branch):
                add(side.content, side.branch, row.from_seq, row.to_seq)
                side.next_number = max(side.next_number, row.to_seq + 1)
        return volume


def _oldest(moments: Iterable[float | None]) -> float | None:
    """The smallest moment; None when there is none or when one is unknown."""
    found = list(moments)
    known = [moment for moment in found if moment is not None]
    return min(known) if known and len(known) == len(found) else None
