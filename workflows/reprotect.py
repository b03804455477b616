"""Reprotect: make every other cluster Secondary, clean it, and prove that a later loss would be survivable.

It is a property of state, not of the action that led here (D7): whichever way the application came to serve where it
serves, every other cluster is claimed, demoted, released by its copy of the decision, cleaned and re-protected, in
this order (S6). It gives way to the next action at any time, and parks when a cluster is absent (S14).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.contracts import Gate
    from activities.options import SHORT, STORE, short_within
    from ramen import names
    from ramen.app import ActionKind, Decision, Observed, Role, StoreReport, Volume, Wanted
    from workflows.inputs import ActionInput, ActionResult, Outcome
    from workflows.looks import SILENT
    from workflows.state import demotion_action
    from workflows.steps import Action, Ended, call, failure

T = TypeVar("T")

UPLOAD_CHECK_SECONDS, LONGEST_UPLOAD_CHECK_SECONDS = 5, 300
"""First and longest pause between two looks at the stores: the operator uploads some seconds after its promotion
(vrg.md 3.3). Each look is a dozen events of the history, and an object may be lacking for days."""

UPLOAD_PATIENCE = timedelta(hours=6)
"""Longest time of one action in which an object may be lacking; then it parks, or its history would reach its limit
within weeks. The application's workflow looks again by itself, as for a cluster that is away."""

NOT_YET_SECONDS = (1, 2, 4, 8, 16, 32, 60)
"""Pauses after a step was told that it is too early: conditions are lost for moments (D18), and nobody watches a
clean-up. What lasts for two minutes is no flap and needs a person."""


