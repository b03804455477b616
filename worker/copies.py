"""Keeps what every cluster must have the same on every cluster: what a hub would have distributed.

Copied: the registry's clusters, the kubeconfig Secrets that it names, the operator's list of S3 profiles and their
Secrets. Derived on each cluster: Velero's form of those Secrets, and its DRClusterConfig. Who wins is decided in
`ramen.copies`; each cluster is written by its one writer (S16), and every write is guarded by what was read.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import yaml

from activities.access.protocol import ClusterAccess, Object
from ramen import names
from ramen.conditions import FALSE, TRUE, Condition
from ramen.config import ACCESS_KEY, SECRET_KEY, RamenConfig, S3StoreProfile
from ramen.copies import LINEAGE, Copy, Verb, annotation, differing, judge
from ramen.errors import Forbidden, HublessError, Invalid, KindMissing
from ramen.kinds import CLUSTER_REGISTRY, CONFIG_MAP, DRCLUSTER_CONFIG, DRPOLICY, NAMESPACE, SECRET
from ramen.objects import ClusterRegistry, DRPolicy
from worker.clusters import Clusters

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks whether there is another cluster to compare or to write; no request is made."""

SYNCED = "Synced"
"""Condition of the registry that says whether everything is equal."""

COMPLETE = "Complete"
"""Condition of the registry that says whether it names every cluster of every DRPolicy."""

PROFILES = "s3StoreProfiles"

VELERO_PREFIX, VELERO_KEY = "v", "ramengenerated"
"""Name and key of Velero's copy of a store's Secret, unless the profile names others (drpc.md 6.2)."""


@dataclass
class Snapshot:
    """What one cluster has, read at one moment."""

    cluster: str
    registry: Object | None
    config: Object | None
    secrets: dict[str, Object]
    """Of the operator's namespace, by name."""

    @property
    def configuration(self) -> dict[str, Any]:
        """The operator's configuration; raises `Invalid` when it cannot be read."""
        text = ((self.config or {}).get("data") or {}).get(names.RAMEN_CONFIG_KEY) or ""
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError:
            content = text
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise Invalid(
                f"ConfigMap {names.RAMEN_CONFIG_MAP} on {self.cluster}: {names.RAMEN_CONFIG_KEY} is no mapping; "
                f"correct it"
            )
        return content


class Item(Protocol):
    """One thing that is the same everywhere."""

    label: str

    def content(self, snapshot: Snapshot) -> Any:
        """What a cluster's copy says; nothing when it is not there. May raise `Invalid`."""
        ...

    def check(self, content: Any) -> None:
        """Raises `Invalid` for what must not be copied from one cluster to others."""
        ...

    def note(self, snapshot: Snapshot) -> str:
        """The text of its lineage annotation."""
        ...

    async def write(self, access: ClusterAccess, here: Snapshot, content: Any, note: str) -> None:
        """Makes the copy of a cluster say `content`, with that annotation."""
        ...


class RegistryItem:
    """The clusters of the registry."""

    label = f"ClusterRegistry {names.REGISTRY_NAME}"

    def content(self, snapshot: Snapshot) -> Any:
        return ((snapshot.registry or {}).get("spec") or {}).get("clusters")

    def check(self, content: Any) -> None:
        return  # the API server has checked it

    def note(self, snapshot: Snapshot) -> str:
        return _note(snapshot.registry)

    async def write(self, access: ClusterAccess, here: Snapshot, content: Any, note: str) -> None:
        if here.registry is None:
            metadata = {"name": names.REGISTRY_NAME, "annotations": {LINEAGE: note}}
            await access.create(CLUSTER_REGISTRY, {"metadata": metadata, "spec": {"clusters": content}})
        else:
            spec = {**(here.registry.get("spec") or {}), "clusters": content}
            await access.replace(CLUSTER_REGISTRY, {**_noted(here.registry, note), "spec": spec})


