"""Whether this worker can read the store of each S3 profile, asked on a slow beat (drpc.md 6.2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from ramen import names
from ramen.errors import BucketMissing, HublessError
from ramen.policies import Reason, StoreLook

log = logging.getLogger(__name__)

BEAT_SECONDS = 30.0
"""Between two looks at a store that answers: a status, nobody waits for it."""

AGAIN_SECONDS = 5.0
"""Between two looks while a store does not answer as before."""

LIMIT_SECONDS = 10.0
"""For one look; the client behind it gives up earlier."""

FAILURES_TO_TELL = 2
"""One lost answer is a hiccup."""


class Store(Protocol):
    """What is asked of a store."""

    async def head_bucket(self) -> None: ...

    async def list(self, prefix: str) -> list[str]: ...


class Profiles(Protocol):
    """The profiles that this worker knows, as `worker.stores.Stores` holds them."""

    @property
    def operator(self) -> Mapping[str, Store]: ...

    @property
    def unusable(self) -> Mapping[str, str]: ...


class StoreLooks:
    """The last judgement of each profile; `changed` is called when one becomes another."""

    def __init__(self, profiles: Profiles, changed: Callable[[], None] = lambda: None) -> None:
        self.found: dict[str, StoreLook] = {}
        """By profile; without those that were not looked at yet."""
        self._profiles = profiles
        self._changed = changed
        self._failures: dict[str, int] = {}

    async def look(self, wanted: Iterable[str]) -> bool:
        """Looks at these profiles once, and forgets the others; whether each is as it was said to be."""
        profiles = sorted(set(wanted))
        seen = await asyncio.gather(*(self._ask(profile) for profile in profiles))
        before = dict(self.found)
        settled = True
        for profile, look in zip(profiles, seen, strict=True):
            if look.reason:
                self._failures[profile] = self._failures.get(profile, 0) + 1
            else:
                self._failures.pop(profile, None)
            known = self.found.get(profile)
            is_hiccup = known is not None and not known.reason and self._failures.get(profile, 0) < FAILURES_TO_TELL
            settled = settled and not (look.reason and is_hiccup)
            if not (look.reason and is_hiccup) and (known is None or known.reason != look.reason or not look.reason):
                # The words of an error may change with each attempt; the reason is what a reader acts on.
                self.found[profile] = look
        for profile in self.found.keys() - set(profiles):
            del self.found[profile]
        if self.found != before:
            self._changed()
        return settled

    async def _ask(self, profile: str) -> StoreLook:
        store = self._profiles.operator.get(profile)
        if store is None:
            return StoreLook(Reason.S3_CONNECTION_FAILED, self._unusable(profile))
        reason = Reason.S3_CONNECTION_FAILED
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                await store.head_bucket()
                reason = Reason.S3_LIST_FAILED
                await store.list("/hubless-check")
        except BucketMissing as err:
            return StoreLook(Reason.S3_BUCKET_NOT_FOUND, str(err))
        except HublessError as err:
            return StoreLook(reason, str(err))
        except TimeoutError:
            return StoreLook(reason, f"S3 profile {profile} did not answer in {LIMIT_SECONDS:g} s")
        return StoreLook()

    def _unusable(self, profile: str) -> str:
        known = ", ".join(sorted(self._profiles.operator)) or "none"
        return self._profiles.unusable.get(profile) or (
            f"S3 profile {profile} is not in ConfigMap {names.RAMEN_CONFIG_MAP} (there: {known}). A DRCluster's "
            f"s3ProfileName is immutable: add the profile there, or delete the DRCluster and create it anew"
        )
