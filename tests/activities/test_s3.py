"""S3 access against real servers: what is written is read, conditions hold, every failure has its name and remedy."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from activities.access import s3
from activities.access.s3 import S3Store
from ramen.errors import PreconditionFailed, StoreDenied, StoreUnreachable
from sandbox import pki
from tests.activities.conftest import ACCESS_KEY, SECRET_KEY, Weed, free_ports


@pytest.fixture
def store(stores: dict[str, S3Store]) -> S3Store:
    return stores["s3-dr1"]


async def test_round_trip_and_listing(store: S3Store) -> None:
    for key in ("a/2", "a/1", "b/1"):
        await store.put(key, key.encode())
    assert await store.get("a/1") == b"a/1"
    assert await store.get("a/none") is None
    assert await store.list("a/") == ["a/1", "a/2"]
    await store.delete("a/1")
    await store.delete("a/1")
    assert await store.list("a/") == ["a/2"]
    assert await store.delete_prefix("a/") == 1
    assert await store.list("") == ["b/1"]
    assert store.requests["put"] == 3
    assert store.requests["get"] == 2


async def test_delete_prefix_refuses_the_whole_bucket(store: S3Store) -> None:
    with pytest.raises(ValueError, match="empty prefix"):
        await store.delete_prefix("")


async def test_listing_goes_beyond_one_page(store: S3Store) -> None:
    keys = [f"many/{number:04d}" for number in range(1001)]
    await asyncio.gather(*(store.put(key, b"") for key in keys))
    assert await store.list("many/") == keys


async def test_objects_that_did_not_change_are_not_fetched_again(store: S3Store) -> None:
    await store.put("p/a", b"1")
    await store.put("p/b", b"1")
    assert await store.read_below("p/") == {"p/a": b"1", "p/b": b"1"}
    assert await store.read_below("p/") == {"p/a": b"1", "p/b": b"1"}
    assert store.requests["get"] == 2
    await store.put("p/b", b"2")
    await store.delete("p/a")
    await store.put("p/c", b"3")
    assert await store.read_below("p/") == {"p/b": b"2", "p/c": b"3"}
    assert store.requests["get"] == 4


async def test_conditional_writes(store: S3Store) -> None:
    first = await store.put("key", b"1", if_none_match=True)
    with pytest.raises(PreconditionFailed):
        await store.put("key", b"2", if_none_match=True)
    second = await store.put("key", b"2", if_match=first)
    with pytest.raises(PreconditionFailed):
        await store.put("key", b"3", if_match=first)
    assert await store.get_with_etag("key") == (b"2", second)


async def test_conditional_delete(store: S3Store) -> None:
    first = await store.put("key", b"1")
    second = await store.put("key", b"2")
    with pytest.raises(PreconditionFailed):
        await store.delete("key", if_match=first)
    assert await store.get("key") == b"2"
    await store.delete("key", if_match=second)
    assert await store.get("key") is None


async def test_of_many_racers_one_wins(store: S3Store) -> None:
    results = await asyncio.gather(
        *(store.put("race", str(number).encode(), if_none_match=True) for number in range(6)), return_exceptions=True
    )
    winners = [number for number, result in enumerate(results) if isinstance(result, str)]
    assert len(winners) == 1
    assert await store.get("race") == str(winners[0]).encode()


async def test_probe_finds_conditional_writes_and_leaves_nothing(store: S3Store) -> None:
    assert await store.probe_conditional_writes() is True
    assert await store.list("probe/") == []


async def test_probe_detects_a_store_that_ignores_conditions(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put = store.put

    async def careless(key: str, body: bytes, if_none_match: bool = False, if_match: str | None = None) -> str:
        return await put(key, body)

    monkeypatch.setattr(store, "put", careless)
    assert await store.probe_conditional_writes() is False
    assert await store.list("probe/") == []


async def test_wrong_credentials_are_named_without_being_shown(weeds: tuple[Weed, Weed], store: S3Store) -> None:
    wrong = weeds[0].store(store.bucket, secret_key="not-the-secret")
    for call in (wrong.get("key"), wrong.put("key", b""), wrong.list(""), wrong.delete("key"), wrong.head_bucket()):
        with pytest.raises(StoreDenied) as refused:
            await call
        text = str(refused.value)
        assert "s3-dr1" in text
        assert store.bucket in text
        assert "s3SecretRef" in text
        assert not any(secret in text for secret in ("not-the-secret", ACCESS_KEY, SECRET_KEY))


async def test_a_missing_bucket_is_named(weeds: tuple[Weed, Weed]) -> None:
    store = weeds[0].store("no-such-bucket")
    for call in (store.head_bucket(), store.get("key"), store.put("key", b""), store.list("")):
        with pytest.raises(StoreDenied, match="has no bucket no-such-bucket; create it"):
            await call


async def test_a_made_bucket_is_there_and_may_be_made_again(store: S3Store) -> None:
    await store.ensure_bucket()
    await store.head_bucket()


async def test_nobody_listens() -> None:
    store = S3Store.connect(f"http://127.0.0.1:{free_ports(1)[0]}", "bucket", "key", "secret", name="gone")
    with pytest.raises(StoreUnreachable, match="S3 profile gone"):
        await store.get("key")
    await store.close()


async def test_an_endpoint_that_is_no_url() -> None:
    store = S3Store.connect("nonsense", "bucket", "key", "secret", name="typo")
    with pytest.raises(StoreDenied, match=r"typo.*s3CompatibleEndpoint"):
        await store.get("key")
    await store.close()


async def test_a_frozen_store_ends_within_its_time_limit(weeds: tuple[Weed, Weed], store: S3Store) -> None:
    hasty = weeds[0].store(store.bucket, read_seconds=0.5)
    await store.put("key", b"1")
    weeds[0].freeze()
    started = time.monotonic()
    try:
        with pytest.raises(StoreUnreachable):
            await hasty.get("key")
    finally:
        weeds[0].thaw()
    assert time.monotonic() - started < 2.5
    assert await store.get("key") == b"1"


async def test_a_call_that_waits_for_stuck_ones_fails_as_the_store_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cancelled it: whoever asked in a loop goes on asking."""
    let_go = threading.Event()

    class Trickling:
        def head_bucket(self, **_: str) -> None:
            let_go.wait(20)

        def close(self) -> None:
            return

    store = S3Store("east", "http://127.0.0.1:1", "b", Trickling)
    stuck = [asyncio.ensure_future(store.head_bucket()) for _ in range(s3.THREADS)]
    await asyncio.sleep(0.1)
    waiting = asyncio.ensure_future(store.head_bucket())
    await asyncio.sleep(0.4)
    monkeypatch.setattr(s3, "STUCK_SECONDS", 0.05)  # only now: what waits is not to find the others stuck itself
    last = asyncio.ensure_future(store.head_bucket())
    with pytest.raises(StoreUnreachable, match="trickles"):
        await asyncio.wait_for(waiting, 5)
    let_go.set()
    await asyncio.gather(*stuck, last)
    await store.close()
    with pytest.raises(StoreUnreachable, match="replaced"):
        await store.head_bucket()


@pytest.fixture
def tls_store(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A server with a certificate of a private authority that answers every request with 200; URL and authority."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = pki.certificate("private", authority_key, None, None)
    certificate = pki.certificate("store", server_key, authority, authority_key)
    chain = tmp_path / "server.pem"
    chain.write_bytes(pki.pem(server_key) + certificate.public_bytes(Encoding.PEM))

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}", authority.public_bytes(Encoding.PEM).decode()
    server.shutdown()
    server.server_close()
    thread.join()


async def test_a_private_authority_is_trusted_where_the_profile_names_it(tls_store: tuple[str, str]) -> None:
    url, authority = tls_store
    trusting = S3Store.connect(url, "bucket", ACCESS_KEY, SECRET_KEY, ca_certificates=authority)
    await trusting.head_bucket()
    doubting = S3Store.connect(url, "bucket", ACCESS_KEY, SECRET_KEY)
    with pytest.raises(StoreUnreachable):
        await doubting.head_bucket()
    await asyncio.gather(trusting.close(), doubting.close())