@workflow.defn(name="Reprotect")
class Reprotect(Action):
    """Cleans and re-protects the clusters that do not serve."""

    kind = ActionKind.REPROTECT

    @workflow.run
    async def run(self, given: ActionInput) -> ActionResult:
        """Ends re-protected, parked for an absent cluster, or superseded."""
        return await self.guarded(self._reprotect)

    def title(self) -> str:
        return f"Clean up and re-protect {self.app.ref}, epoch {self.epoch.number}"

    def facts(self) -> list[str]:
        return [f"{self.app.name} serves on {self.home}; a loss of {self.home} is survivable once this is done"]

    def too_late(self) -> str:
        return "Cleaning up is not aborted; it makes way for a failover or a relocate by itself."

    @property
    def home(self) -> str:
        """The cluster that serves."""
        return self.given.decision.cluster or self.app.preferred_cluster

    async def _reprotect(self) -> ActionResult:
        self.phase("Cleaning up")
        if self.given.policy_changed:
            await self._on(
                self.home,
                f"Give {self.home} the policy's peer classes",
                contracts.refresh_vrg,
                contracts.RefreshVrg(app=self.app, cluster=self.home, epoch=self.epoch),
            )
        for peer in self.app.others(self.home):
            await self._clean(peer)
        expected = self.given.volumes
        if is_claiming := workflow.patched("claims-home"):
            seen = await self._claim_home()
            expected = [] if seen.has_no_volumes else seen.volumes or expected
        decision = Decision(
            cluster=self.home,
            previous=self.given.decision.previous,
            epoch=self.epoch,
            decided_at=self.given.decision.decided_at,
        )
        await self._on(
            self.home,
            f"Release the old side in {self.home}'s decision",
            contracts.publish_decision,
            contracts.PublishDecision(
                app=self.app, cluster=self.home, epoch=self.epoch, decision=decision, require_primary=True
            ),
        )
        cleaned_at = workflow.now()
        self.phase("Re-protecting")
        serving = await self._synchronised(expected)
        while is_claiming and _ids(serving.volumes) != _ids(expected):
            # A volume that came or went meanwhile: what is recorded as protected is what was proven (D16).
            expected = serving.volumes
            serving = await self._synchronised(expected)
        volumes: list[Volume] = serving.volumes
        await self._uploaded(volumes)
        for peer in self.app.others(self.home):
            # The peer keeps the list of volumes, so that a promotion there knows what must be restored (S3).
            await self._write_secondary(peer, serving, f"Record the protected volumes on {peer}")
        self.phase("Protected")
        return ActionResult(
            action=self.kind,
            outcome=Outcome.DONE,
            message=f"{self.app.name} is protected again",
            wanted=self.wanted,
            decision=decision,
            volumes=volumes,
            no_volumes=serving.has_no_volumes,
            cleaned_at=cleaned_at,
            reprotected_at=workflow.now(),
            data_as_of=_last_sync(serving),
            steps=self.rows,
        )

    async def _claim_home(self) -> Observed:
        """The side that serves may not carry this epoch: it was silent when an action claimed it that was aborted."""
        seen = await self._on(
            self.home,
            f"Look at {self.home}",
            contracts.read_vrg,
            contracts.ReadVrg(app=self.app.ref, cluster=self.home),
        )
        if seen.epoch != self.epoch:
            await self._on(
                self.home,
                f"Claim {self.home}",
                contracts.stamp_epoch,
                contracts.StampEpoch(app=self.app.ref, cluster=self.home, epoch=self.epoch, action=self.kind.value),
            )
        return seen

    async def _clean(self, peer: str) -> None:
        claimed = await self._on(
            peer,
            f"Claim {peer}",
            contracts.stamp_epoch,
            contracts.StampEpoch(app=self.app.ref, cluster=peer, epoch=self.epoch, action=self.kind.value),
        )
        action = demotion_action(self.app.ref, claimed)
        self.wanted[peer] = Wanted(role=Role.SECONDARY, epoch=self.epoch, action=action)
        park_after = self.given.timings.await_park_seconds
        write = contracts.WriteVrg(app=self.app, cluster=peer, wanted=self.wanted[peer], volumes=self.given.volumes)
        await self.step(
            f"Demote {peer}",
            lambda: _or_park(peer, self.apply(write, Gate.ACCEPTED_SECONDARY, f"Demote {peer}", park_after=park_after)),
            cluster=peer,
            awaits=f"{peer} to accept the Secondary role",
        )
        await self._on(
            peer,
            f"Release {peer}'s workload",
            contracts.publish_decision,
            contracts.PublishDecision(
                app=self.app,
                cluster=peer,
                epoch=self.epoch,
                decision=Decision(cluster=self.home, epoch=self.epoch),
                require_accepted_secondary=True,
            ),
        )
        if workflow.patched("removes-restored"):
            # Of a promotion that was never decided for nothing was placed here, so GitOps has nothing to take away.
            await self._on(
                peer,
                f"Remove what was restored on {peer}",
                contracts.remove_restored,
                contracts.RemoveRestored(app=self.app, cluster=peer, epoch=self.epoch),
            )
        await self._until(peer, Gate.CLEANED, f"the old pods and volumes of {self.app.name} on {peer} to go")

    async def _write_secondary(self, peer: str, serving: Observed, title: str) -> None:
        await self._on(
            peer,
            title,
            contracts.write_vrg,
            contracts.WriteVrg(
                app=self.app,
                cluster=peer,
                wanted=self.wanted[peer],
                volumes=serving.volumes,
                no_volumes=serving.has_no_volumes,
            ),
        )

    async def _synchronised(self, volumes: list[Volume]) -> Observed:
        awaits = f"a sync of every volume that began after {self.home} was promoted"
        return await self._until(self.home, Gate.REPROTECTED, awaits, volumes)

    async def _uploaded(self, volumes: list[Volume]) -> None:
        """Each volume's PV and PVC objects must be in the store that the peer would restore from (D16, S6).

        What the serving side's own store has lost is uploaded again as well, and not waited for.
        """
        peers = {cluster.s3_profile for cluster in self.app.clusters if cluster.name != self.home}
        asked, pause, began = False, UPLOAD_CHECK_SECONDS, workflow.now()

        async def until_stored() -> list[StoreReport]:
            nonlocal asked, pause
            while True:
                seen = await call(
                    contracts.read_stores,
                    contracts.StoresQuery(app=self.app.ref, profiles=[c.s3_profile for c in self.app.clusters]),
                    queue=names.CONTROL_QUEUE,
                    limits=STORE,
                    summary="Look for the volumes' objects in the stores",
                )
                lacking = lacking_volumes(seen.stores, peers, volumes)
                own = {report.profile for report in seen.stores if report.reachable} - peers
                lost = lacking_volumes(seen.stores, own, volumes)
                if not lacking and not (lost and not asked and workflow.patched("own-store-too")):
                    return seen.stores
                if lacking and any(not report.reachable and report.profile in peers for report in seen.stores):
                    raise Ended(Outcome.PARKED, f"the store of the peer does not answer: {lacking}")
                if not asked:
                    asked = True
                    await self.short(
                        contracts.request_upload,
                        contracts.RequestUpload(app=self.app, cluster=self.home, epoch=self.epoch, volumes=volumes),
                        self.home,
                        SHORT,
                        f"Make {self.home} upload its volumes' objects again",
                    )
                if not lacking:
                    return seen.stores
                if workflow.now() - began > UPLOAD_PATIENCE and workflow.patched("uploads-park"):
                    raise Ended(Outcome.PARKED, f"the objects of volumes are not uploaded: {lacking}")
                self.awaits(f"{lacking} in the store that the peer would restore from")
                await workflow.sleep(pause)
                pause = min(pause * 2, LONGEST_UPLOAD_CHECK_SECONDS)

        await self.step(
            "Find every volume in the peer's store",
            until_stored,
            awaits="the objects of every volume in the store that the peer would restore from",
        )

    # --- a cluster that is not there parks the action ----------------------------------------------

    async def _on(self, cluster: str, title: str, contract: Callable[[Any], Awaitable[T]], arg: Any) -> T:
        limits = short_within(self.given.timings.await_park_seconds)

        async def work() -> T:
            for pause in NOT_YET_SECONDS:
                try:
                    return await _or_park(cluster, self.short(contract, arg, cluster, limits, title))
                except ActivityError as err:
                    kind, line = failure(err)
                    # An activity that fails when it is told to end does not say so: a stop must not be waited over.
                    is_stopped = is_cancelled_exception(err) or self._ending
                    if is_stopped or kind != "NotYet" or not workflow.patched("not-yet-waits"):
                        raise
                self.awaits(line)
                await workflow.sleep(pause)
            return await _or_park(cluster, self.short(contract, arg, cluster, limits, title))

        return await self.step(title, work, cluster=cluster, awaits=f"{cluster} to answer")

    async def _until(self, cluster: str, gate: Gate, awaits: str, volumes: list[Volume] | None = None) -> Observed:
        request = self.awaiting(cluster, gate, volumes)

        async def work() -> Observed:
            park_after, title = self.given.timings.await_park_seconds, f"Wait for {awaits}"
            return await _or_park(cluster, self.wait_patiently(request, title, park_after))

        return await self.step(f"Wait for {awaits}", work, cluster=cluster, awaits=awaits)


