"""Names, inputs and results of all activities: all that workflows, command line and workers agree on.

No implementation and no client is imported here, so workflows can import it and a history can be replayed without
Kubernetes or S3 at hand. `tests/activities/test_contracts.py` holds the implementations against this list.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from temporalio import activity

from ramen.app import AppRef, AppSpec, Decision, Observed, StoreReport, Volume, Wanted, Wire, Witness
from ramen.desired import Drawback
from ramen.epoch import Epoch


class Gate(StrEnum):
    """What `await_vrg` can wait for; each is a function of `ramen.gates` or `activities.waiting`."""

    READY = "ready"
    """R1, and every expected volume restored and bound (S3)."""
    ACCEPTED_SECONDARY = "accepted_secondary"
    """Spec secondary and observedGeneration = generation: the operator can no longer act as primary."""
    SECONDARY = "secondary"
    """R3 on an existing VRG."""
    FINAL_SYNC_PREPARED = "final_sync_prepared"
    FINAL_SYNC_COMPLETE = "final_sync_complete"
    CLEANED = "cleaned"
    """R3, and the application's pods and PVCs are gone (D6)."""
    REPROTECTED = "reprotected"
    """On the serving side: every volume has a sync that began after its promotion (D16)."""
    DELETED = "deleted"
    """The VRG is gone."""


class ReadVrg(Wire):
    app: AppRef
    cluster: str


class LastSeen(Wire):
    """Asks for what was last seen of a VRG.

    Where the cluster is out of sight the answer takes `grace_seconds`: whoever reads the cluster beside it can take
    the answer as the end of his patience. A timer of the server cannot be that, it lasts a second at least
    (guides/temporal.md 13, no. 32).
    """

    app: AppRef
    cluster: str
    grace_seconds: float = 0.0


class WriteVrg(Wire):
    """The desired VRG of one cluster; its spec is computed from `app` and `wanted` and never travels."""

    app: AppSpec
    cluster: str
    wanted: Wanted
    decision: Decision | None = None
    """Facts that travel with a promotion (S10)."""
    volumes: list[Volume] = []
    """Written on the VRG as the volumes last known to be protected (S3); empty leaves what is there."""
    no_volumes: bool = False
    """It was seen that there are none any more: the list on the VRG becomes empty."""
    drawbacks: dict[str, Drawback] = {}
    """By S3 profile, what was wrong with its store for a promotion when the action began (S9)."""
    only_existing: bool = False
    """Never create: a demotion has nothing to demote where no VRG is."""


class StampEpoch(Wire):
    """Claims an epoch on a cluster's VRG by a guarded annotation write (S1)."""

    app: AppRef
    cluster: str
    epoch: Epoch
    action: str
    clusters: list[str] = []
    """Written too where given: a VRG that a hub made does not say which clusters belong together (S8)."""


class RefreshVrg(Wire):
    """Gives a VRG the peer classes that its policy got since (drpc.md 2.5)."""

    app: AppSpec
    """With the policy's peer classes of now."""
    cluster: str
    epoch: Epoch


class AwaitVrg(Wire):
    app: AppRef
    cluster: str
    gate: Gate
    epoch: Epoch
    pvc_selector: dict[str, Any] = {}
    volumes: list[Volume] = []
    """READY: those that must be restored. CLEANED, REPROTECTED: those that are meant."""
    since: datetime | None = None
    """REPROTECTED: when the application began to serve, by the serving cluster's own clock if known."""


class ApplyVrg(Wire):
    """A write, and the wait for what it is to bring about; one activity where the time to serving counts (D15)."""

    write: WriteVrg
    wait: AwaitVrg


class DemoteWitnessed(Wire):
    """The demotion of a relocate's source, watched closely enough to prove the final sync (S4)."""

    write: WriteVrg
    volumes: list[Volume]


class DemoteResult(Wire):
    observed: Observed
    witness: Witness


class PublishDecision(Wire):
    """Writes one cluster's copy of the PlacementDecision.

    One that names no cluster is refused with NotYet where the VRG is an ordinary primary (S3, vrg.md 2.2).
    """

    app: AppSpec
    cluster: str
    epoch: Epoch
    decision: Decision
    require_accepted_secondary: bool = False
    """S6: this cluster's own entry may go only when its VRG accepted the Secondary role, read right before."""
    require_primary: bool = False
    """The promoted VRG of this cluster must be Primary at this epoch, read right before (D18)."""


