"""Inputs, results, Updates and Queries of all workflows: the language between people, entity and actions."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from activities.contracts import ProtectRequest
from ramen.app import ActionKind, AppRef, AppSpec, Decision, PodCount, Volume, Wanted, Wire
from ramen.desired import Drawback
from ramen.epoch import Epoch
from ramen.recovery import Inference

WORKFLOW_TASK_TIMEOUT = timedelta(seconds=2)
"""How long Temporal waits for a worker that took a workflow task; it needs milliseconds. A frozen worker takes one for
each poll that it had open, and an application waits so long for each (the default is ten seconds)."""


class Timings(Wire):
    """Time limits of the orchestration in seconds; part of the input so that a history replays with its own."""

    look_seconds: float = 1.0
    """Total time for a look at a side that is being left (D12, S12)."""
    slot_seconds: float = 30.0
    """Time that other activities wait for a free slot on a reachable cluster (S12)."""
    await_park_seconds: float = 10.0
    """How long a Reprotect looks for an absent cluster before it parks (S14)."""
    look_again_seconds: float = 60.0
    """First pause before an entity whose Reprotect parked looks whether the clusters are back (S8)."""
    long_wait_seconds: float = 30.0
    """A wait of a Reprotect that lasts longer than this goes on without the lock and with fewer heartbeats."""


class MoveRequest(Wire):
    """A failover or relocate as asked for by a person.

    `request_id` makes asking again safe: the same ID gives the same answer and starts nothing new.
    """

    target: str
    request_id: str = ""
    requester: str = ""
    reason: str = ""
    accept_data_loss: bool = False
    accept_missing_volumes: list[str] = []
    break_lock: str = ""
    basis_epoch: int | None = None
    """The epoch that the requester looked at; refused when the application is at another one by now."""
    requested_at: datetime | None = None


class ProtectUpdate(Wire):
    """`apply`: protect an application, or change what follows from its spec."""

    request: ProtectRequest
    request_id: str = ""
    requester: str = ""
    reason: str = ""


class UnprotectRequest(Wire):
    request_id: str = ""
    requester: str = ""
    reason: str = ""
    forget_clusters: list[str] = []
    basis_epoch: int | None = None
    """As in `MoveRequest`."""
    basis_serving: str | None = None
    """The cluster that served as the requester saw it, where the request means something else if another one does: a
    deleted DRPC object takes the protection away only where the application serves (S7). None for whichever."""


class ReleaseRequest(Wire):
    """`release`: give an application back to a Ramen hub."""

    request_id: str = ""
    requester: str = ""
    reason: str = ""


class OperatorRequest(Wire):
    """`abort`, `retry`, `resume`: what an operator says to an action that runs or waits."""

    request_id: str = ""
    requester: str = ""
    reason: str = ""
    accept_data_loss: bool = False
    accept_missing_volumes: list[str] = []


class Answer(Wire):
    """What an accepted Update returns: the action that was started or spoken to."""

    action: ActionKind
    workflow_id: str
    epoch: int
    message: str


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class Waiting(Wire):
    """A wait says what it waits for, on which cluster, since when."""

    reason: str
    cluster: str = ""
    since: datetime | None = None


class Step(Wire):
    """One line of an action's table."""

    title: str
    state: StepState = StepState.PENDING
    cluster: str = ""
    note: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    waiting: Waiting | None = None


class ActionInput(Wire):
    """Input of an action's workflow.

    Started by the entity, it carries the application and a claimed epoch. Typed into Temporal Web's start form, it
    carries `confirm` and `request` only, and the workflow forwards itself to the entity (S15).
    """

    confirm: str = ""
    """`<namespace>/<name>`, required in a form without a parent."""
    request: MoveRequest | None = None
    app: AppSpec | None = None
    epoch: Epoch | None = None
    source: str | None = None
    wanted: dict[str, Wanted] = {}
    decision: Decision = Decision()
    volumes: list[Volume] = []
    known_empty: bool = False
    """The application is known to have no volumes (S3)."""
    policy_changed: bool = False
    """The VRG of the cluster that serves is to get the peer classes of `app`; the others get them when cleaned."""
    drawbacks: dict[str, Drawback] = {}
    """By S3 profile, what was wrong with its store when the action began (S9)."""
    target_unsettled: bool = False
    """The target was no settled Secondary when the action was asked for, or another one was superseded for it: a
    relocate may have begun to take the volumes from it."""
    after_cut_off: bool = False
    """The move before was cut off in the middle: no side is known to serve, so there is nothing to go back to."""
    data_as_of: datetime | None = None
    serving_at: datetime | None = None
    forget_clusters: list[str] = []
    timings: Timings = Timings()


class Outcome(StrEnum):
    DONE = "done"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"
    """Another action took over, or an epoch was met that nobody here issued."""
    PARKED = "parked"
    """A Reprotect whose peer is absent; the debt starts the next one (S14)."""