def _ids(volumes: list[Volume]) -> set[tuple[str, str]]:
    return {(volume.namespace, volume.name) for volume in volumes}


async def _or_park(cluster: str, work: Awaitable[T]) -> T:
    try:
        return await work
    except ActivityError as err:
        # Nobody asked for a Reprotect, so none waits for a person because a cluster or the workers were away.
        if not is_cancelled_exception(err) and failure(err)[0] in SILENT:
            raise Ended(Outcome.PARKED, f"{cluster} does not answer; goes on when it returns") from err
        raise


def lacking_volumes(stores: list[StoreReport], peers: set[str], volumes: list[Volume]) -> str:
    """Which volumes the peers' stores lack, in one line; empty when they have them all."""
    lines = []
    for report in stores:
        if report.profile not in peers:
            continue
        have = {(volume.namespace, volume.name) for volume in report.volumes}
        lacking = [volume.name for volume in volumes if (volume.namespace, volume.name) not in have]
        if not report.reachable:
            lines.append(f"{report.profile}: {report.error}")
        elif lacking:
            lines.append(f"{report.profile} lacks {', '.join(lacking)}")
    return "; ".join(lines)


def _last_sync(seen: Observed) -> datetime | None:
    text = (seen.vrg or {}).get("status", {}).get("lastGroupSyncTime")
    return datetime.fromisoformat(text) if text else None
