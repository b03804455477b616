"""`make chaos`: breaks every part at every step of every action, on real servers, and checks what is true afterwards.

The steps are found in the histories of an undisturbed run. A row is one step and one fault of one part. Many rows run
at once: each has an application of its own, whose action is held at the row's step (`sandbox.holding`); then the part
is broken once for all of them, the steps go on, the part comes back, and every action must come to its end. Judged are
the ledger of writes, every version of every VRG and decision (`sandbox.invariants`), what the status claimed, and what
was left behind. Results are kept in a file, so a run can be stopped and goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from activities.access.s3 import S3Store
from activities.contracts import ProtectRequest
from ramen import names
from ramen.app import ActionKind, AppRef
from ramen.epoch import Epoch
from ramen.errors import HublessError, NotFound
from ramen.recovery import Verdict as Inferred
from ramen.s3layout import LockDocument
from sandbox import holding, invariants, sites
from sandbox.application import Application
from sandbox.driver import POLICY, Driver
from sandbox.holding import Hold, When
from sandbox.lifecycle import Sandbox, together
from sandbox.network import Way, lead_through
from sandbox.processes import ProcessFailed
from sandbox.recorder import Recorder
from sandbox.state import Options, home
from starter import console
from starter.client import Hubless
from starter.failures import Failed, NoWorker, Refused, Stopped
from workflows.inputs import (
    ActionRecord,
    AdoptRequest,
    AdoptResult,
    Answer,
    MoveRequest,
    OperatorRequest,
    Outcome,
    ProtectUpdate,
    UnprotectRequest,
)

BRIEF_SECONDS = 2.0
"""Limit of a look that is no gate: who is held in one gives up soon, so it is asked for last."""

HOLD_SECONDS = {"patient": 30.0, "handler": 10.0, "brief": 2.0}
"""Time for the applications of a batch to reach their steps, by the patience of the step; one that was not reached is
not run. Steps of actions and of the mirror are tried without end, those of a request three times (about 18 s)."""

AWAY_SECONDS = 4.0
"""How long a part stays broken when all actions have not ended before: longer than a gate takes to close."""

END_SECONDS = 150.0
"""Limit for an action, and for all that follows from it, once every part is back; seconds are normal."""

LOOK_SECONDS = 0.25
"""Pause between two looks at an action: dozens of them are watched at once."""

ASK_AGAIN = 3
"""Times that a refused request is made again when the part is back, as a person would."""

Fault = Literal["kill", "freeze", "lose", "cut off"]
Verdict = Literal["passed", "failed", "not run"]
Where = Literal["entity", "action"]
Said = TypeVar("Said")

# --- what can be broken --------------------------------------------------------------------------------------------

LOST_HISTORY = "Temporal with its history"
"""Comes back empty at once; every application, of the row or not, is then adopted with a person's consent."""

COMPLETE = ("worker of the source", "worker of the target", "API server of the source", "API server of the target")
PARTS: dict[str, tuple[str, ...]] = {
    "worker of the source": ("{source}-worker",),
    "worker of the target": ("{target}-worker",),
    "both workers": ("{source}-worker", "{target}-worker"),
    "API server of the source": ("{source}-apiserver",),
    "API server of the target": ("{target}-apiserver",),
    "Temporal": ("temporal",),
    "store of the source": ("{source}-s3",),
    "store of the target": ("{target}-s3",),
    "both stores": ("{source}-s3", "{target}-s3"),
    "site of the source": (),
    "site of the target": (),
    "network from the source to the target": (),
    "network from the target to the source": (),
    LOST_HISTORY: (),
}
"""Processes of each part; `source` is where the application serves before the action. Sites: `sandbox.sites`. The
network between the clusters in one direction: what that side's worker has to do with the other's API server."""


class Step(BaseModel):
    """One activity of an action, as an undisturbed run showed it."""

    action: ActionKind
    where: Where
    """`entity`: scheduled by the application's workflow for this action; `action`: by the action's own."""
    number: int
    """Place among the activities of its workflow since the action was asked for, from 1."""
    activity: str
    summary: str
    seconds: float
    """Its limit from start to close."""

    @property
    def patience(self) -> str:
        """How long its action stays there while it is held; a key of `HOLD_SECONDS`."""
        if self.seconds < BRIEF_SECONDS:
            return "brief"
        late = self.activity in ("mirror_state", "append_history", "release_lock")
        return "patient" if self.where == "action" or late else "handler"

    @property
    def id(self) -> str:
        """Short name in the table and in the state file."""
        return f"{self.action.value}/{self.where}-{self.number:02d}-{self.activity}"


