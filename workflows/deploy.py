"""Deploy: protect an application where it is to run, and set up its peer (drpc.md 3.1, 3.2).

Other than Ramen, the decision is published only when the primary VRG is ready: data that the stores may still hold
is restored before anything is placed.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.contracts import Gate
    from activities.options import SHORT, short_within
    from ramen.app import ActionKind, Decision, Observed, Role, Wanted
    from ramen.words import counted
    from workflows.inputs import ActionInput, ActionResult, Outcome
    from workflows.looks import SILENT
    from workflows.steps import Action, Ended, end, failure


@workflow.defn(name="Deploy")
class Deploy(Action):
    """Protects an application: primary VRG on the preferred cluster, decision, secondary VRG on the peer."""

    kind = ActionKind.DEPLOY

    @workflow.run
    async def run(self, given: ActionInput) -> ActionResult:
        """Ends when the application serves on its preferred cluster; the peer's proof is Reprotect's."""
        return await self.guarded(self._deploy)

    def title(self) -> str:
        return f"Protect {self.app.ref} on {self.app.preferred_cluster}, epoch {self.epoch.number}"

    def too_late(self) -> str:
        return f"A deployment is not aborted; to end it: hubless unprotect {self.app.name} -n {self.app.namespace}"

    def promoted(self) -> bool:
        return True

    async def _deploy(self) -> ActionResult:
        app, home = self.app, self.app.preferred_cluster
        decision = Decision(cluster=home, epoch=self.epoch, decided_at=workflow.now())
        self.wanted[home] = Wanted(role=Role.PRIMARY, epoch=self.epoch)
        for peer in app.others(home):
            self.wanted[peer] = Wanted(role=Role.SECONDARY, epoch=self.epoch)
        self.phase("Deploying")
        peers = [asyncio.ensure_future(self._prepare_peer(peer)) for peer in app.others(home)]
        try:
            return await self._serve(home, decision, peers)
        except (Exception, asyncio.CancelledError):
            await end(peers)
            raise

    async def _serve(self, home: str, decision: Decision, peers: list[asyncio.Task[str]]) -> ActionResult:
        app = self.app
        write = contracts.WriteVrg(app=app, cluster=home, wanted=self.wanted[home], decision=decision)
        ready: Observed = await self.step(
            f"Protect on {home}",
            lambda: self.apply(write, Gate.READY, f"Protect {app.name} on {home}", volumes=[]),
            cluster=home,
            awaits=f"{home} to take the volumes of {app.name} under protection",
            note=lambda seen: counted(len(seen.volumes), "volume"),
        )
        self.point_of_no_return_passed = True
        # From here on it counts as published, whatever becomes of the call: pods may run by it and write (S2).
        self.decided = decision
        await self.step(
            f"Decide for {home}",
            lambda: self.short(
                contracts.publish_decision,
                contracts.PublishDecision(
                    app=app, cluster=home, epoch=self.epoch, decision=decision, require_primary=True
                ),
                home,
                SHORT,
                f"Publish the decision for {home}",
            ),
            cluster=home,
        )
        serving_at = workflow.now()
        absent = [peer for peer in await asyncio.gather(*peers) if peer]
        return ActionResult(
            action=self.kind,
            outcome=Outcome.DONE,
            message=f"{app.name} serves on {home}",
            wanted=self.wanted,
            decision=decision,
            volumes=ready.volumes,
            promoted=True,
            serving_at=serving_at,
            clusters_seconds=self.clusters_seconds,
            debts=absent,
            steps=self.rows,
        )

    async def _prepare_peer(self, peer: str) -> str:
        """Writes the peer's Secondary VRG; returns the peer's name when it does not answer, and leaves it a debt."""
        try:
            await self.short(
                contracts.write_vrg,
                contracts.WriteVrg(app=self.app, cluster=peer, wanted=self.wanted[peer]),
                peer,
                short_within(self.given.timings.await_park_seconds),
                f"Write the secondary VRG of {self.app.name} on {peer}",
            )
        except ActivityError as err:
            kind, line = failure(err)
            if is_cancelled_exception(err):
                raise
            if kind == "StaleEpoch":
                raise Ended(Outcome.SUPERSEDED, line, foreign_epoch=True) from err
            why = f"{peer} does not answer; done when it returns" if kind in SILENT else f"{line}; done by the clean-up"
            self.skip(f"Set up {peer}", why, peer)
            return peer
        return ""
