"""The person before the screen: asks, asks again, answers what a step asks for, and adopts what was forgotten."""

from __future__ import annotations

import asyncio
import time
import uuid

from pydantic import BaseModel
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from ramen.app import ActionKind, AppRef
from ramen.errors import HublessError
from ramen.recovery import Verdict as Inferred
from sandbox.chaos.judge import Judge
from sandbox.chaos.lanes import AWAY_SECONDS, END_SECONDS, LOOK_SECONDS, Lane, Run, patiently
from sandbox.driver import POLICY, Driver, protection
from starter.failures import Failed, Refused, Stopped
from workflows.inputs import (
    AdoptRequest,
    AdoptResult,
    Answer,
    MoveRequest,
    OperatorRequest,
    UnprotectRequest,
)

ASK_AGAIN = 3
"""Times that a refused request is made again when the part is back, as a person would."""


class Person:
    """Follows rows as an operator would, with nothing but what the product answers."""

    def __init__(self, driver: Driver, judge: Judge) -> None:
        self.driver = driver
        self._judge = judge

    async def request(self, run: Run) -> None:
        """Asks for what leads to the row's step, again with the same ID while nobody knows whether it started."""
        kind = ActionKind.FAILOVER if run.step.action is ActionKind.REPROTECT else run.step.action
        target = run.source if kind in (ActionKind.DEPLOY, ActionKind.UNPROTECT) else run.target
        request_id = uuid.uuid4().hex
        run.refusal = ""
        try:
            run.answer = await patiently(lambda: self.ask(run.lane, kind, target, request_id))
        except (Refused, Failed) as err:
            run.refusal = str(err)

    async def ask(self, lane: Lane, kind: ActionKind, target: str, request_id: str) -> Answer:
        """Asks once for an action; raises as `starter.client.Hubless.ask`."""
        app, hubless = lane.application, self.driver.hubless
        if kind is ActionKind.DEPLOY:
            return await hubless.apply(protection(app, target, request_id), "")
        body: BaseModel = MoveRequest(target=target, request_id=request_id, requester="chaos")
        if kind is ActionKind.UNPROTECT:
            body = UnprotectRequest(request_id=request_id, requester="chaos")
        return await hubless.ask(kind.value.lower(), app.namespace, app.name, body, request_id, "")

    async def finish(self, run: Run) -> None:
        """Sees the row's action to its end: asks again what was refused, and answers what a step asks for."""
        limit = time.monotonic() + END_SECONDS
        if run.asking:
            await run.asking
        for _ in range(ASK_AGAIN):
            if run.answer is not None:
                break
            run.notes.append("refused")
            await asyncio.sleep(AWAY_SECONDS)
            run.lane.asked = time.time()
            await self.request(run)
        if run.answer is None:
            run.problems.append(f"still refused when everything was back: {run.refusal}")
            return
        run.lane.protected = run.step.action is not ActionKind.UNPROTECT
        outcome = await self._ended(run, run.answer, limit)
        if outcome:
            run.notes.append(outcome)

    async def hold_again(self, run: Run) -> None:
        """Sees a row to its end after its workflows were forgotten: adopts, follows what goes on, asks again."""
        if run.asking:
            await run.asking  # refused, or given up: whatever it started is forgotten
        run.answer, lane = None, run.lane
        held = await self.adopt(lane, run.source, run.notes)
        # What was asked for may have been asked for again, and begun, after the loss: then there is nothing to adopt.
        lane.protected = held is not None or await self._is_held(lane)
        if held is not None and held.workflow_id:
            answer = Answer(action=ActionKind.FAILOVER, workflow_id=held.workflow_id, epoch=held.epoch, message="")
            await self._ended(run, answer, time.monotonic() + END_SECONDS)
        elif not lane.protected and run.step.action not in (ActionKind.DEPLOY, ActionKind.UNPROTECT):
            run.problems.append("nothing to adopt was found")
            return
        if (run.step.action is ActionKind.UNPROTECT) == lane.protected:
            if lane.protected:
                await self._judge.rest(lane)
            lane.asked = time.time()
            await self.request(run)
            await self.finish(run)

    async def _is_held(self, lane: Lane) -> bool:
        """Whether a workflow protects the application."""
        try:
            return (await self.driver.status(lane.application)).state.app is not None
        except (HublessError, Stopped, RPCError):
            return False

    async def adopt(self, lane: Lane, named: str, notes: list[str]) -> AdoptResult | None:
        """Adopts an application, naming what is asked for, policy or cluster; None when nothing is known of it."""
        request = AdoptRequest(
            app=AppRef(namespace=lane.application.namespace, name=lane.application.name),
            consent=True,
            requester="chaos",
        )
        limit = time.monotonic() + END_SECONDS
        while True:
            try:
                result = await self.driver.hubless.adopt(request)
            except Refused as err:
                notes.append(str(err))
                if "--policy" not in str(err) or request.policy:
                    return None
                request = request.model_copy(update={"policy": POLICY})
                continue
            except (Stopped, RPCError) as err:
                if time.monotonic() > limit:
                    raise Failed(f"not adopted in {END_SECONDS:.0f} s: {err}") from err
                await asyncio.sleep(LOOK_SECONDS)
                continue
            notes.append(str(result.inference.verdict.value))
            if result.adopted:
                return result
            if result.inference.verdict is not Inferred.ASK or request.serving:
                return None
            request = request.model_copy(update={"serving": named})

    async def _ended(self, run: Run, answer: Answer, limit: float) -> str:
        """Follows an action; a person retries what needs one, and aborts a relocate whose final sync nobody saw."""
        handle = self.driver.hubless.client.get_workflow_handle(answer.workflow_id)
        said: set[str] = set()
        while time.monotonic() < limit:
            try:
                if (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING:
                    result = await self.driver.hubless.result(answer.workflow_id)
                    return str(result.outcome.value) if result.outcome else ""
                need = (await self.driver.hubless.steps(answer.workflow_id)).needs_operator
                if need and need not in said:
                    said.add(need)
                    verb = "abort" if "was not seen" in need else "retry"
                    run.notes.append(f"{verb}: {need[:100]}")
                    request = OperatorRequest(request_id=uuid.uuid4().hex, requester="chaos", reason="the bench")
                    app = run.lane.application
                    await self.driver.hubless.ask(verb, app.namespace, app.name, request, request.request_id, "")
                elif need:
                    said.clear()
            except (Stopped, RPCError):
                pass
            await asyncio.sleep(LOOK_SECONDS)
        try:
            view = await self.driver.hubless.steps(answer.workflow_id)
            waits = view.needs_operator or (view.waiting.reason if view.waiting else "nobody knows what for")
        except (Stopped, RPCError) as err:
            waits = str(err)
        run.problems.append(f"{answer.workflow_id} did not end in {END_SECONDS:.0f} s: waits for {waits}")
        return ""
