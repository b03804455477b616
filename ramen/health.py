"""What the registry's status says of each cluster: hysteresis, flaps, and how seldom it is written. Pure.

The gates of a worker move with every outage, and so they must; a status is read by people and costs a write on an API
server. So bad news is shown at once, good news at once too unless the cluster flaps, and writes come from a budget.
All `now` are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from ramen.model import format_time, parse_time
from ramen.objects import ClusterHealth

AVAILABLE, UNAVAILABLE, UNKNOWN = "Available", "Unavailable", "Unknown"
"""The values of `status.clusters[].state` (`ramen.objects.CLUSTER_STATES`)."""

WINDOW_SECONDS = 600.0
"""Outages within this time count as flaps."""

FLAPPING = 2
"""So many outages in the window are flapping: one is an outage, the second may be the rule."""

STEADY_SECONDS = 30.0
"""A flapping cluster has to answer for so long before it is called available again."""

BURST = 5
"""Changes that are written at once."""

RESERVED = 2
"""The last of them are kept for states: an outage and the return must not wait because a worker was restarted."""

PER_WRITE_SECONDS = 60.0
"""One more write may be made after this time: however a cluster behaves, one write a minute."""


@dataclass(frozen=True)
class Sighting:
    """One cluster as a worker's gate stands now."""

    state: str
    since: datetime | None = None
    version: str = ""
    error: str = ""
    workers: tuple[str, ...] = ()
    """Identities of the workers that reach it, sorted."""


@dataclass
class _Track:
    """What is remembered of one cluster."""

    seen: Sighting
    shown: str
    since: datetime | None
    changed: float
    """When the gate last moved."""
    has_moved: bool = False
    """Whether the gate moved since this worker knows the cluster."""
    outages: deque[float] = field(default_factory=deque)
    """When it stopped answering, within the window."""


class HealthBook:
    """Turns sightings into the entries of the status."""

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}

    def inherit(self, entries: list[ClusterHealth]) -> None:
        """Takes over what another worker wrote before: a state that lasts keeps its `since`."""
        for entry in entries:
            track = self._tracks.get(entry.name)
            since = parse_time(entry.since)
            if track is not None and since and entry.state == track.shown and not track.has_moved:
                track.since = min(since, track.since or since)

    def observe(self, sightings: dict[str, Sighting], now: float) -> None:
        """Takes in how all clusters stand; those that are not named have left the registry."""
        for name in self._tracks.keys() - sightings.keys():
            del self._tracks[name]
        for name, seen in sightings.items():
            track = self._tracks.get(name)
            if track is None:
                self._tracks[name] = _Track(seen, seen.state, seen.since, now)
                continue
            if seen.state != track.seen.state:
                track.changed, track.has_moved = now, True
                if seen.state == UNAVAILABLE and track.seen.state == AVAILABLE:
                    track.outages.append(now)
            track.seen = seen
            while track.outages and track.outages[0] <= now - WINDOW_SECONDS:
                track.outages.popleft()
            if seen.state != track.shown and not (seen.state == AVAILABLE and _is_restless(track, now)):
                track.shown, track.since = seen.state, seen.since

    def entries(self) -> list[ClusterHealth]:
        """The status of all clusters, by name."""
        return [_entry(name, track) for name, track in sorted(self._tracks.items())]


def _is_restless(track: _Track, now: float) -> bool:
    return len(track.outages) >= FLAPPING and now - track.changed < STEADY_SECONDS


def _entry(name: str, track: _Track) -> ClusterHealth:
    seen, flaps = track.seen, len(track.outages)
    error = seen.error
    if track.shown != seen.state:
        error = f"{name} answers, but went away {flaps} times in {WINDOW_SECONDS / 60:g} min; it has to hold"
    entry = ClusterHealth(
        name=name,
        state=track.shown,
        version=seen.version,
        workers=list(seen.workers),
        last_error=error,
        flaps=flaps if flaps >= FLAPPING else 0,
    )
    if track.since:
        entry.since = format_time(track.since)
    return entry


class Weight(IntEnum):
    """How urgent a difference is."""

    NONE = 0
    WORDS = 1
    """The number of flaps, the words of an error, a date: they ride along with the next write."""
    FACTS = 2
    """Something that a reader should know soon."""
    STATES = 3
    """A cluster came, went, joined or left."""


def weight(old: list[ClusterHealth], new: list[ClusterHealth]) -> Weight:
    """How urgently a status that says `new` has to replace one that says `old`."""

    def states(entry: ClusterHealth) -> tuple[str, str]:
        return entry.name, entry.state

    def facts(entry: ClusterHealth) -> tuple[object, ...]:
        return entry.version, tuple(entry.workers), entry.flaps > 0, entry.last_error != ""

    if [*map(states, old)] != [*map(states, new)]:
        return Weight.STATES
    if [*map(facts, old)] != [*map(facts, new)]:
        return Weight.FACTS
    return Weight.NONE if old == new else Weight.WORDS


class WriteBudget:
    """How often one object may be written: a few times in a row, then once in `PER_WRITE_SECONDS`."""

    def __init__(self, now: float) -> None:
        self._left = float(BURST)
        self._counted = now
        self._last = float("-inf")

    def allows(self, now: float, weight: Weight) -> bool:
        """Whether a write may be made now; once the last one is a minute old, for anything that is new."""
        self._left = min(float(BURST), self._left + (now - self._counted) / PER_WRITE_SECONDS)
        self._counted = now
        if self._left < 1 or weight is Weight.NONE:
            return False
        if weight is Weight.STATES or now - self._last >= PER_WRITE_SECONDS:
            return True
        return weight is Weight.FACTS and self._left >= 1 + RESERVED

    def spend(self, now: float) -> None:
        """A write was made, or tried."""
        self._left -= 1
        self._last = now


def image_version(images: Iterable[str]) -> str:
    """The version that container images name by tag or digest; of several the first that names one."""
    for image in images:
        name = image.rpartition("/")[2]
        repository, _, digest = name.partition("@")
        if version := repository.partition(":")[2] or digest:
            return version
    return ""
