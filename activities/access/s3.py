"""Access to one bucket of one S3 store: asynchronous on the outside, boto3 on a bounded thread pool inside.

The only module that imports botocore: its errors are mapped here, once. Every call has time limits and is tried a
single time, because callers decide about retries and a store that is silent must never hold up a failover (D8, S13).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import math
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ramen.errors import BucketMissing, HublessError, PreconditionFailed, StoreDenied, StoreFull, StoreUnreachable

Result = TypeVar("Result")

CONNECT_SECONDS = 1.0
"""Time to open a connection; a living store in the same country needs well under a tenth of it."""

READ_SECONDS = 3.0
"""Longest silence while a request is answered; the objects are a few kilobytes."""

THREADS = 8
"""Threads, and connections, per store. Each store has its own, so that a frozen one cannot starve the others."""

PROMPT_SECONDS = 1.0
"""A store that answers in this time is well; later answers prove only that it exists."""

STUCK_SECONDS = 8.0
"""A call that lasts longer has nobody left who waits for it. Its answer trickles: no single read of it times out."""

ABANDONED = 64
"""Threads in stuck calls that a store may have before no new ones are made for it; they end with their answers."""

KNOWN_OBJECTS = 20_000
"""Objects of a few kilobytes that are remembered per store: those of a thousand applications and more."""

_CREATION = threading.Lock()
"""boto3 sessions are not thread-safe, and making a client reads the default one."""


class S3Store:
    """One bucket of one S3 profile.

    Every method raises `StoreUnreachable` when the store does not answer in time or answers 429 or 5xx, and
    `StoreDenied` when it refuses the credentials or lacks the bucket. Messages name profile, bucket and remedy, never
    a credential.
    """

    def __init__(self, name: str, endpoint: str, bucket: str, make_client: Callable[[], Any]) -> None:
        self.name = name
        self.endpoint = endpoint
        self.bucket = bucket
        self.requests: Counter[str] = Counter()
        """Number of requests by verb, for benchmarks and metrics."""
        self._make_client = make_client
        self._made: Any = None
        self._known: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        """ETag and body of objects that `read_below` met, the newest last."""
        self._answered = -math.inf
        self._pool = self._new_pool()
        self._calls: dict[object, float] = {}
        """Calls that run in this pool, and since when."""
        self._abandoned: list[dict[object, float]] = []
        """The calls of pools that were given up."""

    @classmethod
    def connect(
        cls,
        endpoint: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        region: str = "us-east-1",
        name: str | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        ca_certificates: str = "",
    ) -> S3Store:
        """A store by its S3 profile (`name`, default: the endpoint); contacts nothing yet.

        `ca_certificates` (PEM) are trusted instead of the usual authorities.
        """

        def make_client() -> Any:
            return boto3.client(
                "s3",
                endpoint_url=endpoint,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                region_name=region,
                verify=_bundle(ca_certificates) if ca_certificates else None,
                config=Config(
                    connect_timeout=connect_seconds,
                    read_timeout=read_seconds,
                    retries={"total_max_attempts": 1},
                    max_pool_connections=THREADS,
                    s3={"addressing_style": "path"},  # what the dr-cluster operator uses (vrg.md 3.1)
                    # Newer checksums are refused by S3 servers that are not Amazon's.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )

        return cls(name or endpoint, endpoint, bucket, make_client)

    async def get(self, key: str) -> bytes | None:
        """The object's bytes; None when the key is absent."""
        found = await self.get_with_etag(key)
        return found[0] if found else None

    async def get_with_etag(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and its ETag for `if_match`; None when the key is absent."""

        def call(client: Any) -> tuple[bytes, str] | None:
            try:
                answer = client.get_object(Bucket=self.bucket, Key=key)
            except ClientError as err:
                if _code(err) == "NoSuchKey":
                    return None
                raise
            return answer["Body"].read(), answer["ETag"]

        return await self._run("get", call)

    async def put(self, key: str, body: bytes, if_none_match: bool = False, if_match: str | None = None) -> str:
        """Writes the object and answers its new ETag.

        `if_none_match` writes only where the key is absent, `if_match` only over that ETag; both raise
        `PreconditionFailed` otherwise.
        """
        conditions = {"IfNoneMatch": "*"} if if_none_match else {"IfMatch": if_match} if if_match else {}

        def call(client: Any) -> str:
            return str(client.put_object(Bucket=self.bucket, Key=key, Body=body, **conditions)["ETag"])

        return await self._run("put", call)

    async def list(self, prefix: str) -> list[str]:
        """All keys that begin with `prefix`, in the order of their names."""
        return sorted(await self._list(prefix))

    async def read_below(self, prefix: str) -> dict[str, bytes]:
        """All objects whose keys begin with `prefix`; those whose ETag was seen before are not fetched again.

        For looks that are repeated while nothing changes: then a look is one request.
        """
        etags = await self._list(prefix)
        bodies = {key: self._known[key][1] for key, etag in etags.items() if self._known.get(key, ("",))[0] == etag}
        changed = [key for key in etags if key not in bodies]
        for key, found in zip(changed, await asyncio.gather(*map(self.get, changed)), strict=True):
            if found is not None:  # else deleted since the list
                bodies[key] = found
        for key, body in bodies.items():
            self._known[key] = (etags[key], body)
            self._known.move_to_end(key)
        while len(self._known) > KNOWN_OBJECTS:
            self._known.popitem(last=False)
        return bodies

    async def _list(self, prefix: str) -> dict[str, str]:
        """ETag by key."""

        def call(client: Any) -> dict[str, str]:
            etags: dict[str, str] = {}
            request = {"Bucket": self.bucket, "Prefix": prefix}
            while True:
                answer = client.list_objects_v2(**request)
                if not {"Name", "IsTruncated", "KeyCount"} & answer.keys():
                    # A page in HTML parses as a list without entries, and an empty store is something else (D10).
                    raise ValueError("a list that is none")
                etags |= {entry["Key"]: entry["ETag"] for entry in answer.get("Contents", ())}
                if not answer.get("IsTruncated"):
                    return etags
                request["ContinuationToken"] = answer["NextContinuationToken"]

        return await self._run("list", call)

    async def delete(self, key: str, if_match: str | None = None) -> None:
        """Deletes the object, with `if_match` only that version (`PreconditionFailed`); absent is no error."""
        conditions = {"IfMatch": if_match} if if_match else {}

        def call(client: Any) -> None:
            try:
                client.delete_object(Bucket=self.bucket, Key=key, **conditions)
            except ClientError as err:
                if _code(err) != "NoSuchKey":
                    raise

        await self._run("delete", call)

    async def delete_prefix(self, prefix: str) -> int:
        """Deletes every key that begins with `prefix` and answers how many there were; an empty prefix is refused."""
        if not prefix:
            raise ValueError("an empty prefix would delete the whole bucket")
        keys = await self.list(prefix)
        await asyncio.gather(*(self.delete(key) for key in keys))
        return len(keys)

    async def head_bucket(self) -> None:
        """Proves that the store answers, knows the credentials and has the bucket."""
        await self._run("head", lambda client: client.head_bucket(Bucket=self.bucket))

    async def ensure_bucket(self) -> None:
        """Creates the bucket where it is missing; for installations and sandboxes, never on the path of an action."""

        def call(client: Any) -> None:
            try:
                client.create_bucket(Bucket=self.bucket)
            except ClientError as err:
                if _code(err) not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

        await self._run("create", call)

    async def probe_conditional_writes(self) -> bool:
        """Whether the store really refuses a second If-None-Match and a stale If-Match; leaves nothing behind.

        Lock and claim are atomic only where this is True (design 8).
        """
        key = f"probe/{uuid4().hex}"
        try:
            first = await self.put(key, b"1", if_none_match=True)
            await self.put(key, b"2", if_match=first)
            return await self._refuses(key, if_none_match=True) and await self._refuses(key, if_match=first)
        except (PreconditionFailed, _NotImplementedByStore):
            return False
        finally:
            await self.delete(key)

    async def _refuses(self, key: str, if_none_match: bool = False, if_match: str | None = None) -> bool:
        try:
            await self.put(key, b"3", if_none_match=if_none_match, if_match=if_match)
        except PreconditionFailed:
            return True
        return False

    async def close(self) -> None:
        """Closes the connections; requests that still run end by themselves within their time limit."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._made is not None:
            with contextlib.suppress(BotoCoreError):
                self._made.close()

    async def _run(self, verb: str, call: Callable[[Any], Result]) -> Result:
        self._replace_stuck_pool()
        calls, mine = self._calls, object()

        def work() -> Result:
            self.requests[verb] += 1
            calls[mine] = began = time.monotonic()
            try:
                answer = call(self._client())
                self._note_answer(began)
                return answer
            except ClientError as err:
                self._note_answer(began)
                raise self._refusal(err) from err
            except BotoCoreError as err:
                raise StoreUnreachable(
                    f"S3 profile {self.name}: {self.endpoint} does not answer ({err}); look at the store and at the "
                    "network between"
                ) from err
            except HublessError:
                raise
            except Exception as err:
                # A proxy's page of its own, with 200, lacks what every S3 server answers.
                raise StoreUnreachable(
                    f"S3 profile {self.name}: what {self.endpoint} answers is no S3 ({type(err).__name__}: {err}); "
                    "look at what stands before the store"
                ) from err
            finally:
                del calls[mine]

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except RuntimeError as err:
            raise StoreUnreachable(f"S3 profile {self.name}: it was closed, since its profile was replaced") from err
        except asyncio.CancelledError:
            asked = asyncio.current_task()
            if asked is not None and asked.cancelling():
                raise
            # Nobody cancelled the caller: its call waited in a pool that was given up.
            raise StoreUnreachable(
                f"S3 profile {self.name}: {self.endpoint} trickles its answers; look at the store and at the network "
                "between"
            ) from None

    def answered_within(self, seconds: float) -> bool:
        """Whether the store answered anybody in this process promptly and lately: busy is not silent (S12).

        A slow store is not a busy one: late answers that keep coming in are no reason to wait for another.
        """
        return time.monotonic() - self._answered <= seconds

    def _note_answer(self, began: float) -> None:
        now = time.monotonic()
        if now - began <= PROMPT_SECONDS:
            self._answered = now

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(THREADS, thread_name_prefix=f"s3-{self.name}")

    def _replace_stuck_pool(self) -> None:
        """Gives up threads and connections whose every answer trickles, or the store would be lost until they end."""
        oldest = time.monotonic() - STUCK_SECONDS
        if sum(began < oldest for began in list(self._calls.values())) < THREADS:
            return
        self._abandoned = [calls for calls in self._abandoned if calls]
        if sum(map(len, self._abandoned)) + len(self._calls) > ABANDONED:
            return
        self._abandoned.append(self._calls)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool, self._calls = self._new_pool(), {}
        with _CREATION:
            self._made = None

    def _client(self) -> Any:
        with _CREATION:
            if self._made is None:
                try:
                    self._made = self._make_client()
                except ValueError as err:
                    raise StoreDenied(
                        f"S3 profile {self.name}: endpoint {self.endpoint!r} is no URL; correct s3CompatibleEndpoint"
                    ) from err
            return self._made

    def _refusal(self, err: ClientError) -> HublessError:
        code, status = _code(err), int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        where = f"S3 profile {self.name}: {self.endpoint}"
        if status in (409, 412):
            return PreconditionFailed(f"{where} holds another version in bucket {self.bucket} ({code})")
        if status == 501:
            return _NotImplementedByStore(f"{where} does not offer {err.operation_name} with these conditions ({code})")
        if code in _FULL or status == 507:
            return StoreFull(f"{where} is full ({status} {code}); free space there, or raise its quota")
        if status >= 500 or status in (408, 429):
            return StoreUnreachable(f"{where} is not able to serve now ({status} {code}); look at its load and its log")
        if code == "RequestTimeTooSkewed":
            return StoreDenied(f"{where} refuses the time of this machine; set the clocks of both right")
        if code == "AccessDenied" and err.operation_name in _WRITES:
            return StoreDenied(
                f"{where} refuses to write to bucket {self.bucket} ({code}); make the bucket writable, or give the "
                f"credentials in the Secret that the profile's s3SecretRef names the right to put and delete objects"
            )
        if status in (401, 403):
            return StoreDenied(
                f"{where} refuses the credentials for bucket {self.bucket} ({code}); correct the Secret that the "
                f"profile's s3SecretRef names"
            )
        if status == 404:
            return BucketMissing(f"{where} has no bucket {self.bucket}; create it, or correct the bucket's name")
        return StoreDenied(f"{where} refuses {err.operation_name} in bucket {self.bucket} ({status} {code})")


_WRITES = ("PutObject", "DeleteObject")

_FULL = ("XMinioStorageFull", "QuotaExceeded", "InsufficientStorage", "XMinioAdminBucketQuotaExceeded")
"""Codes of MinIO, Ceph and others for a store or bucket that takes nothing more."""


class _NotImplementedByStore(StoreDenied):
    """501: the server does not know a conditional request."""


@functools.cache
def _bundle(authorities: str) -> str:
    """A file with these authorities (PEM), because botocore takes no others; made once for each text."""
    with tempfile.NamedTemporaryFile("w", prefix="hubless-ca-", suffix=".pem", delete=False) as file:
        file.write(authorities)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name


def _code(err: ClientError) -> str:
    return str(err.response.get("Error", {}).get("Code", "unknown"))
