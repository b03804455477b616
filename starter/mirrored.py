"""The mirror as an administrator reads it: every store that any cluster in reach knows, without Temporal.

Apart from `starter.installation`, because the client of S3 costs a moment to load that no other command has to wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from activities.mirror import Mirror
from activities.profiles import Profile, UnusableProfileError, read_profiles
from ramen import mirrorview, names
from ramen.app import AppRef
from ramen.errors import HublessError
from ramen.kinds import CONFIG_MAP, SECRET
from ramen.mirrorview import StoreCopy
from ramen.s3layout import ClusterStatusDocument
from starter.installation import Access, Installation


@dataclass
class Profiles:
    """The stores of an installation, as its clusters know them."""

    usable: dict[str, Profile] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    """By name: why no cluster's configuration leads to that store."""
    problems: list[str] = field(default_factory=list)
    """What may hide a store: a cluster that does not answer, profiles that differ."""

    def add(self, cluster: str, usable: dict[str, Profile], unusable: dict[str, str]) -> None:
        """Takes over what one cluster knows; the cluster that came first is believed."""
        for name, profile in usable.items():
            known = self.usable.setdefault(name, profile)
            self.unusable.pop(name, None)
            if (known.endpoint, known.bucket) != (profile.endpoint, profile.bucket):
                self.problems.append(
                    f"S3 profile {name} leads to {profile.endpoint} on {cluster}, and to {known.endpoint} elsewhere: "
                    f"only {known.endpoint} is read"
                )
        for name, why in unusable.items():
            if name not in self.usable:
                self.unusable.setdefault(name, f"{why} (on {cluster})")


@dataclass
class Store:
    """One store, and why it cannot be read; nothing when it answered."""

    profile: str
    endpoint: str = ""
    error: str = ""


@dataclass
class MirrorSeen:
    """All that was read; a store with an error is silent, which says nothing about what it holds."""

    stores: list[Store] = field(default_factory=list)
    applications: dict[AppRef, dict[str, StoreCopy]] = field(default_factory=dict)
    """By application and profile, for every store that answered."""
    clusters: list[ClusterStatusDocument] = field(default_factory=list)
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)
    """By profile and key: documents of no application that cannot be read."""
    problems: list[str] = field(default_factory=list)

    @property
    def silent(self) -> list[Store]:
        """Stores that could not be read."""
        return [store for store in self.stores if store.error]


async def profiles(installation: Installation) -> Profiles:
    """What every cluster in reach knows, the administrator's own one first."""
    found = Profiles()
    home = installation.home_name()
    reached: list[tuple[str, Access]] = [(home or installation.home.name, installation.home)]
    for name, member in installation.members.items():
        if member.access is None:
            found.problems.append(f"{name} is not asked for its stores: {member.problem}")
        elif member.access is not installation.home:
            reached.append((name, member.access))
    for name, access in reached:
        try:
            config = await access.read(CONFIG_MAP, names.RAMEN_CONFIG_MAP, names.RAMEN_NAMESPACE)
            secrets, _ = await access.list(SECRET, names.RAMEN_NAMESPACE)
            found.add(name, *read_profiles(config, secrets))
        except (HublessError, UnusableProfileError) as err:
            found.problems.append(f"{name} does not tell its stores: {err}")
    return found


async def read(found: Profiles, bucket: str, app: AppRef | None) -> MirrorSeen:
    """Reads all of one application, or of every application how it stands now; and the documents of the clusters."""
    stores = {name: profile.store(bucket) for name, profile in found.usable.items()}
    mirror = Mirror(stores)
    try:
        if app:
            answers = await mirror.documents(names.mirror_prefix(app.namespace, app.name))
        else:
            answers = await mirror.documents(names.MIRROR_PREFIX, mirrorview.essential)
        clusters = await mirror.of(answers.values).documents(names.CLUSTERS_PREFIX)
    finally:
        for store in stores.values():
            await store.close()
    failed = answers.failed | clusters.failed
    seen = MirrorSeen(
        stores=[
            *(Store(name, profile.endpoint, failed.get(name, "")) for name, profile in found.usable.items()),
            *(Store(name, error=why) for name, why in found.unusable.items()),
        ],
        problems=found.problems,
    )
    held = {name: objects for name, objects in answers.values.items() if name not in failed}
    for each in [app] if app else _known(held.values()):
        seen.applications[each] = {name: mirrorview.read_copy(each, objects) for name, objects in held.items()}
    documents: list[ClusterStatusDocument] = []
    for name, objects in clusters.values.items():
        readable, unreadable = mirrorview.read_clusters(objects)
        documents += readable
        if unreadable:
            seen.unreadable[name] = unreadable
    seen.clusters = mirrorview.newest_clusters(documents)
    return seen


def _known(held: Iterable[dict[str, bytes]]) -> list[AppRef]:
    return mirrorview.applications(key for objects in held for key in objects)