class DeleteVrg(Wire):
    """Deletes one VRG under uid and resourceVersion preconditions, leaving a tombstone of the epoch (S7)."""

    app: AppRef
    cluster: str
    epoch: Epoch


class ReleaseVrg(Wire):
    """Takes from one VRG what makes it ours, all but the epoch, and leaves a tombstone beside it (S1, S7)."""

    app: AppRef
    cluster: str
    epoch: Epoch


class RemoveRestored(Wire):
    """Deletes PVCs that a promotion restored; only where the VRG has accepted Secondary at this epoch."""

    app: AppSpec
    cluster: str
    epoch: Epoch


class RequestUpload(Wire):
    """Makes the operator of the serving cluster upload PV and PVC objects again (S6)."""

    app: AppSpec
    cluster: str
    epoch: Epoch
    volumes: list[Volume]


class LockRequest(Wire):
    app: AppRef
    epoch: Epoch
    holder: str
    workflow_id: str
    profiles: list[str]
    break_holder: str = ""
    is_taken: bool = False
    """The claim of this action has just taken it: the first renewal has time."""


class ClaimEpoch(Wire):
    """Takes the lock, then claims `number` in every store that answers and makes its token.

    Repeatable with the same `request_id`. A foreign lock refuses before anything is claimed (S13, S15).
    """

    app: AppRef
    number: int
    action: str
    request_id: str
    profiles: list[str]
    lock: LockRequest


class ClaimedEpoch(Wire):
    epoch: Epoch
    stores: list[str]
    """Profiles that hold the claim."""


class StoresQuery(Wire):
    app: AppRef
    profiles: list[str]
    witness_of: Epoch | None = None
    """The epoch whose witness of the final sync is wanted as well; one more request per store. An earlier relocate's
    proves nothing (S4)."""
    enough: list[Volume] | None = None
    """Volumes that a promotion needs: once they were found, a store that has not answered in a second is left out.
    None waits for every store as long as a store may take."""


class StoresSeen(Wire):
    """What each profile holds of the operator's objects, and the newest epoch claimed in any."""

    stores: list[StoreReport]
    newest_epoch: Epoch | None = None
    silent: list[str] = []
    """Profiles whose coordination bucket did not say which epoch is the newest."""
    witness: Witness = Witness()


class MirrorState(Wire):
    """Documents for the mirror; written to every store that answers, never a gate (D8)."""

    app: AppSpec
    epoch: Epoch
    document: dict[str, Any]
    """Fields of `ramen.s3layout.StateDocument`."""
    decision: Decision | None = None
    profiles: list[str] = []


class AppendHistory(Wire):
    app: AppRef
    epoch: Epoch
    action: str
    document: dict[str, Any]
    """Fields of `ramen.s3layout.HistoryDocument`."""
    profiles: list[str] = []


class ProtectRequest(Wire):
    """What a user asks for with `hubless protect`: the spec of a DRPC, as a file or from flags."""

    namespace: str
    name: str
    spec: dict[str, Any]
    annotations: dict[str, str] = {}
    uid: str = ""


class Survey(Wire):
    """Looks at an application that is to be protected on one cluster."""

    app: AppSpec
    cluster: str


class PolicyCheck(Wire):
    """What the copies of DRPolicies and DRClusters on one cluster say of themselves, for people."""

    cluster: str
    error: str = ""
    """Why they could not be read; then the rest says nothing."""
    valid: dict[str, str] = {}
    """Peer classes by the name of each policy that is valid."""
    problems: list[str] = []
    warnings: list[str] = []


class SurveyResult(Wire):
    """`unsupported` names what this release does not carry (VolSync PVCs, consistency groups, …)."""

    observed: Observed
    unsupported: list[str] = []
    missing_kinds: list[str] = []


class ReadMirror(Wire):
    """Asks for what the stores say of an application; without profiles, every store that the worker knows."""

    app: AppRef
    profiles: list[str] = []


class MirrorSeen(Wire):
    """The newest documents of the mirror in any store that answers; None where no store has one."""

    state: dict[str, Any] | None = None
    """Fields of `ramen.s3layout.StateDocument`."""
    decision: Decision | None = None
    newest_epoch: Epoch | None = None
    stores: list[StoreReport] = []
    """Who answered; the volumes are left out."""


class ReadDecision(Wire):
    app: AppRef
    placement: str
    cluster: str


