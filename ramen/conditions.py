"""Conditions: their types and reasons, and the two rules that everything rests on.

A condition counts only when it is True *and* was computed for the object's present generation (vrg.md 1.5.2,
rule 3): after a change of the spec, old and new conditions stand side by side in one status. And its transition
time moves when the status or the observed generation changes, not when only the words do (drpc.md 1.7).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from ramen.model import Int64, Model, Required, Rules, Time, format_time

TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"

NO_TEXT = "none"
"""Stands in for an empty reason or message: the API server refuses an empty reason (drpc.md 1.7)."""


class VRGCondition(StrEnum):
    """Condition types of a VolumeReplicationGroup (vrg.md 1.5.3)."""

    DATA_READY = "DataReady"
    DATA_PROTECTED = "DataProtected"
    CLUSTER_DATA_READY = "ClusterDataReady"
    CLUSTER_DATA_PROTECTED = "ClusterDataProtected"
    KUBE_OBJECTS_READY = "KubeObjectsReady"
    NO_CLUSTER_DATA_CONFLICT = "NoClusterDataConflict"
    AUTO_CLEANUP = "AutoCleanup"
    HOOKS_READY = "HooksReady"
    DESTINATION_INFO_AVAILABLE = "DestinationInfoAvailable"


class DRPCCondition(StrEnum):
    """Condition types of a DRPlacementControl, in the order in which they stand in the status.

    PeerReady has to be the second one: a printer column reads it by index (drpc.md 1.1).
    """

    AVAILABLE = "Available"
    PEER_READY = "PeerReady"
    PROTECTED = "Protected"


class ClusterCondition(StrEnum):
    """Condition types of a DRCluster (drpc.md 5.1)."""

    VALIDATED = "Validated"
    FENCED = "Fenced"
    CLEAN = "Clean"
    CIDRS_VALIDATED = "CIDRsValidated"


class PolicyCondition(StrEnum):
    """Condition types of a DRPolicy (drpc.md 4.1), and ours: what Ramen's leave unsaid."""

    VALIDATED = "Validated"
    NETWORK_ATTACHMENTS_VALIDATED = "NetworkAttachmentsValidated"
    PEER_CLASSES_MATCHED = "PeerClassesMatched"
    """Ours: whether every storage class of DR has its peer on the other cluster, and what is missing where."""


class CopyCondition(StrEnum):
    """Condition types of every object that is kept on all clusters; both are ours."""

    COPIES_EQUAL = "CopiesEqual"
    DELETABLE = "Deletable"
    """Only while a deletion waits: for what."""


class Reason(StrEnum):
    """Reasons that Hubless writes or decides by; the operator knows more, which are only shown."""

    INITIALIZING = "Initializing"
    INITIATING = "Initiating"
    READY = "Ready"
    RESTORED = "Restored"
    REPLICATING = "Replicating"
    REPLICATED = "Replicated"
    UPLOADED = "Uploaded"
    UNUSED = "Unused"
    PROGRESSING = "Progressing"
    PROTECTED = "Protected"
    UNKNOWN = "Unknown"
    SUCCESS = "Success"
    NOT_STARTED = "NotStarted"
    PAUSED = "Paused"
    WAITING = "Waiting"
    VALIDATION_FAILED = "ValidationFailed"
    ISOLATED = "Isolated"
    HOOK_FAILED = "HookFailed"
    FENCED = "Fenced"
    ERROR = "Error"
    UNKNOWN_ERROR = "UnknownError"
    UPLOAD_ERROR = "UploadError"
    ANNOTATION_FAILED = "AnnotationFailed"
    CLUSTER_DATA_CONFLICT_PRIMARY = "ClusterDataConflictPrimary"
    CLUSTER_DATA_CONFLICT_SECONDARY = "ClusterDataConflictSecondary"


ERROR_REASONS = frozenset(
    {
        Reason.ERROR,
        Reason.UNKNOWN_ERROR,
        Reason.UPLOAD_ERROR,
        Reason.ANNOTATION_FAILED,
        Reason.CLUSTER_DATA_CONFLICT_PRIMARY,
        Reason.CLUSTER_DATA_CONFLICT_SECONDARY,
    }
)
"""A False with one of these is an error, any other False is progress (drpc.md 1.7)."""


class Condition(Model):
    """One aspect of an object's state, in the shape that all Kubernetes objects share."""

    type: Annotated[
        str,
        Rules(
            required=True,
            max_length=316,
            pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        ),
    ]
    status: Annotated[str, Rules(required=True, enum=(TRUE, FALSE, UNKNOWN))]
    reason: Annotated[
        str,
        Rules(required=True, min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
    ] = ""
    message: Annotated[str, Rules(required=True, max_length=32768)] = ""
    observed_generation: Annotated[Int64 | None, Rules(minimum=0)] = None
    last_transition_time: Annotated[Time, Required] = ""


def find(conditions: Iterable[Condition], type: str) -> Condition | None:
    """The condition of that type, or None."""
    return next((condition for condition in conditions if condition.type == type), None)


def is_current(condition: Condition | None, generation: int | None) -> bool:
    """Whether the condition exists and was computed for that generation of its object."""
    return condition is not None and generation is not None and condition.observed_generation == generation


def is_met(conditions: Iterable[Condition], type: str, generation: int | None) -> bool:
    """Whether the condition is True at that generation (vrg.md 1.5.2 rule 3)."""
    condition = find(conditions, type)
    return condition is not None and condition.status == TRUE and is_current(condition, generation)


def set_condition(conditions: list[Condition], new: Condition, now: datetime) -> bool:
    """Puts `new` in the place of the condition of its type, or at the end; tells whether anything changed.

    The transition time becomes `now` when status or observed generation differ from before, else it stays.
    """
    moment = format_time(now)
    new = new.model_copy(update={"reason": new.reason or NO_TEXT, "message": new.message or NO_TEXT})
    for index, old in enumerate(conditions):
        if old.type != new.type:
            continue
        moved = old.status != new.status or old.observed_generation != new.observed_generation
        new.last_transition_time = moment if moved or not old.last_transition_time else old.last_transition_time
        changed = old.model_dump() != new.model_dump()
        conditions[index] = new
        return changed
    new.last_transition_time = moment
    conditions.append(new)
    return True
