"""Phases, progressions and actions with Ramen's exact spelling, and which phase may follow which.

Ramen names the phases in prose only; here the table is next to the names and checked at each change, so that a
wrong turn stops at once instead of showing people a state that cannot be.
"""

from __future__ import annotations

from enum import StrEnum

from ramen.errors import Refused


class Action(StrEnum):
    """`spec.action` of a DRPC or VRG; no action is an absent field, the empty string is refused (drpc.md 1.2)."""

    FAILOVER = "Failover"
    RELOCATE = "Relocate"


class Phase(StrEnum):
    """`status.phase` of a DRPC (drpc.md 1.5)."""

    NEW = ""
    WAIT_FOR_USER = "WaitForUser"
    INITIATING = "Initiating"
    DEPLOYING = "Deploying"
    DEPLOYED = "Deployed"
    FAILING_OVER = "FailingOver"
    FAILED_OVER = "FailedOver"
    RELOCATING = "Relocating"
    RELOCATED = "Relocated"
    DELETING = "Deleting"


FINAL = frozenset({Phase.DEPLOYED, Phase.FAILED_OVER, Phase.RELOCATED})
PROGRESSING = frozenset({Phase.INITIATING, Phase.DEPLOYING, Phase.FAILING_OVER, Phase.RELOCATING})


class Progression(StrEnum):
    """`status.progression` of a DRPC (drpc.md 1.6); `Cleaning Up` is spelled with a space."""

    NONE = ""
    CREATING_MW = "CreatingMW"
    UPDATING_PLRULE = "UpdatingPlRule"
    ENSURING_VOLSYNC_SETUP = "EnsuringVolSyncSetup"
    SETTING_UP_VOLSYNC_DEST = "SettingUpVolSyncDest"
    CHECKING_FAILOVER_PREREQUISITES = "CheckingFailoverPrerequisites"
    WAIT_FOR_FENCING = "WaitForFencing"
    WAIT_FOR_STORAGE_MAINTENANCE_ACTIVATION = "WaitForStorageMaintenanceActivation"
    FAILING_OVER_TO_CLUSTER = "FailingOverToCluster"
    WAITING_FOR_RESOURCE_RESTORE = "WaitingForResourceRestore"
    WAIT_FOR_READINESS = "WaitForReadiness"
    UPDATED_PLACEMENT = "UpdatedPlacement"
    PREPARING_FINAL_SYNC = "PreparingFinalSync"
    CLEARING_PLACEMENT = "ClearingPlacement"
    RUNNING_FINAL_SYNC = "RunningFinalSync"
    FINAL_SYNC_COMPLETE = "FinalSyncComplete"
    ENSURING_VOLUMES_ARE_SECONDARY = "EnsuringVolumesAreSecondary"
    WAIT_ON_USER_TO_CLEAN_UP = "WaitOnUserToCleanUp"
    CLEANUP_READINESS = "CleanupReadiness"
    CLEANING_UP = "Cleaning Up"
    WAIT_ON_GLOBAL_ACTION = "WaitOnGlobalAction"
    TESTING_FAILOVER = "TestingFailover"
    COMPLETED = "Completed"
    PAUSED = "Paused"
    DELETING = "Deleting"
    DELETED = "Deleted"


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.NEW: frozenset({Phase.WAIT_FOR_USER, Phase.INITIATING, Phase.DELETING}),
    Phase.WAIT_FOR_USER: frozenset({Phase.INITIATING, Phase.DELETING}),
    # A lost state is found again from the clusters: what is finished there is finished here, without a second run.
    Phase.INITIATING: FINAL
    | {Phase.WAIT_FOR_USER, Phase.DEPLOYING, Phase.FAILING_OVER, Phase.RELOCATING, Phase.DELETING},
    Phase.DEPLOYING: frozenset({Phase.DEPLOYED, Phase.FAILING_OVER, Phase.DELETING}),
    Phase.DEPLOYED: frozenset({Phase.INITIATING, Phase.DELETING}),
    # An abort before the point of no return goes back to the final phase that was left (design S5).
    Phase.FAILING_OVER: FINAL | {Phase.DELETING},
    Phase.FAILED_OVER: frozenset({Phase.INITIATING, Phase.DELETING}),
    # A failover supersedes a relocate at any time (design S5).
    Phase.RELOCATING: FINAL | {Phase.FAILING_OVER, Phase.DELETING},
    Phase.RELOCATED: frozenset({Phase.INITIATING, Phase.DELETING}),
    Phase.DELETING: frozenset(),
}


def check_transition(old: Phase, new: Phase) -> None:
    """Returns when `new` may follow `old`; to stay is always allowed. Raises `Refused` otherwise."""
    if new == old or new in TRANSITIONS[old]:
        return
    after = ", ".join(sorted(TRANSITIONS[old])) or "nothing"
    raise Refused(f"phase {new or 'new'} cannot follow {old or 'new'}; what can follow: {after}.")