class Row(BaseModel):
    """One step, and one fault of one part at it."""

    step: str
    part: str
    fault: Fault
    when: When

    @property
    def id(self) -> str:
        """Key in the state file."""
        return f"{self.step} | {self.part} | {self.fault} | {self.when}"


class Result(BaseModel):
    """What became of a row."""

    verdict: Verdict
    detail: str = ""
    outcome: str = ""
    took: float = 0.0
    """Seconds from the fault to everything at rest."""
    held_by: str = ""
    """Cluster of the worker in which the step stood."""


class State(BaseModel):
    """All that a later run needs to go on."""

    seed: int
    steps: list[Step] = []
    results: dict[str, Result] = {}

    def save(self, path: Path) -> None:
        """Replaces the file in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(self.model_dump_json(indent=1))
        os.replace(temporary, path)


# --- the plan ------------------------------------------------------------------------------------------------------


def plan(steps: list[Step], seed: int) -> list[Row]:
    """Every row, in the order in which they are run; the same seed gives the same rows.

    Complete: each step times {each worker, each API server, Temporal} killed. The rest is drawn so that each step meets
    each other part once with one of its faults, and a frozen worker, API server or Temporal once: all pairs of step
    and part, step and fault, part and fault, with the side of the step (before, after) drawn anew each time.
    """
    chance = random.Random(seed)
    rows: list[Row] = []

    def add(step: Step, part: str, fault: Fault) -> None:
        when: When = chance.choice(("before", "after"))
        # The lock is held for as long as the action works: after it there is nothing left to stand at.
        when = "before" if step.activity == "hold_lock" else when
        rows.append(Row(step=step.id, part=part, fault=fault, when=when))

    for part in (*COMPLETE, "Temporal"):
        for step in steps:
            add(step, part, "kill")
    frozen = (*COMPLETE, "Temporal")
    for number, step in enumerate(steps):
        add(step, frozen[(number + seed) % len(frozen)], "freeze")
        add(step, "both workers", ("kill", "freeze")[(number + seed) % 2])
        for part in ("store of the source", "store of the target", "both stores"):
            add(step, part, chance.choice(("kill", "freeze")))
        for part in ("site of the source", "site of the target"):
            add(step, part, chance.choice(("lose", "cut off")))
        for part in PARTS:
            if part.startswith("network"):
                add(step, part, "cut off")
        add(step, LOST_HISTORY, "lose")
    return rows


def batches(rows: list[Row], size: int) -> list[list[Row]]:
    """Rows that run at once: one fault of one part, every step at most once, no more than `size`."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.part, row.fault), []).append(row)
    return [group[at : at + size] for group in groups.values() for at in range(0, len(group), size)]


# --- one application in the bench ------------------------------------------------------------------------------------


@dataclass
class Lane:
    """An application that goes from row to row."""

    application: Application
    home: str
    protected: bool = False
    broken: bool = False
    """A row failed on it: it is left as it is, to be looked at."""
    asked: float = 0.0

    @property
    def entity(self) -> str:
        """Workflow ID of the application."""
        return names.entity_id(self.application.namespace, self.application.name)


@dataclass
class Run:
    """One row at work on one lane."""

    row: Row
    step: Step
    lane: Lane
    source: str
    target: str
    hold: Hold | None = None
    beside: Hold | None = None
    """Keeps an action in the middle whose step runs beside the others: the lock's."""
    answer: Answer | None = None
    asking: asyncio.Task[None] | None = None
    refusal: str = ""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    held_by: str = ""