class ProfilesItem:
    """The S3 profiles in the operator's ConfigMap; the rest of it is the cluster's own."""

    label = f"{PROFILES} of ConfigMap {names.RAMEN_NAMESPACE}/{names.RAMEN_CONFIG_MAP}"

    def content(self, snapshot: Snapshot) -> Any:
        return snapshot.configuration.get(PROFILES)

    def check(self, content: Any) -> None:
        RamenConfig.of({PROFILES: content or []})

    def note(self, snapshot: Snapshot) -> str:
        return _note(snapshot.config)

    async def write(self, access: ClusterAccess, here: Snapshot, content: Any, note: str) -> None:
        if here.config is None:
            return  # it is the operator's to make, with what is its own; `check` says that it is missing
        body = _noted(here.config, note)
        if content != self.content(here):
            text = yaml.safe_dump({**here.configuration, PROFILES: content}, sort_keys=False)
            body = {**body, "data": {**(here.config.get("data") or {}), names.RAMEN_CONFIG_KEY: text}}
        await access.replace(CONFIG_MAP, body)


class SecretItem:
    """One Secret of the operator's namespace."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.namespace = namespace
        self.label = f"Secret {namespace}/{name}"

    def content(self, snapshot: Snapshot) -> Any:
        return (snapshot.secrets.get(self.name) or {}).get("data")

    def check(self, content: Any) -> None:
        return  # whoever uses a Secret says what is wrong with it

    def note(self, snapshot: Snapshot) -> str:
        return _note(snapshot.secrets.get(self.name))

    async def write(self, access: ClusterAccess, here: Snapshot, content: Any, note: str) -> None:
        found = here.secrets.get(self.name)
        if found is None:
            metadata = {"name": self.name, "namespace": self.namespace, "annotations": {LINEAGE: note}}
            await access.create(SECRET, {"metadata": metadata, "type": "Opaque", "data": content})
        else:
            await access.replace(SECRET, {**_noted(found, note), "data": content})


def _note(obj: Object | None) -> str:
    return str(((obj or {}).get("metadata", {}).get("annotations") or {}).get(LINEAGE, ""))


def _noted(obj: Object, note: str) -> Object:
    metadata = obj["metadata"]
    return {**obj, "metadata": {**metadata, "annotations": {**(metadata.get("annotations") or {}), LINEAGE: note}}}


@dataclass
class Copies:
    """The distributor of one worker."""

    clusters: Clusters
    is_writer: Callable[[str], bool]
    namespace: str = names.RAMEN_NAMESPACE
    problems: dict[str, list[str]] = field(default_factory=dict)
    """By cluster that this worker writes: what is not equal there and why, with the remedy."""
    strangers: dict[str, list[str]] = field(default_factory=dict)
    """By cluster that this worker writes: policies there that name a cluster which the registry lacks."""
    _due: asyncio.Event = field(default_factory=asyncio.Event)
    _compared: dict[str, list[str]] = field(default_factory=dict)

    def notice(self) -> None:
        """The own cluster was read again, on its beat or because something changed there."""
        self._due.set()

    async def run(self) -> None:
        """Compares and copies after each refresh of the own cluster, and when a cluster is reached or written anew.

        The sooner equal copies are noted after the start, the shorter the time in which an edit has no known past.
        """
        known: tuple[list[str], list[str]] = ([], [])
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._due.wait()
            situation = self._reached(), [name for name in self._reached() if self.is_writer(name)]
            if self._due.is_set() or situation != known:
                self._due.clear()
                known = situation
                await self.sync()

    def conditions(self, cluster: str) -> list[Condition]:
        """What the registry's status on a cluster says of this; nothing before the first comparison."""
        if cluster not in self.problems:
            return []
        problems, strangers = self.problems[cluster], self.strangers.get(cluster, [])
        return [
            Condition(
                type=SYNCED,
                status=FALSE if problems else TRUE,
                reason="Different" if problems else "Equal",
                message="; ".join(problems) or f"Equal on {differing(self._compared[cluster])}",
            ),
            Condition(
                type=COMPLETE,
                status=FALSE if strangers else TRUE,
                reason="UnknownCluster" if strangers else "AllKnown",
                message="; ".join(strangers) or "Every cluster of every DRPolicy is in the registry",
            ),
        ]

    async def sync(self) -> None:
        """One comparison of all clusters that answer, and the writes that follow from it; never raises."""
        reached = self._reached()
        mine = [name for name in reached if self.is_writer(name)]
        self.problems = {name: said for name, said in self.problems.items() if self.is_writer(name)}
        if not mine:
            return
        snapshots: dict[str, Snapshot] = {}
        for name, found in zip(reached, await asyncio.gather(*map(self._snapshot, reached)), strict=True):
            if found is not None:
                snapshots[name] = found
        for name in mine:
            if name in snapshots:
                before, self.problems[name] = self.problems.get(name, []), await self._safely(name, snapshots)
                for problem in self.problems[name]:
                    if problem not in before:
                        log.warning("%s", problem, extra={"cluster": name})
                self._compared[name] = sorted(snapshots)

    def _reached(self) -> list[str]:
        return [name for name in self.clusters.names() if self.clusters.gate(name).is_open]

    async def _snapshot(self, cluster: str) -> Snapshot | None:
        """None when the cluster does not let itself be read now: then it takes no part in this comparison."""
        try:
            access = self.clusters.access(cluster)
            registry = await access.read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
            secrets, _ = await access.list(SECRET, self.namespace)
            config = await access.read(CONFIG_MAP, names.RAMEN_CONFIG_MAP, self.namespace)
        except HublessError as err:
            log.debug("%s is not compared: %s", cluster, err)
            return None
        return Snapshot(cluster, registry, config, {secret["metadata"]["name"]: secret for secret in secrets})

    async def _safely(self, cluster: str, snapshots: dict[str, Snapshot]) -> list[str]:
        """As `_keep`. What people write into objects may be anything, and must not end a worker that others need."""
        try:
            return await self._keep(cluster, snapshots)
        except Exception as err:
            log.exception("the objects of %s were not compared", cluster, extra={"cluster": cluster})
            return [f"not compared: {type(err).__name__} in an object of {cluster} or of another cluster; see the log"]

    async def _keep(self, cluster: str, snapshots: dict[str, Snapshot]) -> list[str]:
        """Brings one cluster up to date; what could not be done, one line each."""
        problems: list[str] = []
        access = self.clusters.session(cluster)

        async def settle(item: Item) -> Any:
            """The content that the cluster has in the end."""
            try:
                return await self._settle(item, cluster, access, snapshots)
            except HublessError as err:
                problems.append(str(err))
                return None

        registry = await settle(RegistryItem())
        profiles = _profiles(await settle(ProfilesItem()), problems)
        entries = ClusterRegistry.model_validate({"spec": {"clusters": registry or []}}).spec.clusters
        wanted = [entry.kubeconfig_secret for entry in entries]
        wanted += [
            profile.s3_secret_ref.name
            for profile in profiles
            if profile.s3_secret_ref.namespace in ("", self.namespace)
        ]
        for name in dict.fromkeys(filter(None, wanted)):
            item = SecretItem(name, self.namespace)
            content = await settle(item)
            if not content and not any(item.label in problem for problem in problems):
                problems.append(f"{item.label} is on no cluster that answers; create it on one of them")
        uid = next((entry.cluster_uid for entry in entries if entry.name == cluster), "")
        try:
            policies = [DRPolicy.of(item) for item in (await access.list(DRPOLICY))[0]]
            self.strangers[cluster] = _strangers(policies, {entry.name for entry in entries}) if entries else []
            await self._velero(access, snapshots[cluster], profiles)
            await self._config(cluster, uid, access, policies)
        except HublessError as err:
            problems.append(str(err))
        return problems

    async def _settle(self, item: Item, cluster: str, access: ClusterAccess, snapshots: dict[str, Snapshot]) -> Any:
        copies = {name: Copy.of(item.content(found), item.note(found)) for name, found in snapshots.items()}
        here, verdict = snapshots[cluster], judge(cluster, copies)
        content = item.content(here)
        if verdict.verb is Verb.CONFLICT:
            raise Invalid(
                f"{item.label} differs between {differing(verdict.between)} and neither follows from the other; "
                f"nothing is overwritten: write the same to all of them"
            )
        if verdict.verb is Verb.TAKE:
            content = item.content(snapshots[verdict.source])
            item.check(content)
            log.info("%s on %s is taken from %s", item.label, cluster, verdict.source, extra={"cluster": cluster})
        if verdict.verb in (Verb.TAKE, Verb.NOTE):
            await item.write(access, here, content, annotation(verdict.lineage))
        return content

    # --- derived on each cluster --------------------------------------------------------------------------------

    async def _velero(self, access: ClusterAccess, here: Snapshot, profiles: list[S3StoreProfile]) -> None:
        """Velero's form of each store's Secret, where the operator protects Kubernetes objects (drpc.md 6.3)."""
        protection = here.configuration.get("kubeObjectProtection") or {}
        if not isinstance(protection, dict):
            raise Invalid(
                f"ConfigMap {names.RAMEN_CONFIG_MAP} on {access.name}: kubeObjectProtection is no mapping; correct it"
            )
        namespace = protection.get("veleroNamespaceName")
        if protection.get("disabled") or not namespace or not profiles:
            return
        if await access.read(NAMESPACE, namespace) is None:
            return
        for profile in profiles:
            data = (here.secrets.get(profile.s3_secret_ref.name) or {}).get("data") or {}
            if profile.velero_namespace_secret_key_ref is None and ACCESS_KEY in data and SECRET_KEY in data:
                name = VELERO_PREFIX + profile.s3_secret_ref.name
                try:
                    await _write_velero(access, namespace, name, data)
                except Forbidden as err:
                    raise Forbidden(f"{err}; kubectl apply -f deploy/rbac-velero.yaml on {access.name}") from err

    async def _config(self, cluster: str, uid: str, access: ClusterAccess, policies: list[DRPolicy]) -> None:
        """DRClusterConfig: which cluster this is, and the intervals that storage is to prepare for (drpc.md 5.3)."""
        if not uid:
            return
        try:
            found, _ = await access.list(DRCLUSTER_CONFIG)
        except KindMissing:
            return
        schedules = sorted(
            {
                policy.spec.scheduling_interval
                for policy in policies
                if cluster in policy.spec.dr_clusters
                and policy.spec.scheduling_interval
                and not policy.is_being_deleted
            }
        )
        if others := [item["metadata"]["name"] for item in found if item["metadata"]["name"] != cluster]:
            raise Invalid(
                f"DRClusterConfig {', '.join(others)} on {cluster} is not named as the cluster is, and there may be "
                f"only one; delete it"
            )
        if not found:
            spec = {"clusterID": uid, "replicationSchedules": schedules}
            await access.create(DRCLUSTER_CONFIG, {"metadata": {"name": cluster}, "spec": spec})
            return
        spec = found[0].get("spec") or {}
        if spec.get("clusterID") != uid:
            raise Invalid(
                f"DRClusterConfig {cluster} has the clusterID of another cluster, which cannot be changed; delete it"
            )
        if (spec.get("replicationSchedules") or []) != schedules:
            await access.replace(DRCLUSTER_CONFIG, {**found[0], "spec": {**spec, "replicationSchedules": schedules}})


