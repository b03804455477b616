"""DRPolicies and DRClusters on every cluster: kept equal, validated, and their status written by one worker at a time.

Level-triggered: watches only say that something changed, and every pass judges everything from what the watches hold,
without a call. Calls are made for what has to be written, and right before what cannot be taken back. What is to be
done is decided in `ramen.convergence` and `ramen.policies`; docs/policies.md says it for users.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from activities.access.protocol import ClusterAccess, Object
from activities.waiting import FIRST_BACK_OFF, LAST_BACK_OFF, WATCH_SECONDS, KindWatch, object_key
from ramen import convergence, names
from ramen.config import NO_S3
from ramen.convergence import Accept, Create, Delete, Drop, Leave, Overwrite, Release, Step
from ramen.errors import AlreadyExists, Conflict, GateClosed, HublessError, Invalid, KindMissing, NotFound
from ramen.kinds import (
    DRCLUSTER,
    DRPC,
    DRPOLICY,
    NAMESPACE,
    STORAGE_CLASS,
    VOLUME_GROUP_REPLICATION_CLASS,
    VOLUME_GROUP_SNAPSHOT_CLASS,
    VOLUME_REPLICATION_CLASS,
    VOLUME_SNAPSHOT_CLASS,
    VRG,
    Kind,
)
from ramen.objects import DRCluster, DRPolicy
from ramen.peerclasses import Classes
from ramen.policies import DRCLUSTER_FIXED, POLICY_FIXED, Sight, drcluster_status, policy_status, say_copies
from worker.gate import Gate
from worker.members import is_member
from worker.storelooks import AGAIN_SECONDS, BEAT_SECONDS, Profiles, StoreLooks

log = logging.getLogger(__name__)

PASS_SECONDS = 5.0
"""Between two passes while nothing changes: time passes too, for a cluster that is silent."""

WRITER_SECONDS = 0.5
"""Between two looks at whether this worker writes on another set of clusters; no call."""

SETTLE_SECONDS = 0.2
"""Changes come in bursts: a manifest is applied with several objects."""

SILENT_SECONDS = 30.0
"""A cluster that is away for less is not mentioned in any status, or one that flaps would be a storm of writes."""

USERS_SECONDS = 30.0
"""Between two looks for what a deletion waits for; each lists all VRGs."""

KINDS: tuple[Kind, ...] = (
    DRPOLICY,
    DRCLUSTER,
    STORAGE_CLASS,
    VOLUME_REPLICATION_CLASS,
    VOLUME_GROUP_REPLICATION_CLASS,
    VOLUME_SNAPSHOT_CLASS,
    VOLUME_GROUP_SNAPSHOT_CLASS,
)
"""What is watched on every cluster: a few objects of each, which people change by hand."""

CLASS_KINDS = KINDS[2:]
FINALIZERS = {DRPOLICY: names.POLICY_FINALIZER, DRCLUSTER: names.DRCLUSTER_FINALIZER}
FIXED: dict[Kind, Sequence[str]] = {DRPOLICY: POLICY_FIXED, DRCLUSTER: DRCLUSTER_FIXED}

IDENTITY_NAMESPACE = "kube-system"
"""Its UID is how Ramen tells clusters apart in peer classes."""

Model = TypeVar("Model", DRPolicy, DRCluster)


class Members(Protocol):
    """The clusters of the registry, as `worker.clusters.Clusters` holds them."""

    def names(self) -> list[str]: ...

    def access(self, name: str) -> ClusterAccess: ...

    def gate(self, name: str) -> Gate: ...


@dataclass
class View:
    """What is seen of one cluster."""

    watches: dict[Kind, KindWatch]
    gate: Gate
    """Of the cluster that it is a view of: one that left the registry and came back has another."""
    since: float
    """Monotonic: when everything there was known the last time, or when watching began."""
    uid: str = ""
    why_silent: str = ""
    """The first words for a silence that lasts: errors alternate, and each new text would be a write of each status."""
    restarts: set[asyncio.Task[None]] = field(default_factory=set)

    def knows(self, kind: Kind) -> bool:
        """Whether all objects of the kind are known; without the kind itself there are none.

        Every API server has StorageClasses. Who says that there is no such kind is a proxy with a page of its own, and
        what it says of other kinds is no answer either.
        """
        watch = self.watches[kind]
        return watch.live or (watch.kind_missing and not self.watches[STORAGE_CLASS].kind_missing)

    @property
    def lacks(self) -> list[Kind]:
        """Kinds of which nothing is known."""
        return [kind for kind in KINDS if not self.knows(kind)]

    def objects(self, kind: Kind) -> dict[str, Object]:
        """By name."""
        return {obj["metadata"]["name"]: obj for obj in self.watches[kind].objects()}


class PolicyKeeper:
    """Keeps the objects of all clusters; writes only where `writes_on` says that this worker is the writer."""

    def __init__(
        self,
        members: Members,
        profiles: Profiles,
        writes_on: Callable[[str], bool],
        now: Callable[[], float] = time.monotonic,
        silent_seconds: float = SILENT_SECONDS,
        back_off: tuple[float, float] = (FIRST_BACK_OFF, LAST_BACK_OFF),
    ) -> None:
        self.on_policies: list[Callable[[], None]] = []
        """Called when a DRPolicy changed anywhere, its status included."""
        self.writes = 0
        """Number of writes so far, for tests and metrics: none while nothing changes."""
        self._members = members
        self._writes_on = writes_on
        self._now = now
        self._silent_seconds = silent_seconds
        self._back_off = back_off
        self._wake = asyncio.Event()
        self._views: dict[str, View] = {}
        self._stores = StoreLooks(profiles, self._wake.set)
        self._users: dict[tuple[Kind, str], tuple[float, list[str]]] = {}
        self._said: dict[tuple[str, Kind, str], str] = {}

    async def run(self) -> None:
        """Looks and acts until cancelled."""
        stores = asyncio.create_task(self._follow_stores(), name="store looks")
        try:
            while True:
                try:
                    await self.follow_members()
                    await self.look()
                except GateClosed as err:
                    log.debug("a cluster left the registry during a pass: %s", err)
                if stores.done():
                    stores.result()  # ends this one as well: a verdict on stores that stands still misleads
                await self._pause()
        finally:
            stores.cancel()
            await self.close()

    async def _pause(self) -> None:
        """Until something changed, this worker became the writer of another cluster, or the beat is over."""
        wrote_on = [name for name in self._views if self._writes_on(name)]
        with suppress(TimeoutError):
            async with asyncio.timeout(PASS_SECONDS):
                while [name for name in self._views if self._writes_on(name)] == wrote_on:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(WRITER_SECONDS):
                            await self._wake.wait()
                            break
                await asyncio.sleep(SETTLE_SECONDS)
        self._wake.clear()

    async def close(self) -> None:
        """Ends all watches."""
        for name in list(self._views):
            await self._leave(name)

    # --- what is seen ------------------------------------------------------------------------------------------------

    async def follow_members(self) -> None:
        """Watches every cluster of the registry, and no other."""
        for name in [name for name, view in self._views.items() if not is_member(self._members, name, view.gate)]:
            await self._leave(name)
        for name in set(self._members.names()) - self._views.keys():
            watches, gate = {kind: self._watch(name, kind) for kind in KINDS}, self._members.gate(name)
            self._views[name] = view = View(watches, gate, self._now())
            gate.on_change(partial(self._restart, view))
            for watch in watches.values():
                watch.start()

    def _watch(self, cluster: str, kind: Kind) -> KindWatch:
        watch = KindWatch(lambda: self._members.access(cluster), kind, object_key, WATCH_SECONDS, *self._back_off)
        watch.on_change.append(lambda _old, _new: self._wake.set())
        watch.on_list.append(lambda _all: self._wake.set())
        if kind is DRPOLICY:
            watch.on_change.append(lambda _old, _new: self._tell_policies())
        return watch

    def _tell_policies(self) -> None:
        for told in self.on_policies:
            told()

    def policies(self) -> list[Object]:
        """The DRPolicies of the first cluster that shows them; not to be changed."""
        known = next((self._views[name] for name in sorted(self._views) if self._sees(name, DRPOLICY)), None)
        return list(known.objects(DRPOLICY).values()) if known else []

    def _restart(self, view: View, _is_open: bool, _was_known: bool) -> None:
        """A frozen server leaves streams open that never speak again, so they are cut when the gate moves; and what
        answers then may be a cluster that was built anew."""
        view.uid = ""

        async def restart() -> None:
            await asyncio.gather(*(watch.restart() for watch in view.watches.values()))

        if view in self._views.values():
            task = asyncio.create_task(restart())
            view.restarts.add(task)
            task.add_done_callback(view.restarts.discard)

    async def _leave(self, name: str) -> None:
        view = self._views.pop(name)
        for task in view.restarts:
            task.cancel()
        await asyncio.gather(*(watch.stop() for watch in view.watches.values()))

    async def _sight(self) -> Sight:
        classes: dict[str, Classes] = {}
        silent: dict[str, str] = {}
        unsure: set[str] = set()
        for name, view in self._views.items():
            lacks = view.lacks
            if not lacks and not view.uid:
                with suppress(HublessError):
                    found = await self._members.access(name).read(NAMESPACE, IDENTITY_NAMESPACE)
                    view.uid = str((found or {}).get("metadata", {}).get("uid", ""))
            if not lacks and view.uid:
                view.since, view.why_silent = self._now(), ""
                storage, replication, group_replication, snapshot, group_snapshot = (
                    sorted(view.watches[kind].objects(), key=lambda obj: str(obj["metadata"]["name"]))
                    for kind in CLASS_KINDS
                )
                classes[name] = Classes(
                    name, view.uid, storage, snapshot, replication, group_replication, group_snapshot
                )
            elif self._now() - view.since < self._silent_seconds:
                unsure.add(name)
            else:
                view.why_silent = view.why_silent or self._why_silent(name, view, lacks)
                silent[name] = view.why_silent
        return Sight(sorted(self._views), classes, silent, frozenset(unsure), dict(self._stores.found))

    def _why_silent(self, name: str, view: View, lacks: list[Kind]) -> str:
        gate = self._members.gate(name)
        if not gate.is_open:
            return f"{name} does not answer: {gate.error}"
        kinds = ", ".join(kind.plural for kind in lacks)
        error = next((view.watches[kind].error for kind in lacks), "")
        return f"{name} does not show its {kinds or 'namespaces'}: {error or 'no answer yet'}"

    async def _follow_stores(self) -> None:
        while True:
            wanted = {
                str((obj.get("spec") or {}).get("s3ProfileName") or "")
                for view in self._views.values()
                for obj in view.objects(DRCLUSTER).values()
            } - {"", NO_S3}
            settled = await self._stores.look(wanted)
            good = settled and all(not look.reason for look in self._stores.found.values())
            await asyncio.sleep(BEAT_SECONDS if wanted and good else AGAIN_SECONDS)

    # --- one pass ----------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """One pass over all objects of the clusters that this worker writes on; errors of one stop no other."""
        sight = await self._sight()
        for cluster in list(self._views):
            if not self._writes_on(cluster):
                continue
            kept: dict[str, DRCluster] = {}
            unsure: set[str] = set()
            knew = self._views[cluster].knows(DRCLUSTER)
            for name in self._names(DRCLUSTER):
                obj, step = await self._converge(cluster, DRCLUSTER, name)
                if obj is None:
                    unsure.add(name)
                drcluster = self._read(cluster, DRCluster, obj)
                if drcluster is not None:
                    kept[name] = await self._say_drcluster(cluster, drcluster, step, sight)
            policies: dict[str, tuple[DRPolicy, Step]] = {}
            # One that could not be written in this pass stands beside the others all the same.
            beside = {
                name: policy
                for name, obj in self._views[cluster].objects(DRPOLICY).items()
                if (policy := self._read(cluster, DRPolicy, obj)) is not None
            }
            for name in self._names(DRPOLICY):
                obj, step = await self._converge(cluster, DRPOLICY, name)
                policy = self._read(cluster, DRPolicy, obj)
                if policy is not None:
                    policies[name] = policy, step
                    beside[name] = policy
            if not knew or not self._views[cluster].knows(DRCLUSTER):
                continue  # unknown is not absent: no policy is said to lack its clusters now
            for name, (policy, step) in policies.items():
                if unsure & set(policy.spec.dr_clusters):
                    continue
                others = [other for other_name, other in beside.items() if other_name != name]
                await self._say_policy(cluster, policy, step, kept, others, sight)

    def _read(self, cluster: str, model: type[Model], obj: Object | None) -> Model | None:
        """The object as a model; one that cannot be read is said once, and stops no other."""
        try:
            return None if obj is None else model.of(obj)
        except Invalid as err:
            self._say(cluster, model.KIND, str((obj or {})["metadata"]["name"]), str(err))
            return None

    def _names(self, kind: Kind) -> list[str]:
        return sorted({name for view in self._views.values() for name in view.objects(kind)})

    async def _converge(self, cluster: str, kind: Kind, name: str) -> tuple[Object | None, Step]:
        """Takes the next step with one copy; the copy as it is then, and the step. What somebody wrote into an object
        ends no worker that is needed in a disaster."""
        try:
            return await self._take_step(cluster, kind, name)
        except GateClosed:
            raise
        except Exception as err:
            if self._say(cluster, kind, name, f"{type(err).__name__}: {err}"):
                log.exception("%s %s on %s", kind.kind, name, cluster)
            return None, Leave()

    async def _take_step(self, cluster: str, kind: Kind, name: str) -> tuple[Object | None, Step]:
        view = self._views[cluster]
        mine = view.objects(kind).get(name)
        if not view.knows(kind) or not self._members.gate(cluster).is_open:
            return None, Leave()
        found = {other: each.objects(kind).get(name) for other, each in self._views.items() if self._sees(other, kind)}
        # Which policies use a DRCluster is not known where the policies are not.
        needed = {kind, DRPOLICY} if kind is DRCLUSTER else {kind}
        silent = [other for other in self._views if not all(self._sees(other, each) for each in needed)]
        users: list[str] = []
        if any(convergence.is_leaving(obj) for obj in found.values()):
            users = await self._users_of(kind, name, found)
        step = convergence.step(cluster, found, silent, users, FIXED[kind], datetime.now(UTC))
        if isinstance(step, Leave) and (
            mine is None or convergence.is_leaving(mine) or self._has_finalizer(kind, mine)
        ):
            return deepcopy(mine), step
        try:
            return await self._act(cluster, kind, name, mine, step), step
        except (Conflict, AlreadyExists, NotFound) as err:
            log.debug("%s %s on %s: %s", kind.kind, name, cluster, err)  # the watch brings what is there now
        except HublessError as err:
            self._say(cluster, kind, name, str(err))
        return None, step

    def _sees(self, cluster: str, kind: Kind) -> bool:
        return self._views[cluster].knows(kind) and self._members.gate(cluster).is_open

    def _has_finalizer(self, kind: Kind, obj: Object) -> bool:
        return FINALIZERS[kind] in (obj["metadata"].get("finalizers") or [])

    async def _act(self, cluster: str, kind: Kind, name: str, mine: Object | None, step: Step) -> Object | None:
        """Writes what the step says, under the precondition that nothing changed meanwhile; the copy after it."""
        access = self._members.access(cluster)
        if isinstance(step, Create):
            return await self._create(access, kind, name, step)
        if mine is None:
            return None
        log.info("%s %s on %s: %s", kind.kind, name, cluster, _words(step), extra={"cluster": cluster})
        self.writes += 1
        match step:
            case Leave() | Accept() | Overwrite():
                return await access.replace(kind, self._marked(kind, mine, step))
            case Delete():
                metadata = mine["metadata"]
                if not await self._users_of(kind, name, {cluster: mine}, fresh=True):
                    await access.delete(kind, name, uid=metadata["uid"], resource_version=metadata["resourceVersion"])
            case Release():
                if await self._may_release(cluster, kind, name):
                    await access.replace(kind, self._without_finalizer(kind, mine))
            case Drop():
                await access.replace(kind, self._without_finalizer(kind, mine))
        return None

    async def _create(self, access: ClusterAccess, kind: Kind, name: str, step: Create) -> Object | None:
        """Makes a copy, when the one that it is made from is still there and nobody is deleting it."""
        source = await self._members.access(step.source).read(kind, name)
        if source is None or convergence.is_leaving(source) or self._views_missing(access.name, kind):
            return None
        log.info("%s %s on %s: made like the one on %s", kind.kind, name, access.name, step.source)
        self.writes += 1
        metadata = {"name": name, "annotations": step.annotations, "finalizers": [FINALIZERS[kind]]}
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": step.spec}
        return await access.create(kind, body)

    def _views_missing(self, cluster: str, kind: Kind) -> bool:
        return self._views[cluster].watches[kind].kind_missing

    def _marked(self, kind: Kind, mine: Object, step: Leave | Accept | Overwrite) -> Object:
        metadata = dict(mine["metadata"])
        metadata["finalizers"] = [*dict.fromkeys([*(metadata.get("finalizers") or []), FINALIZERS[kind]])]
        if isinstance(step, Leave):
            return {**mine, "metadata": metadata}
        kept = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != names.OVERRULED}
        metadata["annotations"] = kept | step.annotations
        spec = step.spec if isinstance(step, Overwrite) else mine.get("spec")
        return {**mine, "metadata": metadata, "spec": spec}

    def _without_finalizer(self, kind: Kind, mine: Object) -> Object:
        kept = [each for each in mine["metadata"].get("finalizers") or [] if each != FINALIZERS[kind]]
        return {**mine, "metadata": {**mine["metadata"], "finalizers": kept}}

    async def _may_release(self, cluster: str, kind: Kind, name: str) -> bool:
        """Reads every copy and every user again: after this write the object is gone."""
        found: dict[str, Object | None] = {}
        for other in self._views:
            found[other] = await self._read_copy(other, kind, name)
        users = await self._users_of(kind, name, found, fresh=True)
        step = convergence.step(cluster, found, [], users, FIXED[kind], datetime.now(UTC))
        return isinstance(step, Release)

    # --- who uses an object ------------------------------------------------------------------------------------------

    async def _users_of(self, kind: Kind, name: str, found: dict[str, Object | None], fresh: bool = False) -> list[str]:
        """What the object may not be deleted for: a policy for its applications, a DRCluster for its policies.

        A cluster that does not answer may use it as well; its silence is told by the step itself. Raises what the
        calls raise when `fresh`.
        """
        if kind is DRCLUSTER:
            return await self._policies_of(name, fresh)
        at, known = self._users.get((kind, name), (float("-inf"), []))
        if not fresh and self._now() - at < USERS_SECONDS:
            return known
        specs = [obj.get("spec") or {} for obj in found.values() if obj is not None]
        users: set[str] = set()
        for cluster in self._views:
            try:
                users |= await self._applications_on(cluster, name, specs)
            except HublessError:
                if fresh:
                    raise
        self._users[kind, name] = self._now(), sorted(users)
        return sorted(users)

    async def _policies_of(self, drcluster: str, fresh: bool) -> list[str]:
        users = set()
        for cluster, view in self._views.items():
            policies = await self._list(cluster, DRPOLICY) if fresh else list(view.objects(DRPOLICY).values())
            for obj in policies:
                if drcluster in ((obj.get("spec") or {}).get("drClusters") or []):
                    users.add(f"DRPolicy {obj['metadata']['name']}")
        return sorted(users)

    async def _applications_on(self, cluster: str, policy: str, specs: list[Object]) -> set[str]:
        """Applications whose DRPC names the policy, or whose VRG has its clusters and interval."""
        users = set()
        for drpc in await self._list(cluster, DRPC):
            if ((drpc.get("spec") or {}).get("drPolicyRef") or {}).get("name") == policy:
                users.add(_label(drpc))
        for vrg in await self._list(cluster, VRG):
            if any(_has_terms(vrg, spec) for spec in specs):
                users.add(_label(vrg))
        return users

    async def _list(self, cluster: str, kind: Kind) -> list[Object]:
        """All objects of a kind; none where the API server has no such kind."""
        access = self._members.access(cluster)
        try:
            return (await access.list(kind))[0]
        except KindMissing:
            await access.read(NAMESPACE, IDENTITY_NAMESPACE)  # raises for a proxy whose own page says "not found"
            return []

    async def _read_copy(self, cluster: str, kind: Kind, name: str) -> Object | None:
        """One object; None where it, or its kind, is not there."""
        access = self._members.access(cluster)
        try:
            return await access.read(kind, name)
        except KindMissing:
            await access.read(NAMESPACE, IDENTITY_NAMESPACE)
            return None

    # --- status ------------------------------------------------------------------------------------------------------

    async def _say_drcluster(self, cluster: str, drcluster: DRCluster, step: Step, sight: Sight) -> DRCluster:
        status = drcluster_status(drcluster, sight, datetime.now(UTC))
        return await self._write_status(cluster, DRCLUSTER, drcluster, status, step, sight)

    async def _say_policy(
        self,
        cluster: str,
        policy: DRPolicy,
        step: Step,
        drclusters: dict[str, DRCluster],
        others: list[DRPolicy],
        sight: Sight,
    ) -> None:
        status = policy_status(policy, drclusters, others, sight, datetime.now(UTC))
        await self._write_status(cluster, DRPOLICY, policy, status, step, sight)

    async def _write_status(self, cluster: str, kind: Kind, obj: Model, status: Any, step: Step, sight: Sight) -> Model:
        """Writes the status when it says anything new; the object with it."""
        raw = obj.to_object()
        metadata = obj.metadata
        say_copies(
            status.conditions,
            metadata.generation,
            convergence.revision(raw).number,
            step.waits if isinstance(step, Leave) else "",
            metadata.annotations.get(names.OVERRULED, ""),
            obj.is_being_deleted,
            sight,
            datetime.now(UTC),
        )
        judged: Model = obj.model_copy(update={"status": status})
        new = judged.to_object()
        if new.get("status") == raw.get("status"):
            return judged
        try:
            await self._members.access(cluster).replace(kind, new, "status")
            self.writes += 1
            self._said.pop((cluster, kind, metadata.name), None)
        except (Conflict, NotFound) as err:
            log.debug("status of %s %s on %s: %s", kind.kind, metadata.name, cluster, err)
        except HublessError as err:
            self._say(cluster, kind, metadata.name, str(err))
        return judged

    def _say(self, cluster: str, kind: Kind, name: str, error: str) -> bool:
        """Warns once per error, which is met again in every pass; whether it is a new one."""
        if self._said.get((cluster, kind, name)) == error:
            return False
        self._said[cluster, kind, name] = error
        log.warning("%s %s on %s is not kept: %s", kind.kind, name, cluster, error, extra={"cluster": cluster})
        return True


def _words(step: Step) -> str:
    match step:
        case Accept(annotations):
            return f"accepted as revision {annotations[names.COPY]}"
        case Overwrite(_, _, source):
            return f"brought up to date with the one on {source}"
        case Delete(because):
            return f"deleted, for {because}"
        case Release():
            return "deleted everywhere"
        case Drop():
            return "deleted here, to be made again"
    return "finalizer set"


def _label(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _has_terms(vrg: Object, spec: Object) -> bool:
    """Whether a VRG that we drive has a policy's clusters and interval; it does not name the policy itself."""
    clusters = str((vrg["metadata"].get("annotations") or {}).get(names.CLUSTERS) or "").split(",")
    interval = (((vrg.get("spec") or {}).get("async")) or {}).get("schedulingInterval") or ""
    return set(clusters) == set(spec.get("drClusters") or []) and interval == (spec.get("schedulingInterval") or "")
