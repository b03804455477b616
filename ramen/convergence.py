"""How the copies of one object on all clusters become equal without a hub (design 7, D9, S7).

Each copy carries what Hubless last accepted or wrote there: a revision, and a digest of the spec. A spec that differs
from its digest was edited by somebody; the edit becomes the next revision. The highest revision wins, at equal numbers
the earlier edit, and is written over copies that nobody edited. A cluster that returns with an old copy has a lower
revision and no edit, so it edits nothing. Every writer judges only the copy on its own cluster, from what it sees of
all of them, and all come to the same end without a word between them.

Absence is never deletion. A deletion is a copy that carries a deletionTimestamp: finalizers keep every copy until all
clusters are seen to agree, so a copy that is simply not there was lost, and is made again. An object that was made
again under its name is another one than its copies that are still being deleted: they share no birth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ramen import names
from ramen.model import format_time

Object = dict[str, Any]

DIGEST_LENGTH = 12
"""Characters of the digest: enough to tell two specs of one object apart, short enough to be read."""

NUMBER_LENGTH = 9
"""Digits of a revision; what is longer nobody of us wrote."""

PAST_LENGTH = 10
"""Revisions that a copy remembers to have been: enough for the edits of a time in which two clusters are cut off."""


@dataclass(frozen=True, order=True)
class Revision:
    """What a copy was last accepted as; 0 for a copy that Hubless has not seen yet."""

    number: int = 0
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.number}.{self.digest}"


@dataclass(frozen=True)
class Leave:
    """Nothing is to be written; `waits` says for what, where that is not the end."""

    waits: str = ""


@dataclass(frozen=True)
class Accept:
    """The spec was edited here: these annotations make it a revision."""

    annotations: dict[str, str]


@dataclass(frozen=True)
class Overwrite:
    """The copy is older than another one: its spec becomes this."""

    spec: Object
    annotations: dict[str, str]
    source: str


@dataclass(frozen=True)
class Create:
    """The object exists elsewhere and not here."""

    spec: Object
    annotations: dict[str, str]
    source: str


@dataclass(frozen=True)
class Delete:
    """Another copy is being deleted, so this one has to be too."""

    because: str


@dataclass(frozen=True)
class Release:
    """Every copy is being deleted: the finalizer may go."""


@dataclass(frozen=True)
class Drop:
    """A copy that could not become equal is being deleted: it goes alone, and is made again from the others."""


Step = Leave | Accept | Overwrite | Create | Delete | Release | Drop


def digest(spec: Mapping[str, Any]) -> str:
    """A short digest of a spec; the order of its keys does not matter."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def revision(obj: Object) -> Revision:
    """What the annotation says; an unreadable one counts as none."""
    number, _, given = _annotation(obj, names.COPY).partition(".")
    is_ours = number.isascii() and number.isdecimal() and len(number) <= NUMBER_LENGTH
    return Revision(int(number), given) if is_ours and given else Revision()


def is_edited(obj: Object) -> bool:
    """Whether the spec is another one than Hubless last accepted or wrote there."""
    return revision(obj).digest != digest(obj.get("spec") or {})


def is_leaving(obj: Object | None) -> bool:
    """Whether the copy is being deleted."""
    return obj is not None and bool(obj["metadata"].get("deletionTimestamp"))


def winner(copies: Mapping[str, Object | None], immutable: Sequence[str] = ()) -> str:
    """The cluster whose copy the others follow; empty when no copy was accepted yet.

    The oldest object decides what can never change, so a copy made later with other immutable fields never wins.
    """
    found = {
        cluster: obj
        for cluster, obj in copies.items()
        if obj is not None and revision(obj).number and not is_edited(obj)
    }
    if not found:
        return ""
    first = min(found, key=lambda cluster: (born(found[cluster]), cluster))
    eligible = [cluster for cluster in found if not different(found[cluster], found[first], immutable)]
    return min(eligible, key=lambda cluster: (-revision(found[cluster]).number, *_when(found[cluster]), cluster))


def different(one: Object, other: Object, fields: Sequence[str]) -> list[str]:
    """Which of these fields of the spec differ."""
    mine, theirs = one.get("spec") or {}, other.get("spec") or {}
    return [field for field in fields if mine.get(field) != theirs.get(field)]


def born(obj: Object) -> str:
    """When the first copy was accepted; the object's own creation time before that."""
    return _annotation(obj, names.BORN) or str(obj["metadata"].get("creationTimestamp") or "")


def is_same_life(one: Object, other: Object) -> bool:
    """Whether two copies are of one object, not of one that was deleted and one that was made again under its name."""
    birth = _annotation(one, names.BORN)
    return bool(birth) and birth == _annotation(other, names.BORN)


