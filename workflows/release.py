"""Release: give an application back to a Ramen hub, with everything on the clusters running as it is (drpc.md 3.10).

A hub adopts the VRGs that it finds. So nothing is deleted and no spec is written: each VRG loses the marks by which
workers here know it as theirs, and keeps the epoch, so that no older action of ours can write to it later (S1).
"""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.options import SHORT
    from ramen.app import ActionKind
    from workflows.inputs import ActionInput, ActionResult, Outcome
    from workflows.steps import Action


@workflow.defn(name="Release")
class Release(Action):
    """Lets the VRGs of an application go, secondaries first; whoever fails it over meanwhile takes them back."""

    kind = ActionKind.RELEASE

    @workflow.run
    async def run(self, given: ActionInput) -> ActionResult:
        """Ends when no VRG on any cluster is ours."""
        return await self.guarded(self._release)

    def title(self) -> str:
        return f"Release {self.app.ref}, epoch {self.epoch.number}"

    def facts(self) -> list[str]:
        return ["The application, its volumes and its VRGs stay as they are; a hub drives it from now on"]

    def too_late(self) -> str:
        return (
            f"A release is not aborted; when it is done: hubless adopt {self.app.name} -n {self.app.namespace} "
            f"--policy {self.app.policy}. If a site is lost now, a failover takes the application back."
        )

    async def _release(self) -> ActionResult:
        app = self.app
        home = self.given.decision.cluster or app.preferred_cluster
        self.phase("Releasing")
        for cluster in (*app.others(home), home):
            release = contracts.ReleaseVrg(app=app.ref, cluster=cluster, epoch=self.epoch)
            await self.step(
                f"Let the VRG on {cluster} go",
                lambda release=release, cluster=cluster: self.short(  # type: ignore[misc]
                    contracts.release_vrg, release, cluster, SHORT, f"Let the VRG of {app.name} on {cluster} go"
                ),
                cluster=cluster,
                awaits=f"{cluster} to answer",
            )
        return ActionResult(
            action=self.kind,
            outcome=Outcome.DONE,
            message=f"{app.name} is not driven from here any more",
            steps=self.rows,
        )
