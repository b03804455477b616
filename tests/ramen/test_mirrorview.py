"""What the stores say of an application, and that they are never said to agree when they do not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from ramen import names
from ramen.app import AppRef
from ramen.epoch import Epoch
from ramen.mirrorview import (
    StoreCopy,
    applications,
    disagreements,
    essential,
    newest,
    newest_clusters,
    read_clusters,
    read_copy,
)
from ramen.s3layout import (
    ClusterStatusDocument,
    DecisionDocument,
    Document,
    EpochClaim,
    HistoryDocument,
    LockDocument,
    StateDocument,
    WitnessDocument,
)

AT = datetime(2026, 3, 1, 14, 1, 31, tzinfo=UTC)
LATER = AT + timedelta(seconds=5)
SHOP = AppRef(namespace="web", name="shop")
PLACE = (SHOP.namespace, SHOP.name)
SEVEN, EIGHT = Epoch(number=7, token="seven"), Epoch(number=8, token="eight")


def claim(epoch: Epoch = EIGHT, action: str = "Failover") -> dict[str, Document]:
    document = EpochClaim(number=epoch.number, token=epoch.token, action=action, request_id="r", claimed_at=AT)
    return {names.epoch_key(*PLACE, epoch.number): document}


def lock(holder: str = "drpc/web/shop") -> dict[str, Document]:
    return {names.lock_key(*PLACE): LockDocument(holder=holder, epoch=EIGHT, acquired=AT, expires=LATER)}


def state(epoch: Epoch = EIGHT, at: datetime = AT, phase: str = "FailedOver") -> dict[str, Document]:
    return {names.state_key(*PLACE): StateDocument(phase=phase, epoch=epoch, written_at=at)}


def decision(cluster: str = "dr2", epoch: Epoch = EIGHT) -> dict[str, Document]:
    document = DecisionDocument(cluster=cluster, retained=["dr1"], epoch=epoch, decided_at=AT)
    return {names.decision_key(*PLACE): document}


def done(number: int, action: str) -> dict[str, Document]:
    document = HistoryDocument(epoch=Epoch(number=number, token="x"), action=action, finished_at=AT)
    return {names.history_key(*PLACE, number, action): document}


def stored(*parts: dict[str, Document], **raw: bytes) -> dict[str, bytes]:
    """Objects of a store; a keyword is the end of a key with the bytes that lie there."""
    bodies = {key: document.encode() for part in parts for key, document in part.items()}
    return bodies | {names.mirror_prefix(*PLACE) + name: body for name, body in raw.items()}


ALL = (claim(), lock(), state(), decision(), done(8, "Failover"))


def copies(**objects: Mapping[str, bytes]) -> dict[str, StoreCopy]:
    return {profile: read_copy(SHOP, each) for profile, each in objects.items()}


def test_a_copy_has_every_document() -> None:
    copy = read_copy(SHOP, stored(claim(SEVEN, "Relocate"), *ALL))
    assert (copy.claimed, copy.claim and copy.claim.action) == (8, "Failover")
    assert copy.lock
    assert copy.state
    assert copy.decision
    assert [entry.action for entry in copy.history] == ["Failover"]
    assert not copy.unreadable


def test_history_is_in_the_order_of_epochs_and_not_of_keys() -> None:
    copy = read_copy(SHOP, stored(done(10, "Relocate"), done(9, "Failover"), done(2, "Deploy")))
    assert [entry.epoch.number for entry in copy.history] == [2, 9, 10]


def test_an_application_whose_name_begins_alike_is_another_one() -> None:
    other = {key.replace("web/shop/", "web/shop-db/"): body for key, body in stored(*ALL).items()}
    assert read_copy(SHOP, other).is_empty
    assert applications([*other, *stored(lock()), names.cluster_status_key("dr1")]) == [
        SHOP,
        AppRef(namespace="web", name="shop-db"),
    ]


@pytest.mark.parametrize("what", ["lock", "state", "decision", "history/8-failover.json", "witness/0000000008"])
def test_a_broken_document_is_named_and_hides_no_other(what: str) -> None:
    copy = read_copy(SHOP, stored(*ALL) | {names.mirror_prefix(*PLACE) + what: b"{"})
    assert list(copy.unreadable) == [f"drpc-web/shop/{what}"]
    assert copy.is_broken(what)
    assert copy.claim
    assert not copy.is_empty


def test_a_broken_claim_still_counts_as_claimed() -> None:
    copy = read_copy(SHOP, stored(claim(SEVEN)) | {names.epoch_key(*PLACE, 8): b"?"})
    assert (copy.claimed, copy.claim) == (8, None)
    assert list(copy.unreadable) == [names.epoch_key(*PLACE, 8)]


def test_a_witness_is_looked_at_only_for_being_readable() -> None:
    key = names.witness_key(*PLACE, 8)
    assert not read_copy(SHOP, {key: WitnessDocument(epoch=EIGHT, seen_at=AT).encode()}).unreadable


def test_essential_leaves_out_what_was_before() -> None:
    keys = [*stored(claim(SEVEN), *ALL), names.witness_key(*PLACE, 8), names.cluster_status_key("dr1")]
    assert essential(keys) == sorted(stored(claim(), lock(), state(), decision()))


def test_equal_stores_do_not_disagree() -> None:
    assert disagreements(copies(s1=stored(*ALL), s2=stored(*ALL))) == []


def test_one_store_alone_does_not_disagree() -> None:
    assert disagreements(copies(s1=stored(*ALL))) == []


@pytest.mark.parametrize(
    ("first", "second", "line"),
    [
        (claim(), claim(SEVEN), "the newest epoch is 8 in s1, 7 in s2"),
        (claim(), {}, "s2 holds nothing of it, s1 does"),
        (claim() | lock() | state() | decision() | done(8, "Failover"), {}, "s2 holds nothing of it, s1 does"),
        (claim() | lock(), lock(), "the newest epoch is 8 in s1, none in s2"),
        (
            claim(),
            claim(Epoch(number=8, token="fork"), "Relocate"),
            "the newest epoch is 8 (Failover, token eight) in s1, 8 (Relocate, token fork) in s2",
        ),
        (claim() | lock(), claim(), "the lock is held by drpc/web/shop in s1, free in s2"),
        (lock(), lock("somebody"), "the lock is held by drpc/web/shop in s1, held by somebody in s2"),
        (
            state(),
            state(SEVEN, phase="Deployed"),
            "the state is FailedOver of epoch 8 in s1, Deployed of epoch 7 in s2",
        ),
        (
            state(),
            state(at=LATER),
            "the state is FailedOver of epoch 8 (token eight, written 2026-03-01 14:01:31Z) in s1, "
            "FailedOver of epoch 8 (token eight, written 2026-03-01 14:01:36Z) in s2",
        ),
        (
            decision(),
            decision("dr1"),
            "the decision is dr2 of epoch 8, dr1 retained in s1, dr1 of epoch 8, dr1 retained in s2",
        ),
        (done(8, "Failover") | done(9, "Relocate"), done(8, "Failover"), "the history in s2 lacks Relocate of epoch 9"),
    ],
)
def test_each_difference_is_one_line(first: dict[str, Document], second: dict[str, Document], line: str) -> None:
    assert disagreements(copies(s1=stored(first), s2=stored(second))) == [line]


@pytest.mark.parametrize("what", ["lock", "state", "decision", "history/8-failover.json", "epoch/0000000008"])
def test_what_cannot_be_read_is_no_word_of_its_store(what: str) -> None:
    broken = stored(*ALL) | {names.mirror_prefix(*PLACE) + what: b"{"}
    assert disagreements(copies(s1=stored(*ALL), s2=broken)) == []


def test_newest_takes_each_document_where_it_is_newest() -> None:
    now = newest(copies(s1=stored(claim(SEVEN), state(at=LATER)), s2=stored(claim(), state(), decision())))
    assert (now.claimed, now.claim and now.claim.number) == (8, 8)
    assert now.state
    assert now.state.written_at == LATER
    assert now.decision


def test_of_a_cluster_the_latest_report_counts_and_a_broken_one_is_named() -> None:
    def report(at: datetime, version: str) -> ClusterStatusDocument:
        return ClusterStatusDocument(cluster="dr1", last_seen=at, api_server_version=version)

    key = names.cluster_status_key("dr1")
    old, unreadable = read_clusters({key: report(AT, "v1.35").encode(), names.cluster_status_key("dr2"): b"x"})
    assert list(unreadable) == ["clusters/dr2/status"]
    fresh, _ = read_clusters({key: report(LATER, "v1.36").encode()})
    for documents in ([*old, *fresh], [*fresh, *old]):
        assert [each.api_server_version for each in newest_clusters(documents)] == ["v1.36"]
