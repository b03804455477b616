"""What every action shares: steps that an operator can read, failures that wait for a decision, a way to stop.

A step that cannot go on does not fail the action. It says what is wrong and what can be done, and waits for `retry`,
`abort`, or a failover that supersedes it (design 5). The table of steps is the page's current details in Temporal Web
and the answer of the `steps` query.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    TimeoutError,
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.options import LONG_WAIT, PATIENT_LOCK, PATIENT_WAIT, WAIT, Limits
    from ramen import names
    from ramen.app import ActionKind, AppSpec, Decision, Observed, Volume, Wanted
    from ramen.epoch import Epoch
    from workflows import attributes
    from workflows.inputs import (
        ActionInput,
        ActionResult,
        OperatorRequest,
        Outcome,
        Step,
        StepState,
        StepsView,
        StopAnswer,
        StopKind,
        StopRequest,
        Waiting,
    )

T = TypeVar("T")


class Ended(Exception):
    """The action ends now with this outcome; carries what the operator reads."""

    def __init__(self, outcome: Outcome, message: str, foreign_epoch: bool = False) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.message = message
        self.foreign_epoch = foreign_epoch


class NeedsOperator(Exception):
    """A step cannot go on without a decision; the text says what is wrong and what can be done."""


def failure(err: ActivityError) -> tuple[str, str]:
    """`(type, one line)` of what an activity failed with."""
    cause = err.cause
    if isinstance(cause, ApplicationError):
        return cause.type or "Error", cause.message
    if isinstance(cause, TimeoutError):
        if cause.type is TimeoutType.SCHEDULE_TO_START:
            return "NotServed", "no worker took the task in time"
        return "TimedOut", "the activity did not answer in time"
    return type(cause).__name__ if cause else "Error", str(cause or err)


async def call(
    contract: Callable[[Any], Awaitable[T]],
    arg: Any,
    *,
    queue: str,
    limits: Limits,
    summary: str,
    # The next writer must not overlap with this one, so a stop waits for the activity's own end.
    cancellation: ActivityCancellationType = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    priority: Priority = Priority.default,
) -> T:
    """Runs one activity on a queue under the limits of its kind, with the words that the timeline shows.

    Raises `CancelledError` also when the activity came to its end before it learned of the stop: Temporal then gives
    its result and forgets the stop, and an action that was told to make way would go on.
    """
    result: T = await workflow.execute_activity(
        contract,
        arg,
        task_queue=queue,
        start_to_close_timeout=limits.start_to_close,
        schedule_to_start_timeout=limits.schedule_to_start,
        schedule_to_close_timeout=limits.schedule_to_close,
        heartbeat_timeout=limits.heartbeat,
        retry_policy=limits.retry,
        summary=summary,
        cancellation_type=cancellation,
        priority=priority,
    )
    if _is_being_stopped():
        raise asyncio.CancelledError
    return result


def _is_being_stopped() -> bool:
    """Whether the task that asks was cancelled, though the activity that it waited for ended another way."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def together(parts: Iterable[Awaitable[T]]) -> list[T]:
    """Runs parts of an action side by side, and ends when all of them have: the next writer is the only one (S5).

    When one fails or all are stopped the others are stopped too.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return list(await asyncio.gather(*tasks))
    except (Exception, asyncio.CancelledError):  # not GeneratorExit: of a workflow that left the cache nothing runs
        await end(tasks)
        raise


async def end(tasks: Sequence[asyncio.Future[T]]) -> None:
    """Stops those parts that still run and waits for their end."""
    left = [task for task in tasks if not task.done()]
    if left and workflow.patched("parts-end-together"):
        for task in left:
            task.cancel()
        await workflow.wait(left)


class Action:
    """Base of the action workflows: signals, query, step table, stop and lock."""

    kind: ActionKind

    @workflow.init
    def __init__(self, given: ActionInput) -> None:
        self.given = given
        self.rows: list[Step] = []
        self.needs_operator = ""
        self.aborting = ""
        """Why it is being aborted; empty while it is not."""
        self.point_of_no_return_passed = False
        self.accepted = OperatorRequest()
        self.wanted: dict[str, Wanted] = dict(given.wanted)
        self.result: ActionResult | None = None
        self.decided: Decision | None = None
        """The decision that was published, or that may have been."""
        self.clusters_seconds = 0.0
        """Seconds that waits on clusters took so far: operator and storage, not orchestration."""
        self._retries = 0
        self._stop: StopRequest | None = None
        self._lock: asyncio.Future[None] | None = None
        """The activity that renews the advisory lock, while the action holds it."""
        self._lock_lost = ""
        self._ending = False

    # --- what the input of a started action surely has ----------------------------------------------

    @property
    def app(self) -> AppSpec:
        """The application; only an action that the entity started has one."""
        if self.given.app is None:
            raise ApplicationError("this action was started without an application", type="Invalid", non_retryable=True)
        return self.given.app

    @property
    def epoch(self) -> Epoch:
        """The epoch that the entity claimed for this action."""
        if self.given.epoch is None:
            raise ApplicationError("this action was started without an epoch", type="Invalid", non_retryable=True)
        return self.given.epoch

    # --- messages ----------------------------------------------

    @workflow.signal
    def stop(self, request: StopRequest) -> None:
        """From the entity: abort, or make way for a newer action; `guarded` acts on it."""
        self._stop = request

    @workflow.signal
    def retry(self, request: OperatorRequest) -> None:
        """From the entity: try the failed step again, with what the operator accepts from now on."""
        self.accepted = OperatorRequest(
            accept_data_loss=self.accepted.accept_data_loss or request.accept_data_loss,
            accept_missing_volumes=[*self.accepted.accept_missing_volumes, *request.accept_missing_volumes],
        )
        self._retries += 1

    @workflow.query
    def steps(self) -> StepsView:
        """The table of steps, with what is awaited on which cluster since when."""
        waiting = next((row.waiting for row in self.rows if row.waiting), None)
        return StepsView(
            title=self.title(),
            steps=self.rows,
            waiting=waiting,
            needs_operator=self.needs_operator,
            aborting=self.aborting,
            point_of_no_return_passed=self.point_of_no_return_passed,
            result=self.result,
        )

    def title(self) -> str:
        """Heading of the page."""
        return self.kind.value

    def facts(self) -> list[str]:
        """Lines above the table: data as of, expected loss, who asked."""
        return []

    def asked_by(self) -> str:
        """Who asked and why, as claimed by whoever asked."""
        request = self.given.request
        who = request.requester if request and request.requester else "somebody"
        why = request.reason if request and request.reason else "no reason given"
        return f"Asked by {who}: {why}"

    # --- steps ----------------------------------------------

    async def step(
        self,
        title: str,
        work: Callable[[], Awaitable[T]],
        *,
        cluster: str = "",
        awaits: str = "",
        note: Callable[[T], str] | None = None,
    ) -> T:
        """Runs one step until it succeeds; a failure waits for the operator.

        Raises `Ended` when another action took over (StaleEpoch), and passes a cancellation on.
        """
        row = len(self.rows)
        self.rows.append(Step(title=title, cluster=cluster, state=StepState.RUNNING, started_at=workflow.now()))
        waiting = Waiting(reason=awaits or title.lower(), cluster=cluster, since=workflow.now())
        while True:
            if self._lock_lost:
                await self._ask(row, f"{self._lock_lost}. Nothing more is written until: hubless retry", waiting)
            self._set(row, state=StepState.RUNNING, waiting=waiting, note="")
            try:
                done = await work()
            except ActivityError as err:
                # A cancelled activity whose worker died ends with a time-out instead; the action ends all the same.
                if is_cancelled_exception(err) or self._ending or _is_being_stopped():
                    self._set(row, state=StepState.SKIPPED, waiting=None, ended_at=workflow.now(), note="stopped")
                    raise asyncio.CancelledError from err
                kind, line = failure(err)
                if kind in ("StaleEpoch", "Superseded"):
                    self._set(row, state=StepState.FAILED, waiting=None, note=line)
                    raise Ended(Outcome.SUPERSEDED, line, foreign_epoch=True) from err
                await self._ask(row, line, waiting)
            except NeedsOperator as need:
                await self._ask(row, str(need), waiting)
            else:
                text = note(done) if note else ""
                self._set(row, state=StepState.DONE, waiting=None, ended_at=workflow.now(), note=text)
                return done

    def awaits(self, reason: str) -> None:
        """Says more of what the running step waits for."""
        row = len(self.rows) - 1
        waiting = self.rows[row].waiting
        if waiting is not None:
            self._set(row, waiting=waiting.model_copy(update={"reason": reason}))

    async def _ask(self, row: int, line: str, waiting: Waiting) -> None:
        self.needs_operator = line
        self._set(row, state=StepState.FAILED, note=line, waiting=waiting)
        seen = self._retries
        await workflow.wait_condition(lambda: self._retries > seen)
        self.needs_operator = ""
        if self._lock_lost and workflow.patched("lock-again"):
            self._take_lock()
        self._lock_lost = ""

    def skip(self, title: str, why: str, cluster: str = "") -> None:
        """Shows a step that was not needed, and why."""
        self.rows.append(Step(title=title, cluster=cluster, state=StepState.SKIPPED, note=why))
        self.show()

    def _set(self, row: int, **changes: Any) -> None:
        self.rows[row] = self.rows[row].model_copy(update=changes)
        self.show()

    def show(self) -> None:
        """Renders the table as the page's current details."""
        workflow.set_current_details(render(self.title(), self.facts(), self.rows, self.needs_operator))

    def phase(self, text: str) -> None:
        """Sets the phase that the list in Temporal Web filters by; one history event."""
        workflow.upsert_search_attributes([attributes.PHASE.value_set(text)])

    # --- activities ----------------------------------------------

    async def short(
        self, contract: Callable[[Any], Awaitable[T]], arg: Any, cluster: str, limits: Limits, summary: str
    ) -> T:
        """A short activity on a cluster's queue."""
        return await call(contract, arg, queue=names.cluster_queue(cluster), limits=limits, summary=summary)

    async def wait(self, arg: contracts.AwaitVrg, summary: str) -> Observed:
        """A wait on a cluster."""
        return await self._awaited(contracts.await_vrg, arg, arg.cluster, summary, WAIT)

    async def wait_patiently(self, arg: contracts.AwaitVrg, summary: str, park_after: float) -> Observed:
        """A wait that may last hours; `park_after` seconds without a worker end it as not served.

        It writes nothing, so nobody who ends it waits for the heartbeat by which it learns of that. When it lasts, it
        heartbeats less, and the lock is given back until it is over: whoever waits needs none (S14).
        """
        if not workflow.patched("long-waits"):
            return await self._patiently(arg, summary, park_after, PATIENT_WAIT)
        begun = asyncio.ensure_future(self._patiently(arg, summary, park_after, PATIENT_WAIT))
        try:
            await workflow.wait([begun], timeout=self.given.timings.long_wait_seconds)
            if begun.done():
                return await begun
        finally:
            begun.cancel()
        self._give_lock_back()
        try:
            seen = await self._patiently(arg, summary, park_after, LONG_WAIT)
        except ActivityError as err:
            if not is_cancelled_exception(err):
                self._take_lock()
            raise
        self._take_lock()
        return seen

    async def _patiently(self, arg: contracts.AwaitVrg, summary: str, park_after: float, limits: Limits) -> Observed:
        cancellation = ActivityCancellationType.TRY_CANCEL
        if not workflow.patched("patient-waits"):
            limits, cancellation = WAIT, ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        limits = replace(limits, schedule_to_start=timedelta(seconds=park_after))
        return await self._awaited(contracts.await_vrg, arg, arg.cluster, summary, limits, cancellation)

    async def apply(
        self,
        write: contracts.WriteVrg,
        gate: contracts.Gate,
        summary: str,
        volumes: list[Volume] | None = None,
        park_after: float | None = None,
    ) -> Observed:
        """Writes a VRG and waits for what it is to bring about, in one activity (D15); `volumes` are the gate's."""
        arg = contracts.ApplyVrg(write=write, wait=self.awaiting(write.cluster, gate, volumes))
        limits = WAIT if park_after is None else replace(WAIT, schedule_to_start=timedelta(seconds=park_after))
        return await self._awaited(contracts.apply_vrg, arg, write.cluster, summary, limits)

    def awaiting(self, cluster: str, gate: contracts.Gate, volumes: list[Volume] | None = None) -> contracts.AwaitVrg:
        """A wait of this action for a gate of a cluster; without `volumes` for those last known to be protected."""
        return contracts.AwaitVrg(
            app=self.app.ref,
            cluster=cluster,
            gate=gate,
            epoch=self.epoch,
            pvc_selector=self.app.pvc_selector,
            volumes=self.given.volumes if volumes is None else volumes,
            since=self.given.serving_at,
        )

    async def _awaited(
        self,
        contract: Callable[[Any], Awaitable[Observed]],
        arg: Any,
        cluster: str,
        summary: str,
        limits: Limits,
        cancellation: ActivityCancellationType = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    ) -> Observed:
        queue = names.wait_queue(cluster)
        seen = await call(contract, arg, queue=queue, limits=limits, summary=summary, cancellation=cancellation)
        self.clusters_seconds += seen.waited_seconds
        return seen

    # --- the life of an action ----------------------------------------------

    async def guarded(
        self,
        body: Callable[[], Awaitable[ActionResult]],
        undo: Callable[[str], Awaitable[ActionResult]] | None = None,
    ) -> ActionResult:
        """Runs the body under the lock until it ends, is aborted, or is superseded.

        Cancel in Temporal Web means abort. An abort after the point of no return is refused and the body goes on.
        """
        self._take_lock()
        try:
            self.result = await self._until_ended(body, undo)
        finally:
            self._give_lock_back()
        self.show()
        return self.result

    async def _until_ended(
        self,
        body: Callable[[], Awaitable[ActionResult]],
        undo: Callable[[str], Awaitable[ActionResult]] | None,
    ) -> ActionResult:
        running: asyncio.Future[ActionResult] = asyncio.ensure_future(body())
        while True:
            if await self._is_cancelled_before(lambda: running.done() or self._stop is not None):
                self._stop = StopRequest(kind=StopKind.ABORT, reason=workflow.cancellation_reason() or "")
                continue
            if running.done():
                return await self._finished(running)
            stop, self._stop = self._stop, None
            if stop is None:
                continue
            if stop.kind is StopKind.ABORT and (self.point_of_no_return_passed or undo is None):
                await self._answer_stop(False, self.too_late())
                continue
            if stop.kind is StopKind.ABORT:
                self.aborting = stop.reason or "no reason given"
                self.show()
                if workflow.patched("abort-stops-first"):
                    # While the answer is on its way the body could pass the point that was just found not passed.
                    self._begin_to_end(running)
                await self._answer_stop(True, "undoing")
            await self._end(running)
            if not running.cancelled() and running.exception() is None:
                return running.result()
            if stop.kind is StopKind.SUPERSEDE or undo is None:
                return self.ended(Outcome.SUPERSEDED, stop.reason or "a newer action took over")
            self.needs_operator = ""
            undoing: asyncio.Future[ActionResult] = asyncio.ensure_future(undo(stop.reason))
            return await self._undone(undoing)

    async def _is_cancelled_before(self, condition: Callable[[], bool]) -> bool:
        """Waits for a condition; a Cancel in Temporal Web ends the wait, and nothing else."""
        try:
            await workflow.wait_condition(condition)
        except asyncio.CancelledError:
            if workflow.cancellation_reason() is None:
                raise  # evicted from the worker's cache
            return True
        return False

    async def _undone(self, undoing: asyncio.Future[ActionResult]) -> ActionResult:
        """A compensation can itself be superseded by a failover, but not aborted."""
        while True:
            if await self._is_cancelled_before(lambda: undoing.done() or self._stop is not None):
                continue  # it means abort, which this is
            if undoing.done():
                return await self._finished(undoing)
            stop, self._stop = self._stop, None
            if stop is not None and stop.kind is StopKind.ABORT:
                await self._answer_stop(True, "undoing already")
            elif stop is not None:
                await self._end(undoing)
                return self.ended(Outcome.SUPERSEDED, stop.reason or "a newer action took over")

    def _begin_to_end(self, task: asyncio.Future[ActionResult]) -> None:
        """Cancels a body: it takes no step any more, and its activities learn of it."""
        self._ending = True
        task.cancel()

    async def _end(self, task: asyncio.Future[ActionResult]) -> None:
        """Cancels a body and waits until its activities have ended, so that the next writer does not overlap."""
        if not self._ending:
            self._begin_to_end(task)
        while await self._is_cancelled_before(task.done):
            pass  # it ends already
        self._ending = False

    async def _finished(self, task: asyncio.Future[ActionResult]) -> ActionResult:
        try:
            return await task
        except Ended as end:
            return self.ended(end.outcome, end.message, foreign_epoch=end.foreign_epoch)

    def ended(self, outcome: Outcome, message: str, foreign_epoch: bool = False) -> ActionResult:
        """The result of an action that ends before its goal."""
        return ActionResult(
            action=self.kind,
            outcome=outcome,
            message=message,
            wanted=self.wanted,
            decision=self.decided,
            foreign_epoch=foreign_epoch,
            promoted=self.promoted(),
            steps=self.rows,
        )

    def promoted(self) -> bool:
        """Whether the target was asked to be Primary."""
        return False

    async def _answer_stop(self, accepted: bool, message: str) -> None:
        parent = workflow.get_external_workflow_handle(names.entity_id(self.app.namespace, self.app.name))
        answer = StopAnswer(workflow_id=workflow.info().workflow_id, accepted=accepted, message=message)
        telling = asyncio.ensure_future(parent.signal("stop_answered", answer))
        while await self._is_cancelled_before(telling.done):
            pass  # it is being stopped
        try:
            await telling
        except FailureError as err:
            # A terminated entity hears nothing; the action ends all the same (S14).
            workflow.logger.warning("the entity was not told: %s", err)

    def too_late(self) -> str:
        """Why an abort is refused, and the way back."""
        return f"{self.kind.value} cannot be aborted any more."

    def _take_lock(self) -> None:
        self._lock = asyncio.ensure_future(self._hold_lock())

    def _give_lock_back(self) -> None:
        if self._lock is not None:
            self._lock.cancel()

    async def _hold_lock(self) -> None:
        """Renews the advisory lock beside the steps; a lost lock stops the action before its next write (S13)."""
        limits = PATIENT_LOCK if self.kind is ActionKind.REPROTECT else WAIT
        try:
            await workflow.execute_activity(
                contracts.hold_lock,
                self.lock_request(),
                task_queue=names.CONTROL_QUEUE,
                start_to_close_timeout=limits.start_to_close,
                heartbeat_timeout=limits.heartbeat,
                retry_policy=limits.retry,
                summary="Hold the advisory lock",
                # The action's end does not wait for the next heartbeat to learn of it.
                cancellation_type=ActivityCancellationType.TRY_CANCEL,
            )
        except ActivityError as err:
            if not is_cancelled_exception(err):
                self._lock_lost = failure(err)[1]

    def lock_request(self) -> contracts.LockRequest:
        """The lock of this application, held in the entity's name."""
        request = lock_request(self.app, self.epoch, workflow.info().workflow_id)
        # A Reprotect follows by itself: nobody claimed an epoch for it, and with it the lock.
        return request.model_copy(update={"is_taken": self.kind is not ActionKind.REPROTECT})


