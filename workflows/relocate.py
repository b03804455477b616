"""Relocate: move an application without losing a write (drpc.md 3.4, vrg.md 2.6).

Both clusters are needed. The source is quiesced, its final sync is witnessed volume by volume while it is demoted
(S4), and only when every side is Secondary and every volume's sync was seen is the target promoted.
"""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.contracts import Gate
    from activities.options import SHORT, STORE, WAIT
    from ramen import names
    from ramen.app import ActionKind, Decision, Observed, Role, Wanted, Witness
    from workflows.failover import forward
    from workflows.inputs import ActionInput, ActionResult, OperatorRequest, Outcome, StepsView, StopRequest
    from workflows.steps import Action, NeedsOperator, call


@workflow.defn(name="Relocate")
class Relocate(Action):
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

    @workflow.signal
    def stop(self, request: StopRequest) -> None:
        """From the entity: abort, or make way for a failover."""
        self.on_stop(request)

    @workflow.signal
    def retry(self, request: OperatorRequest) -> None:
        """From the entity: try the failed step again."""
        self.on_retry(request)

    @workflow.query
    def steps(self) -> StepsView:
        """The table of steps, with what is awaited on which cluster since when."""
        return self.view()

    def title(self) -> str:
        return f"Relocate of {self.app.ref} from {self.source} to {self.target}, epoch {self.epoch.number}"

    def facts(self) -> list[str]:
        return [
            self.asked_by(),
            f"Volumes: {len(self.given.volumes)}; nothing written on {self.source} is lost",
            f"Point of no return passed: {self.target} was asked to be Primary"
            if self.point_of_no_return_passed
            else f"Can be aborted until {self.target} is promoted",
        ]

    @property
    def target(self) -> str:
        """The cluster that is to serve."""
        return self.given.request.target if self.given.request else ""

    @property
    def source(self) -> str:
        """The cluster that serves when the action begins."""
        return self.given.source or ""

    def promoted(self) -> bool:
        return self.point_of_no_return_passed

    def too_late(self) -> str:
        return (
            f"Too late to abort: {self.target} was promoted. "
            f"The way back is: hubless relocate {self.app.name} -n {self.app.namespace} --to {self.source}"
        )

    async def _relocate(self) -> ActionResult:
        await self._quiesce()
        await self._demote()
        await self._all_secondary()
        return await self._promote()

    async def _quiesce(self) -> None:
        app, source = self.app, self.source
        self.phase("Quiescing")
        await self._write_source(f"Prepare the final sync on {source}", prepare_final_sync=True)
        await self._await_source(Gate.FINAL_SYNC_PREPARED, f"{source} to prepare the final sync")
        self._quiesced = True
        cleared = Decision(previous=source, epoch=self.epoch, decided_at=workflow.now())
        for cluster in (source, self.target):
            await self.step(
                f"Clear the decision on {cluster}",
                lambda cluster=cluster: self.short(  # type: ignore[misc]
                    contracts.publish_decision,
                    contracts.PublishDecision(app=app, cluster=cluster, epoch=self.epoch, decision=cleared),
                    cluster,
                    SHORT,
                    f"Clear the decision on {cluster}",
                ),
                cluster=cluster,
            )
        await self._write_source(f"Run the final sync on {source}", run_final_sync=True)
        await self._await_source(Gate.FINAL_SYNC_COMPLETE, f"{source} to run the final sync")

    async def _write_source(
        self, title: str, *, prepare_final_sync: bool = False, run_final_sync: bool = False
    ) -> Observed:
        self.wanted[self.source] = Wanted(
            role=Role.PRIMARY,
            epoch=self.epoch,
            prepare_final_sync=prepare_final_sync,
            run_final_sync=run_final_sync,
        )
        write = contracts.WriteVrg(
            app=self.app,
            cluster=self.source,
            wanted=self.wanted[self.source],
            only_existing=True,
        )
        return await self.step(
            title, lambda: self.short(contracts.write_vrg, write, self.source, SHORT, title), cluster=self.source
        )

    async def _await_source(self, gate: Gate, awaits: str) -> Observed:
        request = contracts.AwaitVrg(
            app=self.app.ref,
            cluster=self.source,
            gate=gate,
            epoch=self.epoch,
            pvc_selector=self.app.pvc_selector,
            volumes=self.given.volumes,
        )
        return await self.step(
            f"Wait for {awaits}",
            lambda: self.wait(request, f"Wait for {awaits}"),
            cluster=self.source,
            awaits=awaits,
        )

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
            awaits=f"the final sync of {len(self.given.volumes)} volumes and the Secondary role on {source}",
            note=lambda done: f"{len(done.witness.volumes)} of {len(self.given.volumes)} volumes seen in sync",
        )
        unseen = self._unseen(demoted.witness)
        if not unseen:
            return

        async def find_witness() -> None:
            """A witness that another worker left in the stores counts as well."""
            if self._loss_accepted():
                return
            seen = await call(
                contracts.read_stores,
                contracts.StoresQuery(app=app.ref, profiles=[c.s3_profile for c in app.clusters]),
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
        for cluster in (self.target, self.source):
            request = contracts.AwaitVrg(
                app=self.app.ref,
                cluster=cluster,
                gate=Gate.SECONDARY,
                epoch=self.epoch,
                pvc_selector=self.app.pvc_selector,
            )
            await self.step(
                f"Find {cluster} Secondary",
                lambda request=request, cluster=cluster: self.wait(request, f"Find {cluster} Secondary"),  # type: ignore[misc]
                cluster=cluster,
                awaits=f"{cluster} to be Secondary at its generation",
            )

    async def _promote(self) -> ActionResult:
        app, target = self.app, self.target
        decision = Decision(cluster=target, previous=self.source, epoch=self.epoch, decided_at=workflow.now())
        self.phase("Promoting")
        self.point_of_no_return_passed = True
        self.wanted[target] = Wanted(role=Role.PRIMARY, epoch=self.epoch, action="Relocate")
        await self.step(
            f"Restore and promote on {target}",
            lambda: self.short(
                contracts.write_vrg,
                contracts.WriteVrg(
                    app=app,
                    cluster=target,
                    wanted=self.wanted[target],
                    decision=decision,
                    volumes=self.given.volumes,
                ),
                target,
                SHORT,
                f"Promote {app.name} on {target}",
            ),
            cluster=target,
        )
        ready = await self.step(
            f"Wait until {target} is ready",
            self._await_ready,
            cluster=target,
            awaits=f"{target} to restore and promote {len(self.given.volumes)} volumes",
            note=lambda seen: f"{len(seen.volumes)} volumes",
        )
        await self.step(
            f"Decide for {target}",
            lambda: self.short(
                contracts.publish_decision,
                contracts.PublishDecision(
                    app=app, cluster=target, epoch=self.epoch, decision=decision, require_primary=True
                ),
                target,
                SHORT,
                f"Publish the decision for {target}",
            ),
            cluster=target,
        )
        return ActionResult(
            action=self.kind,
            outcome=Outcome.DONE,
            message=f"{app.name} serves on {target}",
            wanted=self.wanted,
            decision=decision,
            volumes=ready.volumes or self.given.volumes,
            promoted=True,
            serving_at=workflow.now(),
            data_as_of=workflow.now(),
            steps=self.rows,
        )

    async def _await_ready(self) -> Observed:
        missing = {*self.accepted.accept_missing_volumes}
        if self.given.request:
            missing |= {*self.given.request.accept_missing_volumes}
        return await self.wait(
            contracts.AwaitVrg(
                app=self.app.ref,
                cluster=self.target,
                gate=Gate.READY,
                epoch=self.epoch,
                pvc_selector=self.app.pvc_selector,
                volumes=[volume for volume in self.given.volumes if volume.name not in missing],
            ),
            f"Wait until {self.app.name} is ready on {self.target}",
        )

    async def _undo(self, reason: str) -> ActionResult:
        """Abort before the promotion: the source becomes primary again before it is placed again (S5)."""
        app, source = self.app, self.source
        self.phase("Aborting")
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
        await self.step(
            f"Make {source} primary again",
            lambda: self.short(contracts.write_vrg, write, source, SHORT, f"Promote {app.name} on {source} again"),
            cluster=source,
        )
        ready = await self._await_source(Gate.READY, f"{source} to be ready again")
        if self._quiesced:
            await self.step(
                f"Decide for {source} again",
                lambda: self.short(
                    contracts.publish_decision,
                    contracts.PublishDecision(
                        app=app, cluster=source, epoch=self.epoch, decision=decision, require_primary=True
                    ),
                    source,
                    SHORT,
                    f"Publish the decision for {source} again",
                ),
                cluster=source,
            )
        aborted = self.ended(Outcome.ABORTED, f"Relocate to {self.target} aborted: {reason or 'no reason given'}")
        return aborted.model_copy(update={"decision": decision, "volumes": ready.volumes, "serving_at": workflow.now()})
