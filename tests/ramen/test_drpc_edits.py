"""What is done with a DRPC object: each row is one situation on one cluster (design 7, S7)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ramen import names
from ramen.drpc_edits import Do, Entity, Known, Written, decide, request_id, to_write, with_moves
from ramen.epoch import Epoch

E6, E7 = Epoch(number=6, token="six"), Epoch(number=7, token="seven")
BASE: dict[str, Any] = {
    "placementRef": {"kind": "Placement", "name": "shop"},
    "drPolicyRef": {"name": "gold"},
    "pvcSelector": {"matchLabels": {"app": "shop"}},
    "preferredCluster": "dr1",
}
STANDS = {**BASE, "action": "Failover", "failoverCluster": "dr1"}
"""What the application has: it serves on dr1 since a failover there, at epoch 7."""

PROTECTED = Known(Entity.PROTECTED, serving="dr1", epoch=E7, spec=STANDS)
FRESH = Known(Entity.PROTECTED, serving="dr1", epoch=E7, spec=BASE)
"""Deployed, and never moved."""
RELOCATED = Known(
    Entity.PROTECTED, serving="dr1", epoch=E7, spec=BASE | {"action": "Relocate", "failoverCluster": "dr1"}
)
LEAVING = Known(Entity.LEAVING, serving="dr1", epoch=E7, spec=STANDS)
UNPROTECTED = Known(Entity.UNPROTECTED)
ABSENT = Known(Entity.ABSENT)
RESTORED = Known(Entity.PROTECTED, serving="dr1", epoch=E6, spec=BASE)
"""What an old copy of Temporal's database knows."""
DEPLOYING = Known(Entity.PROTECTED, epoch=E7, spec=BASE)
SILVER = Known(Entity.PROTECTED, serving="dr1", epoch=E7, spec=BASE | {"drPolicyRef": {"name": "silver"}})
"""Protected again, by another policy."""
UNKNOWN = Known(Entity.UNKNOWN, why="Temporal does not answer")


def drpc(spec: dict[str, Any] | None = None, written: dict[str, Any] | None = STANDS, **more: Any) -> dict[str, Any]:
    """An object with `spec`, on which `written` stands as last written at `epoch` for `uid`."""
    uid = more.pop("note_uid", "uid-1")
    note = Written(uid, more.pop("epoch", E7), written).to_text() if written is not None else ""
    metadata = {
        "name": "shop",
        "namespace": "web",
        "uid": "uid-1",
        "generation": 4,
        "annotations": {names.WRITTEN: note} if note else {},
        "finalizers": [names.DRPC_FINALIZER],
        **more,
    }
    return {"metadata": metadata, "spec": STANDS if spec is None else spec}


def edit(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (STANDS | changes).items() if value is not None}


GONE = {"deletionTimestamp": "2026-11-28T08:00:00Z"}