class EntitySeen(Wire):
    """What Temporal knows of an application."""

    is_open: bool = False
    superseded: str = ""
    """Why the open entity stopped acting (S1); empty for one that acts."""
    is_empty: bool = False
    """The open entity knows no application: its history was reset, or what it was asked for was refused."""
    actions: list[str] = []
    """Workflow IDs of actions that are open."""


class EndEntity(Wire):
    """Ends whatever is open in Temporal for an application, so that another entity can take its place (S14)."""

    app: AppRef
    reason: str


class ForwardRequest(Wire):
    """A Failover or Relocate that was started in Temporal Web, to be sent to the entity as an Update."""

    app: AppRef
    action: str
    request: dict[str, Any]
    request_id: str


class ClusterHealth(Wire):
    """What one worker knows of a cluster: is its gate open, since when, what was the last error."""

    cluster: str
    reachable: bool
    since: datetime | None = None
    last_answer: datetime | None = None
    error: str = ""
    version: str = ""
    worker: str = ""


class StoreProof(Wire):
    """Whether one bucket of one store was written and read by a cluster's own worker."""

    profile: str
    bucket: str
    problem: str = ""
    """Why not, with the remedy; empty when it was."""
    conditional_writes: bool | None = None
    """Whether the store really refuses a stale write; None where nobody needs it."""


class InstallationProof(Wire):
    """What one cluster's own worker found when it tried."""

    cluster: str
    stores: list[StoreProof]
    problems: list[str] = []
    """What is not equal on the clusters that this worker writes, and profiles that cannot be used."""


@activity.defn(name="read_vrg")
async def read_vrg(request: ReadVrg) -> Observed:
    """Reads the VRG, its volumes and the application's pods on one cluster; NotFound is a result."""
    raise NotImplementedError


@activity.defn(name="last_seen")
async def last_seen(request: LastSeen) -> Observed:
    """What the answering worker's watch last saw of a VRG, however long ago; runs on the control queue."""
    raise NotImplementedError


@activity.defn(name="stamp_epoch")
async def stamp_epoch(request: StampEpoch) -> Observed:
    """Claims the epoch on the cluster's VRG, if there is one; raises StaleEpoch."""
    raise NotImplementedError


@activity.defn(name="refresh_vrg")
async def refresh_vrg(request: RefreshVrg) -> Observed:
    """Writes the policy's peer classes on a VRG that lacks some, and nothing else of it; raises StaleEpoch."""
    raise NotImplementedError


@activity.defn(name="write_vrg")
async def write_vrg(request: WriteVrg) -> Observed:
    """Writes the desired VRG if it differs; raises StaleEpoch, also where it would create."""
    raise NotImplementedError


@activity.defn(name="await_vrg")
async def await_vrg(request: AwaitVrg) -> Observed:
    """Waits, heartbeating, until the gate holds; raises StaleEpoch, VolumesMissing."""
    raise NotImplementedError


@activity.defn(name="apply_vrg")
async def apply_vrg(request: ApplyVrg) -> Observed:
    """Writes the desired VRG if it differs, then waits for the gate; raises StaleEpoch, VolumesMissing."""
    raise NotImplementedError


@activity.defn(name="demote_witnessed")
async def demote_witnessed(request: DemoteWitnessed) -> DemoteResult:
    """Demotes a relocate's source, latches each volume's final sync, and waits until the VRG is Secondary."""
    raise NotImplementedError


@activity.defn(name="publish_decision")
async def publish_decision(request: PublishDecision) -> None:
    """Writes one cluster's PlacementDecision; raises StaleEpoch, NotYet when a precondition does not hold."""
    raise NotImplementedError


@activity.defn(name="ensure_namespace")
async def ensure_namespace(request: ReadVrg) -> None:
    """Makes sure that the application's namespace exists on the cluster."""
    raise NotImplementedError


@activity.defn(name="delete_vrg")
async def delete_vrg(request: DeleteVrg) -> None:
    """Leaves a tombstone and deletes the VRG; an absent VRG is done."""
    raise NotImplementedError


@activity.defn(name="release_vrg")
async def release_vrg(request: ReleaseVrg) -> None:
    """Gives a VRG up with its spec as it is; an absent VRG is done. Raises StaleEpoch."""
    raise NotImplementedError


