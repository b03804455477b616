"""What a DRPC object on one cluster asks for, and what is to be done with it: pure, one table (design 7, S7).

The object is a copy of what the application's workflow knows. Hubless notes on it what it wrote there last; an edit
is a difference from that note and from nothing else. So a cluster that returns with an old copy edits nothing, and an
edit that was made against an older state than the present one is refused instead of being carried out late.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ramen import names
from ramen.desired import label_query
from ramen.epoch import Epoch
from ramen.errors import Invalid

MOVES = ("action", "failoverCluster", "preferredCluster")
"""Fields of the spec that ask for a move; the copies on all clusters follow the application in them."""

SAME = ("drPolicyRef", "placementRef", "pvcSelector")
"""Fields that make two DRPCs the same application; immutable in the API."""


class Entity(StrEnum):
    """What is known of the application's workflow."""

    PROTECTED = "protected"
    LEAVING = "leaving"
    """It is being unprotected, or given back to a hub."""
    UNPROTECTED = "unprotected"
    """It came to its end: the protection was taken away, or it was given back to a hub."""
    ABSENT = "absent"
    """There is none, or one that protects nothing yet."""
    UNKNOWN = "unknown"
    """Temporal or the workflow did not answer; unknown is not absent (D10)."""


@dataclass(frozen=True)
class Known:
    """What the application's workflow says, as far as copies are concerned."""

    entity: Entity
    serving: str = ""
    epoch: Epoch | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    """The spec that every copy should have."""
    accepted: frozenset[str] = frozenset()
    """IDs of requests that were accepted."""
    answering: str = ""
    """ID of the request that is being looked into: it may be accepted, and have moved the epoch already."""
    why: str = ""
    """UNKNOWN: what did not answer."""


@dataclass(frozen=True)
class Written:
    """The note of what Hubless last wrote on a copy."""

    uid: str
    """Of the object that it is on; empty on a copy that was made just now, for its UID is known only afterwards."""
    epoch: Epoch | None
    spec: dict[str, Any]

    def to_text(self) -> str:
        """The annotation's value."""
        return json.dumps({"uid": self.uid, "epoch": str(self.epoch or ""), "spec": self.spec}, sort_keys=True)

    @classmethod
    def of(cls, obj: dict[str, Any]) -> Written | None:
        """Reads the note; None where there is none, or where it was copied from another object with its manifest."""
        text = (obj["metadata"].get("annotations") or {}).get(names.WRITTEN)
        try:
            found = json.loads(text or "")
            note = cls(str(found["uid"]), Epoch.parse(found["epoch"]), dict(found["spec"]))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        if note.uid:
            return note if note.uid == obj["metadata"].get("uid") else None
        is_untouched = obj["metadata"].get("generation", 1) == 1 and not changed(note.spec, obj["spec"])
        return note if is_untouched else None


class Do(StrEnum):
    """What to do with one object."""

    NOTHING = "nothing"
    MAKE = "make"
    """Create the copy."""
    WRITE = "write"
    """Bring spec and note up to date."""
    PROTECT = "protect"
    FAILOVER = "failover"
    RELOCATE = "relocate"
    UNPROTECT = "unprotect"
    RESTORE = "restore"
    """Refuse the edit and bring the spec back to what stands."""
    REFUSE = "refuse"
    """Refuse, and leave the object as it is: it is not our copy."""
    RELEASE = "release"
    """Let a deletion happen: take the finalizer away."""
    MAKE_AGAIN = "make_again"
    """Let a deletion happen, which was no unprotect, and make the copy again."""
    DELETE = "delete"
    """Delete the copy: the application is not protected any more."""
    WAIT = "wait"
    """Not known what is right; nothing is changed and it is looked at again."""


ASKS = frozenset({Do.PROTECT, Do.FAILOVER, Do.RELOCATE, Do.UNPROTECT})
"""These send a request to the application's workflow."""


@dataclass(frozen=True)
class Step:
    """What to do, with the words for an event and a condition."""

    do: Do
    message: str = ""
    target: str = ""


NOTHING = Step(Do.NOTHING)


def request_id(cluster: str, obj: dict[str, Any]) -> str:
    """The same for the same version of the same object, so that asking again starts nothing twice."""
    metadata = obj["metadata"]
    return f"kubectl/{cluster}/{metadata['uid']}/{metadata.get('generation', 1)}"


