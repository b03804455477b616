"""What a cluster's own worker can prove from where it runs: that each store can be read and written with its keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from uuid import uuid4

from activities import contracts
from activities.access.s3 import S3Store
from activities.contracts import InstallationProof, StoreProof
from activities.errors import implements
from ramen import names
from ramen.errors import HublessError

Problems = Callable[[], list[str]]
"""Lines of what a worker knows to be wrong; each with its remedy."""

EXPECTED_BODY = b"written by hubless check"


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
        try:
            await store.put(key, EXPECTED_BODY)
            try:
                if await store.get(key) != EXPECTED_BODY:
                    problem = f"S3 profile {profile}: what was written to bucket {store.bucket} is not read back"
            finally:
                await store.delete(key)
            if is_mirror:
                conditional = await store.probe_conditional_writes()
        except HublessError as err:
            problem = str(err)
        return StoreProof(profile=profile, bucket=store.bucket, problem=problem, conditional_writes=conditional)