ROWS: list[tuple[str, dict[str, Any] | None, Known, Do, str]] = [
    # --- copies
    ("a cluster without the object gets a copy", None, PROTECTED, Do.MAKE, ""),
    ("no copy of what is not protected", None, UNPROTECTED, Do.NOTHING, ""),
    ("no copy while it is being unprotected", None, LEAVING, Do.NOTHING, ""),
    ("no copy of what is not known", None, UNKNOWN, Do.NOTHING, ""),
    ("a copy that says what stands", drpc(), PROTECTED, Do.NOTHING, ""),
    ("a copy of an older epoch edits nothing", drpc(BASE, BASE, epoch=E6), PROTECTED, Do.WRITE, ""),
    ("the copy of what was unprotected goes", drpc(), UNPROTECTED, Do.DELETE, ""),
    ("a copy that nobody drives is kept", drpc(), ABSENT, Do.WAIT, "hubless adopt shop -n web"),
    ("a copy stays while nothing is known", drpc(), UNKNOWN, Do.NOTHING, ""),
    ("a workflow that knows less than the copy", drpc(), RESTORED, Do.WAIT, "hubless adopt shop -n web"),
    ("an edit, and a workflow that knows less", drpc(edit(failoverCluster="dr2")), RESTORED, Do.WAIT, "old copy"),
    ("a copy that missed a protection by another policy", drpc(BASE, BASE, epoch=E6), SILVER, Do.DELETE, ""),
    (
        "a selector that is written otherwise is the same",
        drpc(
            STANDS | {"pvcSelector": {"matchLabels": {"app": "shop"}, "matchExpressions": []}},
            STANDS | {"pvcSelector": {"matchLabels": {"app": "shop"}, "matchExpressions": []}},
            epoch=E6,
        ),
        PROTECTED,
        Do.WRITE,
        "",
    ),
    # --- new objects
    ("a new object protects", drpc(BASE, None), ABSENT, Do.PROTECT, ""),
    ("a new object protects again after an unprotect", drpc(BASE, None), UNPROTECTED, Do.PROTECT, ""),
    ("a new object waits for Temporal", drpc(BASE, None), UNKNOWN, Do.WAIT, "Temporal does not answer"),
    ("a new object cannot move what is not protected", drpc(STANDS, None), ABSENT, Do.REFUSE, "spec.action"),
    ("a note copied with a manifest is none", drpc(BASE, BASE, note_uid="uid-0"), ABSENT, Do.PROTECT, ""),
    ("the same application, created here as well", drpc(BASE, None), PROTECTED, Do.WRITE, ""),
    ("a restored backup that says what stands", drpc(STANDS, None), PROTECTED, Do.WRITE, ""),
    (
        "a new object moves nothing",
        drpc({**BASE, "action": "Failover", "failoverCluster": "dr2"}, None),
        PROTECTED,
        Do.RESTORE,
        "edit the object now",
    ),
    (
        "another application of this name",
        drpc({**BASE, "drPolicyRef": {"name": "silver"}}, None),
        PROTECTED,
        Do.REFUSE,
        "drPolicyRef",
    ),
    (
        "a new object relocates nothing",
        drpc({**BASE, "action": "Relocate", "failoverCluster": "dr1", "preferredCluster": "dr2"}, None),
        RELOCATED,
        Do.RESTORE,
        "preferredCluster was set back",
    ),
    # --- edits
    ("failover to another cluster", drpc(edit(failoverCluster="dr2")), PROTECTED, Do.FAILOVER, ""),
    ("relocate", drpc(edit(action="Relocate", preferredCluster="dr2")), PROTECTED, Do.RELOCATE, ""),
    ("relocate home", drpc(edit(action="Relocate")), PROTECTED, Do.RELOCATE, ""),
    ("failover to nowhere", drpc(edit(failoverCluster=None)), PROTECTED, Do.RESTORE, "needs spec.failoverCluster"),
    ("preferredCluster alone", drpc(edit(preferredCluster="dr2")), PROTECTED, Do.RESTORE, "moves nothing"),
    ("the action taken away", drpc(edit(action=None)), PROTECTED, Do.RESTORE, "is set back"),
    ("a field that is not carried", drpc(edit(dryRun=True)), PROTECTED, Do.RESTORE, "dryRun cannot be changed"),
    ("an empty field is none", drpc(edit(protectedNamespaces=[])), PROTECTED, Do.NOTHING, ""),
    (
        "an edit of an old copy, made while cut off",
        drpc({**BASE, "action": "Failover", "failoverCluster": "dr2"}, BASE, epoch=E6),
        PROTECTED,
        Do.RESTORE,
        "epoch 6",
    ),
    ("an edit while Temporal is away waits", drpc(edit(failoverCluster="dr2")), UNKNOWN, Do.WAIT, "not carried out"),
    ("an edit during an unprotect", drpc(edit(failoverCluster="dr2")), LEAVING, Do.RESTORE, "being unprotected"),
    ("failoverCluster alone prepares a failover", drpc(BASE | {"failoverCluster": "dr2"}, BASE), FRESH, Do.WRITE, ""),
    (
        "what was prepared stays",
        drpc(BASE | {"failoverCluster": "dr2"}, BASE | {"failoverCluster": "dr2"}),
        FRESH,
        Do.NOTHING,
        "",
    ),
    ("what was prepared is taken out", drpc(BASE, BASE | {"failoverCluster": "dr2"}), FRESH, Do.WRITE, ""),
    (
        "failover to what was prepared",
        drpc(BASE | {"failoverCluster": "dr2", "action": "Failover"}, BASE | {"failoverCluster": "dr2"}),
        FRESH,
        Do.FAILOVER,
        "",
    ),
    ("a first manifest with a prepared failover", drpc(BASE | {"failoverCluster": "dr2"}, None), FRESH, Do.WRITE, ""),
    (
        "failoverCluster alone, after a failover",
        drpc(
            {**BASE, "action": "Relocate", "failoverCluster": "dr2"},
            {**BASE, "action": "Relocate", "failoverCluster": "dr1"},
        ),
        RELOCATED,
        Do.RESTORE,
        "moves nothing",
    ),
    # --- deletions
    ("deleted where it serves", drpc(**GONE), PROTECTED, Do.UNPROTECT, ""),
    ("deleted on an old copy", drpc(epoch=E6, **GONE), PROTECTED, Do.MAKE_AGAIN, "hubless unprotect shop -n web"),
    ("deleted while it is deployed there", drpc(BASE, BASE, **GONE), DEPLOYING, Do.UNPROTECT, ""),
    ("deleted, and a workflow that knows less", drpc(**GONE), RESTORED, Do.WAIT, "hubless adopt"),
    ("deleted without a note", drpc(BASE, None, **GONE), PROTECTED, Do.MAKE_AGAIN, "hubless unprotect"),
    ("deleted while nothing is known", drpc(**GONE), UNKNOWN, Do.WAIT, "not deleted yet"),
    ("deleted while it is being unprotected", drpc(**GONE), LEAVING, Do.NOTHING, ""),
    ("deleted after the unprotect", drpc(**GONE), UNPROTECTED, Do.RELEASE, ""),
    ("deleted before it was ever protected", drpc(BASE, None, **GONE), ABSENT, Do.RELEASE, ""),
    ("deleted without our finalizer", drpc(finalizers=["other"], **GONE), PROTECTED, Do.NOTHING, ""),
]


