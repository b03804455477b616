"""The S3 profiles of the dr-cluster operator, as stores: its own buckets, and the coordination bucket beside them.

Profiles and Secrets are read by `worker.clusters` on its beat; here they become clients, which are kept while nothing
changes. A profile that cannot be used is left out and said once: the mirror reports it as a store that does not answer.
"""

from __future__ import annotations

import logging
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import Any

import yaml

from activities.access.protocol import Object
from activities.access.s3 import S3Store
from ramen import names
from worker.retire import Retired

log = logging.getLogger(__name__)

ACCESS_KEY, SECRET_KEY = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
"""Keys of a profile's Secret (vrg.md 3.1)."""


class UnusableProfileError(Exception):
    """A profile cannot be used; the text names it and the remedy."""


@dataclass(frozen=True)
class Profile:
    """One S3 profile with its credentials, which no text of it shows."""

    name: str
    endpoint: str
    bucket: str
    region: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)

    def store(self, bucket: str) -> S3Store:
        """A client of one bucket; contacts nothing yet."""
        return S3Store.connect(
            self.endpoint, bucket, self.access_key, self.secret_key, region=self.region, name=self.name
        )


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
            profiles = _profiles(config)
        except UnusableProfileError as err:
            self._say(str(err))
            return
        contents = {secret["metadata"]["name"]: secret.get("data") or {} for secret in secrets}
        wanted: dict[str, Profile] = {}
        self.unusable.clear()
        for given in profiles:
            try:
                profile = self._read(given, contents)
            except UnusableProfileError as err:
                self.unusable[str(given.get("s3ProfileName") or "")] = str(err)
                self._say(str(err))
            else:
                wanted[profile.name] = profile
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

    def _read(self, given: dict[str, Any], contents: dict[str, dict[str, str]]) -> Profile:
        name = str(given.get("s3ProfileName") or "")
        reference = given.get("s3SecretRef") or {}
        secret, namespace = str(reference.get("name") or ""), reference.get("namespace") or self._namespace
        if namespace != self._namespace:
            raise UnusableProfileError(
                f"S3 profile {name}: its Secret {secret} is in namespace {namespace}, but Hubless reads Secrets of "
                f"{self._namespace} only; keep a copy there and name it in s3SecretRef"
            )
        data = contents.get(secret)
        if data is None:
            raise UnusableProfileError(f"S3 profile {name}: Secret {namespace}/{secret} is missing; create it")
        try:
            access_key, secret_key = (
                b64decode(data[key], validate=True).decode().strip() for key in (ACCESS_KEY, SECRET_KEY)
            )
        except (KeyError, Base64Error, UnicodeDecodeError):
            raise UnusableProfileError(
                f"S3 profile {name}: Secret {namespace}/{secret} needs readable keys {ACCESS_KEY} and {SECRET_KEY}"
            ) from None
        profile = Profile(
            name=name,
            endpoint=str(given.get("s3CompatibleEndpoint") or ""),
            bucket=str(given.get("s3Bucket") or ""),
            region=str(given.get("s3Region") or "us-east-1"),
            access_key=access_key,
            secret_key=secret_key,
        )
        if not (name and profile.endpoint and profile.bucket):
            raise UnusableProfileError(
                f"S3 profile {name or '(without a name)'}: name, endpoint or bucket is missing; add it"
            )
        return profile

    def _say(self, message: str) -> None:
        self.problems.append(message)
        if message not in self._said:
            self._said.add(message)
            log.warning(message)


def _profiles(config: Object | None) -> list[dict[str, Any]]:
    where = f"ConfigMap {names.RAMEN_CONFIG_MAP}"
    if config is None:
        raise UnusableProfileError(f"{where} is missing: no S3 profile is known; install the dr-cluster operator")
    try:
        content = yaml.safe_load((config.get("data") or {}).get(names.RAMEN_CONFIG_KEY) or "")
        profiles = (content or {}).get("s3StoreProfiles") or []
        if all(isinstance(profile, dict) for profile in profiles):
            return list(profiles)
    except (yaml.YAMLError, AttributeError, TypeError):
        pass
    raise UnusableProfileError(f"{where}: {names.RAMEN_CONFIG_KEY} cannot be read; correct its s3StoreProfiles")
