"""What an application's workflow writes to the stores when an action has ended: a copy, never a gate (D8, D13)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.options import SHORT, Limits
    from ramen import names
    from ramen.app import ActionKind
    from workflows import view
    from workflows.inputs import ActionRecord, ActionResult, AppState
    from workflows.steps import call, failure, lock_request

LIMITS = Limits(start_to_close=SHORT.start_to_close, schedule_to_start=timedelta(seconds=60))
"""The mirror waits for a worker a minute and is then written with the next transition."""


async def write(state: AppState, kind: ActionKind, record: ActionRecord, result: ActionResult) -> None:
    """State, decision and history to every store that answers; never a gate (D8, D13)."""
    app, epoch = state.app, state.epoch
    if app is None or epoch is None:
        return
    profiles = [cluster.s3_profile for cluster in app.clusters]
    now = workflow.now()
    document = {
        "spec": app.model_dump(mode="json"),
        "wanted": {cluster: wanted.model_dump(mode="json") for cluster, wanted in state.wanted.items()},
        "volumes": [volume.model_dump() for volume in state.volumes],
        "phase": view.phase(state),
        "progression": view.progression(state),
        "conditions": view.conditions(state, now),
        "observed": {
            "debts": [debt.model_dump(mode="json") for debt in state.debts],
            "protected": {cluster: at.isoformat() for cluster, at in state.protected.items()},
            "last_good": {cluster: at.isoformat() for cluster, at in state.last_good.items()},
        },
        "written_at": now.isoformat(),
    }
    moments = {"serving": result.serving_at, "cleaned": result.cleaned_at, "reprotected": result.reprotected_at}
    began = record.requested_at or now
    # One that was superseded ends when its successor has claimed the next epoch already.
    own = next((issued for issued in state.issued if issued.number == record.epoch), epoch)
    history = {
        "result": f"{result.outcome}: {result.message}",
        "requester": record.requester,
        "reason": record.reason,
        "started_at": began.isoformat(),
        "finished_at": now.isoformat(),
        "times": {fact: (at - began).total_seconds() for fact, at in moments.items() if at},
        "steps": [step.model_dump(mode="json") for step in result.steps],
    }
    try:
        await asyncio.gather(
            call(
                contracts.mirror_state,
                contracts.MirrorState(
                    app=app, epoch=epoch, document=document, decision=state.decision, profiles=profiles
                ),
                queue=names.CONTROL_QUEUE,
                limits=LIMITS,
                summary="Mirror the state",
            ),
            call(
                contracts.append_history,
                contracts.AppendHistory(app=app.ref, epoch=own, action=kind.value, document=history, profiles=profiles),
                queue=names.CONTROL_QUEUE,
                limits=LIMITS,
                summary="Record the action",
            ),
        )
    except ActivityError as err:
        workflow.logger.warning("the mirror was not written: %s", failure(err)[1])


async def release_lock(state: AppState, workflow_id: str) -> None:
    """Gives the lock back at once: the next entity of this name has another epoch and would have to wait."""
    if state.app is None or state.epoch is None:
        return
    try:
        await call(
            contracts.release_lock,
            lock_request(state.app, state.epoch, workflow_id),
            queue=names.CONTROL_QUEUE,
            limits=LIMITS,
            summary="Give the advisory lock back",
        )
    except ActivityError as err:
        workflow.logger.warning("the lock was not given back, it runs out by itself: %s", failure(err)[1])