class Bench:
    """Runs rows on one sandbox."""

    def __init__(self, driver: Driver, say: Callable[[str], None]) -> None:
        self.driver = driver
        self.sandbox = driver.sandbox
        self.recorder = Recorder()
        self.ways: dict[tuple[str, str], Way] = {}
        """By cluster of the worker and of the API server: the way from one to the other."""
        self.lanes: list[Lane] = []
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
            await self.sandbox.processes.start(holding_worker(self.sandbox, cluster))
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
            answer = await self._patiently(partial(self._ask, lane, ActionKind.UNPROTECT, lane.home, uuid.uuid4().hex))
            await self.driver.ended(answer, END_SECONDS)
            await self.driver.unprotected(lane.application)

        await asyncio.gather(*(unprotect(lane) for lane in self.lanes if lane.protected))

    # --- lanes ---------------------------------------------------------------------------------------------------

    async def new_lane(self, at: str, protected: bool) -> Lane:
        """Deploys an application in a namespace of its own, and protects it when wanted."""
        self._made += 1
        application = Application.of(f"chaos-{self._made}", "app", volumes=1)
        lane = Lane(application, at)
        await self.driver.deploy(application, at, END_SECONDS)
        if protected:
            await self._protect(lane, at)
            lane.protected = True
            await self._rest(lane)
        self.lanes.append(lane)
        return lane

    async def _protect(self, lane: Lane, at: str) -> None:
        """Protects as a person does on a busy machine: what was refused in a moment's flap is asked for again."""
        limit = time.monotonic() + END_SECONDS
        while True:
            lane.asked, request_id = time.time(), uuid.uuid4().hex
            try:
                answer = await self._patiently(partial(self._ask, lane, ActionKind.DEPLOY, at, request_id))
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

    # --- discovery -----------------------------------------------------------------------------------------------

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
            answer = await self._patiently(partial(self._ask, lane, kind, target, uuid.uuid4().hex))
            await self.driver.ended(answer, END_SECONDS)
            if kind is ActionKind.UNPROTECT:
                await self.driver.unprotected(lane.application)
            else:
                lane.home, lane.protected = target, True
                await self._rest(lane)
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

    # --- one batch -----------------------------------------------------------------------------------------------

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
                run.asking = asyncio.create_task(self._request(run))
            await self._until_held(group, seconds)
        part, fault = rows[0].part, rows[0].fault
        for run in runs:
            run.held_by = (holding.holder(self.sandbox.directory, run.hold) or "") if run.hold else ""
        held = sum(bool(run.held_by) for run in runs)
        self._say(f"{part}, {fault}: {held} of {len(runs)} actions stand at their steps; breaking it")
        broken_at = time.time()
        mend = await self._break(part, fault, source, target)
        for hold in [hold for run in runs for hold in (run.hold, run.beside) if hold]:
            holding.release(self.sandbox.directory, hold)
        if part == LOST_HISTORY:
            await self._adopt_the_others(lanes)
        finish = self._hold_again if part == LOST_HISTORY else self._finish
        endings = [asyncio.create_task(finish(run)) for run in runs]
        await asyncio.wait(endings, timeout=AWAY_SECONDS)
        self._say(f"{sum(task.done() for task in endings)} ended while it was away; it comes back")
        await mend()
        await asyncio.gather(*endings)
        self._say("all ended; judging")
        judged = await asyncio.gather(*(self._judge(run, broken_at) for run in runs))
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
            status = await self._patiently(lambda: self.driver.status(lane.application))
            return (status.state.epoch.number if status.state.epoch else 0) + 1
        store = self._store(self.driver.clusters[0])
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

    async def _break(self, part: str, fault: Fault, source: str, target: str) -> Callable[[], Awaitable[None]]:
        """Breaks a part; returns what mends it."""
        processes = self.sandbox.processes
        if part == LOST_HISTORY:
            await sites.lose_history(self.sandbox)
            return _nothing
        if part.startswith("network"):
            way = self.ways[(source, target) if part.endswith("target") else (target, source)]
            way.cut()

            async def mend() -> None:
                way.mend()

            return mend
        site = source if part == "site of the source" else target
        if fault == "lose":
            await sites.lose(self.sandbox, site)
        elif fault == "cut off":
            await sites.cut_off(self.sandbox, site)
        if fault in ("lose", "cut off"):
            return lambda: _again(lambda: sites.give_back(self.sandbox, site))
        members = [name.format(source=source, target=target) for name in PARTS[part]]
        if fault == "freeze":
            for name in members:
                processes.freeze(name)

            async def thaw() -> None:
                for name in members:
                    processes.thaw(name)

            return thaw
        await together(*(_killed(self.sandbox, name) for name in members))
        # An API server that is gone for long takes its controllers with it; they end by themselves and return with it.
        followers = [
            f"{cluster}-{part}"
            for cluster in (source, target)
            if f"{cluster}-apiserver" in members
            for part in sites.CONTROLLERS
        ]

        async def start() -> None:
            await together(*(_again(lambda name=name: processes.start_again(name)) for name in members))  # type: ignore[misc]
            for name in followers:
                if processes.status(name) == "stopped":
                    await _again(lambda name=name: processes.start_again(name))  # type: ignore[misc]

        return start

    # --- a person ------------------------------------------------------------------------------------------------

    async def _request(self, run: Run) -> None:
        """Asks for what leads to the row's step, again with the same ID while nobody knows whether it started."""
        kind = ActionKind.FAILOVER if run.step.action is ActionKind.REPROTECT else run.step.action
        target = run.source if kind in (ActionKind.DEPLOY, ActionKind.UNPROTECT) else run.target
        request_id = uuid.uuid4().hex
        run.refusal = ""
        try:
            run.answer = await self._patiently(lambda: self._ask(run.lane, kind, target, request_id))
        except (Refused, Failed) as err:
            run.refusal = str(err)

    async def _ask(self, lane: Lane, kind: ActionKind, target: str, request_id: str) -> Answer:
        app, hubless = lane.application, self.driver.hubless
        if kind is ActionKind.DEPLOY:
            spec = {
                "placementRef": {"kind": "Placement", "name": app.placement},
                "drPolicyRef": {"name": POLICY},
                "preferredCluster": target,
                "pvcSelector": {"matchLabels": app.labels},
            }
            request = ProtectRequest(namespace=app.namespace, name=app.name, spec=spec)
            return await hubless.apply(ProtectUpdate(request=request, request_id=request_id), "")
        body: BaseModel = MoveRequest(target=target, request_id=request_id, requester="chaos")
        if kind is ActionKind.UNPROTECT:
            body = UnprotectRequest(request_id=request_id, requester="chaos")
        return await hubless.ask(kind.value.lower(), app.namespace, app.name, body, request_id, "")

    async def _patiently(self, ask: Callable[[], Awaitable[Said]]) -> Said:
        """Asks until somebody answers: on a machine where everything was just broken, nobody may for a while."""
        limit = time.monotonic() + END_SECONDS
        while True:
            try:
                return await ask()
            except (Stopped, RPCError) as err:
                if isinstance(err, Refused | Failed) and not isinstance(err, NoWorker):
                    raise
                if time.monotonic() > limit:
                    raise Failed(f"no answer in {END_SECONDS:.0f} s: {err}") from err
            await asyncio.sleep(LOOK_SECONDS)

    async def _finish(self, run: Run) -> None:
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
            await self._request(run)
        if run.answer is None:
            run.problems.append(f"still refused when everything was back: {run.refusal}")
            return
        run.lane.protected = run.step.action is not ActionKind.UNPROTECT
        outcome = await self._ended(run, run.answer, limit)
        if outcome:
            run.notes.append(outcome)

    # --- a person after the loss of Temporal's history -------------------------------------------------------------

    async def _hold_again(self, run: Run) -> None:
        """Sees a row to its end after its workflows were forgotten: adopts, follows what goes on, asks again."""
        if run.asking:
            await run.asking  # refused, or given up: whatever it started is forgotten
        run.answer, lane = None, run.lane
        held = await self._adopt(lane, run.source, run.notes)
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
                await self._rest(lane)
            lane.asked = time.time()
            await self._request(run)
            await self._finish(run)

    async def _is_held(self, lane: Lane) -> bool:
        """Whether a workflow protects the application."""
        try:
            return (await self.driver.status(lane.application)).state.app is not None
        except (HublessError, Stopped, RPCError):
            return False

    async def _adopt_the_others(self, lanes: list[Lane]) -> None:
        """Holds every application again that stands in no row of this batch."""
        others = [lane for lane in self.lanes if lane.protected and not lane.broken and lane not in lanes]
        await asyncio.gather(*(self._adopt(lane, lane.home, []) for lane in others))

    async def _adopt(self, lane: Lane, named: str, notes: list[str]) -> AdoptResult | None:
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

    # --- what is true afterwards ---------------------------------------------------------------------------------

    async def _judge(self, run: Run, broken_at: float) -> Result:
        lane = run.lane
        problems = run.problems
        if not problems:
            try:
                await self._rest(lane)
            except TimeoutError as err:
                problems.append(str(err))
        if not problems:
            problems += await self._figures(run)
        recording = self.recorder.of(lane.application.namespace)
        problems += invariants.judge(recording)
        self.recorder.forget(lane.application.namespace)
        lane.broken = bool(problems)
        took = time.time() - broken_at
        if problems:
            verdict: Verdict = "failed"
        else:
            verdict = "passed" if run.held_by else "not run"
        notes = ", ".join(dict.fromkeys(run.notes))
        detail = "; ".join(problems) or ("" if run.held_by else "the step was not reached before the fault")
        return Result(verdict=verdict, detail=detail, outcome=notes, took=took, held_by=run.held_by)

    async def _rest(self, lane: Lane) -> None:
        """Waits until nothing is wrong with an application; raises `TimeoutError` with what still is."""
        limit, wrong = time.monotonic() + END_SECONDS, ["nobody looked yet"]
        while time.monotonic() < limit:
            try:
                wrong = await (self._wrong(lane) if lane.protected else self._left_behind(lane))
            except (HublessError, Stopped, RPCError) as err:
                wrong = [str(err)]
            if not wrong:
                return
            await asyncio.sleep(LOOK_SECONDS)
        raise TimeoutError(f"not at rest after {END_SECONDS:.0f} s: {'; '.join(wrong)}")

    async def _wrong(self, lane: Lane) -> list[str]:
        """What keeps a protected application from being at rest: on the servers first, then in the status."""
        app, driver = lane.application, self.driver
        view = await driver.status(app)
        state = view.state
        if view.child or state.superseded:
            return [f"{view.child} runs" if view.child else f"superseded: {state.superseded}"]
        lane.home = state.decision.cluster or lane.home
        other = next(cluster for cluster in driver.clusters if cluster != lane.home)
        wrong = [f"owes {debt.wants} to {debt.cluster}" for debt in state.debts]
        if not state.action or not state.action.reprotected_at:
            wrong.append("not re-protected")
        primary, secondary = await asyncio.gather(driver.vrg(app, lane.home), driver.vrg(app, other))
        if primary is None or secondary is None:
            return [*wrong, "a VRG is missing"]
        roles = primary["spec"]["replicationState"], secondary["spec"]["replicationState"]
        if roles != ("primary", "secondary"):
            wrong.append(f"roles are {roles[0]} on {lane.home}, {roles[1]} on {other}")
        if Epoch.of(primary) != Epoch.of(secondary) or Epoch.of(primary) != state.epoch:
            wrong.append("epochs differ")
        if claims := await driver.claims(app, other):
            wrong.append(f"{', '.join(claims)} left on {other}")
        if (await driver.pods(app, other)).total:
            wrong.append(f"pods left on {other}")
        if not await driver.serves(app, lane.home):
            wrong.append(f"does not serve on {lane.home}")
        ledger = driver.ledger()
        try:
            if different := ledger.divergence(app.namespace, app.name).total:
                wrong.append(f"{different} writes differ between the sides")
        finally:
            ledger.close()
        return wrong or await self._loose_ends(lane)

    async def _loose_ends(self, lane: Lane) -> list[str]:
        """Activities, actions and locks that nobody needs any more."""
        client, app = self.driver.hubless.client, lane.application
        wrong = []
        found = await client.get_workflow_handle(lane.entity).describe()
        if pending := found.raw_description.pending_activities:
            wrong.append(f"{len(pending)} activities of the entity are open")
        store = self._store(lane.home)
        try:
            kept = await store.get(names.lock_key(app.namespace, app.name))
        finally:
            await store.close()
        # One whose holder was killed is never given back: it runs out, and is the next holder's to replace (S13).
        if kept is not None and LockDocument.model_validate_json(kept).expires > datetime.now(UTC):
            wrong.append("the lock is still held")
        return wrong

    async def _left_behind(self, lane: Lane) -> list[str]:
        """What an application that is not protected still has of a protection."""
        app, driver = lane.application, self.driver
        wrong = [f"a VRG is left on {c}" for c in driver.clusters if await driver.vrg(app, c) is not None]
        if not await driver.serves(app, lane.home):
            wrong.append(f"does not serve on {lane.home}")
        try:
            found = await driver.hubless.client.get_workflow_handle(lane.entity).describe()
            if found.status is WorkflowExecutionStatus.RUNNING:
                wrong.append("its workflow is still open")
        except RPCError:
            pass
        return wrong

    async def _figures(self, run: Run) -> list[str]:
        """The ledger's figures of a move, and whether the facts that the status claims were so."""
        lane, app = run.lane, run.lane.application
        wrong: list[str] = []
        recording = self.recorder.of(app.namespace)
        if not lane.protected:
            return wrong
        record = (await self._patiently(lambda: self.driver.status(app))).state.action
        if record is None:
            return ["the status knows of no action"]
        wrong += _claims(recording, record)
        if not record.workflow_id:
            return wrong  # adopted: what moved it here began at a time that nobody knows any more
        if record.outcome is not Outcome.DONE or record.kind not in (ActionKind.FAILOVER, ActionKind.RELOCATE):
            return wrong
        ledger = self.driver.ledger()
        try:
            figures = ledger.switch(app.namespace, app.name, run.lane.asked)
        except NotFound as err:
            return [*wrong, str(err)]
        finally:
            ledger.close()
        if record.kind is ActionKind.RELOCATE and (figures.lost or figures.during_switch or figures.orphaned):
            wrong.append(
                f"ledger: a relocate lost {figures.lost}, wrote {figures.during_switch} during the switch, "
                f"orphaned {figures.orphaned}"
            )
        if figures.lost_older_than_last_sync:
            wrong.append(f"ledger: {figures.lost_older_than_last_sync} writes older than the last sync were lost")
        return wrong

    def _store(self, cluster: str) -> S3Store:
        state = self.sandbox.state
        return S3Store.connect(
            state.clusters[cluster].s3_url, names.COORDINATION_BUCKET, state.s3_access_key, state.s3_secret_key
        )


