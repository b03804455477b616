"""Unprotect: take the protection away and leave the application running (drpc.md 3.8).

Secondaries go first: deleting a primary empties its prefix in every store, and a secondary that outlives it would
have nothing to be restored from. An unreachable cluster keeps the action open until it returns or is forgotten (S7).
"""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.contracts import Gate
    from activities.options import SHORT
    from ramen.app import ActionKind, Role
    from workflows.inputs import ActionInput, ActionResult, Outcome
    from workflows.steps import Action


@workflow.defn(name="Unprotect")
class Unprotect(Action):
    """Deletes the VRGs of an application, secondaries first; workload and volumes stay."""

    kind = ActionKind.UNPROTECT

    @workflow.run
    async def run(self, given: ActionInput) -> ActionResult:
        """Ends when no VRG is left on any cluster that was not forgotten."""
        return await self.guarded(self._unprotect)

    def title(self) -> str:
        return f"Unprotect {self.app.ref}, epoch {self.epoch.number}"

    def facts(self) -> list[str]:
        return ["The application goes on running where it runs; its volumes stay"]

    def too_late(self) -> str:
        return (
            f"An unprotect is not aborted; when it is done: hubless protect {self.app.name} -n {self.app.namespace}. "
            "A cluster that does not return can be left out with --forget-cluster."
        )

    async def _unprotect(self) -> ActionResult:
        app = self.app
        home = self.given.decision.cluster or app.preferred_cluster
        self.phase("Deleting")
        for cluster in (*app.others(home), home):
            if cluster in self.given.forget_clusters:
                self.skip(f"Delete the VRG on {cluster}", "forgotten on request", cluster)
                continue
            delete = contracts.DeleteVrg(app=app.ref, cluster=cluster, epoch=self.epoch)
            gone = contracts.AwaitVrg(app=app.ref, cluster=cluster, gate=Gate.DELETED, epoch=self.epoch)
            role = Role.PRIMARY if cluster == home else Role.SECONDARY
            await self.step(
                f"Delete the {role} VRG on {cluster}",
                lambda delete=delete, cluster=cluster: self.short(  # type: ignore[misc]
                    contracts.delete_vrg, delete, cluster, SHORT, f"Delete the VRG of {app.name} on {cluster}"
                ),
                cluster=cluster,
                awaits=f"{cluster} to answer",
            )
            await self.step(
                f"Wait until the VRG on {cluster} is gone",
                lambda gone=gone, cluster=cluster: self.wait(  # type: ignore[misc]
                    gone, f"Wait until the VRG on {cluster} is gone"
                ),
                cluster=cluster,
                awaits=f"the operator on {cluster} to let the VRG go",
            )
        return ActionResult(
            action=self.kind, outcome=Outcome.DONE, message=f"{app.name} is not protected any more", steps=self.rows
        )
