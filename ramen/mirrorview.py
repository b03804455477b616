"""What the mirrors say, read for people: each store's copy of an application, and where the copies differ.

Nothing here decides anything: an adoption weighs the same documents by rules of its own (`ramen.recovery`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from ramen import names
from ramen.app import AppRef
from ramen.epoch import Epoch
from ramen.errors import Invalid
from ramen.s3layout import (
    ClusterStatusDocument,
    DecisionDocument,
    Document,
    EpochClaim,
    HistoryDocument,
    LockDocument,
    StateDocument,
    WitnessDocument,
    newest_claim_key,
)

Doc = TypeVar("Doc", bound=Document)


class StoreCopy(BaseModel):
    """All that one store holds of one application."""

    model_config = ConfigDict(frozen=True)

    claimed: int | None = None
    """Highest epoch that is claimed, by its key: known also where the claim itself cannot be read."""
    claim: EpochClaim | None = None
    lock: LockDocument | None = None
    state: StateDocument | None = None
    decision: DecisionDocument | None = None
    history: list[HistoryDocument] = []
    """Oldest first."""
    unreadable: dict[str, str] = {}
    """By key: why a document cannot be read."""

    @property
    def is_empty(self) -> bool:
        """Whether the store answers and holds nothing of the application."""
        return self == StoreCopy()

    def is_broken(self, what: str) -> bool:
        """Whether there is a lock, state or decision that cannot be read, which is not the same as none."""
        return any(key.endswith(f"/{what}") for key in self.unreadable)


def applications(keys: Iterable[str]) -> list[AppRef]:
    """Every application with a key among these, also one of which only the tombstone is left (S7)."""
    found = {split[:2] for key in keys if (split := names.split_mirror_key(key))}
    return [AppRef(namespace=namespace, name=name) for namespace, name in sorted(found)]


def essential(keys: Iterable[str]) -> list[str]:
    """Of all keys of a store those that say how each application stands now, without what it did before."""
    by_app: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key in keys:
        if split := names.split_mirror_key(key):
            by_app[split[:2]].append(key)
    chosen: list[str] = []
    for app, own in by_app.items():
        now = {newest_claim_key(*app, own), names.lock_key(*app), names.state_key(*app), names.decision_key(*app)}
        chosen += [key for key in sorted(own) if key in now]
    return chosen


def read_copy(app: AppRef, objects: Mapping[str, bytes]) -> StoreCopy:
    """Reads what a store holds of an application; a document that cannot be read is named, and hides no other one."""
    place = (app.namespace, app.name)
    unreadable: dict[str, str] = {}

    def read(key: str | None, kind: type[Doc]) -> Doc | None:
        if key is None or key not in objects:
            return None
        try:
            return kind.decode(objects[key])
        except Invalid as err:
            unreadable[key] = str(err).partition("cannot be read: ")[2] or str(err)
            return None

    own = sorted(key for key in objects if key.startswith(names.mirror_prefix(*place)))
    newest = newest_claim_key(*place, own)
    copy = StoreCopy(
        claimed=int(newest.rpartition("/")[2]) if newest else None,
        claim=read(newest, EpochClaim),
        lock=read(names.lock_key(*place), LockDocument),
        state=read(names.state_key(*place), StateDocument),
        decision=read(names.decision_key(*place), DecisionDocument),
        history=sorted(
            (done for key in own if _is_below(place, "history/", key) and (done := read(key, HistoryDocument))),
            key=lambda done: (done.epoch.number, done.finished_at is None, str(done.finished_at), done.action),
        ),
    )
    for key in own:  # read by nobody here, and still worth to be named when it is broken
        if _is_below(place, "witness/", key):
            read(key, WitnessDocument)
        elif _is_below(place, "epoch/", key) and key != newest:
            read(key, EpochClaim)
    return copy.model_copy(update={"unreadable": dict(sorted(unreadable.items()))})


def _is_below(place: tuple[str, str], folder: str, key: str) -> bool:
    return key.startswith(names.mirror_prefix(*place) + folder)


def newest(copies: Mapping[str, StoreCopy]) -> StoreCopy:
    """Each document as the store with the newest one has it: what an application is most likely doing."""
    found = list(copies.values())
    return StoreCopy(
        claimed=max((copy.claimed for copy in found if copy.claimed is not None), default=None),
        claim=max((copy.claim for copy in found if copy.claim), key=lambda claim: claim.number, default=None),
        lock=max((copy.lock for copy in found if copy.lock), key=lambda lock: lock.expires, default=None),
        state=max(
            (copy.state for copy in found if copy.state),
            key=lambda state: (state.epoch.number, state.written_at),
            default=None,
        ),
        decision=max(
            (copy.decision for copy in found if copy.decision),
            key=lambda decision: (decision.epoch.number, decision.decided_at),
            default=None,
        ),
    )


def disagreements(copies: Mapping[str, StoreCopy]) -> list[str]:
    """One plain line for each thing of which the stores that answered say different things.

    A document that a store cannot show readably is no word of that store.
    """
    empty = sorted(profile for profile, copy in copies.items() if copy.is_empty)
    copies = {profile: copy for profile, copy in copies.items() if not copy.is_empty}
    lines = [
        f"{', '.join(empty)} holds nothing of it, {', '.join(sorted(copies))} does" if empty and copies else "",
        _differing("the newest epoch", copies, _claim_words, lambda copy: copy.claimed is None or bool(copy.claim)),
        _differing("the lock", copies, _lock_words, lambda copy: not copy.is_broken("lock")),
        _differing("the state", copies, _state_words, lambda copy: not copy.is_broken("state")),
        _differing("the decision", copies, _decision_words, lambda copy: not copy.is_broken("decision")),
    ]
    return [*(line for line in lines if line), *_missing_history(copies)]


def _differing(
    what: str,
    copies: Mapping[str, StoreCopy],
    words: Callable[[StoreCopy], tuple[str, str]],
    speaks: Callable[[StoreCopy], bool],
) -> str:
    """`words` answers what a copy says and, where that alone would look equal, what tells it from another."""
    said = {profile: words(copy) for profile, copy in sorted(copies.items()) if speaks(copy)}
    if len(set(said.values())) < 2:
        return ""
    ambiguous = len({plain for plain, _ in said.values()}) < len(set(said.values()))
    shown = (
        f"{plain}{f' ({more})' if ambiguous and more else ''} in {profile}" for profile, (plain, more) in said.items()
    )
    return f"{what} is {', '.join(shown)}"


def _claim_words(copy: StoreCopy) -> tuple[str, str]:
    if copy.claim is None:
        return "none", ""
    return str(copy.claim.number), f"{copy.claim.action}, token {copy.claim.token}"


def _lock_words(copy: StoreCopy) -> tuple[str, str]:
    if copy.lock is None:
        return "free", ""
    return f"held by {copy.lock.holder}", copy.lock.workflow_id or f"epoch {copy.lock.epoch.number}"


def _state_words(copy: StoreCopy) -> tuple[str, str]:
    if copy.state is None:
        return "none", ""
    state = copy.state
    return f"{state.phase or 'without a phase'} of epoch {state.epoch.number}", _version(state.epoch, state.written_at)


def _decision_words(copy: StoreCopy) -> tuple[str, str]:
    if copy.decision is None:
        return "none", ""
    decision = copy.decision
    retained = f", {', '.join(decision.retained)} retained" if decision.retained else ""
    return (
        f"{decision.cluster or 'nowhere'} of epoch {decision.epoch.number}{retained}",
        _version(decision.epoch, decision.decided_at),
    )


def _version(epoch: Epoch, written: datetime) -> str:
    return f"token {epoch.token}, written {written:%Y-%m-%d %H:%M:%S}Z"


def _missing_history(copies: Mapping[str, StoreCopy]) -> list[str]:
    """Stores in which finished actions of others are missing, oldest first."""
    done = {
        profile: {(entry.epoch.number, entry.action) for entry in copy.history}
        for profile, copy in sorted(copies.items())
        if not any("/history/" in key for key in copy.unreadable)
    }
    everything = set().union(*done.values()) if done else set()
    lines = []
    for profile, known in done.items():
        if lacking := sorted(everything - known):
            what = ", ".join(f"{action} of epoch {epoch}" for epoch, action in lacking)
            lines.append(f"the history in {profile} lacks {what}")
    return lines


def read_clusters(objects: Mapping[str, bytes]) -> tuple[list[ClusterStatusDocument], dict[str, str]]:
    """The clusters that a store knows of, and by key why a document cannot be read."""
    known: list[ClusterStatusDocument] = []
    unreadable: dict[str, str] = {}
    for key, body in sorted(objects.items()):
        try:
            known.append(ClusterStatusDocument.decode(body, key))
        except Invalid as err:
            unreadable[key] = str(err).partition("cannot be read: ")[2]
    return known, unreadable


def newest_clusters(found: Iterable[ClusterStatusDocument]) -> list[ClusterStatusDocument]:
    """Of each cluster the latest document, by name: a store that was away keeps an old one."""
    latest: dict[str, ClusterStatusDocument] = {}
    for document in found:
        known = latest.get(document.cluster)
        if known is None or document.told_at > known.told_at:
            latest[document.cluster] = document
    return [latest[cluster] for cluster in sorted(latest)]
