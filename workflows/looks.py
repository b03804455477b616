"""How an application's workflow looks at clusters and stores before it answers a request.

A cluster that does not answer is unknown, never absent (D10). How long one is waited for depends on whether it is
needed (S12) or being left (D12).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.options import STORE, Limits, look, short_within
    from ramen import names
    from ramen.app import AppSpec, Observed, Volume
    from workflows.inputs import Timings
    from workflows.steps import call, failure

SHORT_LOOK = 0.25
"""Seconds for a look at a side whose watch is broken on the answering worker: another worker may still reach it."""

SETTLE_LOOKS = 2
SETTLE_SECONDS = 1.0
"""Further looks at a target whose state is lost, and the pause before each: the operator's next pass brings it back
within a second or so (vrg.md 2.3), and nobody is refused a failover for a moment's flap (D18)."""

SILENT = ("NotServed", "TimedOut", "ClusterUnreachable", "GateClosed", "ServerBusy")
"""Failures of a look that say nothing about the object: the cluster gave no answer (D10)."""

NOBODY_SAYS = "no worker said in time what it remembers"
"""Tells workers that are busy from one that knows that a cluster does not answer (S12)."""

HANDLER_SECONDS = 8.0
"""Time for what a handler must read before it answers; the command line gives up after 10 s (S15)."""


class Looks:
    """Looks at the clusters and stores of one application."""

    def __init__(self, app: AppSpec, timings: Timings) -> None:
        self._app = app
        self._timings = timings

    async def read(self, cluster: str, limits: Limits, *, is_left: bool = False) -> Observed:
        """One look at a cluster; one that does not answer is unknown, never absent (D10).

        So is a side that `is_left` and answers with an error: lost rights or CRDs are a reason to leave it (D12).
        """
        try:
            return await call(
                contracts.read_vrg,
                contracts.ReadVrg(app=self._app.ref, cluster=cluster),
                queue=names.cluster_queue(cluster),
                limits=limits,
                summary=f"Look at {cluster}",
                # A read that is not needed any more may end when it likes.
                cancellation=ActivityCancellationType.TRY_CANCEL,
            )
        except ActivityError as err:
            if is_cancelled_exception(err):
                raise asyncio.CancelledError from err
            kind, line = failure(err)
            if kind not in SILENT and not is_left:
                raise
            reason = f"no worker reaches {cluster}" if kind == "NotServed" else line
            return Observed(cluster=cluster, reachable=False, error=reason, at=workflow.now())

    async def settled(
        self, target: str, is_unsettled: Callable[[Observed], bool], seconds: float = HANDLER_SECONDS
    ) -> Observed:
        """A look at a target; one that is no valid target for a moment is looked at again before it is refused."""
        seen = await self.busy(target, seconds)
        for _ in range(SETTLE_LOOKS):
            if not is_unsettled(seen):
                break
            await workflow.sleep(SETTLE_SECONDS)
            seen = await self.busy(target, seconds)
        return seen

    async def busy(self, cluster: str, seconds: float) -> Observed:
        """A look at a cluster that is needed: busy is not unreachable (S12).

        When nobody took the look in time although a worker's watch of the cluster is alive, many others want something
        of it now, and the look waits its turn. It does as well when nobody has the time to say what the watch shows.
        """
        seen = await self.read(cluster, short_within(seconds))
        if seen.reachable:
            return seen
        known = await self.last_seen(cluster, HANDLER_SECONDS)
        if not known.reachable and known.error != NOBODY_SAYS:
            return seen
        return await self.read(cluster, short_within(self._timings.slot_seconds))

    async def survey(self, cluster: str) -> contracts.SurveyResult:
        """A look at a cluster before an application is protected."""
        try:
            return await call(
                contracts.survey_cluster,
                contracts.Survey(app=self._app, cluster=cluster),
                queue=names.cluster_queue(cluster),
                limits=short_within(self._timings.look_seconds * 3),
                summary=f"Look at {cluster}",
            )
        except ActivityError as err:
            kind, line = failure(err)
            if kind not in SILENT:
                raise
            return contracts.SurveyResult(
                observed=Observed(cluster=cluster, reachable=False, error=line, at=workflow.now())
            )

    async def left(self, cluster: str) -> tuple[Observed, Observed]:
        """A look at a side that is being left, and what was last seen there; one that is silent gets a short grace.

        Where the answering worker's watch of the cluster is broken, the look is given up soon (D12).
        """
        reading = asyncio.create_task(self.read(cluster, look(self._timings.look_seconds), is_left=True))
        known = await self.last_seen(cluster)
        if not known.reachable and not reading.done():
            reading.cancel()
        await asyncio.wait([reading])
        if reading.cancelled():
            return known.model_copy(update={"reachable": False, "vrg": None, "at": workflow.now()}), known
        return reading.result(), known

    async def last_seen(self, cluster: str, seconds: float | None = None) -> Observed:
        """What the watches of a worker show of a cluster; `NOBODY_SAYS` as its error when no worker said it in time."""
        try:
            return await call(
                contracts.last_seen,
                contracts.LastSeen(app=self._app.ref, cluster=cluster, grace_seconds=SHORT_LOOK),
                queue=names.CONTROL_QUEUE,
                limits=look(seconds or self._timings.look_seconds),
                summary=f"Recall what {cluster} showed last",
            )
        except ActivityError as err:
            nobody = failure(err)[0] in ("NotServed", "TimedOut")
            return Observed(cluster=cluster, reachable=False, error=NOBODY_SAYS if nobody else "nothing remembered")

    async def stores(self, enough: list[Volume]) -> contracts.StoresSeen:
        """What each store could restore; once the volumes `enough` are found, nobody is waited for beyond a second."""
        return await call(
            contracts.read_stores,
            contracts.StoresQuery(
                app=self._app.ref, profiles=[cluster.s3_profile for cluster in self._app.clusters], enough=enough
            ),
            queue=names.CONTROL_QUEUE,
            limits=STORE,
            summary="Look at the stores",
        )
