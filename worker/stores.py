"""The S3 profiles of the dr-cluster operator, as stores: its own buckets, and the coordination bucket beside them.

Profiles and Secrets are read by `worker.clusters` on its beat; here they become clients, which are kept while nothing
changes. A profile that cannot be used is left out and said once: the mirror reports it as a store that does not answer.
"""

from __future__ import annotations

import logging

from activities.access.protocol import Object
from activities.access.s3 import S3Store
from activities.profiles import Profile, UnusableProfileError, read_profiles
from ramen import names
from worker.retire import Retired

log = logging.getLogger(__name__)


class Stores:
    """Both buckets of every usable profile, by profile name, in the order of the operator's configuration."""

    def __init__(self, coordination_bucket: str, namespace: str = names.RAMEN_NAMESPACE) -> None:
        self.coordination: dict[str, S3Store] = {}
        """Stores of the mirror; changed in place, so that whoever holds it sees new profiles."""
        self.operator: dict[str, S3Store] = {}
        """Stores that the dr-cluster operator writes to and restores from."""
        self.unusable: dict[str, str] = {}
        """By profile name: why a profile of the configuration cannot be used."""
        self._bucket = coordination_bucket
        self._namespace = namespace
        self._profiles: dict[str, Profile] = {}
        self._retired = Retired()
        self._said: set[str] = set()
        self.problems: list[str] = []
        """Profiles that cannot be used, as of the last update; each line names the remedy."""

    def update(self, config: Object | None, secrets: list[Object]) -> None:
        """Takes over profiles and credentials; an unreadable configuration leaves the last known in force."""
        self.problems = []
        try:
            wanted, unusable = read_profiles(config, secrets, self._namespace)
        except UnusableProfileError as err:
            self._say(str(err))
            return
        self.unusable.clear()
        self.unusable.update(unusable)
        for problem in unusable.values():
            self._say(problem)
        for name, known in list(self._profiles.items()):
            if wanted.get(name) != known:
                log.info("S3 profile %s changed or is gone", name)
                self._drop(name)
        for name, profile in wanted.items():
            if name not in self._profiles:
                self._profiles[name] = profile
                self.operator[name] = profile.store(profile.bucket)
                self.coordination[name] = profile.store(self._bucket)

    async def close(self) -> None:
        """Closes all clients."""
        for name in list(self._profiles):
            self._drop(name)
        await self._retired.close()

    def _drop(self, name: str) -> None:
        del self._profiles[name]
        for stores in (self.operator, self.coordination):
            self._retired.add(stores.pop(name).close)

    def _say(self, message: str) -> None:
        self.problems.append(message)
        if message not in self._said:
            self._said.add(message)
            log.warning(message)
