"""A small world that implements every activity contract in memory: clusters with VRGs, stores, decisions.

It keeps the promises that workflows rely on (epochs, generations, unreachable clusters, gates that hold or not), so a
test says what the world is like and looks at what the workflows did to it. Failures come to order by `silent`,
`hold` and `drop`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import contracts
from activities.contracts import Gate
from activities.forwarding import ForwardingActivities
from ramen.app import (
    AppRef,
    AppSpec,
    Decision,
    Observed,
    PodCount,
    PolicyCluster,
    Role,
    StoreReport,
    Volume,
    Wanted,
    Witness,
)
from ramen.desired import Drawback, released_annotations
from ramen.epoch import Epoch, check_write
from ramen.errors import HublessError
from ramen.names import ACTION, EPOCH

FROM_THE_COMMAND_LINE = ("prove_installation",)
"""Contracts that no workflow calls."""


def app_spec(name: str = "shop") -> AppSpec:
    """The application of all tests: two clusters, a store each."""
    return AppSpec(
        namespace="web",
        name=name,
        uid="uid-1",
        policy="gold",
        clusters=[PolicyCluster(name="dr1", s3_profile="s3-dr1"), PolicyCluster(name="dr2", s3_profile="s3-dr2")],
        preferred_cluster="dr1",
        pvc_selector={"matchLabels": {"app": name}},
        placement=name,
        scheduling_interval="1m",
    )


class World:
    """Clusters dr1 and dr2, their stores, and what happened to them, in order."""

    def __init__(self, name: str = "shop") -> None:
        self.name = name
        self.vrgs: dict[str, dict[str, Any]] = {}
        self.decisions: dict[str, Decision] = {}
        self.volumes = [
            Volume(namespace="web", name="data-0", pv="pv-0"),
            Volume(namespace="web", name="data-1", pv="pv-1"),
        ]
        self.stored: dict[str, list[Volume]] = {"s3-dr1": list(self.volumes), "s3-dr2": list(self.volumes)}
        self.silent: set[str] = set()
        """Clusters and stores that do not answer."""
        self.frozen: set[str] = set()
        """Clusters that take a request and never answer it; the watch of the workers is broken there."""
        self.busy: set[str] = set()
        """Clusters whose next read is refused because they have too much to do; the watch is alive."""
        self.forgetful: set[str] = set()
        """Clusters of which no worker has the time to say what its watch shows."""
        self.hold: set[tuple[str, Gate]] = set()
        """Waits that do not end while they are in here."""
        self.breaks_when_stopped = False
        """A wait that is cancelled fails instead, as one does whose worker died."""
        self.deaf: set[Gate] = set()
        """Waits for these do not learn that they were ended; as one whose next heartbeat is far."""
        self.publishing: dict[str, asyncio.Event] = {}
        """By cluster: what a decision's publication waits for; it does not learn of a stop, and succeeds."""
        self.before: dict[str, asyncio.Event] = {}
        """By activity, or activity and cluster (`stamp_epoch dr1`): what a call waits for before it does anything."""
        self.waiting: set[str] = set()
        """Those of `before` that a call waits for now."""
        self.when_claimed: Callable[[], None] = lambda: None
        """What happens to the clusters in the moment in which an epoch is claimed."""
        self.vanishes_at_release = ""
        """A cluster that falls silent when its VRG is to be let go."""
        self.placement_reason = ""
        """Why the preferred cluster was chosen, as the resolver says."""
        self.mirroring = asyncio.Event()
        """Cleared: the stores let a write of the state wait."""
        self.mirroring.set()
        self.dropped: set[str] = set()
        """Volumes that a promotion does not restore."""
        self.drawbacks: dict[str, dict[str, Drawback]] = {}
        """By cluster: what the last write of its VRG said of the stores."""
        self.classes: list[dict[str, Any]] | None = None
        """Peer classes of the policy; None when no cluster tells them."""
        self.written_classes: dict[str, str] = {}
        """By cluster: storage classes of the peer classes that the VRG was written with last."""
        self.unwitnessed: set[str] = set()
        self.claims: dict[int, Epoch] = {}
        self.silent_coordination: set[str] = set()
        """Profiles whose coordination bucket does not answer, though the operator's does."""
        self.claimed_on: list[str] = []
        """Profiles on which the last claim was to be made."""
        self.forbidding: set[str] = set()
        """Clusters that answer, and refuse whatever is asked."""
        self.changing: set[str] = set()
        """Clusters whose VRG changes too fast to be claimed."""
        self.published_late: set[str] = set()
        """Clusters on which the decision for them is published, and the answer does not arrive."""
        self.proven: list[list[str]] = []
        """For each proof of a sync: the volumes that it was asked for."""
        self.witnessed_of: list[Epoch | None] = []
        """For each look at the stores: the epoch whose witness was asked for."""
        self.lock_holder = ""
        self.locks: set[str] = set()
        """Actions that hold the lock now."""
        self.locked_by: list[str] = []
        """Each time that an action took it, in order."""
        self.recorded: list[tuple[int, str]] = []
        """Epoch and kind of every action whose record the stores were given."""
        self.mirrored: dict[str, Any] | None = None
        self.mirrored_decision: Decision | None = None
        self.log: list[tuple[str, str, str]] = []
        """(activity, cluster, detail), in order."""
        self.changed = asyncio.Event()

    # --- how tests speak to it ----------------------------------------------------------------------------------

    def did(self, name: str, cluster: str = "") -> list[str]:
        """Details of every call of an activity, on one cluster or on all."""
        return [detail for what, where, detail in self.log if what == name and cluster in ("", where)]

    def role(self, cluster: str) -> str | None:
        """The role that the cluster's VRG was last given."""
        return self.vrgs[cluster]["spec"]["replicationState"] if cluster in self.vrgs else None

    async def until(self, condition: Callable[[], Any]) -> None:
        """Waits until something holds in this world; the limit is the test's own."""
        async with asyncio.timeout(45):
            while not condition():
                await asyncio.sleep(0.02)

    def set_epoch(self, cluster: str, epoch: str) -> None:
        """Somebody else writes an epoch on a VRG."""
        self.vrgs[cluster]["metadata"]["annotations"][EPOCH] = epoch

    def activities(self) -> list[Callable[..., Any]]:
        """Implementations of the contracts that workflows use, under the contracts' names."""
        return [
            self._wrap(name)
            for name, fn in vars(contracts).items()
            if hasattr(fn, "__temporal_activity_definition") and name not in FROM_THE_COMMAND_LINE
        ]

    def _wrap(self, name: str) -> Callable[..., Any]:
        contract = getattr(contracts, name)
        implementation = getattr(self, name)

        async def run(*args: Any) -> Any:
            for request in args:
                app = getattr(request, "app", None) or getattr(getattr(request, "write", None), "app", None) or request
                if getattr(app, "name", self.name) != self.name:
                    # What an earlier test left behind polls the same queues; it has no place in this world.
                    raise ApplicationError("the world of another test", type="Invalid", non_retryable=True)
            for held in (name, f"{name} {getattr(args[0], 'cluster', '')}" if args else name):
                if held in self.before:
                    self.waiting.add(held)
                    await self._beating(self.before[held])
                    self.waiting.discard(held)
            try:
                return await implementation(*args)
            except HublessError as err:
                raise ApplicationError(str(err), type=type(err).__name__, non_retryable=not err.retryable) from err

        hints = inspect.get_annotations(contract, eval_str=True)
        parameters = list(inspect.signature(contract).parameters.values())
        run.__signature__ = inspect.signature(contract)  # type: ignore[attr-defined]
        run.__annotations__ = hints
        if not parameters:

            async def bare() -> Any:
                return await run()

            bare.__annotations__ = hints
            return activity.defn(name=name)(bare)

        async def one(request: Any) -> Any:
            return await run(request)

        one.__annotations__ = {"request": hints[parameters[0].name], "return": hints["return"]}
        return activity.defn(name=name)(one)

    # --- clusters --------------------------------------------------------------------------------------------------

    @staticmethod
    async def _beating(event: asyncio.Event) -> None:
        """Waits for an event as an activity does that is at work, and does not learn of a stop."""
        while not event.is_set():
            activity.heartbeat()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)

    def _reach(self, cluster: str) -> None:
        if cluster in self.silent:
            raise ApplicationError(f"{cluster} does not answer", type="ClusterUnreachable", non_retryable=True)
        if cluster in self.forbidding:
            raise ApplicationError(f"{cluster} refuses: forbidden", type="Forbidden", non_retryable=True)

    def _seen(self, cluster: str) -> Observed:
        vrg = self.vrgs.get(cluster)
        primary = vrg is not None and vrg["spec"]["replicationState"] == "primary"
        volumes = [v for v in self.volumes if v.name not in self.dropped] if primary else []
        claims = len(self.volumes) if primary else 0
        return Observed(cluster=cluster, vrg=vrg, volumes=volumes, claims=claims, pods=PodCount(ready=1, total=1))

    def _write(self, cluster: str, wanted: Wanted) -> None:
        role, epoch = wanted.role.value, wanted.epoch
        old = self.vrgs.get(cluster)
        check_write(epoch, Epoch.of(old), f"VRG on {cluster}")
        generation = (old["metadata"]["generation"] if old else 0) + 1
        state = "Primary" if role == "primary" else "Secondary"
        kinds = ("DataReady", "DataProtected", "ClusterDataReady", "ClusterDataProtected", "NoClusterDataConflict")
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.vrgs[cluster] = {
            "metadata": {
                "name": "shop",
                "namespace": "web",
                "generation": generation,
                "resourceVersion": str(generation),
                "annotations": {EPOCH: str(epoch)},
            },
            "spec": {
                "replicationState": role,
                "action": wanted.action or ((old or {}).get("spec") or {}).get("action") or "",
                "prepareForFinalSync": wanted.prepare_final_sync,
                "runFinalSync": wanted.run_final_sync,
            },
            "status": {
                "state": state,
                "observedGeneration": generation,
                "lastGroupSyncTime": at,
                "conditions": [
                    {
                        "type": kind,
                        "status": "True",
                        "reason": "Ready",
                        "message": "",
                        "observedGeneration": generation,
                        "lastTransitionTime": at,
                    }
                    for kind in kinds
                ],
            },
        }

    async def read_vrg(self, request: contracts.ReadVrg) -> Observed:
        self._reach(request.cluster)
        if request.cluster in self.busy:
            self.busy.discard(request.cluster)
            raise ApplicationError(f"{request.cluster} asks for patience", type="ServerBusy", non_retryable=True)
        while request.cluster in self.frozen:
            await asyncio.sleep(0.02)
        return self._seen(request.cluster)

    async def last_seen(self, request: contracts.LastSeen) -> Observed:
        if request.cluster in self.forgetful:
            raise ApplicationError("nobody took it in time", type="TimedOut", non_retryable=True)
        return self._seen(request.cluster).model_copy(
            update={"reachable": request.cluster not in self.silent | self.frozen}
        )

    async def stamp_epoch(self, request: contracts.StampEpoch) -> Observed:
        self._reach(request.cluster)
        if request.cluster in self.changing:
            raise ApplicationError("the VRG changes too fast", type="Conflict", non_retryable=True)
        vrg = self.vrgs.get(request.cluster)
        check_write(request.epoch, Epoch.of(vrg), f"VRG on {request.cluster}")
        if vrg:
            self.set_epoch(request.cluster, str(request.epoch))
            vrg["metadata"]["annotations"][ACTION] = request.action
        self.log.append(("stamp_epoch", request.cluster, str(request.epoch.number)))
        return self._seen(request.cluster)

    async def write_vrg(self, request: contracts.WriteVrg) -> Observed:
        self._reach(request.cluster)
        old = self.vrgs.get(request.cluster)
        if old is None and request.only_existing:
            return self._seen(request.cluster)
        self._write(request.cluster, request.wanted)
        self.written_classes[request.cluster] = classes_of(request.app)
        self.drawbacks[request.cluster] = request.drawbacks
        self.log.append(("write_vrg", request.cluster, request.wanted.role.value))
        return self._seen(request.cluster)

    async def apply_vrg(self, request: contracts.ApplyVrg) -> Observed:
        await self.write_vrg(request.write)
        return await self.await_vrg(request.wait)

    async def await_vrg(self, request: contracts.AwaitVrg) -> Observed:
        while (request.cluster, request.gate) in self.hold:
            check_write(request.epoch, Epoch.of(self.vrgs.get(request.cluster)), f"VRG on {request.cluster}")
            activity.heartbeat()
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                if request.gate in self.deaf:
                    continue
                if self.breaks_when_stopped:
                    raise ApplicationError("the worker died", type="TimedOut", non_retryable=True) from None
                raise
        self._reach(request.cluster)
        check_write(request.epoch, Epoch.of(self.vrgs.get(request.cluster)), f"VRG on {request.cluster}")
        if request.gate is Gate.READY:
            missing = [v.name for v in request.volumes if v.name in self.dropped]
            if missing:
                raise ApplicationError(f"{', '.join(missing)} not restored", type="VolumesMissing", non_retryable=True)
        if request.gate is Gate.REPROTECTED:
            self.proven.append([volume.name for volume in request.volumes])
        self.log.append(("await_vrg", request.cluster, request.gate.value))
        return self._seen(request.cluster)

    async def demote_witnessed(self, request: contracts.DemoteWitnessed) -> contracts.DemoteResult:
        write = request.write
        self._reach(write.cluster)
        self._write(write.cluster, write.wanted)
        self.log.append(("write_vrg", write.cluster, write.wanted.role.value))
        seen = [v for v in request.volumes if v.name not in self.unwitnessed]
        return contracts.DemoteResult(observed=self._seen(write.cluster), witness=Witness(volumes=seen))

    async def publish_decision(self, request: contracts.PublishDecision) -> None:
        self._reach(request.cluster)
        if request.require_primary:
            found = Epoch.of(self.vrgs.get(request.cluster))
            check_write(request.epoch, found, f"VRG on {request.cluster}")
            if found != request.epoch:
                raise ApplicationError(f"{request.cluster} does not carry the epoch yet", type="NotYet")
        if request.cluster in self.publishing:
            await self._beating(self.publishing[request.cluster])
        role = self.role(request.cluster)
        if request.require_primary and role != "primary":
            raise ApplicationError(f"{request.cluster} is not Primary", type="NotYet")
        if request.require_accepted_secondary and role != Role.SECONDARY:
            raise ApplicationError(f"{request.cluster} is not Secondary", type="NotYet")
        spec = (self.vrgs.get(request.cluster) or {}).get("spec") or {}
        gives_up = spec.get("prepareForFinalSync") or spec.get("runFinalSync")
        if request.decision.cluster is None and role == "primary" and not gives_up:
            raise ApplicationError(f"{request.cluster} is an ordinary primary", type="NotYet")
        self.decisions[request.cluster] = request.decision
        self.log.append(("publish_decision", request.cluster, request.decision.cluster or ""))
        while request.cluster in self.published_late and request.decision.cluster == request.cluster:
            activity.heartbeat()
            await asyncio.sleep(0.02)

    async def ensure_namespace(self, request: contracts.ReadVrg) -> None:
        self._reach(request.cluster)

    async def delete_vrg(self, request: contracts.DeleteVrg) -> None:
        self._reach(request.cluster)
        self.vrgs.pop(request.cluster, None)
        self.log.append(("delete_vrg", request.cluster, ""))

    async def release_vrg(self, request: contracts.ReleaseVrg) -> None:
        if request.cluster == self.vanishes_at_release:
            self.silent.add(request.cluster)
        self._reach(request.cluster)
        vrg = self.vrgs[request.cluster]
        check_write(request.epoch, Epoch.of(vrg), f"VRG on {request.cluster}")
        vrg["metadata"]["annotations"] = {
            key: value for key, value in released_annotations(request.epoch).items() if value
        }
        self.log.append(("release_vrg", request.cluster, ""))

    async def remove_restored(self, request: contracts.RemoveRestored) -> list[str]:
        self._reach(request.cluster)
        self.log.append(("remove_restored", request.cluster, ""))
        return [volume.name for volume in self.volumes]

    async def request_upload(self, request: contracts.RequestUpload) -> None:
        self._reach(request.cluster)
        for profile in self.stored:
            self.stored[profile] = list(request.volumes)
        self.log.append(("request_upload", request.cluster, ""))

    async def survey_cluster(self, request: contracts.Survey) -> contracts.SurveyResult:
        self._reach(request.cluster)
        return contracts.SurveyResult(observed=self._seen(request.cluster))

    async def check_policies(self) -> list[contracts.PolicyCheck]:
        return []

    async def resolve_application(self, request: contracts.ProtectRequest) -> AppSpec:
        return app_spec(request.name).model_copy(update={"placement_reason": self.placement_reason})

    async def read_peer_classes(self, policy: str) -> list[dict[str, Any]]:
        if self.classes is None:
            raise ApplicationError("no cluster answers", type="ClusterUnreachable", non_retryable=True)
        return self.classes

    async def refresh_vrg(self, request: contracts.RefreshVrg) -> Observed:
        self._reach(request.cluster)
        check_write(request.epoch, Epoch.of(self.vrgs.get(request.cluster)), f"VRG on {request.cluster}")
        self.log.append(("refresh_vrg", request.cluster, classes_of(request.app)))
        return self._seen(request.cluster)

    # --- stores ----------------------------------------------------------------------------------------------------

    async def claim_epoch(self, request: contracts.ClaimEpoch) -> contracts.ClaimedEpoch:
        if self.lock_holder and request.lock.break_holder != self.lock_holder:
            raise ApplicationError(
                f"held by {self.lock_holder}; --break-lock {self.lock_holder}", type="LockHeld", non_retryable=True
            )
        self.claimed_on = request.profiles
        self.when_claimed()
        epoch = self.claims.setdefault(request.number, Epoch(number=request.number, token=f"t{request.number}"))
        self.log.append(("claim_epoch", "", str(request.number)))
        return contracts.ClaimedEpoch(epoch=epoch, stores=list(self.stored))

    async def hold_lock(self, request: contracts.LockRequest) -> None:
        self.locked_by.append(request.workflow_id)
        self.locks.add(request.workflow_id)
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.2)
        finally:
            self.locks.discard(request.workflow_id)

    async def release_lock(self, request: contracts.LockRequest) -> None:
        return

    async def read_stores(self, request: contracts.StoresQuery) -> contracts.StoresSeen:
        self.witnessed_of.append(request.witness_of)
        reports = [
            StoreReport(profile=profile, reachable=False, error="connection refused")
            if profile in self.silent
            else StoreReport(profile=profile, reachable=True, volumes=self.stored[profile])
            for profile in request.profiles
        ]
        newest = self.claims[max(self.claims)] if self.claims else None
        silent = [profile for profile in request.profiles if profile in self.silent | self.silent_coordination]
        return contracts.StoresSeen(stores=reports, newest_epoch=newest, silent=silent)

    async def mirror_state(self, request: contracts.MirrorState) -> list[str]:
        await self.mirroring.wait()
        self.log.append(("mirror_state", "", request.document["phase"]))
        self.mirrored = {**request.document, "epoch": request.epoch.model_dump()}
        self.mirrored_decision = request.decision
        return list(self.stored)

    async def append_history(self, request: contracts.AppendHistory) -> list[str]:
        self.log.append(("append_history", "", request.action))
        self.recorded.append((request.epoch.number, request.action))
        return list(self.stored)

    async def read_mirror(self, request: contracts.ReadMirror) -> contracts.MirrorSeen:
        newest = self.claims[max(self.claims)] if self.claims else None
        decision = self.mirrored_decision
        stores = [StoreReport(profile=profile, reachable=True) for profile in self.stored]
        return contracts.MirrorSeen(state=self.mirrored, decision=decision, newest_epoch=newest, stores=stores)

    async def list_mirrored(self) -> list[AppRef]:
        return [AppRef(namespace="web", name=self.name)] if self.mirrored else []

    async def read_decision(self, request: contracts.ReadDecision) -> Decision:
        self._reach(request.cluster)
        return self.decisions.get(request.cluster, Decision())

    async def describe_entity(self, app: AppRef) -> contracts.EntitySeen:
        seen: contracts.EntitySeen = await ForwardingActivities().describe_entity(app)
        return seen

    async def end_entity(self, request: contracts.EndEntity) -> None:
        await ForwardingActivities().end_entity(request)

    async def forward_request(self, request: contracts.ForwardRequest) -> dict[str, Any]:
        handle = activity.client().get_workflow_handle(f"drpc/{request.app.namespace}/{request.app.name}")
        answer: dict[str, Any] = await handle.execute_update(
            request.action, {**request.request, "request_id": request.request_id}, result_type=dict
        )
        return answer

    async def cluster_health(self, cluster: str) -> contracts.ClusterHealth:
        return contracts.ClusterHealth(cluster=cluster, reachable=cluster not in self.silent)

    async def list_health(self) -> list[contracts.ClusterHealth]:
        return [contracts.ClusterHealth(cluster=c, reachable=c not in self.silent) for c in ("dr1", "dr2")]


def classes_of(app: AppSpec) -> str:
    """Names of the storage classes that an application's policy has peers of."""
    return " ".join(str(entry["storageClassName"]) for entry in app.peer_classes)


def counts(log: list[tuple[str, str, str]]) -> dict[str, int]:
    """How often each activity ran."""
    found: dict[str, int] = defaultdict(int)
    for name, _, _ in log:
        found[name] += 1
    return dict(found)
