"""Runs rows: many applications at their steps, one part broken for all of them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from ramen import names
from ramen.app import ActionKind
from sandbox import holding
from sandbox.application import Application
from sandbox.chaos.breaking import break_part
from sandbox.chaos.judge import Judge, coordination_store
from sandbox.chaos.lanes import AWAY_SECONDS, END_SECONDS, Lane, Run, patiently
from sandbox.chaos.person import Person
from sandbox.chaos.plan import LOST_HISTORY, Result, Row, Step, Where
from sandbox.driver import Driver
from sandbox.holding import Hold
from sandbox.network import Way, lead_through
from sandbox.recorder import Recorder
from starter.failures import Refused

HOLD_SECONDS = {"patient": 30.0, "handler": 10.0, "brief": 2.0}
"""Time for the applications of a batch to reach their steps, by the patience of the step; one that was not reached is
not run. Steps of actions and of the mirror are tried without end, those of a request three times (about 18 s)."""


class Bench:
    """Runs rows on one sandbox."""

    def __init__(self, driver: Driver, say: Callable[[str], None], records: Path | None = None) -> None:
        self.driver = driver
        self.sandbox = driver.sandbox
        self.recorder = Recorder()
        self.ways: dict[tuple[str, str], Way] = {}
        """By cluster of the worker and of the API server: the way from one to the other."""
        self.lanes: list[Lane] = []
        self._judge = Judge(driver, self.recorder, records)
        self._person = Person(driver, self._judge)
        self._say = say
        self._made = 0

    async def begin(self) -> None:
        """Starts to record; workers that can be held take the place of the usual ones."""
        for near in self.driver.clusters:
            for far in self.driver.clusters:
                if near != far:
                    way = self.ways[near, far] = Way(self.sandbox.state.clusters[far].ports["api"])
                    await lead_through(await self.driver.access(near), far, await way.start())
        for cluster in self.driver.clusters:
            await self.sandbox.processes.start(self.sandbox.worker_spec(cluster, holds=True))
        self.recorder.start([await self.driver.access(cluster) for cluster in self.driver.clusters])

    async def end(self) -> None:
        """Ends the recording and the ways between the clusters; the usual workers take their place again."""
        await self.recorder.stop()
        for (near, far), way in self.ways.items():
            await lead_through(await self.driver.access(near), far, self.sandbox.state.clusters[far].ports["api"])
            await way.close()
        for cluster in self.driver.clusters:
            await self.sandbox.processes.start(self.sandbox.worker_spec(cluster))

    async def unprotect_all(self) -> None:
        """Leaves no application protected, for whoever uses the sandbox next."""

        async def unprotect(lane: Lane) -> None:
            answer = await patiently(partial(self._person.ask, lane, ActionKind.UNPROTECT, lane.home, uuid.uuid4().hex))
            await self.driver.ended(answer, END_SECONDS)
            await self.driver.unprotected(lane.application)

        await asyncio.gather(*(unprotect(lane) for lane in self.lanes if lane.protected))

    # --- lanes ----------------------------------------------------------------------------------------------------

    async def new_lane(self, at: str, protected: bool) -> Lane:
        """Deploys an application in a namespace of its own, and protects it when wanted."""
        self._made += 1
        application = Application.of(f"chaos-{self._made}", "app", volumes=1)
        lane = Lane(application, at)
        await self.driver.deploy(application, at, END_SECONDS)
        if protected:
            await self._protect(lane, at)
            lane.protected = True
            await self._judge.rest(lane)
        self.lanes.append(lane)
        return lane

    async def _protect(self, lane: Lane, at: str) -> None:
        """Protects as a person does on a busy machine: what was refused in a moment's flap is asked for again."""
        limit = time.monotonic() + END_SECONDS
        while True:
            lane.asked, request_id = time.time(), uuid.uuid4().hex
            try:
                answer = await patiently(partial(self._person.ask, lane, ActionKind.DEPLOY, at, request_id))
            except Refused:
                if time.monotonic() > limit:
                    raise
                await asyncio.sleep(AWAY_SECONDS)
            else:
                await self.driver.ended(answer, END_SECONDS)
                return

    async def lanes_for(self, steps: list[Step]) -> tuple[str, list[Lane]]:
        """The cluster where most applications serve, and one application of the right kind there for each step."""
        counts = {
            cluster: sum(lane.home == cluster and not lane.broken for lane in self.lanes)
            for cluster in self.driver.clusters
        }
        at = max(counts, key=lambda cluster: counts[cluster])
        free = [lane for lane in self.lanes if lane.home == at and not lane.broken]
        found: list[Lane | None] = []
        for step in steps:
            protected = step.action is not ActionKind.DEPLOY
            lane = next((lane for lane in free if lane.protected == protected), None)
            if lane is not None:
                free.remove(lane)
            found.append(lane)
        gate = asyncio.Semaphore(8)

        async def make(step: Step) -> Lane:
            async with gate:
                return await self.new_lane(at, step.action is not ActionKind.DEPLOY)

        made = iter(
            await asyncio.gather(*(make(step) for step, lane in zip(steps, found, strict=True) if lane is None))
        )
        return at, [lane if lane is not None else next(made) for lane in found]

    # --- discovery ------------------------------------------------------------------------------------------------

    async def discover(self) -> list[Step]:
        """The steps of each action, from the histories of an undisturbed protect, failover, relocate and unprotect."""
        dr1, dr2 = self.driver.clusters
        lane = await self.new_lane(dr1, protected=False)
        steps: list[Step] = []
        moves = (
            (ActionKind.DEPLOY, dr1),
            (ActionKind.FAILOVER, dr2),
            (ActionKind.RELOCATE, dr1),
            (ActionKind.UNPROTECT, dr1),
        )
        for kind, target in moves:
            before = await self._scheduled(lane.entity)
            answer = await patiently(partial(self._person.ask, lane, kind, target, uuid.uuid4().hex))
            await self.driver.ended(answer, END_SECONDS)
            if kind is ActionKind.UNPROTECT:
                await self.driver.unprotected(lane.application)
            else:
                lane.home, lane.protected = target, True
                await self._judge.rest(lane)
            entity = (await self._activities(lane.entity))[before:]
            follow = ActionKind.REPROTECT if kind is ActionKind.FAILOVER else None
            mirrors = [at for at, (activity, _, _) in enumerate(entity) if activity == "append_history"]
            own = entity[: mirrors[0] + 1] if mirrors else entity
            steps += [_step(kind, "entity", at, found) for at, found in enumerate(own, 1)]
            steps += [
                _step(kind, "action", at, found)
                for at, found in enumerate(await self._activities(answer.workflow_id), 1)
            ]
            if follow:
                child = names.action_id(lane.application.namespace, lane.application.name, "Reprotect", answer.epoch)
                found_steps = await self._activities(child)
                steps += [_step(follow, "action", at, found) for at, found in enumerate(found_steps, 1)]
                steps += [_step(follow, "entity", at, found) for at, found in enumerate(entity, 1) if at > len(own)]
        lane.protected = False
        return steps

    async def _activities(self, workflow_id: str) -> list[tuple[str, str, float]]:
        """Type, summary and limit of each activity that a workflow's newest run scheduled, in order."""
        found = []
        try:
            async for event in self.driver.hubless.client.get_workflow_handle(workflow_id).fetch_history_events():
                if event.event_type != EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                    continue
                given = event.activity_task_scheduled_event_attributes
                summary = event.user_metadata.summary.data.decode().strip('"')
                found.append((given.activity_type.name, summary, given.start_to_close_timeout.ToTimedelta()))
        except RPCError:
            return []
        return [(kind, summary, limit.total_seconds()) for kind, summary, limit in found]

    async def _scheduled(self, workflow_id: str) -> int:
        """How many activities the open run of a workflow has scheduled; 0 when none is open."""
        try:
            found = await self.driver.hubless.client.get_workflow_handle(workflow_id).describe()
        except RPCError:
            return 0
        if found.status is not WorkflowExecutionStatus.RUNNING:
            return 0
        return len(await self._activities(workflow_id))

    # --- one batch ------------------------------------------------------------------------------------------------

    async def batch(self, rows: list[Row], steps: dict[str, Step]) -> dict[str, Result]:
        """Runs rows of one fault of one part at once."""
        chosen = [steps[row.step] for row in rows]
        source, lanes = await self.lanes_for(chosen)
        target = next(cluster for cluster in self.driver.clusters if cluster != source)
        runs = [Run(row, step, lane, source, target) for row, step, lane in zip(rows, chosen, lanes, strict=True)]
        await asyncio.gather(*(self._place(run) for run in runs))
        for patience, seconds in HOLD_SECONDS.items():
            group = [run for run in runs if run.step.patience == patience]
            for run in group:
                run.lane.asked = time.time()
                run.asking = asyncio.create_task(self._person.request(run))
            await self._until_held(group, seconds)
        part, fault = rows[0].part, rows[0].fault
        for run in runs:
            run.held_by = (holding.holder(self.sandbox.directory, run.hold) or "") if run.hold else ""
        held = sum(bool(run.held_by) for run in runs)
        self._say(f"{part}, {fault}: {held} of {len(runs)} actions stand at their steps; breaking it")
        broken_at = time.time()
        mend = await break_part(self.sandbox, self.ways, part, fault, source, target)
        for hold in [hold for run in runs for hold in (run.hold, run.beside) if hold]:
            holding.release(self.sandbox.directory, hold)
        if part == LOST_HISTORY:
            await self._adopt_the_others(lanes)
        finish = self._person.hold_again if part == LOST_HISTORY else self._person.finish
        endings = [asyncio.create_task(finish(run)) for run in runs]
        await asyncio.wait(endings, timeout=AWAY_SECONDS)
        self._say(f"{sum(task.done() for task in endings)} ended while it was away; it comes back")
        await mend()
        await asyncio.gather(*endings)
        self._say("all ended; judging")
        judged = await asyncio.gather(*(self._judge.judge(run, broken_at) for run in runs))
        return {run.row.id: result for run, result in zip(runs, judged, strict=True)}

    async def _place(self, run: Run) -> None:
        """Says at which activity the row's application is to stop."""
        app, step = run.lane.application, run.step
        before = await self._scheduled(run.lane.entity)
        epoch = await self._next_epoch(run.lane)
        if step.where == "entity":
            hold = Hold(workflow_id=run.lane.entity, activity_id=str(before + step.number), when=run.row.when)
        else:
            workflow_id = names.action_id(app.namespace, app.name, step.action.value, epoch)
            hold = Hold(workflow_id=workflow_id, activity_id=str(step.number), when=run.row.when)
        run.hold = hold
        holding.place(self.sandbox.directory, hold)
        if step.activity == "hold_lock":
            run.beside = hold.model_copy(update={"activity_id": str(step.number + 1), "when": "before"})
            holding.place(self.sandbox.directory, run.beside)

    async def _next_epoch(self, lane: Lane) -> int:
        """The number that the next action will claim."""
        if lane.protected:
            status = await patiently(lambda: self.driver.status(lane.application))
            return (status.state.epoch.number if status.state.epoch else 0) + 1
        store = coordination_store(self.sandbox, self.driver.clusters[0])
        try:
            keys = await store.list(names.mirror_prefix(lane.application.namespace, lane.application.name) + "epoch/")
        finally:
            await store.close()
        return max((int(key.rsplit("/", 1)[-1]) for key in keys), default=0) + 1

    async def _until_held(self, group: list[Run], seconds: float) -> None:
        limit = time.monotonic() + seconds
        waiting = list(group)
        while waiting and time.monotonic() < limit:
            waiting = [
                run
                for run in waiting
                if run.hold
                and holding.holder(self.sandbox.directory, run.hold) is None
                and not (run.asking and run.asking.done() and run.refusal)
            ]
            await asyncio.sleep(0.02)

    async def _adopt_the_others(self, lanes: list[Lane]) -> None:
        """Holds every application again that stands in no row of this batch."""
        others = [lane for lane in self.lanes if lane.protected and not lane.broken and lane not in lanes]
        await asyncio.gather(*(self._person.adopt(lane, lane.home, []) for lane in others))


def _step(kind: ActionKind, where: Where, number: int, found: tuple[str, str, float]) -> Step:
    activity, summary, seconds = found
    return Step(action=kind, where=where, number=number, activity=activity, summary=summary, seconds=seconds)
