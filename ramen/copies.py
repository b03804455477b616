"""Which copy of an object is the newest, when every cluster has one and people may edit any of them. Pure.

Each copy carries its lineage in an annotation: hashes of its present content and of what it was before, the newest
first. A copy whose history ends where another one goes on is merely old and may be replaced. Two copies that were both
changed since they last agreed are a conflict: it is reported, and nothing is overwritten. Clocks are not asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

LINEAGE = "hubless.io/lineage"
"""Annotation of a copy: hashes separated by commas."""

REMEMBERED = 12
"""Hashes that are kept; a copy that is further behind is reported instead of replaced."""

DIGITS = 16
"""Hexadecimal digits of a hash: enough to tell contents apart, and nothing to find a long random secret by."""

Lineage = tuple[str, ...]


def digest(content: Any) -> str:
    """Hash of a value as YAML has it, dates and all; empty for nothing (None, `{}`, `[]`)."""
    if not content:
        return ""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class Copy:
    """One cluster's copy: hash of what it says now (empty: it is not there), and what Hubless last noted on it."""

    digest: str
    noted: Lineage = ()

    @classmethod
    def of(cls, content: Any, annotation: str) -> Copy:
        """A copy by its content and the text of its annotation."""
        return cls(digest(content), tuple(part for part in annotation.split(",") if part))

    @property
    def lineage(self) -> Lineage:
        """Its history with the present content as the newest entry, whether an edit was noted yet or not."""
        if not self.digest:
            return ()
        return self.noted if self.noted[:1] == (self.digest,) else (self.digest, *self.noted)[:REMEMBERED]


def annotation(lineage: Lineage) -> str:
    """The text of the annotation."""
    return ",".join(lineage[:REMEMBERED])


def edited(annotation_before: str, content_before: Any, content: Any) -> str:
    """The annotation of a copy that is about to get another content, for whoever writes it on purpose."""
    before = Copy.of(content_before, annotation_before).lineage
    return annotation(Copy(digest(content), before).lineage)


class Verb(StrEnum):
    """What is to be done with a copy."""

    KEEP = "keep"
    NOTE = "note"
    """Write the lineage; the content stays."""
    TAKE = "take"
    """Replace the content, or make the object, from another cluster's copy."""
    CONFLICT = "conflict"


@dataclass(frozen=True)
class Verdict:
    """What is to be done with the own copy."""

    verb: Verb
    lineage: Lineage = ()
    source: str = ""
    """TAKE: the cluster to copy from."""
    between: tuple[str, ...] = ()
    """CONFLICT: clusters whose copies do not follow from each other."""


def judge(own: str, copies: Mapping[str, Copy]) -> Verdict:
    """What the writer of cluster `own` does with its copy, given the copies of all clusters that answer.

    A copy that is not there follows any other: absence is never taken for a deletion (S7).
    """
    present = {cluster: copy for cluster, copy in sorted(copies.items()) if copy.digest}
    if not present:
        return Verdict(Verb.KEEP)
    newest = {
        cluster: copy
        for cluster, copy in present.items()
        if all(other.digest == copy.digest or _follows(copy, other) for other in present.values())
    }
    if not newest:
        return Verdict(Verb.CONFLICT, between=tuple(present))
    # The same content may have come about in two ways; all choose the same history of it.
    lineage = max((copy.lineage for copy in newest.values()), key=lambda found: (len(found), found))
    mine = copies.get(own, Copy(""))
    if mine.digest == lineage[0]:
        return Verdict(Verb.KEEP) if mine.noted == lineage else Verdict(Verb.NOTE, lineage)
    return Verdict(Verb.TAKE, lineage, next(iter(newest)))


def _follows(copy: Copy, old: Copy) -> bool:
    """Whether the whole history of `old` lies behind `copy`. One that nobody ever noted proves nothing."""
    if not old.noted:
        return False
    past, behind = copy.lineage, old.lineage
    for start in range(1, len(past)):
        overlap = past[start : start + len(behind)]
        if overlap == behind[: len(overlap)] and (len(overlap) == len(behind) or len(past) == REMEMBERED):
            return True
    return False


def differing(between: Sequence[str]) -> str:
    """Clusters as words: `dr1 and dr2`."""
    return " and ".join((", ".join(between[:-1]), between[-1])) if len(between) > 1 else "".join(between)