def _claims(recording: list[invariants.Version], record: ActionRecord) -> list[str]:
    """Whether serving and cleaned were so when the status says that they became so."""
    wrong: list[str] = []
    if record.outcome is Outcome.DONE and record.serving_at and record.target:
        wrong += invariants.serving_was_true(recording, record.target, record.serving_at.timestamp())
    if record.outcome is Outcome.DONE and record.cleaned_at and record.target:
        wrong += invariants.cleaned_was_true(recording, record.target, record.cleaned_at.timestamp())
    return [f"status: {line}" for line in wrong]


def _step(kind: ActionKind, where: Where, number: int, found: tuple[str, str, float]) -> Step:
    activity, summary, seconds = found
    return Step(action=kind, where=where, number=number, activity=activity, summary=summary, seconds=seconds)


def holding_worker(sandbox: Sandbox, cluster: str) -> Any:
    """The worker of a cluster as the sandbox starts it, with holds (`sandbox.holding`)."""
    usual = sandbox.worker_spec(cluster)
    argv = [sys.executable, "-m", "sandbox.holding"]
    return usual.model_copy(update={"argv": argv, "env": {**usual.env, "HUBLESS_SANDBOX_DIR": str(sandbox.directory)}})


async def _nothing() -> None:
    """Mends what came back by itself."""