class ActionResult(Wire):
    """The three facts with their times, and what the entity has to remember (D4, D6)."""

    action: ActionKind
    outcome: Outcome
    message: str = ""
    wanted: dict[str, Wanted] = {}
    decision: Decision | None = None
    volumes: list[Volume] = []
    no_volumes: bool = False
    """The cluster that serves showed that there are none, not even ones that its operator still holds."""
    promoted: bool = False
    """The target was asked to be Primary: whatever happened later, the side it left is no longer the newest copy."""
    serving_at: datetime | None = None
    cleaned_at: datetime | None = None
    reprotected_at: datetime | None = None
    data_as_of: datetime | None = None
    clusters_seconds: float = 0.0
    """Of the time to serving: seconds that operator and storage took."""
    debts: list[str] = []
    foreign_epoch: bool = False
    steps: list[Step] = []


class StopKind(StrEnum):
    ABORT = "abort"
    SUPERSEDE = "supersede"


class StopRequest(Wire):
    """Entity to child: give up; `abort` compensates before the point of no return, `supersede` only stops."""

    kind: StopKind
    requester: str = ""
    reason: str = ""


class StopAnswer(Wire):
    """Child to entity: the abort began, or it is too late for it."""

    workflow_id: str
    accepted: bool
    message: str


class ClusterSignal(Wire):
    """Worker to entity: a hint that something material changed or a cluster answers again (S8)."""

    cluster: str
    reason: str = ""
    policy_changed: bool = False
    """The policy has peer classes that the VRGs were not given yet."""


class ActionRecord(Wire):
    """The action that runs, or the last that ran; times belong to the three facts."""

    kind: ActionKind
    workflow_id: str
    epoch: int
    target: str = ""
    source: str = ""
    requester: str = ""
    reason: str = ""
    requested_at: datetime | None = None
    serving_at: datetime | None = None
    cleaned_at: datetime | None = None
    reprotected_at: datetime | None = None
    data_as_of: datetime | None = None
    point_of_no_return_passed: bool = False
    outcome: Outcome | None = None
    message: str = ""


class Debt(Wire):
    """Something decided for a cluster that could not be reached: kept until it is carried out (D4, S8)."""

    cluster: str
    wants: str
    since: datetime


class AppState(Wire):
    """All that an entity remembers; survives continue-as-new and is mirrored to S3 (D13)."""

    namespace: str
    name: str
    app: AppSpec | None = None
    issued: list[Epoch] = []
    """The newest epochs that this entity claimed, oldest first."""
    wanted: dict[str, Wanted] = {}
    decision: Decision = Decision()
    volumes: list[Volume] = []
    known_empty: bool = False
    protected: dict[str, datetime] = {}
    """By cluster: when its copy was last proven good since it last stopped serving (S2)."""
    last_good: dict[str, datetime] = {}
    """By cluster: the data of its copy as of then; shown in refusals and prompts."""
    action: ActionRecord | None = None
    debts: list[Debt] = []
    superseded: str = ""
    """Why this entity stopped acting; only adopt goes on (S1)."""
    interrupted: str = ""
    """Why nothing is cleaned up by itself: a move was cut off, or one runs that is not known here, and a person has to
    say where to (S14)."""
    answers: dict[str, Answer] = {}
    """By request ID, newest last, bounded."""
    history: list[ActionRecord] = []
    timings: Timings = Timings()
    drpc_generation: int = 1

    @property
    def epoch(self) -> Epoch | None:
        """The newest epoch issued."""
        return self.issued[-1] if self.issued else None


class AdoptRequest(Wire):
    """Asks what an application is doing that no workflow holds, and with `consent` to hold it again (design 9)."""

    app: AppRef
    consent: bool = False
    shown: Inference | None = None
    """With consent: what the person was shown. Whatever else is inferred now is not acted on."""
    serving: str = ""
    """The cluster that a person named, where nothing else says which one counts."""
    policy: str = ""
    """The DRPolicy of an application that no store knows, as one that a Ramen hub protected."""
    placement: str = ""
    break_lock: str = ""
    requester: str = ""
    reason: str = ""
    timings: Timings = Timings()


class AdoptResult(Wire):
    """What was inferred, and with consent what was started."""

    inference: Inference
    clusters: dict[str, str] = {}
    """By cluster: what was seen there, in words."""
    adopted: bool = False
    epoch: int = 0
    workflow_id: str = ""
    """The action that goes on; empty where cleaning up and re-protecting follow by themselves."""


class StatusView(Wire):
    """Answer of the entity's `status` query: Ramen's DRPC and what Hubless knows beside it (issue of the CLI)."""

    drpc: dict[str, Any]
    hubless: dict[str, Any]
    state: AppState
    child: str = ""
    """Workflow ID of the action that runs now; its `steps` query has the waits."""
    answering: str = ""
    """ID of the request that is being looked into; it may be accepted, and its epoch be claimed already."""
    pods: PodCount = PodCount()


class StepsView(Wire):
    """Answer of an action's `steps` query."""

    title: str
    steps: list[Step]
    waiting: Waiting | None = None
    needs_operator: str = ""
    """What the operator can do now, empty while nothing is needed."""
    aborting: str = ""
    """Why it is being aborted; empty while it is not."""
    point_of_no_return_passed: bool = False
    result: ActionResult | None = None