def is_being_answered(cluster: str, obj: dict[str, Any], known: Known) -> bool:
    """Whether the workflow is looking into what this version of the object asked for, at whichever attempt."""
    return _asked_by(cluster, obj, known.answering)


def _asked_by(cluster: str, obj: dict[str, Any], request: str) -> bool:
    """Whether a request is of this version of the object: at a later attempt its ID has one part more."""
    mine = request_id(cluster, obj)
    return request == mine or request.startswith(f"{mine}/")


def decide(
    cluster: str,
    obj: dict[str, Any] | None,
    known: Known,
    *,
    can_make: bool = True,
    has_vrg: bool = False,
    was_released: bool = False,
) -> Step:
    """What is to be done with the DRPC object of an application on a cluster.

    `can_make`: the namespace exists there and is not terminating. `has_vrg`: the cluster has a VRG of ours for it, or
    nobody can see whether it has (D10). `was_released`: that VRG says that it was given back to a hub, which is true
    whatever Temporal still knows.
    """
    if was_released and known.entity in (Entity.UNPROTECTED, Entity.ABSENT):
        return _released(obj)
    if obj is None:
        return Step(Do.MAKE) if known.entity is Entity.PROTECTED and can_make else NOTHING
    if obj["metadata"].get("deletionTimestamp"):
        return _deleted(cluster, obj, known, can_make, has_vrg)
    written = Written.of(obj)
    if known.entity is Entity.PROTECTED and written and _is_older(known, written):
        return _from_a_backup(obj, known, written)
    if is_being_answered(cluster, obj, known):
        return _undecided(obj)
    match known.entity:
        case Entity.UNKNOWN:
            edited = written is None or changed(written.spec, obj["spec"])
            return Step(Do.WAIT, f"not carried out yet: {known.why}") if edited else NOTHING
        case Entity.PROTECTED:
            return _edited(cluster, obj, known, written) if written else _met(obj, known)
        case Entity.LEAVING:
            if written and changed(written.spec, obj["spec"]):
                return Step(
                    Do.RESTORE,
                    f"{_label(obj)} is being unprotected or given back to a hub; ask again when that has ended.",
                )
            return NOTHING
        case Entity.UNPROTECTED if written and has_vrg:
            # Its workflow ended, its VRG did not: an old backup of Temporal speaks, or the cluster was forgotten.
            return _orphan(obj)
        case Entity.UNPROTECTED:
            return Step(Do.DELETE) if written else _protect(obj)
        case Entity.ABSENT:
            return _orphan(obj) if written else _protect(obj)


def _released(obj: dict[str, Any] | None) -> Step:
    """The object of an application that a hub drives: our copy goes, and asks nobody for anything (S7).

    One that others hold too is theirs, as the DRPC of a hub that is itself a cluster here: deleting that would make
    the hub take the protection away.
    """
    if obj is None:
        return NOTHING
    finalizers = obj["metadata"].get("finalizers") or []
    if obj["metadata"].get("deletionTimestamp"):
        return Step(Do.RELEASE) if names.DRPC_FINALIZER in finalizers else NOTHING
    if Written.of(obj):
        return NOTHING if set(finalizers) - {names.DRPC_FINALIZER} else Step(Do.DELETE)
    metadata = obj["metadata"]
    return Step(
        Do.REFUSE,
        f"{_label(obj)} was given back to a Ramen hub. To hold it here again: "
        f"hubless adopt {metadata['name']} -n {metadata['namespace']} --policy POLICY",
    )


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of the fields that differ; an empty value is as good as none."""
    fields = sorted({*before, *after})
    return [name for name in fields if (before.get(name) or None) != (after.get(name) or None)]


def prepared(obj: dict[str, Any], known: Known) -> dict[str, Any]:
    """`failoverCluster` as its user set it for a failover to come: without action Failover it asks for nothing.

    Ramen's manifests often carry it from the first day. Once a failover was made the field tells where it went.
    """
    spec = obj["spec"]
    if spec.get("action") == "Failover" or known.spec.get("failoverCluster"):
        return {}
    return {"failoverCluster": spec.get("failoverCluster")}


def to_write(obj: dict[str, Any], known: Known) -> dict[str, Any]:
    """The spec that a copy should have: as last written, with the application's moves and what a user prepared."""
    written = Written.of(obj)
    base = with_moves(written.spec if written else obj["spec"], known) | prepared(obj, known)
    return {name: value for name, value in base.items() if value is not None}