async def _killed(sandbox: Sandbox, name: str) -> None:
    await sandbox.processes.kill(name)


async def _again(start: Callable[[], Awaitable[Any]]) -> None:
    """Starts something; a server that did not come up on a busy machine is started once more."""
    try:
        await start()
    except ProcessFailed:
        await start()


# --- the command -----------------------------------------------------------------------------------------------------


def table(state: State, rows: list[Row]) -> str:
    """The rows by part and fault, and every one that failed."""
    lines = []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.part, row.fault), []).append(row)
    for (part, fault), members in groups.items():
        found = [state.results.get(row.id) for row in members]
        times = sorted(result.took for result in found if result and result.verdict == "passed")
        counts = [
            sum(bool(result and result.verdict == verdict) for result in found) for verdict in ("passed", "failed")
        ]
        middle = f"{times[len(times) // 2]:.0f} s" if times else "-"
        lines.append([part, fault, str(len(members)), *map(str, counts), str(len(members) - sum(counts)), middle])
    text = console.table(["PART", "FAULT", "ROWS", "PASSED", "FAILED", "NOT RUN", "TO REST, MEDIAN"], lines)
    failed = [
        f"FAILED  {row.id}\n        {result.detail}"
        for row in rows
        if (result := state.results.get(row.id)) and result.verdict == "failed"
    ]
    return "\n".join([text, *failed])