@activity.defn(name="remove_restored")
async def remove_restored(request: RemoveRestored) -> list[str]:
    """Deletes PVCs that a promotion restored which did not come to be, or is over; returns their names."""
    raise NotImplementedError


@activity.defn(name="request_upload")
async def request_upload(request: RequestUpload) -> None:
    """Removes the operator's archive marks from the volumes, so that it uploads them again."""
    raise NotImplementedError


@activity.defn(name="survey_cluster")
async def survey_cluster(request: Survey) -> SurveyResult:
    """Looks at a cluster before an application is protected: kinds, VRG, PVCs and their classes."""
    raise NotImplementedError


@activity.defn(name="resolve_application")
async def resolve_application(request: ProtectRequest) -> AppSpec:
    """Resolves a DRPC's spec with its DRPolicy and DRClusters, and chooses a cluster where none is preferred.

    Raises Refused with the remedy.
    """
    raise NotImplementedError


@activity.defn(name="read_peer_classes")
async def read_peer_classes(policy: str) -> list[dict[str, Any]]:
    """Reads the peer classes of a DRPolicy's status where one answers; raises Refused where there is no such policy."""
    raise NotImplementedError


@activity.defn(name="check_policies")
async def check_policies() -> list[PolicyCheck]:
    """Reads what each cluster's DRPolicies and DRClusters say of themselves; a silent cluster has an error."""
    raise NotImplementedError


@activity.defn(name="claim_epoch")
async def claim_epoch(request: ClaimEpoch) -> ClaimedEpoch:
    """Takes the advisory lock and claims an epoch in every store that answers; raises LockHeld, StaleEpoch."""
    raise NotImplementedError


@activity.defn(name="hold_lock")
async def hold_lock(request: LockRequest) -> None:
    """Renews the lock every 15 s until cancelled, then releases it; raises LockLost."""
    raise NotImplementedError


@activity.defn(name="release_lock")
async def release_lock(request: LockRequest) -> None:
    """Gives the lock back where it is ours."""
    raise NotImplementedError


@activity.defn(name="read_stores")
async def read_stores(request: StoresQuery) -> StoresSeen:
    """Lists what each store could restore, and the newest epoch and witness in any (S9, S4)."""
    raise NotImplementedError


@activity.defn(name="mirror_state")
async def mirror_state(request: MirrorState) -> list[str]:
    """Writes state and decision to every store that answers; returns those."""
    raise NotImplementedError


@activity.defn(name="append_history")
async def append_history(request: AppendHistory) -> list[str]:
    """Writes the record of a finished action to every store that answers; returns those."""
    raise NotImplementedError


@activity.defn(name="read_mirror")
async def read_mirror(request: ReadMirror) -> MirrorSeen:
    """Reads state, decision and newest epoch from the stores that answer."""
    raise NotImplementedError


@activity.defn(name="list_mirrored")
async def list_mirrored() -> list[AppRef]:
    """Every application that any store that answers knows, and every one that a watch of this worker sees."""
    raise NotImplementedError


@activity.defn(name="read_decision")
async def read_decision(request: ReadDecision) -> Decision:
    """Whom a cluster's PlacementDecision names; an absent one names nobody."""
    raise NotImplementedError


@activity.defn(name="describe_entity")
async def describe_entity(app: AppRef) -> EntitySeen:
    """Whether an application's entity and actions are open in Temporal, and whether it acts."""
    raise NotImplementedError


@activity.defn(name="end_entity")
async def end_entity(request: EndEntity) -> None:
    """Terminates the entity and its open actions; what an action still writes is refused by the next epoch (S1)."""
    raise NotImplementedError


@activity.defn(name="forward_request")
async def forward_request(request: ForwardRequest) -> dict[str, Any]:
    """Sends a request that was typed into Temporal Web to the entity; returns the entity's answer."""
    raise NotImplementedError


@activity.defn(name="cluster_health")
async def cluster_health(cluster: str) -> ClusterHealth:
    """What the worker that answers knows of a cluster; an empty name asks for that worker's own."""
    raise NotImplementedError


@activity.defn(name="list_health")
async def list_health() -> list[ClusterHealth]:
    """What the worker that answers knows of every cluster of the registry; runs on the control queue."""
    raise NotImplementedError


@activity.defn(name="prove_installation")
async def prove_installation() -> InstallationProof:
    """Writes and reads each store from the cluster whose own worker answers; changes nothing that lasts."""
    raise NotImplementedError
