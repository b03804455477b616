"""What a cluster's own worker can prove from where it runs: that each store can be read and written with its keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from uuid import uuid4

from activities import contracts
from activities.access.s3 import S3Store
from activities.contracts import InstallationProof, StoreProof
from activities.errors import implements
from activities.mirror import STORE_SECONDS
from ramen import names
from ramen.errors import HublessError

Problems = Callable[[], list[str]]
"""Lines of what a worker knows to be wrong; each with its remedy."""

EXPECTED_BODY = b"written by hubless check"

PROOF_SECONDS = 10.0
"""Limit of all that is tried with one bucket; a check waits fifteen seconds for a worker to have tried them all."""

_SLOW = (
    f"an action waits {STORE_SECONDS:g} s for a store: it would go on without this one. Look at its load and at the "
    "network between"
)


class ProofActivities:
    """Runs on the queue of one cluster's own worker: a peer could only prove what the peer can."""

    def __init__(
        self,
        own: str,
        coordination: Mapping[str, S3Store],
        operator: Mapping[str, S3Store],
        problems: Problems = lambda: [],
    ) -> None:
        self._own = own
        self._coordination = coordination
        self._operator = operator
        self._problems = problems

    @implements(contracts.prove_installation)
    async def prove_installation(self) -> InstallationProof:
        """See the contract."""
        proofs = [
            *(self._prove(profile, store, False) for profile, store in self._operator.items()),
            *(self._prove(profile, store, True) for profile, store in self._coordination.items()),
        ]
        found = await asyncio.gather(*proofs)
        return InstallationProof(
            cluster=self._own,
            stores=sorted(found, key=lambda proof: (proof.profile, proof.bucket)),
            problems=self._problems(),
        )

    async def _prove(self, profile: str, store: S3Store, is_mirror: bool) -> StoreProof:
        """Writes, reads back and deletes one small object; in the mirror's bucket also conditional writes."""
        key = names.proof_key(self._own, uuid4().hex)
        problem, conditional = "", None
        where = f"S3 profile {profile}: bucket {store.bucket}"
        try:
            async with asyncio.timeout(PROOF_SECONDS):
                began = time.monotonic()
                await store.put(key, EXPECTED_BODY)
                took = time.monotonic() - began
                try:
                    if await store.get(key) != EXPECTED_BODY:
                        problem = (
                            f"S3 profile {profile}: what was written to bucket {store.bucket} is not read back; do not "
                            "rely on this store until it keeps what it acknowledges"
                        )
                finally:
                    await store.delete(key)
                if took > STORE_SECONDS:
                    problem = problem or f"{where} answers after {took:.1f} s, and {_SLOW}"
                elif is_mirror:
                    conditional = await store.probe_conditional_writes()
        except TimeoutError:
            problem = (
                f"{where} did not complete a write, a read and a deletion of one small object in {PROOF_SECONDS:g} s, "
                f"and {_SLOW}"
            )
        except HublessError as err:
            problem = str(err)
        return StoreProof(profile=profile, bucket=store.bucket, problem=problem, conditional_writes=conditional)