def lock_request(app: AppSpec, epoch: Epoch, workflow_id: str, break_holder: str = "") -> contracts.LockRequest:
    """A lock request in the name of the application's entity."""
    return contracts.LockRequest(
        app=app.ref,
        epoch=epoch,
        holder=f"{workflow.info().namespace}/{names.entity_id(app.namespace, app.name)}",
        workflow_id=workflow_id,
        profiles=[cluster.s3_profile for cluster in app.clusters],
        break_holder=break_holder,
    )


MARKS = {
    StepState.PENDING: "·",
    StepState.RUNNING: "●",
    StepState.DONE: "✔",
    StepState.FAILED: "⚠",
    StepState.SKIPPED: "◎",
}


def render(title: str, facts: list[str], rows: list[Step], needs_operator: str) -> str:
    """The action's page as Markdown: facts, the table of steps, and what the operator can do."""
    lines = [f"### {title}", ""]
    lines += [f"- {fact}" for fact in facts]
    lines += ["", "| | Step | Cluster | Took | |", "|---|---|---|---|---|"]
    for row in rows:
        took = ""
        if row.started_at and row.ended_at:
            took = f"{(row.ended_at - row.started_at).total_seconds():.1f} s"
        text = row.note
        if row.waiting and row.state is StepState.RUNNING:
            since = row.waiting.since.strftime("%H:%M:%S") if row.waiting.since else ""
            text = f"waiting for {row.waiting.reason}, since {since}"
        lines.append(f"| {MARKS[row.state]} | {row.title} | {row.cluster} | {took} | {text} |")
    if needs_operator:
        lines += ["", f"**Needs you:** {needs_operator}"]
    return "\n".join(lines)