@pytest.mark.parametrize(("obj", "known", "do", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_is_done_on_the_serving_cluster(obj: dict[str, Any] | None, known: Known, do: Do, words: str) -> None:
    step = decide("dr1", obj, known)
    assert step.do is do
    assert words in step.message


def test_a_deletion_elsewhere_does_not_end_a_deployment() -> None:
    assert decide("dr2", drpc(BASE, BASE, **GONE), DEPLOYING).do is Do.MAKE_AGAIN


@pytest.mark.parametrize("note", ['{"uid": "uid-1", "epoch": 5, "spec": {}}', '{"uid": "uid-1", "epoch": "5.a"}', "[]"])
def test_a_note_that_nobody_of_us_wrote_is_none(note: str) -> None:
    obj = drpc()
    obj["metadata"]["annotations"][names.WRITTEN] = note
    assert Written.of(obj) is None


MADE = drpc(note_uid="", generation=1)
"""A copy whose maker died before it could note the UID."""


@pytest.mark.parametrize(
    ("known", "do"),
    [(PROTECTED, Do.WRITE), (UNPROTECTED, Do.DELETE), (ABSENT, Do.WAIT), (LEAVING, Do.NOTHING), (UNKNOWN, Do.NOTHING)],
    ids=lambda value: getattr(value, "entity", None),
)
def test_a_copy_that_was_made_and_not_noted_yet_is_ours(known: Known, do: Do) -> None:
    assert decide("dr1", MADE, known).do is do


def test_a_copy_that_was_changed_before_its_note_is_no_wish_of_ours() -> None:
    edited = drpc(edit(failoverCluster="dr2"), note_uid="", generation=2)
    assert decide("dr1", edited, PROTECTED).do is Do.RESTORE
    gone = drpc(note_uid="", generation=2, **GONE)
    assert decide("dr1", gone, PROTECTED).do is Do.MAKE_AGAIN


def test_a_deletion_elsewhere_is_undone() -> None:
    step = decide("dr2", drpc(**GONE), PROTECTED)
    assert step.do is Do.MAKE_AGAIN
    assert "hubless unprotect shop -n web" in step.message


@pytest.mark.parametrize("known", [PROTECTED, UNKNOWN, LEAVING, ABSENT], ids=lambda known: known.entity)
@pytest.mark.parametrize("cluster", ["dr1", "dr2"])
def test_a_terminating_namespace_is_never_an_unprotect(cluster: str, known: Known) -> None:
    assert decide(cluster, drpc(**GONE), known, can_make=False).do is Do.RELEASE
    assert decide(cluster, None, known, can_make=False).do is Do.NOTHING


@pytest.mark.parametrize("known", [UNPROTECTED, ABSENT], ids=lambda known: known.entity)
@pytest.mark.parametrize(
    ("obj", "do"),
    [
        (None, Do.NOTHING),
        (drpc(), Do.DELETE),
        (drpc(finalizers=[names.DRPC_FINALIZER, "drpc.ramendr.openshift.io/finalizer"]), Do.NOTHING),
        (drpc(BASE, None), Do.REFUSE),
        (drpc(**GONE), Do.RELEASE),
        (drpc(finalizers=["other"], **GONE), Do.NOTHING),
    ],
    ids=["none", "our copy", "the hub's own", "a new one", "deleted", "deleted, not ours"],
)
def test_the_object_of_what_was_given_back(obj: dict[str, Any] | None, do: Do, known: Known) -> None:
    """Our copy goes and asks for nothing; whether Temporal still knows of the release does not matter (S7, D13)."""
    assert decide("dr1", obj, known, has_vrg=True, was_released=True).do is do


@pytest.mark.parametrize("known", [PROTECTED, LEAVING, UNKNOWN], ids=lambda known: known.entity)
def test_a_vrg_that_is_let_go_says_nothing_while_its_workflow_lives_or_is_not_known(known: Known) -> None:
    """A failover may have taken it back, and its annotations follow a moment later."""
    for obj in (None, drpc(), drpc(**GONE)):
        given = decide("dr1", obj, known, has_vrg=True, was_released=True)
        assert given == decide("dr1", obj, known, has_vrg=True)


def test_a_deletion_with_a_vrg_and_no_workflow_waits_for_adopt() -> None:
    step = decide("dr1", drpc(**GONE), ABSENT, has_vrg=True)
    assert step.do is Do.WAIT
    assert "hubless adopt" in step.message


def test_a_copy_beside_a_vrg_outlives_a_workflow_that_says_unprotected() -> None:
    """An old backup of Temporal may say so; the cluster knows better (D13)."""
    step = decide("dr1", drpc(), UNPROTECTED, has_vrg=True)
    assert step.do is Do.WAIT
    assert "hubless adopt" in step.message


def test_what_is_written_keeps_what_was_prepared_and_asks_for_nothing() -> None:
    obj = drpc(BASE | {"failoverCluster": "dr2"}, BASE)
    spec = to_write(obj, FRESH)
    assert spec == BASE | {"failoverCluster": "dr2"}
    assert decide("dr1", drpc(spec, spec), FRESH).do is Do.NOTHING
    assert to_write(drpc({**BASE, "action": "Failover", "failoverCluster": "dr9"}, BASE), FRESH) == BASE


def test_the_target_is_the_field_that_the_action_reads() -> None:
    assert decide("dr1", drpc(edit(failoverCluster="dr2")), PROTECTED).target == "dr2"
    assert decide("dr1", drpc(edit(action="Relocate", preferredCluster="dr2")), PROTECTED).target == "dr2"


def test_an_accepted_edit_is_not_asked_again_although_the_epoch_moved() -> None:
    """The worker died between the answer and its note on the object."""
    obj = drpc({**BASE, "action": "Failover", "failoverCluster": "dr1"}, BASE, epoch=E6)
    known = Known(Entity.PROTECTED, serving="dr1", epoch=E7, spec=STANDS, accepted=frozenset({request_id("dr2", obj)}))
    assert decide("dr2", obj, known).do is Do.WRITE
    later = Known(Entity.PROTECTED, "dr1", E7, STANDS, frozenset({f"{request_id('dr2', obj)}/again"}))
    assert decide("dr2", obj, later).do is Do.WRITE, "accepted at a later attempt"
    assert decide("dr1", obj, known).do is Do.RESTORE, "the same object on another cluster is another request"


NEW = drpc(BASE, None)
"""An object that somebody created."""


@pytest.mark.parametrize("attempt", ["", "/1a2b3c4d"], ids=["first attempt", "later attempt"])
@pytest.mark.parametrize(
    ("obj", "known"),
    [
        (drpc(edit(failoverCluster="dr2"), epoch=E6), PROTECTED),
        (drpc(edit(failoverCluster="dr2")), PROTECTED),
        (drpc(epoch=E6, **GONE), PROTECTED),
        (drpc(**GONE), PROTECTED),
        (NEW, DEPLOYING),
        (NEW, ABSENT),
    ],
    ids=[
        "an edit whose epoch is claimed",
        "an edit",
        "a deletion whose epoch is claimed",
        "a deletion",
        "a protection whose epoch is claimed",
        "a protection",
    ],
)
def test_what_is_being_looked_into_is_neither_refused_nor_asked_again(
    obj: dict[str, Any], known: Known, attempt: str
) -> None:
    """An epoch that moved may be the request's own: it is accepted, and its answer is not out yet."""
    asked = replace(known, answering=f"{request_id('dr1', obj)}{attempt}")
    step = decide("dr1", obj, asked)
    assert step.do is Do.WAIT
    assert "not decided yet" in step.message
    other = replace(known, answering=request_id("dr2", obj))
    assert decide("dr1", obj, other) == decide("dr1", obj, known), "a request of another cluster's copy"


def test_what_is_being_looked_into_holds_up_no_namespace() -> None:
    obj = drpc(epoch=E6, **GONE)
    known = replace(PROTECTED, answering=request_id("dr1", obj))
    assert decide("dr1", obj, known, can_make=False).do is Do.RELEASE


def test_moves_follow_the_application_and_the_rest_stays() -> None:
    own = {**BASE, "placementRef": {"kind": "Placement", "name": "shop", "namespace": "web"}, "failoverCluster": "dr2"}
    assert with_moves(own, PROTECTED) == {**own, "action": "Failover", "failoverCluster": "dr1"}
    fresh = Known(Entity.PROTECTED, spec=BASE)
    assert with_moves(own, fresh) == {name: value for name, value in own.items() if name != "failoverCluster"}
