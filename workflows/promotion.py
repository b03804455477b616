"""What failover and relocate share: the promotion of the target, and the decision for it."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.contracts import Gate
    from activities.options import SHORT
    from ramen.app import ActionKind, Decision, Observed, Role, Wanted
    from ramen.words import counted
    from workflows.inputs import ActionResult, Outcome
    from workflows.steps import Action


class Move(Action):
    """An action that makes another cluster serve."""

    @property
    def target(self) -> str:
        """The cluster that is to serve."""
        return self.given.request.target if self.given.request else ""

    @property
    def source(self) -> str:
        """The cluster that the decision named when the action began; empty when it named none."""
        return self.given.source or ""

    def way_out(self, passed: str, until: str) -> str:
        """What the page says of an abort: that it runs and why, that it is `passed`, or `until` when it can be had."""
        if self.aborting:
            return f"Being aborted: {self.aborting}"
        return f"Point of no return passed: {passed}" if self.point_of_no_return_passed else f"Can be aborted {until}"

    def way_back(self) -> str:
        """What a refused abort names."""
        return (
            f"The way back is: hubless relocate {self.app.name} -n {self.app.namespace} --to {self.source or 'CLUSTER'}"
        )

    async def clear(self, cluster: str) -> None:
        """Publishes on a cluster that nobody serves, so that its GitOps takes the application away."""
        title = f"Clear the decision on {cluster}"
        cleared = Decision(previous=self.source, epoch=self.epoch, decided_at=workflow.now())
        request = contracts.PublishDecision(app=self.app, cluster=cluster, epoch=self.epoch, decision=cleared)
        await self.step(
            title, lambda: self.short(contracts.publish_decision, request, cluster, SHORT, title), cluster=cluster
        )

    async def finish_demotion(self, cluster: str) -> None:
        """Lets a demotion that a relocate began come to its end, so that the cluster can be promoted again.

        A PVC on its way out cannot be kept. As Secondary its volume survives it, and comes back from the store; under
        an ordinary primary its stored copies would be deleted with it (vrg.md 2.2, 2.5).
        """
        await self.clear(cluster)
        self.wanted[cluster] = Wanted(role=Role.SECONDARY, epoch=self.epoch, action=ActionKind.RELOCATE.value)
        write = contracts.WriteVrg(
            app=self.app,
            cluster=cluster,
            wanted=self.wanted[cluster],
            volumes=self.given.volumes,
            only_existing=True,
        )
        await self.step(
            f"Finish the demotion of {cluster}",
            lambda: self.apply(write, Gate.SECONDARY, f"Let {cluster} give up the volumes of {self.app.name}"),
            cluster=cluster,
            awaits=f"{cluster} to give up the PVCs whose removal a relocate began; they come back from the store",
        )

    async def promote(self, decision: Decision) -> Observed:
        """Promotes the target and waits until it is ready with every volume that must be there (S3, S10)."""
        target = self.target
        self.wanted[target] = Wanted(role=Role.PRIMARY, epoch=self.epoch, action=self.kind.value)

        async def work() -> Observed:
            # Asked anew at each try: a retry may have accepted that a volume is missing.
            return await self.apply(
                contracts.WriteVrg(
                    app=self.app,
                    cluster=target,
                    wanted=self.wanted[target],
                    decision=decision,
                    volumes=self.given.volumes,
                    drawbacks=self.given.drawbacks,
                ),
                Gate.READY,
                f"Promote {self.app.name} on {target}",
                volumes=[volume for volume in self.given.volumes if volume.name not in self._may_be_missing()],
            )

        return await self.step(
            f"Restore and promote on {target}",
            work,
            cluster=target,
            awaits=f"{target} to restore and promote {counted(len(self.given.volumes), 'volume')}",
            note=lambda ready: counted(len(ready.volumes), "volume"),
        )

    async def decide(self, cluster: str, decision: Decision, again: str = "") -> None:
        """Publishes the decision on the cluster that it names, whose VRG is read right before (D18).

        From here on it counts as published, whatever becomes of the call: pods may run by it and write (S2).
        """
        self.decided = decision
        await self.step(
            f"Decide for {cluster}{again}",
            lambda: self.short(
                contracts.publish_decision,
                contracts.PublishDecision(
                    app=self.app, cluster=cluster, epoch=self.epoch, decision=decision, require_primary=True
                ),
                cluster,
                SHORT,
                f"Publish the decision for {cluster}{again}",
            ),
            cluster=cluster,
            awaits=f"the decision for {cluster} to be published",
        )

    def served(self, decision: Decision, ready: Observed) -> ActionResult:
        """The result of a move whose decision is published: the application serves now."""
        return ActionResult(
            action=self.kind,
            outcome=Outcome.DONE,
            message=f"{self.app.name} serves on {self.target}",
            wanted=self.wanted,
            decision=decision,
            volumes=ready.volumes or self.given.volumes,
            promoted=True,
            serving_at=workflow.now(),
            data_as_of=self.given.data_as_of,
            clusters_seconds=self.clusters_seconds,
            steps=self.rows,
        )

    def _may_be_missing(self) -> set[str]:
        asked = self.given.request.accept_missing_volumes if self.given.request else []
        return {*asked, *self.accepted.accept_missing_volumes}