def with_moves(spec: dict[str, Any], known: Known) -> dict[str, Any]:
    """A copy's spec with the moves as the application has them; what is immutable stays as its user wrote it."""
    kept = {name: value for name, value in spec.items() if name not in MOVES}
    return kept | {name: known.spec[name] for name in MOVES if known.spec.get(name)}


# --- objects that are not our copy yet -----------------------------------------------------------------------------


def _protect(obj: dict[str, Any]) -> Step:
    """A DRPC that somebody created: `kubectl apply` and `hubless protect` are the same thing."""
    action = obj["spec"].get("action")
    if action:
        return Step(
            Do.REFUSE,
            f"{_label(obj)} is not protected yet, so there is nothing for action {action} to move. "
            "Remove spec.action; set it when the application is protected.",
        )
    return Step(Do.PROTECT)


def _orphan(obj: dict[str, Any]) -> Step:
    """A copy whose workflow is gone although nobody took the protection away: Temporal lost its history."""
    metadata = obj["metadata"]
    return Step(
        Do.WAIT,
        f"nobody drives {_label(obj)}: Temporal has no workflow for it. "
        f"Take it up again: hubless adopt {metadata['name']} -n {metadata['namespace']}",
    )


def _met(obj: dict[str, Any], known: Known) -> Step:
    """A DRPC that somebody created for an application that is protected already: the same one, or another one."""
    other = [name for name in SAME if not _same(name, obj["spec"], known.spec)]
    if other:
        return Step(
            Do.REFUSE,
            f"{_label(obj)} is protected already with another {', '.join(other)}. Delete this object; a copy of the "
            "one in force comes in its place.",
        )
    given = {name: value for name, value in obj["spec"].items() if name not in prepared(obj, known)}
    # preferredCluster alone says where an application began, with action Relocate where it is to go.
    asking = MOVES if given.get("action") == "Relocate" else MOVES[:2]
    asked = [name for name in asking if given.get(name) and given[name] != known.spec.get(name)]
    if asked:
        return Step(
            Do.RESTORE,
            f"{_label(obj)} is protected already, and a new object asks for no move: {', '.join(asked)} was set back. "
            "If it is meant, edit the object now.",
        )
    return Step(Do.WRITE)


def _same(name: str, given: dict[str, Any], known: dict[str, Any]) -> bool:
    if name == "pvcSelector":
        one, other = given.get(name) or {}, known.get(name) or {}
        try:
            return label_query(one) == label_query(other)
        except Invalid:
            return bool(one == other)
    return bool((given.get(name) or {}).get("name") == (known.get(name) or {}).get("name"))


# --- edits ---------------------------------------------------------------------------------------------------------


def _is_older(known: Known, written: Written) -> bool:
    """Whether the workflow knows less than the copy, as one of a restored database does."""
    return known.epoch is not None and written.epoch is not None and known.epoch.number < written.epoch.number


def _from_a_backup(obj: dict[str, Any], known: Known, written: Written) -> Step:
    metadata = obj["metadata"]
    theirs, mine = (epoch.number if epoch else "none" for epoch in (known.epoch, written.epoch))
    return Step(
        Do.WAIT,
        f"Temporal knows {_label(obj)} as of epoch {theirs}, and this copy is of epoch {mine}: an old copy of its "
        f"database answers. Take it up again: hubless adopt {metadata['name']} -n {metadata['namespace']}",
    )


def _edited(cluster: str, obj: dict[str, Any], known: Known, written: Written) -> Step:
    if written.epoch != known.epoch and any(not _same(name, written.spec, known.spec) for name in SAME):
        # It missed that the application was unprotected, and protected again otherwise; the fields are immutable.
        return Step(Do.DELETE)
    fields = [name for name in changed(written.spec, obj["spec"]) if name not in prepared(obj, known)]
    if not fields or _is_accepted(cluster, obj, known):
        wanted = to_write(obj, known)
        up_to_date = written.epoch == known.epoch and not changed(obj["spec"], wanted)
        up_to_date = up_to_date and bool(written.uid) and not changed(written.spec, wanted)
        return NOTHING if up_to_date else Step(Do.WRITE)
    if written.epoch != known.epoch:
        was = written.epoch.number if written.epoch else "none"
        now = known.epoch.number if known.epoch else "none"
        return Step(
            Do.RESTORE,
            f"the edit of {', '.join(fields)} was made on a copy of epoch {was}, but {_label(obj)} is at epoch {now} "
            f"and serves on {known.serving or 'no cluster'} by now. Look at it, and edit again if it is still meant.",
        )
    return _asked(fields, obj["spec"], known)


