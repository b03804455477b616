"""Failover: promote the target from what replication brought over, then decide for it.

Ends when the application serves; the side that was left is demoted, cleaned and re-protected by `Reprotect` (D6).
The side that is being left is not needed for any step here (D12). Order and gates: drpc.md 3.3, steps 10 and 11.
"""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.contracts import Gate
    from activities.options import SHORT, STORE
    from ramen import gates, names
    from ramen.app import ActionKind, AppRef, Decision, Role, Wanted
    from workflows.inputs import ActionInput, ActionResult, Outcome
    from workflows.promotion import Move
    from workflows.steps import call


async def forward(kind: ActionKind, given: ActionInput) -> ActionResult:
    """Sends an action that was typed into Temporal Web to the application's entity, and returns its answer (S15).

    Raises `Refused` when the form lacks the request or the confirmation does not name an application.
    """
    namespace, _, name = given.confirm.partition("/")
    if given.request is None or not namespace or not name:
        raise ApplicationError(
            'Fill in the form as {"confirm": "<namespace>/<name>", "request": {"target": "<cluster>"}}. '
            "Nothing was changed.",
            type="Refused",
            non_retryable=True,
        )
    answer = await call(
        contracts.forward_request,
        contracts.ForwardRequest(
            app=AppRef(namespace=namespace, name=name),
            action=kind.value.lower(),
            request=given.request.model_dump(mode="json"),
            request_id=given.request.request_id or workflow.info().run_id,
        ),
        queue=names.CONTROL_QUEUE,
        limits=STORE,
        summary=f"Ask {given.confirm} for a {kind.value.lower()} to {given.request.target}",
    )
    return ActionResult(action=kind, outcome=Outcome.DONE, message=f"{answer['message']}: {answer['workflow_id']}")


@workflow.defn(name="Failover")
class Failover(Move):
    """Moves an application to a surviving cluster, accepting what replication had not yet brought over."""

    kind = ActionKind.FAILOVER

    @workflow.init
    def __init__(self, given: ActionInput) -> None:
        super().__init__(given)
        self._promotion_asked = False

    @workflow.run
    async def run(self, given: ActionInput) -> ActionResult:
        """Runs under the entity; without a parent it only forwards the request."""
        if given.app is None:
            return await forward(self.kind, given)
        return await self.guarded(self._fail_over, self._undo)

    def title(self) -> str:
        return f"Failover of {self.app.ref} to {self.target}, epoch {self.epoch.number}"

    def facts(self) -> list[str]:
        as_of = f"{self.given.data_as_of:%Y-%m-%d %H:%M:%S} UTC" if self.given.data_as_of else "not known"
        return [
            f"Data as of {as_of}; what {self.source or 'the other side'} wrote later is lost",
            self.asked_by(),
            f"Volumes: {len(self.given.volumes)}",
            self.way_out(self._passed(), "until the decision is published"),
        ]

    def promoted(self) -> bool:
        return self._promotion_asked

    def _passed(self) -> str:
        if self._is_after_cut_off():
            return "it overrules a move that was cut off"
        return f"the decision names {self.target}"

    def _is_after_cut_off(self) -> bool:
        """Whether that alone is why there is no way back: nothing names the target yet."""
        return self.given.after_cut_off and self.decided is None and self.given.decision.cluster != self.target

    def too_late(self) -> str:
        if self._is_after_cut_off():
            where = f"{self.app.name} -n {self.app.namespace}"
            back = f" The way back is: hubless failover {where} --to {self.source}" if self.source else ""
            return f"This failover overrules a move that was cut off, so there is nothing to go back to.{back}"
        return f"Too late to abort: the decision names {self.target}. {self.way_back()}"

    async def _fail_over(self) -> ActionResult:
        app, target = self.app, self.target
        decision = Decision(
            cluster=target,
            previous=self.given.source,
            retained=[cluster for cluster in app.others(target) if cluster == self.given.source],
            epoch=self.epoch,
            decided_at=workflow.now(),
        )
        # An abort would demote it, and it holds every write: the way out is another failover (S5).
        self.point_of_no_return_passed = self.given.decision.cluster == target or self.given.after_cut_off
        if self.given.target_unsettled:
            await self._turn_back()
        self.phase("Promoting")
        self._promotion_asked = True
        ready = await self.promote(decision)
        self.point_of_no_return_passed = True
        await self.decide(target, decision)
        return self.served(decision, ready)

    async def _turn_back(self) -> None:
        """Lets a relocate's demotion of the target end, if it has begun to take the application away there."""
        app, target = self.app, self.target
        looked = await self.step(
            f"Look at what was begun on {target}",
            lambda: self.short(
                contracts.read_vrg, contracts.ReadVrg(app=app.ref, cluster=target), target, SHORT, f"Look at {target}"
            ),
            cluster=target,
        )
        if not gates.is_letting_go(gates.VRGRead.of(app.ref, looked)):
            return
        placed = await self.step(
            f"Find out whether {target} still places {app.name}",
            lambda: self.short(
                contracts.read_decision,
                contracts.ReadDecision(app=app.ref, placement=app.placement, cluster=target),
                target,
                SHORT,
                f"Read the decision on {target}",
            ),
            cluster=target,
        )
        if placed.cluster != target:
            await self.finish_demotion(target)

    async def _undo(self, reason: str) -> ActionResult:
        """Abort before the decision: demote the target and remove what was restored there (S5)."""
        app, target = self.app, self.target
        self.phase("Aborting")
        self.wanted[target] = Wanted(role=Role.SECONDARY, epoch=self.epoch, action="Failover")
        write = contracts.WriteVrg(
            app=app, cluster=target, wanted=self.wanted[target], volumes=self.given.volumes, only_existing=True
        )
        await self.step(
            f"Demote {target} again",
            lambda: self.apply(write, Gate.ACCEPTED_SECONDARY, f"Demote {app.name} on {target}"),
            cluster=target,
            awaits=f"{target} to accept the Secondary role",
        )
        await self.step(
            f"Remove what was restored on {target}",
            lambda: self.short(
                contracts.remove_restored,
                contracts.RemoveRestored(app=app, cluster=target, epoch=self.epoch),
                target,
                SHORT,
                f"Remove restored PVCs on {target}",
            ),
            cluster=target,
            note=lambda removed: ", ".join(removed) or "nothing was restored",
        )
        return self.ended(Outcome.ABORTED, f"Failover to {target} aborted: {reason or 'no reason given'}")
