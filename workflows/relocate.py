"""Relocate: move an application without losing a write (drpc.md 3.4, vrg.md 2.6).

Both clusters are needed. The source is quiesced, its final sync is witnessed volume by volume while it is demoted
(S4), and only when every side is Secondary and every volume's sync was seen is the target promoted.
"""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.contracts import Gate
    from activities.options import STORE, WAIT
    from ramen import names
    from ramen.app import ActionKind, Decision, Role, Wanted, Witness
    from ramen.words import counted
    from workflows.failover import forward
    from workflows.inputs import ActionInput, ActionResult, Outcome
    from workflows.promotion import Move
    from workflows.steps import NeedsOperator, call, together


@workflow.defn(name="Relocate")
class Relocate(Move):
    """Moves an application between two living clusters; nothing is lost."""

    kind = ActionKind.RELOCATE

    @workflow.init
    def __init__(self, given: ActionInput) -> None:
        super().__init__(given)
        self._quiesced = False

    @workflow.run
    async def run(self, given: ActionInput) -> ActionResult:
        """Runs under the entity; without a parent it only forwards the request."""
        if given.app is None:
            return await forward(self.kind, given)
        return await self.guarded(self._relocate, self._undo)

    def title(self) -> str:
        return f"Relocate of {self.app.ref} from {self.source} to {self.target}, epoch {self.epoch.number}"

    def facts(self) -> list[str]:
        return [
            self.asked_by(),
            f"Volumes: {len(self.given.volumes)}; nothing written on {self.source} is lost",
            self.way_out(f"{self.target} was asked to be Primary", f"until {self.target} is promoted"),
        ]

    def promoted(self) -> bool:
        return self.point_of_no_return_passed

    def too_late(self) -> str:
        return f"Too late to abort: {self.target} was promoted. {self.way_back()}"

    async def _relocate(self) -> ActionResult:
        await self._quiesce()
        await self._demote()
        await self._all_secondary()
        return await self._promote()

    async def _quiesce(self) -> None:
        source = self.source
        self.phase("Quiescing")
        await self._prepare(
            Gate.FINAL_SYNC_PREPARED, f"{source} to prepare the final sync", f"Prepare the final sync on {source}"
        )
        self._quiesced = True
        await together(self.clear(cluster) for cluster in (source, self.target))
        await self._prepare(
            Gate.FINAL_SYNC_COMPLETE, f"{source} to run the final sync", f"Run the final sync on {source}"
        )

    async def _prepare(self, gate: Gate, awaits: str, title: str) -> None:
        """Asks the source for one of the two halves of the final sync, and waits for it (vrg.md 2.6)."""
        source = self.source
        self.wanted[source] = Wanted(
            role=Role.PRIMARY,
            epoch=self.epoch,
            prepare_final_sync=gate is Gate.FINAL_SYNC_PREPARED,
            run_final_sync=gate is Gate.FINAL_SYNC_COMPLETE,
        )
        write = contracts.WriteVrg(app=self.app, cluster=source, wanted=self.wanted[source], only_existing=True)
        await self.step(title, lambda: self.apply(write, gate, title), cluster=source, awaits=awaits)

    async def _demote(self) -> None:
        """Demotes the source and latches each volume's final sync; a missing one needs the operator (S4)."""
        app, source = self.app, self.source
        self.phase("Demoting")
        self.wanted[source] = Wanted(role=Role.SECONDARY, epoch=self.epoch, action="Relocate")
        request = contracts.DemoteWitnessed(
            write=contracts.WriteVrg(
                app=app,
                cluster=source,
                wanted=self.wanted[source],
                volumes=self.given.volumes,
                only_existing=True,
            ),
            volumes=self.given.volumes,
        )

        demoted = await self.step(
            f"Demote {source} and witness the final sync",
            lambda: call(
                contracts.demote_witnessed,
                request,
                queue=names.wait_queue(source),
                limits=WAIT,
                summary=f"Demote {app.name} on {source} and watch its final sync",
            ),
            cluster=source,
            awaits=f"the final sync of {counted(len(self.given.volumes), 'volume')} and the Secondary role on {source}",
            note=lambda done: f"{counted(len(done.witness.volumes), 'volume', len(self.given.volumes))} seen in sync",
        )
        self.clusters_seconds += demoted.observed.waited_seconds
        unseen = self._unseen(demoted.witness)
        if not unseen:
            return

        async def find_witness() -> None:
            """A witness that another worker left in the stores counts as well."""
            if self._loss_accepted():
                return
            seen = await call(
                contracts.read_stores,
                contracts.StoresQuery(
                    app=app.ref, profiles=[c.s3_profile for c in app.clusters], witness_of=self.epoch
                ),
                queue=names.CONTROL_QUEUE,
                limits=STORE,
                summary="Look for the witness of the final sync in the stores",
            )
            if missing := self._unseen(seen.witness):
                raise NeedsOperator(
                    f"The final sync of {', '.join(missing)} was not seen, so {self.target} is not promoted. "
                    f"Make {source} primary again: hubless abort {app.name} -n {app.namespace}. "
                    f"Or accept the loss: hubless retry {app.name} -n {app.namespace} --accept-data-loss"
                )

        await self.step("Find the witness of the final sync", find_witness)

    def _loss_accepted(self) -> bool:
        asked = self.given.request is not None and self.given.request.accept_data_loss
        return asked or self.accepted.accept_data_loss

    def _unseen(self, witness: Witness) -> list[str]:
        have = {(volume.namespace, volume.name) for volume in witness.volumes}
        return [volume.name for volume in self.given.volumes if (volume.namespace, volume.name) not in have]

    async def _all_secondary(self) -> None:
        """Every side is Secondary at its generation, read right before the promotion (D18, drpc.md 10.5 no. 4)."""
        await together(self._find_secondary(cluster) for cluster in (self.target, self.source))

    async def _find_secondary(self, cluster: str) -> None:
        title = f"Find {cluster} Secondary"
        request = self.awaiting(cluster, Gate.SECONDARY)
        await self.step(
            title,
            lambda: self.wait(request, title),
            cluster=cluster,
            awaits=f"{cluster} to be Secondary at its generation",
        )

    async def _promote(self) -> ActionResult:
        target = self.target
        decision = Decision(cluster=target, previous=self.source, epoch=self.epoch, decided_at=workflow.now())
        self.phase("Promoting")
        self.point_of_no_return_passed = True
        ready = await self.promote(decision)
        await self.decide(target, decision)
        return self.served(decision, ready).model_copy(update={"data_as_of": workflow.now()})

    async def _undo(self, reason: str) -> ActionResult:
        """Abort before the promotion: the source becomes primary again before it is placed again (S5)."""
        app, source = self.app, self.source
        self.phase("Aborting")
        if self._quiesced and workflow.patched("abort-finishes-demotion"):
            await self.finish_demotion(source)
        decision = Decision(cluster=source, epoch=self.epoch, decided_at=workflow.now())
        self.wanted[source] = Wanted(role=Role.PRIMARY, epoch=self.epoch)
        write = contracts.WriteVrg(
            app=app,
            cluster=source,
            wanted=self.wanted[source],
            decision=decision,
            volumes=self.given.volumes,
            only_existing=True,
        )
        ready = await self.step(
            f"Make {source} primary again",
            lambda: self.apply(write, Gate.READY, f"Promote {app.name} on {source} again"),
            cluster=source,
            awaits=f"{source} to be ready again",
        )
        if self._quiesced:
            await self.decide(source, decision, again=" again")
        aborted = self.ended(Outcome.ABORTED, f"Relocate to {self.target} aborted: {reason or 'no reason given'}")
        return aborted.model_copy(update={"decision": decision, "volumes": ready.volumes, "serving_at": workflow.now()})