def _undecided(obj: dict[str, Any]) -> Step:
    """An epoch that moved may be the request's own: neither a refusal nor a second request may come of it."""
    return Step(Do.WAIT, f"not decided yet: the workflow of {_label(obj)} is looking into it")


def _is_accepted(cluster: str, obj: dict[str, Any], known: Known) -> bool:
    """Whether this edit was accepted, at the first attempt or at a later one."""
    return any(_asked_by(cluster, obj, each) for each in known.accepted)


def _asked(fields: list[str], spec: dict[str, Any], known: Known) -> Step:
    """The move that an edit asks for."""
    others = [name for name in fields if name not in MOVES]
    if others:
        return Step(
            Do.RESTORE,
            f"{', '.join(others)} cannot be changed while the application is protected. Unprotect it, and protect it "
            "again with the new spec.",
        )
    action, target = spec.get("action"), spec.get("failoverCluster", "")
    if action == "Failover" and {"action", "failoverCluster"} & set(fields):
        if not target:
            return Step(Do.RESTORE, "action Failover needs spec.failoverCluster, the cluster to fail over to.")
        return Step(Do.FAILOVER, target=target)
    if action == "Relocate" and {"action", "preferredCluster"} & set(fields):
        target = spec.get("preferredCluster", "")
        if not target:
            return Step(Do.RESTORE, "action Relocate needs spec.preferredCluster, the cluster to relocate to.")
        return Step(Do.RELOCATE, target=target)
    if not action:
        return Step(
            Do.RESTORE,
            f"spec.action tells the last move and is set back; without it {', '.join(fields)} moves nothing."
            if known.spec.get("action")
            else f"{', '.join(fields)} alone moves nothing. Set spec.action to Failover or Relocate with it.",
        )
    field_ = "failoverCluster" if action == "Failover" else "preferredCluster"
    return Step(
        Do.RESTORE,
        f"{', '.join(fields)} moves nothing under action {action}, which goes to {field_}. Set the action with it.",
    )


# --- deletions (S7) ------------------------------------------------------------------------------------------------


def _deleted(cluster: str, obj: dict[str, Any], known: Known, can_make: bool, has_vrg: bool) -> Step:
    """Absence is never deletion: only one deletion of five takes the protection away."""
    metadata = obj["metadata"]
    if names.DRPC_FINALIZER not in (metadata.get("finalizers") or []):
        return NOTHING
    if not can_make:
        # The namespace goes: its copy may not hold it up, and says nothing about the application elsewhere.
        return Step(Do.RELEASE)
    how = f"To take the protection away: hubless unprotect {metadata['name']} -n {metadata['namespace']}"
    written = Written.of(obj)
    match known.entity:
        case Entity.UNKNOWN:
            return Step(Do.WAIT, f"not deleted yet: {known.why}")
        case Entity.UNPROTECTED:
            return Step(Do.RELEASE)
        case Entity.ABSENT:
            return _orphan(obj) if has_vrg else Step(Do.RELEASE)
        case Entity.LEAVING:
            return NOTHING
        case Entity.PROTECTED if written and _is_older(known, written):
            return _from_a_backup(obj, known, written)
        case _ if is_being_answered(cluster, obj, known):
            return _undecided(obj)
        case Entity.PROTECTED if written is None or written.epoch != known.epoch:
            return Step(
                Do.MAKE_AGAIN, f"the copy that was deleted was older than the application and is made again. {how}"
            )
        case Entity.PROTECTED if not known.serving and cluster == known.spec.get("preferredCluster"):
            pass  # it is being deployed here and serves nowhere: this ends a deployment that cannot end
        case Entity.PROTECTED if known.serving != cluster:
            return Step(
                Do.MAKE_AGAIN,
                f"{_label(obj)} serves on {known.serving or 'no cluster'}: a copy that is deleted on {cluster} is made "
                f"again. {how}",
            )
    return Step(Do.UNPROTECT)


def _label(obj: dict[str, Any]) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