def step(
    cluster: str,
    copies: Mapping[str, Object | None],
    silent: Sequence[str],
    users: Sequence[str],
    immutable: Sequence[str],
    now: datetime,
) -> Step:
    """What the writer of `cluster` has to do with its copy.

    `copies` holds every cluster that was read, None where the object is absent; `silent` names those that were not.
    `users` are what the object may not be deleted for.
    """
    mine = copies.get(cluster)
    others = {name: obj for name, obj in copies.items() if name != cluster and obj is not None}
    if is_leaving(mine):
        return _leaving(cluster, mine or {}, copies, silent, users, immutable)
    if mine is None:
        best = winner({name: obj for name, obj in others.items() if not is_leaving(obj)}, immutable)
        if not best or any(is_leaving(obj) and is_same_life(obj, others[best]) for obj in others.values()):
            return Leave()
        source = others[best]
        return Create(source.get("spec") or {}, _travelling(source), best)
    others = {name: obj for name, obj in others.items() if not is_leaving(obj) or is_same_life(mine, obj)}
    leaving = sorted(name for name, obj in others.items() if is_leaving(obj) and not different(mine, obj, immutable))
    if leaving and not users and not silent:
        return Delete(f"it is being deleted on {', '.join(leaving)}")
    if is_edited(mine):
        newest = max(revision(obj).number for obj in copies.values() if obj is not None)
        return _edited(cluster, mine, others, newest, immutable, now)
    best = winner({cluster: mine, **others}, immutable)
    if best in ("", cluster):
        return Leave()
    source = others[best]
    if revision(source) == revision(mine) and _annotation(source, names.BORN) == _annotation(mine, names.BORN):
        return Leave()
    fixed = different(mine, source, immutable)
    if fixed:
        return Leave(
            f"{', '.join(fixed)} differ from {best} and can never change: delete the copy on {cluster}, it is made "
            f"again like the one on {best}"
        )
    spec = source.get("spec") or {}
    return Overwrite(spec, _travelling(source) | _overruled(mine, source, now), best)


def _edited(
    cluster: str, mine: Object, others: Mapping[str, Object], newest: int, immutable: Sequence[str], now: datetime
) -> Step:
    """An edit becomes the next revision, unless the very same spec was accepted elsewhere already."""
    spec = mine.get("spec") or {}
    for other in others.values():
        if revision(other) == Revision(newest, digest(spec)) and not is_edited(other):
            return Accept(_travelling(other))
    ages = [_annotation(each, names.BORN) for each in (mine, *others.values())]
    known = [age for age in ages if age]
    # A new object that names other immutable fields than the known ones must not pass for as old as they are.
    same = all(not different(mine, other, immutable) for other in others.values())
    birth = min(known) if known and (same or _annotation(mine, names.BORN)) else format_time(now)
    past = [*_past(mine), str(revision(mine))][-PAST_LENGTH:] if revision(mine).number else []
    return Accept(
        {
            names.COPY: str(Revision(newest + 1, digest(spec))),
            names.EDITED: f"{format_time(now)} {cluster}",
            names.BORN: birth,
            **({names.PAST: " ".join(past)} if past else {}),
        }
    )


def _leaving(
    cluster: str,
    mine: Object,
    copies: Mapping[str, Object | None],
    silent: Sequence[str],
    users: Sequence[str],
    immutable: Sequence[str],
) -> Step:
    staying = {name: obj for name, obj in copies.items() if obj is not None and not is_leaving(obj)}
    best = winner(staying, immutable)
    if best and (different(mine, staying[best], immutable) or not is_same_life(mine, staying[best])):
        return Drop()
    if users:
        return Leave(f"in use by {', '.join(users)}: unprotect first, or give it another policy")
    if silent:
        return Leave(f"{', '.join(silent)} does not answer, and its copy would bring the object back")
    if staying:
        return Leave(f"the copies on {', '.join(sorted(staying))} are being deleted")
    return Release()


def _travelling(source: Object) -> dict[str, str]:
    """The annotations that go with a spec from cluster to cluster."""
    found = {key: _annotation(source, key) for key in (names.COPY, names.EDITED, names.BORN, names.PAST)}
    return {key: value for key, value in found.items() if value}


def _overruled(mine: Object, source: Object, now: datetime) -> dict[str, str]:
    """Says so on the copy when an edit made there at the same time gives way; nothing when it was only old."""
    ours, theirs = revision(mine), revision(source)
    was_then = [text for text in _past(source) if text.startswith(f"{ours.number}.")]
    is_only_old = ours.number < theirs.number and (not was_then or str(ours) in was_then)
    if is_only_old or ours.digest == theirs.digest:
        return {}
    return {
        names.OVERRULED: (
            f"{format_time(now)}: the edit of {_annotation(mine, names.EDITED)} gave way to the one of "
            f"{_annotation(source, names.EDITED)}"
        )
    }


def _past(obj: Object) -> list[str]:
    """The revisions that a copy was before, the oldest first."""
    return _annotation(obj, names.PAST).split()


def _when(obj: Object) -> tuple[str, str]:
    return _annotation(obj, names.EDITED), revision(obj).digest


def _annotation(obj: Object, key: str) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(key) or "")
