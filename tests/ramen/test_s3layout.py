"""The documents of the mirror survive their way through S3, and the operator's objects are read as it writes them."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ramen import names
from ramen.app import Volume
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
    decode_operator_object,
    newest_claim_key,
    protected_volumes,
)

AT = datetime(2026, 3, 1, 14, 1, 31, tzinfo=UTC)
EPOCH = Epoch(number=8, token="abc")
VOLUME = Volume(namespace="web", name="data", pv="pv-1")

DOCUMENTS: list[Document] = [
    LockDocument(holder="worker dr1", epoch=EPOCH, acquired=AT, expires=AT, renewals=3),
    EpochClaim(number=8, token="abc", action="Failover", request_id="r-1", holder="dr1", claimed_at=AT),
    StateDocument(
        spec={"policy": "gold"},
        wanted={"dr1": {"role": "secondary"}},
        volumes=[VOLUME],
        phase="FailedOver",
        conditions=[{"type": "Available"}],
        epoch=EPOCH,
        written_at=AT,
    ),
    DecisionDocument(cluster="dr2", previous="dr1", retained=["dr1"], epoch=EPOCH, decided_at=AT),
    WitnessDocument(epoch=EPOCH, volumes=[VOLUME], seen_at=AT),
    HistoryDocument(epoch=EPOCH, action="Failover", times={"serving": 4.2}, steps=[{"name": "claim"}], started_at=AT),
    ClusterStatusDocument(cluster="dr1", last_seen=AT, api_server_version="v1.36.3", worker="w-1"),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)
def test_documents_survive_storage_and_newer_writers(document: Document) -> None:
    assert type(document).decode(document.encode()) == document
    newer = json.loads(document.encode()) | {"version": 2, "from_the_future": True}
    read = type(document).decode(json.dumps(newer).encode())
    assert read == document.model_copy(update={"version": 2})


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\x1f\x8b"])
def test_what_is_no_document_is_named(body: bytes) -> None:
    with pytest.raises(Invalid, match="drpc-web/shop/lock"):
        LockDocument.decode(body, "drpc-web/shop/lock")


def test_a_time_without_a_zone_is_refused() -> None:
    text = DOCUMENTS[3].encode().replace(b"14:01:31Z", b"14:01:31")
    with pytest.raises(Invalid, match="decided_at"):
        DecisionDocument.decode(text)


@pytest.mark.parametrize(
    ("holder", "epoch", "mine"),
    [
        ("worker dr1", EPOCH, True),
        ("worker dr1", Epoch(number=9, token="new"), True),
        ("worker dr1", Epoch(number=7, token="old"), False),
        ("worker dr1", Epoch(number=8, token="fork"), False),
        ("worker dr2", EPOCH, False),
    ],
)
def test_whose_lock_it_is(holder: str, epoch: Epoch, mine: bool) -> None:
    lock = LockDocument(holder="worker dr1", epoch=EPOCH, acquired=AT, expires=AT)
    assert lock.is_of(holder, epoch) is mine


def test_the_newest_claim_is_the_highest_number() -> None:
    keys = [names.epoch_key("web", "shop", number) for number in (9, 10, 2)]
    others = [names.state_key("web", "shop"), names.epoch_prefix("web", "shop") + "notes"]
    assert newest_claim_key("web", "shop", keys + others) == names.epoch_key("web", "shop", 10)
    assert newest_claim_key("web", "shop", others) is None


def stored(obj: dict[str, Any]) -> bytes:
    """As Go's encoder leaves it: a newline at the end, inside the gzip."""
    return gzip.compress(json.dumps(obj).encode() + b"\n")


def pvc(volume_name: str | None) -> bytes:
    return stored({"metadata": {}, "spec": {"volumeName": volume_name} if volume_name else {}})


def test_operator_objects_are_gzip_around_json() -> None:
    assert decode_operator_object(stored({"spec": {"a": 1}})) == {"spec": {"a": 1}}


@pytest.mark.parametrize("body", [b"", b"{}", stored({"a": 1})[:20], gzip.compress(b"{"), gzip.compress(b"[]")])
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid, match="not an object of the dr-cluster operator"):
        decode_operator_object(body)


def test_a_volume_needs_both_of_its_objects() -> None:
    pvs, pvcs = names.pv_prefix("web", "shop"), names.pvc_prefix("web", "shop")
    objects = {
        pvs + "pv-1": stored({"metadata": {"name": "pv-1"}}),
        pvs + "pv-2": stored({}),
        pvs + "pv-alone": stored({}),
        pvcs + "web/data": pvc("pv-1"),
        pvcs + "legacy": pvc("pv-2"),
        pvcs + "other/alone": pvc("pv-missing"),
        pvcs + "web/unbound": pvc(None),
        names.vrg_key("web", "shop"): b"not read",
    }
    assert protected_volumes("web", "shop", objects) == [
        Volume(namespace="web", name="data", pv="pv-1"),
        Volume(namespace="web", name="legacy", pv="pv-2"),
    ]


def test_an_unreadable_volume_object_is_named() -> None:
    key = names.pv_prefix("web", "shop") + "pv-1"
    with pytest.raises(Invalid, match=key):
        protected_volumes("web", "shop", {key: b"broken"})