def counts(state: State, rows: list[Row]) -> dict[Verdict, int]:
    """How many rows passed, failed, and were not run."""
    found: dict[Verdict, int] = {"passed": 0, "failed": 0, "not run": 0}
    for row in rows:
        result = state.results.get(row.id)
        found[result.verdict if result else "not run"] += 1
    return found


async def run(path: Path, state: State, seconds: float, size: int, only: str) -> None:
    """Runs what was not run yet until the time is up."""
    with tempfile.TemporaryDirectory(prefix="hubless-chaos-") as directory:
        sandbox = Sandbox(Path(directory), "chaos", say=console.action)
        limit = time.monotonic() + seconds
        try:
            await sandbox.up(Options(delays="zero", lag=1.0))
            os.environ.update(sandbox.environment())
            driver = Driver(sandbox, await Hubless.connect())
            bench = Bench(driver, console.action)
            await bench.begin()
            if not state.steps:
                state.steps = await bench.discover()
                state.save(path)
            steps = {step.id: step for step in state.steps}
            rows = plan(state.steps, state.seed)
            console.action(f"seed {state.seed}: {len(steps)} steps, {len(rows)} rows")
            left = [row for row in rows if only in row.id and _undone(state, row)]
            for group in batches(left, size):
                if time.monotonic() > limit:
                    console.action("the time is up; run it again to go on")
                    break
                results = await bench.batch(group, steps)
                state.results.update(results)
                state.save(path)
                for row_id, result in results.items():
                    if result.verdict != "passed":
                        console.action(f"{result.verdict}: {row_id}: {result.detail}")
            await bench.end()
            await driver.close()
        finally:
            await sandbox.down()


