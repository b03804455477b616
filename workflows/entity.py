"""DRPlacementControl: the one long-lived workflow of an application, its lock and its memory (D1, D4).

Requests arrive as validated Updates. A handler looks at the clusters, refuses or claims an epoch, starts the action as
a child, and answers with its ID; it never runs the action itself. When nothing happens nothing runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    is_cancelled_exception,
)
from temporalio.workflow import ChildWorkflowHandle, ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.options import STORE, look, short_within
    from ramen import names
    from ramen.app import ActionKind, AppSpec, Observed, Volume
    from ramen.epoch import Epoch
    from ramen.errors import HublessError, Refused, Superseded
    from ramen.recovery import is_left_by_deployment
    from workflows import attributes, mirroring, view
    from workflows import state as decide
    from workflows.inputs import (
        WORKFLOW_TASK_TIMEOUT,
        ActionInput,
        ActionRecord,
        ActionResult,
        Answer,
        AppState,
        ClusterSignal,
        MoveRequest,
        OperatorRequest,
        Outcome,
        ProtectUpdate,
        ReleaseRequest,
        StatusView,
        StopAnswer,
        StopKind,
        StopRequest,
        UnprotectRequest,
    )
    from workflows.looks import HANDLER_SECONDS, Looks
    from workflows.steps import call, failure, lock_request

LONG_HISTORY = 600
"""Events after which a workflow at rest continues as new, some seven failovers with their clean-ups. A worker that
takes over replays them all: 2,300, far below the server's own limit, took longer on a busy machine than a workflow task
may, and were tried again without end."""

LOOK_AGAIN_TIMES = 16
"""Longest pause after a Reprotect that parked, in first pauses; it doubles up to this. Signals tell of a cluster that
returns. This is for what no signal tells: workers that start when their clusters are back already, a hint that came
while the Reprotect still ran."""


def refusal(err: HublessError) -> ApplicationError:
    """A refusal as the caller of an Update meets it."""
    return ApplicationError(str(err), type=type(err).__name__, non_retryable=True)


@workflow.defn(name="DRPlacementControl")
class DRPlacementControl:
    """Holds what is wanted of every cluster for one application, and starts one action at a time."""

    @workflow.init
    def __init__(self, state: AppState) -> None:
        self._state = state
        self._lock = asyncio.Lock()
        self._child: ChildWorkflowHandle[object, ActionResult] | None = None
        self._following: set[asyncio.Task[None]] = set()
        self._stop_answer: StopAnswer | None = None
        self._answering = ""
        self._no_way_back = ""
        """Workflow ID of the last action that must not be undone by the next: somebody ended it past this workflow, or
        it overruled a move that was cut off."""
        self._wake = False
        self._policy_changed = False
        self._is_over = False
        """The application was unprotected or given back: nothing is begun any more, the mirror is still written."""
        self._gone = False
        self._looking: asyncio.Task[None] | None = None
        self._looking_since: Epoch | None = None
        """The epoch at which it began: the pauses of a new action's clean-up are short at first."""
        self._aborting: asyncio.Task[None] | None = None

    @workflow.run
    async def run(self, state: AppState) -> str:
        """Lives until the application is unprotected; continues as new with no child open (S14)."""
        self._show()
        if self._state.debts and workflow.patched("parked-looks-again"):
            self._look_again()
        while True:
            await self._until(lambda: self._gone or self._wake or self._is_due_to_continue())
            if self._gone:
                await self._until(workflow.all_handlers_finished)
                last = self._state.action
                if last and last.kind is ActionKind.RELEASE:
                    return f"{self._state.name} was given back"
                return f"{self._state.name} is not protected any more"
            if self._wake:
                self._wake = False
                await self._until(asyncio.create_task(self._pay_debts()).done)
                continue
            await self._until(workflow.all_handlers_finished)
            if self._quiet():
                workflow.continue_as_new(self._state)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition. A Cancel of the entity aborts the running action, if any: the entity lives on (S14).

        Whatever the entity does runs in a task of its own, so that a Cancel meets it here and nowhere else.
        """
        while True:
            try:
                await workflow.wait_condition(condition)
                return
            except asyncio.CancelledError:
                reason = workflow.cancellation_reason()
                if reason is None:
                    raise  # evicted from the worker's cache
                self._aborting = asyncio.create_task(self._abort_cancelled(reason, decide.running(self._state)))

    async def _abort_cancelled(self, reason: str, meant: ActionRecord | None) -> None:
        request = OperatorRequest(reason=f"cancelled in Temporal: {reason}")
        try:
            await self._once("", lambda: self._abort(request, meant))
        except ApplicationError as err:
            workflow.logger.info("cancelled, and nothing was aborted: %s", err)

    # --- queries and signals ----------------------------------------------

    @workflow.query(description="Ramen's DRPC status, the three facts, and what every cluster owes")
    def status(self) -> StatusView:
        """The DRPC object, the `hubless` facts, and the entity's whole state."""
        now = workflow.now()
        child = self._child.id if self._child else ""
        return StatusView(
            drpc=view.drpc(self._state, now),
            hubless=view.hubless(self._state),
            state=self._state,
            child=child,
            answering=self._answering,
        )

    @workflow.signal(description="A worker saw a material change of a VRG; a hint, never a fact")
    def vrg_observed(self, signal: ClusterSignal) -> None:
        """Wakes the entity to compare what is wanted with what is (S8)."""
        self._policy_changed |= signal.policy_changed
        self._hint()

    @workflow.signal(description="A cluster answers again")
    def cluster_returned(self, signal: ClusterSignal) -> None:
        """Wakes the entity to pay what it owes to that cluster (S8).

        One that owes nothing is left alone: a moment's silence of a cluster must not start an action of each of a
        thousand applications. A VRG that came back otherwise than it went is told by `vrg_observed`.
        """
        if self._state.debts:
            self._hint()

    @workflow.signal
    def stop_answered(self, answer: StopAnswer) -> None:
        """From a child: it begins to undo, or it is too late to abort."""
        is_of_child = self._child is not None and self._child.id == answer.workflow_id
        if not is_of_child and workflow.patched("judged-again"):
            return
        self._stop_answer = answer
        if answer.accepted and decide.unproves(self._state) and workflow.patched("undo-unproves"):
            self._state = decide.unproven(self._state)

    def _hint(self) -> None:
        if self._state.app and not self._state.superseded and self._child is None and not self._is_over:
            self._wake = True

    # --- updates ----------------------------------------------

    @workflow.update(description="Protect the application as a DRPC's spec says")
    async def apply(self, update: ProtectUpdate) -> Answer:
        """Protects the application; answers with the Deploy that was started."""
        return await self._once(update.request_id, lambda: self._apply(update))

    @workflow.update(description="Fail over to `target`; accepts the loss of what was not replicated yet")
    async def failover(self, request: MoveRequest) -> Answer:
        """Starts a failover; also during another action, which it supersedes (S5)."""
        return await self._once(request.request_id, lambda: self._failover(request))

    @failover.validator
    def _check_failover(self, request: MoveRequest) -> None:
        self._validate(request, lambda: decide.check_known(self._state, request.target))

    @workflow.update(description="Relocate to `target`; needs both clusters and loses nothing")
    async def relocate(self, request: MoveRequest) -> Answer:
        """Starts a relocate, when no other action runs."""
        return await self._once(request.request_id, lambda: self._relocate(request))

    @relocate.validator
    def _check_relocate(self, request: MoveRequest) -> None:
        def check() -> None:
            decide.check_known(self._state, request.target)
            decide.check_nothing_runs(self._state)

        self._validate(request, check)

    @workflow.update(description="Stop the running action before its point of no return, and undo what it did")
    async def abort(self, request: OperatorRequest) -> Answer:
        """Aborts the running action; refused after its point of no return."""
        meant = decide.running(self._state)
        return await self._once(request.request_id, lambda: self._abort(request, meant))

    @workflow.update(description="Try the failed step of the running action again")
    async def retry(self, request: OperatorRequest) -> Answer:
        """Tells the running action to try again, with what is accepted from now on."""
        meant = self._child
        return await self._once(request.request_id, lambda: self._retry(request, meant))

    @workflow.update(description="Look again at every cluster that still owes something")
    async def resume(self, request: OperatorRequest) -> Answer:
        """Starts cleaning and re-protecting again, when it is parked."""
        return await self._once(request.request_id, self._resume)

    @workflow.update(description="Take the protection away; the application goes on running")
    async def unprotect(self, request: UnprotectRequest) -> Answer:
        """Starts the removal of all VRGs."""
        return await self._once(request.request_id, lambda: self._unprotect(request))

    @workflow.update(description="Give the application back to a Ramen hub; it goes on running, and so do its VRGs")
    async def release(self, request: ReleaseRequest) -> Answer:
        """Starts to let the VRGs go; refused while anything is owed or a cluster does not answer."""
        return await self._once(request.request_id, lambda: self._release(request))

    def _validate(self, request: MoveRequest, check: Callable[[], None]) -> None:
        if request.request_id in self._state.answers:
            return
        try:
            check()
        except HublessError as err:
            raise refusal(err) from err

    async def _once(self, request_id: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Gives the same request the same answer, also after a continue-as-new; one request at a time."""
        async with self._lock:
            if request_id and request_id in self._state.answers:
                return self._state.answers[request_id]
            self._answering = request_id
            try:
                answer = await work()
            except HublessError as err:
                if isinstance(err, Superseded):
                    self._change(superseded=str(err))
                raise refusal(err) from err
            except ActivityError as err:
                kind, line = failure(err)
                raise ApplicationError(f"{line}. Nothing was started.", type=kind, non_retryable=True) from err
            finally:
                self._answering = ""
            if request_id:
                kept = {**self._state.answers, request_id: answer}
                self._change(answers=dict(list(kept.items())[-decide.REMEMBERED :]))
            self._show()
            return answer

    def _state_since(self, before: AppState) -> AppState:
        """The state after a request has looked around: what ran may have ended meanwhile.

        A history of a release that judged by the state from before its looks goes on as it went.
        """
        return self._state if self._state is before or workflow.patched("judged-again") else before

    def _judge_again(self, check: Callable[[], object]) -> None:
        """Refuses what became wrong while clusters, stores, or another request were waited for.

        Actions end meanwhile, and requests are answered. A history in which that was not refused goes on as it went.
        """
        try:
            check()
        except HublessError:
            if workflow.patched("judged-again"):
                raise

    # --- what the handlers do ----------------------------------------------

    async def _apply(self, update: ProtectUpdate) -> Answer:
        state = self._state
        if state.app is not None and state.action and state.action.kind is ActionKind.UNPROTECT:
            raise Refused(f"{state.name} is being unprotected; ask again when that has ended.")
        if state.app is not None:
            raise Refused(
                f"{state.name} is protected already by policy {state.app.policy}. "
                f"See it: hubless status {state.name} -n {state.namespace}"
            )
        app = await call(
            contracts.resolve_application,
            update.request,
            queue=names.CONTROL_QUEUE,
            limits=short_within(HANDLER_SECONDS),
            summary=f"Resolve policy and clusters of {state.name}",
        )
        if not app.uid:
            # A DRPC object would bring its own; its VRGs are told apart by it (vrg.md 4.4).
            app = app.model_copy(update={"uid": str(workflow.uuid4())})
        home, looks = app.preferred_cluster, Looks(app, state.timings)
        first, *others = await asyncio.gather(
            looks.survey(home), *(looks.survey(cluster) for cluster in app.others(home))
        )
        stores = await looks.stores(state.volumes)
        if not first.observed.reachable:
            raise Refused(
                f"{state.name} cannot be protected: {home} does not answer ({first.observed.error}). "
                f"Check it: hubless cluster check {home}"
            )
        for surveyed in (first, *others):
            if surveyed.unsupported:
                raise Refused(f"{state.name} cannot be protected yet: {'; '.join(surveyed.unsupported)}")
            if surveyed.observed.vrg is not None and not (surveyed is not first and _is_left_over(surveyed.observed)):
                raise Refused(
                    f"{surveyed.observed.cluster} has a VRG {state.name} that this installation does not drive. "
                    f"Take it over: hubless adopt {state.name} -n {state.namespace}, or delete it first"
                )
        seen = [surveyed.observed for surveyed in (first, *others)]
        numbers = [epoch.number for epoch in [stores.newest_epoch, *(look.epoch for look in seen)] if epoch]
        self._change(app=app)
        try:
            answer = await self._begin(
                ActionKind.DEPLOY,
                seen,
                number=max(numbers, default=0) + 1,
                request=MoveRequest(
                    target=home,
                    request_id=update.request_id,
                    requester=update.requester,
                    reason=update.reason,
                    requested_at=workflow.now(),
                ),
            )
        except (HublessError, ActivityError):
            self._change(app=None)
            raise
        if not app.placement_reason:
            return answer
        return answer.model_copy(update={"message": f"{answer.message} on {home} (chosen: {app.placement_reason})"})

    async def _failover(self, request: MoveRequest) -> Answer:
        app = self._app()
        looks, others, before = Looks(app, self._state.timings), app.others(request.target), self._state
        decide.check_known(self._state, request.target)
        decide.check_basis(self._state, request.basis_epoch)
        (target, stores), left = await asyncio.gather(
            asyncio.gather(looks.settled(request.target, self._is_unsettled), looks.stores(self._state.volumes)),
            asyncio.gather(*(looks.left(cluster) for cluster in others)),
        )
        state, looked = self._state_since(before), [now for now, _ in left]
        decide.check_foreign(state, [target, *looked], stores)
        judged = state.model_copy(update={"volumes": decide.expected_volumes(state, stores)})
        decide.check_failover(judged, request, target, stores)
        return await self._begin(
            ActionKind.FAILOVER,
            [target, *looked],
            request=request,
            stores=stores,
            data_as_of=decide.last_sync([*looked, *(known for _, known in left)])
            or state.last_good.get(request.target),
        )

    async def _relocate(self, request: MoveRequest) -> Answer:
        app = self._app()
        decide.check_known(self._state, request.target)
        decide.check_basis(self._state, request.basis_epoch)
        decide.check_nothing_runs(self._state)
        before = self._state
        source = before.decision.cluster or app.preferred_cluster
        looks, seconds = Looks(app, before.timings), before.timings.look_seconds * 3
        target_seen, source_seen, stores = await asyncio.gather(
            looks.settled(request.target, self._is_unsettled, seconds),
            looks.busy(source, seconds),
            looks.stores(before.volumes),
        )
        state = self._state_since(before)
        decide.check_foreign(state, [target_seen, source_seen], stores)
        decide.check_relocate(state, request, source_seen, target_seen, stores)
        return await self._begin(
            ActionKind.RELOCATE, [source_seen, target_seen], request=request, stores=stores, held=source_seen.volumes
        )

    async def _unprotect(self, request: UnprotectRequest) -> Answer:
        app = self._app()
        decide.check_basis(self._state, request.basis_epoch)
        decide.check_serving(self._state, request.basis_serving)
        now = decide.running(self._state)
        # A deployment that cannot end, as where its cluster is lost, is ended by this alone.
        if now is None or now.kind not in (ActionKind.UNPROTECT, ActionKind.DEPLOY):
            decide.check_nothing_runs(self._state)
        looks, limits = Looks(app, self._state.timings), look(self._state.timings.look_seconds)
        looked = await asyncio.gather(*(looks.read(cluster, limits) for cluster in app.cluster_names))
        decide.check_foreign(self._state, list(looked), None)
        unknown = [cluster for cluster in request.forget_clusters if cluster not in app.cluster_names]
        if unknown:
            raise Refused(f"{unknown[0]} is not a cluster of policy {app.policy} ({', '.join(app.cluster_names)}).")
        move = _as_move(request)
        return await self._begin(
            ActionKind.UNPROTECT, list(looked), request=move, forget_clusters=request.forget_clusters
        )

    async def _release(self, request: ReleaseRequest) -> Answer:
        app = self._app()
        decide.check_nothing_runs(self._state)
        if self._child is not None:
            raise Refused(
                f"{self._state.name} is being cleaned up or re-protected. Ask again when that has ended: "
                f"hubless status {self._state.name} -n {self._state.namespace} --watch"
            )
        looks, seconds = Looks(app, self._state.timings), self._state.timings.look_seconds * 3
        looked, stores = await asyncio.gather(
            asyncio.gather(*(looks.busy(cluster, seconds) for cluster in app.cluster_names)),
            looks.stores(self._state.volumes),
        )
        decide.check_foreign(self._state, list(looked), stores)
        decide.check_release(self._state, list(looked))
        return await self._begin(ActionKind.RELEASE, list(looked), request=_as_move(request))

    async def _abort(self, request: OperatorRequest, meant: ActionRecord | None) -> Answer:
        record = decide.running(self._state)
        if record is None or self._child is None:
            raise Refused(f"No action of {self._state.name} runs, so there is nothing to abort.")
        if meant is not None:
            self._judge_again(lambda: decide.check_same(self._state, meant.workflow_id, record.workflow_id))
        self._stop_answer = None
        stop = StopRequest(kind=StopKind.ABORT, requester=request.requester, reason=request.reason)
        await self._tell(self._child, "stop", stop)
        # The child answers at once: it begins to undo, or says that it is too late. Undoing may take its time, and a
        # failover must be accepted meanwhile, so this waits for the answer only.
        await workflow.wait_condition(lambda: self._stop_answer is not None or self._child is None)
        if self._stop_answer is not None and not self._stop_answer.accepted:
            raise Refused(self._stop_answer.message)
        ended = self._state.action
        if self._stop_answer is None and ended and ended.outcome is not Outcome.ABORTED:
            raise Refused(f"{record.kind.value} had ended before it could be aborted: {ended.message}")
        return self._answer(record, f"{record.kind.value} is being aborted")

    async def _retry(self, request: OperatorRequest, meant: ChildWorkflowHandle[object, ActionResult] | None) -> Answer:
        child = self._child
        if child is None or self._state.action is None:
            raise Refused(f"No action of {self._state.name} runs, so there is nothing to retry.")
        if meant is not None:
            self._judge_again(lambda: decide.check_same(self._state, meant.id, child.id))
        await self._tell(child, "retry", request)
        return self._answer(self._state.action, "trying again", workflow_id=child.id)

    async def _resume(self) -> Answer:
        self._app()
        if self._child is not None and self._state.action is not None:
            return self._answer(self._state.action, "runs already", workflow_id=self._child.id)
        # With nothing owed it proves again that a loss is survivable, and brings back what a store has lost.
        if not self._state.debts and not workflow.patched("resume-proves-again"):
            raise Refused(f"{self._state.name} owes nothing to any cluster; there is nothing to resume.")
        await self._clean_up()
        if self._child is None or self._state.action is None:
            why = self._state.superseded or self._state.interrupted or "no action was started"
            raise Refused(f"{self._state.name} cannot go on: {why}")
        return self._answer(self._state.action, "cleaning up and re-protecting", workflow_id=self._child.id)

    def _answer(self, record: ActionRecord, message: str, workflow_id: str = "") -> Answer:
        return Answer(
            action=record.kind, workflow_id=workflow_id or record.workflow_id, epoch=record.epoch, message=message
        )

    # --- beginning and following an action ----------------------------------------------

    async def _begin(
        self,
        kind: ActionKind,
        seen: list[Observed],
        request: MoveRequest,
        number: int | None = None,
        stores: contracts.StoresSeen | None = None,
        data_as_of: datetime | None = None,
        forget_clusters: list[str] | None = None,
        held: list[Volume] | None = None,
    ) -> Answer:
        """Claims the epoch, stops what runs, starts the child (S1, S5, S15).

        `held` are the volumes that the source of a relocate has now: those must arrive, whatever was proven before.
        """
        app = self._app()
        # What runs now is what this overrules. It may end by itself in the meantime, as by meeting the new epoch.
        overruled, interrupted = decide.running(self._state), self._state.interrupted
        number = number or (self._state.epoch.number if self._state.epoch else 0) + 1
        now = workflow.now()
        request_id = request.request_id or f"{workflow.info().run_id}/{number}"
        profiles = [cluster.s3_profile for cluster in app.clusters]
        # A store that was silent a moment ago is not waited for again; where all of them were, each is tried once more.
        silent = stores.silent if stores else []
        profiles = [profile for profile in profiles if profile not in silent] or profiles
        workflow_id = names.action_id(app.namespace, app.name, kind.value, number)
        # The lock may refuse, and a refusal consumes no epoch: it is taken under the last one and raised by the child.
        before = self._state.epoch or Epoch(number=number - 1, token="none")
        claimed = await call(
            contracts.claim_epoch,
            contracts.ClaimEpoch(
                app=app.ref,
                number=number,
                action=kind.value,
                request_id=request_id,
                profiles=profiles,
                lock=lock_request(app, before, workflow_id, request.break_lock),
            ),
            queue=names.CONTROL_QUEUE,
            limits=STORE,
            summary=f"Take the advisory lock and claim epoch {number}",
            priority=_ACCEPTED,
        )
        epoch = claimed.epoch
        self._state = decide.issue(self._state, epoch)
        reachable = [look_.cluster for look_ in seen if look_.reachable and look_.vrg is not None]
        leaving = {*app.others(request.target)} if kind is ActionKind.FAILOVER else set()
        await asyncio.gather(
            *(self._stamp(cluster, epoch, kind, needed=cluster not in leaving) for cluster in reachable)
        )
        decided_before = self._state.decision.cluster
        await self._supersede(f"{kind.value} to {request.target or 'nowhere'} (epoch {number})")
        self._judge_again(self._app)
        targets = [look_ for look_ in seen if look_.cluster == request.target]
        if kind is ActionKind.FAILOVER:
            # What was superseded may have published its decision, or have demoted the target, meanwhile (S2).
            if self._state.decision.cluster != decided_before:
                decide.check_copy(self._state, request)
            self._judge_again(lambda: decide.check_copy(self._state, request))
            if stores:
                self._change(volumes=decide.expected_volumes(self._state, stores))
        elif held:
            self._change(volumes=held)
        # A deployment that was cut off may serve where it was to, though nobody saw it decide (drpc.md 2.6 R9).
        source = self._state.decision.cluster or (app.preferred_cluster if kind is ActionKind.RELOCATE else None)
        record = ActionRecord(
            kind=kind,
            workflow_id=workflow_id,
            epoch=number,
            target=request.target,
            source=source or "",
            requester=request.requester,
            reason=request.reason,
            requested_at=request.requested_at or now,
            data_as_of=data_as_of,
        )
        given = ActionInput(
            request=request,
            app=app,
            epoch=epoch,
            source=source,
            wanted=self._state.wanted,
            decision=self._state.decision,
            volumes=self._state.volumes,
            known_empty=self._state.known_empty,
            drawbacks=decide.store_drawbacks(self._state, request, stores, claimed.stores) if stores else {},
            target_unsettled=kind is ActionKind.FAILOVER
            and (overruled is not None or not all(decide.is_settled_secondary(self._state, now) for now in targets)),
            # A failover leaves the side that it came from as it was; a relocate may have taken the application from it.
            after_cut_off=bool(interrupted)
            or (
                overruled is not None
                and bool(self._state.interrupted)
                and (overruled.kind is ActionKind.RELOCATE or overruled.workflow_id == self._no_way_back)
            ),
            data_as_of=record.data_as_of,
            forget_clusters=forget_clusters or [],
            timings=self._state.timings,
        )
        last = self._state.action
        self._change(action=record, interrupted="")
        try:
            await self._start(kind, given, record)
        except FailureError as err:
            # Its ID is taken: this workflow was reset to before it started that action, which still runs (S14).
            why = decide.why_not_started(self._state, record, str(err))
            is_move = kind in (ActionKind.FAILOVER, ActionKind.RELOCATE)
            self._change(action=last, interrupted=why if is_move else interrupted)
            raise Refused(why) from err
        if given.after_cut_off:
            self._no_way_back = workflow_id
        return self._answer(record, f"{kind.value} started")

    async def _stamp(self, cluster: str, epoch: Epoch, kind: ActionKind, needed: bool) -> None:
        """Claims a cluster's VRG; one that is being left may be silent, or answer with an error (D12).

        It is claimed when it returns, before anything else is written there (S6).
        """
        limits = short_within(self._state.timings.slot_seconds) if needed else look(HANDLER_SECONDS / 2)
        try:
            await call(
                contracts.stamp_epoch,
                contracts.StampEpoch(app=self._app().ref, cluster=cluster, epoch=epoch, action=kind.value),
                queue=names.cluster_queue(cluster),
                limits=limits,
                summary=f"Claim the VRG on {cluster}",
                priority=_ACCEPTED,
            )
        except ActivityError as err:
            if needed or is_cancelled_exception(err) or failure(err)[0] == "StaleEpoch":
                raise

    async def _supersede(self, by: str) -> None:
        """Ends the running child and waits until its activities have ended: no two writers at a time."""
        if self._child is None:
            return
        child = self._child
        await self._tell(child, "stop", StopRequest(kind=StopKind.SUPERSEDE, reason=f"superseded by {by}"))
        await workflow.wait_condition(lambda: self._child is not child)

    async def _tell(self, child: ChildWorkflowHandle[object, ActionResult], signal: str, arg: object) -> None:
        """Signals a child; one that has just ended need not be told, its result is on the way."""
        try:
            await child.signal(signal, arg)
        except FailureError as err:
            workflow.logger.info("%s was not told to %s: %s", child.id, signal, err)

    async def _start(self, kind: ActionKind, given: ActionInput, record: ActionRecord) -> None:
        app = self._app()
        workflow_id = names.action_id(app.namespace, app.name, kind.value, record.epoch)
        target = record.target or self._state.decision.cluster or app.preferred_cluster
        self._child = await workflow.start_child_workflow(
            kind.value,
            given,
            id=workflow_id,
            result_type=ActionResult,
            task_queue=names.CONTROL_QUEUE,
            # The entity may be terminated or reset; the action must not die with it (S14).
            parent_close_policy=ParentClosePolicy.ABANDON,
            task_timeout=WORKFLOW_TASK_TIMEOUT,
            priority=_PRIORITIES.get(kind, Priority.default),
            search_attributes=attributes.of_action(
                app.namespace, app.name, kind.value, target, "Started", record.epoch
            ),
            memo={"requester": record.requester, "reason": record.reason},
            static_summary=f"{kind.value} of {app.namespace}/{app.name} to {target}"[:180],
        )
        follow = asyncio.create_task(self._follow(kind, self._child, record))
        self._following.add(follow)
        follow.add_done_callback(self._following.discard)

    async def _follow(
        self, kind: ActionKind, child: ChildWorkflowHandle[object, ActionResult], record: ActionRecord
    ) -> None:
        """Takes the result into the state, mirrors it, and starts what follows."""
        try:
            result = await child
        except ChildWorkflowError as err:
            # Nothing is said of copies: the target's was good when its promotion began, and the side that the decision
            # still names has its own. What neither of them may meet is a clean-up that nobody asked for.
            result = ActionResult(
                action=kind,
                # Debts stay debts: a Reprotect that somebody ended begins again as one that parked (S8, S14).
                outcome=Outcome.PARKED if kind is ActionKind.REPROTECT else Outcome.SUPERSEDED,
                message=f"{child.id} was ended from outside ({err.cause or err}); the clusters show what is true",
            )
            self._no_way_back = child.id
            if kind in (ActionKind.FAILOVER, ActionKind.RELOCATE):
                self._change(
                    interrupted=decide.how_to_go_on(self._state, record, "was ended from outside in the middle")
                )
            elif kind is ActionKind.DEPLOY:
                self._change(interrupted=decide.how_to_protect_again(self._state))
        now = workflow.now()
        mine = self._state.action
        if kind is ActionKind.REPROTECT:
            self._state = decide.after(self._state, record, result, now)
            # A request that was refused after its claim has taken an epoch, and left this action the last one.
            if mine and mine.epoch <= record.epoch:
                self._change(action=decide.with_three_facts(mine, result))
        else:
            self._state = decide.after(self._state, record, result, now)
            self._change(action=self._state.history[-1])
            if decide.was_cut_off(self._state, record, result):
                # Until the action that is to follow it begins. Should that be refused now, nothing is cleaned up.
                why = "was cut off by a request that was then refused"
                self._change(interrupted=self._state.interrupted or decide.how_to_go_on(self._state, record, why))
        self._change(debts=decide.debts_of(self._state, result, now))
        self._child = None
        self._is_over = kind in (ActionKind.UNPROTECT, ActionKind.RELEASE) and result.outcome is Outcome.DONE
        if self._is_over and kind is ActionKind.RELEASE:
            self._state = decide.given_away(self._state)
        self._show()
        await mirroring.write(self._state, kind, record, result)
        if self._is_over:
            await mirroring.release_lock(self._state, child.id)
            self._gone = True
        elif kind is not ActionKind.REPROTECT and self._state.decision.cluster:
            self._hint()
        elif result.outcome is Outcome.PARKED and workflow.patched("parked-looks-again"):
            self._look_again()

    def _look_again(self) -> None:
        """Begins to look now and then whether the clusters that are owed something are back, soon at first (S8)."""
        if self._looking is not None and not self._looking.done():
            if self._looking_since == self._state.epoch or not workflow.patched("looks-soon-again"):
                return
            self._looking.cancel()
        self._looking_since = self._state.epoch
        self._looking = asyncio.create_task(self._until_back())

    async def _until_back(self) -> None:
        pause = first = self._state.timings.look_again_seconds
        while self._state.debts and not self._gone and not self._state.superseded:
            await workflow.sleep(pause)
            pause = min(pause * 2, first * LOOK_AGAIN_TIMES)
            if self._child is not None or not self._state.debts or self._state.app is None:
                continue
            app = self._state.app
            looks = Looks(app, self._state.timings)
            seen = await asyncio.gather(*(looks.last_seen(cluster) for cluster in app.cluster_names))
            if all(now.reachable for now in seen):
                self._hint()

    async def _pay_debts(self) -> None:
        """Starts the Reprotect that every other cluster still needs, once no request is being answered."""
        async with self._lock:
            await self._clean_up()

    async def _clean_up(self) -> None:
        """Starts the Reprotect; nothing when an action runs. The lock is held."""
        state = self._state
        if self._child is not None or state.app is None or state.superseded or state.epoch is None or self._is_over:
            return
        if state.decision.cluster is None or state.interrupted:
            return
        app, policy_changed = state.app, self._policy_changed
        if policy_changed:
            self._policy_changed = False
            app = await self._with_present_classes(app)
        last = state.action
        given = ActionInput(
            app=app,
            epoch=state.epoch,
            wanted=state.wanted,
            decision=state.decision,
            volumes=state.volumes,
            known_empty=state.known_empty,
            policy_changed=policy_changed,
            serving_at=last.serving_at if last else None,
            timings=state.timings,
        )
        record = ActionRecord(
            kind=ActionKind.REPROTECT,
            workflow_id=names.action_id(state.namespace, state.name, "Reprotect", state.epoch.number),
            epoch=state.epoch.number,
            target=state.decision.cluster,
            requested_at=workflow.now(),
        )
        await self._start(ActionKind.REPROTECT, given, record)

    async def _with_present_classes(self, app: AppSpec) -> AppSpec:
        """Takes over the peer classes that the policy has now; those known before stay when it cannot be read."""
        try:
            classes = await call(
                contracts.read_peer_classes,
                app.policy,
                queue=names.CONTROL_QUEUE,
                limits=look(HANDLER_SECONDS / 2),
                summary=f"Read the peer classes of policy {app.policy}",
            )
        except ActivityError as err:
            if is_cancelled_exception(err):
                raise
            workflow.logger.warning("the peer classes of %s stay as they were: %s", app.ref, failure(err)[1])
            return app
        present = app.model_copy(update={"peer_classes": classes or app.peer_classes})
        self._change(app=present)
        return present

    # --- state ----------------------------------------------

    def _app(self) -> AppSpec:
        if self._state.superseded:
            raise Refused(f"{self._state.name} is driven by somebody else: {self._state.superseded}")
        if self._state.app is None or self._is_over:
            raise decide.not_protected(self._state)
        return self._state.app

    def _is_unsettled(self, seen: Observed) -> bool:
        return decide.is_unsettled(self._state, seen)

    def _change(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)

    def _is_due_to_continue(self) -> bool:
        """Whether nothing runs and the history is long: a worker that takes over replays all of it first."""
        if not self._quiet():
            return False
        if workflow.info().is_continue_as_new_suggested():
            return True
        return workflow.info().get_current_history_length() > LONG_HISTORY and workflow.patched("short-histories")

    def _quiet(self) -> bool:
        return self._child is None and not self._following

    def _show(self) -> None:
        workflow.set_current_details(view.page(self._state))


def _is_left_over(peer: Observed) -> bool:
    """Whether a peer's VRG is all that an earlier deployment left, whose workflow was lost."""
    return is_left_by_deployment(peer) and workflow.patched("protects-again")


def _as_move(request: UnprotectRequest | ReleaseRequest) -> MoveRequest:
    """A request without a target, for what is common to all actions."""
    return MoveRequest(
        target="",
        request_id=request.request_id,
        requester=request.requester,
        reason=request.reason,
        requested_at=workflow.now(),
    )


_PRIORITIES = {
    ActionKind.FAILOVER: Priority(priority_key=1),
    ActionKind.RELOCATE: Priority(priority_key=2),
    ActionKind.REPROTECT: Priority(priority_key=5),
}
"""Where tasks queue up, as when a hundred applications fail over at once, those that are to serve come before those
that serve already and are cleaned up (temporal.md 5.2). Activities have their workflow's priority, 3 by default."""

_ACCEPTED = Priority(priority_key=2)
"""What is accepted is begun before others are looked at: of a hundred requests the first ones serve soon, instead of
all of them late."""
