"""What is true of an application after a row: on the servers, in the ledger, and in what the status claimed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from activities.access.s3 import S3Store
from ramen import names
from ramen.app import ActionKind
from ramen.epoch import Epoch
from ramen.errors import HublessError, NotFound
from ramen.s3layout import LockDocument
from sandbox import invariants
from sandbox.chaos.lanes import END_SECONDS, LOOK_SECONDS, Lane, Run, patiently
from sandbox.chaos.plan import Result, Verdict
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from sandbox.recorder import Recorder
from starter.failures import Stopped
from workflows.inputs import ActionRecord, Outcome


class Judge:
    """Judges rows by the servers, the recorder and the ledger."""

    def __init__(self, driver: Driver, recorder: Recorder, records: Path | None = None) -> None:
        """`records`: where the recorded versions of each row that failed are written."""
        self.driver = driver
        self.recorder = recorder
        self._records = records

    async def judge(self, run: Run, broken_at: float) -> Result:
        """The verdict on a row whose action has ended; `broken_at` is wall time in seconds."""
        lane = run.lane
        problems = run.problems
        if not problems:
            try:
                await self.rest(lane)
            except TimeoutError as err:
                problems.append(str(err))
        if not problems:
            problems += await self._figures(run)
        recording = self.recorder.of(lane.application.namespace)
        problems += invariants.judge(recording)
        if problems and self._records is not None:
            self._keep(run, problems, recording)
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

    async def rest(self, lane: Lane) -> None:
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
        store = coordination_store(self.driver.sandbox, lane.home)
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

    def _keep(self, run: Run, problems: list[str], recording: list[invariants.Version]) -> None:
        """Writes what a failed row is to be understood by: every version of its objects, and when it was written."""
        assert self._records is not None
        self._records.mkdir(parents=True, exist_ok=True)
        found = {
            "row": run.row.id,
            "problems": problems,
            "gaps": self.recorder.gaps,
            "versions": [
                {"at": v.at, "cluster": v.cluster, "kind": v.kind, "event": v.event, "object": v.obj} for v in recording
            ],
        }
        name = re.sub(r"\W+", "-", run.row.id)
        (self._records / f"{name}.json").write_text(json.dumps(found, indent=1))

    async def _figures(self, run: Run) -> list[str]:
        """The ledger's figures of a move, and whether the facts that the status claims were so."""
        lane, app = run.lane, run.lane.application
        wrong: list[str] = []
        recording = self.recorder.of(app.namespace)
        if not lane.protected:
            return wrong
        record = (await patiently(lambda: self.driver.status(app))).state.action
        if record is None:
            return ["the status knows of no action"]
        wrong += _claims(recording, record)
        if not record.workflow_id:
            return wrong  # adopted: what moved it here began at a time that nobody knows any more
        if record.outcome is not Outcome.DONE or record.kind not in (ActionKind.FAILOVER, ActionKind.RELOCATE):
            return wrong
        there = [version for version in invariants.vrgs(recording) if version.cluster == record.target]
        stayed = bool(there) and all(version.role == invariants.PRIMARY for version in there)
        if stayed and record.kind is ActionKind.FAILOVER:
            return wrong  # brought back before its relocate had taken anything from it: nothing was promoted
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


def _claims(recording: list[invariants.Version], record: ActionRecord) -> list[str]:
    """Whether serving and cleaned were so when the status says that they became so."""
    wrong: list[str] = []
    if record.outcome is Outcome.DONE and record.serving_at and record.target:
        wrong += invariants.serving_was_true(recording, record.target, record.serving_at.timestamp())
    if record.outcome is Outcome.DONE and record.cleaned_at and record.target:
        wrong += invariants.cleaned_was_true(recording, record.target, record.cleaned_at.timestamp())
    return [f"status: {line}" for line in wrong]


def coordination_store(sandbox: Sandbox, cluster: str) -> S3Store:
    """The coordination bucket of a cluster; the caller closes it."""
    state = sandbox.state
    return S3Store.connect(
        state.clusters[cluster].s3_url, names.COORDINATION_BUCKET, state.s3_access_key, state.s3_secret_key
    )