def _strangers(policies: list[DRPolicy], known: set[str]) -> list[str]:
    """One line for each cluster that a policy names and the registry lacks; it is reported, never guessed."""
    return [
        f"DRPolicy {policy.metadata.name} names {cluster}, which the ClusterRegistry lacks: "
        f"hubless cluster add {cluster} --kubeconfig FILE"
        for policy in policies
        for cluster in policy.spec.dr_clusters
        if cluster not in known and not policy.is_being_deleted
    ]


def _profiles(content: Any, problems: list[str]) -> list[S3StoreProfile]:
    try:
        return RamenConfig.of({PROFILES: content or []}).s3_store_profiles
    except Invalid as err:
        problems.append(str(err))
        return []


async def _write_velero(access: ClusterAccess, namespace: str, name: str, data: dict[str, str]) -> None:
    try:
        keys = {key: b64decode(data[key]).decode().strip() for key in (ACCESS_KEY, SECRET_KEY)}
    except ValueError:
        raise Invalid(f"Secret {name.removeprefix(VELERO_PREFIX)} has a key that is no text; write it again") from None
    text = f"[default]\n  aws_access_key_id = {keys[ACCESS_KEY]}\n  aws_secret_access_key = {keys[SECRET_KEY]}\n"
    wanted = {VELERO_KEY: b64encode(text.encode()).decode()}
    found = await access.read(SECRET, name, namespace)
    if found is None:
        await access.create(SECRET, {"metadata": {"name": name, "namespace": namespace}, "data": wanted})
    elif (found.get("data") or {}) != wanted:
        await access.replace(SECRET, {**found, "data": wanted})
