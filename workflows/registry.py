"""The one list of what a worker registers, and the sandbox that the workflows run in."""

from __future__ import annotations

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from workflows.adopt import Adopt
from workflows.deploy import Deploy
from workflows.entity import DRPlacementControl
from workflows.failover import Failover
from workflows.release import Release
from workflows.relocate import Relocate
from workflows.reprotect import Reprotect
from workflows.unprotect import Unprotect

WORKFLOWS: list[type] = [DRPlacementControl, Adopt, Deploy, Failover, Relocate, Reprotect, Release, Unprotect]


def sandbox_runner() -> SandboxedWorkflowRunner:
    """The sandboxed runner with our own pure packages shared instead of imported anew for each run."""
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules("ramen", "activities", "workflows")
    )
