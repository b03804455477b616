"""What a cluster's own worker proves of each store: it writes, reads back, and leaves nothing."""

from __future__ import annotations

import pytest
from temporalio.testing import ActivityEnvironment

from activities.contracts import StoreProof
from activities.proving import ProofActivities
from ramen.errors import StoreDenied, StoreUnreachable


class Bucket:
    """The part of `S3Store` that a proof needs."""

    def __init__(self, bucket: str = "ramen") -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.refuses: dict[str, Exception] = {}
        self.lies = False
        self.conditional = True

    async def put(self, key: str, body: bytes) -> str:
        self._call("put")
        self.objects[key] = b"something else" if self.lies else body
        return "etag"

    async def get(self, key: str) -> bytes | None:
        self._call("get")
        return self.objects.get(key)

    async def delete(self, key: str) -> None:
        self._call("delete")
        self.objects.pop(key, None)

    async def probe_conditional_writes(self) -> bool:
        return self.conditional

    def _call(self, verb: str) -> None:
        if verb in self.refuses:
            raise self.refuses[verb]


async def prove(operator: Bucket, mirror: Bucket) -> list[StoreProof]:
    activities = ProofActivities("dr1", {"s3": mirror}, {"s3": operator}, lambda: ["a line"])  # type: ignore[dict-item]
    proof = await ActivityEnvironment().run(activities.prove_installation)
    assert (proof.cluster, proof.problems) == ("dr1", ["a line"])
    return list(proof.stores)


async def test_both_buckets_are_written_and_read_and_left_as_they_were() -> None:
    operator, mirror = Bucket("ramen"), Bucket("ramen-coordination")
    assert await prove(operator, mirror) == [
        StoreProof(profile="s3", bucket="ramen"),
        StoreProof(profile="s3", bucket="ramen-coordination", conditional_writes=True),
    ]
    assert operator.objects == mirror.objects == {}


@pytest.mark.parametrize(
    ("verb", "error"),
    [
        ("put", StoreDenied("S3 profile s3: read-only")),
        ("get", StoreDenied("S3 profile s3: write-only")),
        ("put", StoreUnreachable("S3 profile s3: no answer")),
        ("delete", StoreDenied("S3 profile s3: nothing may be deleted")),
    ],
)
async def test_each_half_can_fail_and_is_said_in_the_words_of_the_store(verb: str, error: Exception) -> None:
    operator = Bucket()
    operator.refuses[verb] = error
    assert (await prove(operator, Bucket("ramen-coordination")))[0].problem == str(error)


async def test_a_store_that_lies_is_found_out() -> None:
    operator = Bucket()
    operator.lies = True
    assert "is not read back" in (await prove(operator, Bucket("ramen-coordination")))[0].problem
    assert operator.objects == {}


async def test_a_store_without_conditional_writes_is_found_out() -> None:
    mirror = Bucket("ramen-coordination")
    mirror.conditional = False
    assert (await prove(Bucket(), mirror))[1].conditional_writes is False