def _undone(state: State, row: Row) -> bool:
    result = state.results.get(row.id)
    return result is None or result.verdict == "not run"


def report(path: Path) -> int:
    """Prints the table; exit code 1 when a row failed, 3 when none did but some were not run, else 0."""
    if not path.exists():
        console.result("no row was run yet")
        return 3
    state = State.model_validate_json(path.read_text())
    rows = plan(state.steps, state.seed)
    console.result(table(state, rows))
    found = counts(state, rows)
    console.result(
        f"seed {state.seed}: {len(rows)} rows, {found['passed']} passed, {found['failed']} failed, "
        f"{found['not run']} not run"
    )
    return 1 if found["failed"] else 3 if found["not run"] else 0


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Breaks every part at every step of every action, and checks.")
    parser.add_argument("--state", type=Path, default=home().parent / "chaos.json", help="where results are kept")
    parser.add_argument("--seed", type=int, help="of a new state file")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no batch after this time")
    parser.add_argument("--apps", type=int, default=16, help="rows of one batch")
    parser.add_argument("--only", default="", help="rows whose name contains this text")
    parser.add_argument("--again", action="store_true", help="run rows again that failed")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    given = parser.parse_args()
    if given.fresh:
        given.state.unlink(missing_ok=True)
    if given.table:
        return report(given.state)
    state = State(seed=random.randrange(1000) if given.seed is None else given.seed)
    if given.state.exists():
        state = State.model_validate_json(given.state.read_text())
    if given.again:
        state.results = {row: result for row, result in state.results.items() if result.verdict != "failed"}
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # answers that come after their limit are nobody's any more
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_stoppable(run(given.state, state, given.seconds, given.apps, given.only)))
    return report(given.state)


async def _stoppable(work: Coroutine[Any, Any, None]) -> None:
    """Ends on TERM as on Ctrl-C: in order, with the sandbox down."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the SDK's threads can crash the interpreter's teardown
