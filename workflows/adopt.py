"""Adopt: hold an application again that no workflow holds, after a loss of Temporal or from a Ramen hub (design 9).

Run once without consent it only looks and says what it infers; with consent it claims a new epoch, starts the entity
from what the clusters and stores show, and lets it go on with what was cut off. Running workloads are not touched:
until the entity acts by itself or on request, an epoch is all that is written.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities import contracts
    from activities.options import STORE, short_within
    from ramen import names
    from ramen.app import AppSpec, Decision, Observed
    from ramen.desired import is_released
    from ramen.epoch import Epoch
    from ramen.recovery import Evidence, Inference, Verdict, given_back, infer, told
    from workflows import adoption, view
    from workflows.inputs import WORKFLOW_TASK_TIMEOUT, AdoptRequest, AdoptResult, ClusterSignal, MoveRequest
    from workflows.steps import call, failure, lock_request

LOOK_SECONDS = 5.0
"""An adoption is no race: a cluster that is slow to answer must not be taken for a silent one."""


@workflow.defn(name="Adopt")
class Adopt:
    """Infers what an application is doing, and with consent holds it again."""

    @workflow.run
    async def run(self, given: AdoptRequest) -> AdoptResult:
        """Raises `Refused` for an application that is held already, or that nothing is known of."""
        entity = await call(
            contracts.describe_entity,
            given.app,
            queue=names.CONTROL_QUEUE,
            limits=STORE,
            summary=f"Ask Temporal for {given.app}",
        )
        if entity.is_open and not entity.superseded and not entity.is_empty:
            raise _refused(
                f"{given.app.name} is held already: there is nothing to adopt. "
                f"See: hubless status {given.app.name} -n {given.app.namespace}"
            )
        mirror = await call(
            contracts.read_mirror,
            contracts.ReadMirror(app=given.app),
            queue=names.CONTROL_QUEUE,
            limits=STORE,
            summary="Read what the stores say",
        )
        app = await self._application(given, mirror)
        looks = list(await asyncio.gather(*(self._look(app, cluster) for cluster in app.cluster_names)))
        if given.policy:
            # A hub drove it: what the stores say of decisions and proofs is older than what it did (S2).
            mirror = mirror.model_copy(update={"state": None, "decision": None})
        elif view.was_given_back(mirror.state) or any(is_released(look.vrg) for look in looks):
            return AdoptResult(inference=given_back(given.app, app.policy), clusters=adoption.in_words(looks))
        placed = await asyncio.gather(*(self._placed(app, look) for look in looks if look.reachable))
        seen = Evidence(
            app=given.app,
            looks=looks,
            placed=dict(placed),
            claim=mirror.newest_epoch,
            decided=mirror.decision.cluster if mirror.decision else None,
            decided_at=mirror.decision.epoch if mirror.decision else None,
            silent_stores=tuple(report.profile for report in mirror.stores if not report.reachable),
        )
        if given.serving and given.serving not in app.cluster_names:
            raise _refused(f"{given.serving} is not a cluster of policy {app.policy} ({', '.join(app.cluster_names)}).")
        found = told(seen, given.serving) if given.serving else infer(seen)
        result = AdoptResult(inference=found, clusters=adoption.in_words(looks))
        workflow.set_current_details(f"**{found.verdict}** {found.serving}\n\n- {found.why}\n- {found.plan}")
        if not given.consent or found.verdict in (Verdict.ASK, Verdict.NOTHING):
            return result
        if given.shown is not None and (given.shown.verdict, given.shown.serving) != (found.verdict, found.serving):
            return result  # consent was given to something else
        return await self._hold(given, app, found, looks, mirror, result)

    async def _hold(
        self,
        given: AdoptRequest,
        app: AppSpec,
        found: Inference,
        looks: list[Observed],
        mirror: contracts.MirrorSeen,
        result: AdoptResult,
    ) -> AdoptResult:
        """Claims the next epoch, on the stores and on every VRG in reach, and starts the entity under it (S1)."""
        before = found.epoch or Epoch(number=0, token="none")
        claimed = await call(
            contracts.claim_epoch,
            contracts.ClaimEpoch(
                app=app.ref,
                number=before.number + 1,
                action="Adopt",
                request_id=workflow.info().run_id,
                profiles=[cluster.s3_profile for cluster in app.clusters],
                lock=lock_request(app, before, workflow.info().workflow_id, given.break_lock),
            ),
            queue=names.CONTROL_QUEUE,
            limits=STORE,
            summary=f"Take the advisory lock and claim epoch {before.number + 1}",
        )
        # Only now: a claim that is refused must leave the application as it was.
        await call(
            contracts.end_entity,
            contracts.EndEntity(app=given.app, reason=f"adopted anew by {given.requester or 'somebody'}"),
            queue=names.CONTROL_QUEUE,
            limits=STORE,
            summary="End what is left of old workflows",
        )
        claimable = [look for look in looks if look.reachable and look.vrg]
        stamped = await asyncio.gather(*(self._stamp(app, look.cluster, claimed.epoch) for look in claimable))
        # From here on nothing of an older epoch writes a VRG. Until now an action could that was left running.
        changed = adoption.changed_since(claimable, stamped)
        if changed and workflow.patched("judged-again"):
            raise _refused(
                f"{given.app.name} changed while it was being adopted, on {', '.join(changed)}. "
                "An action that was still running writes nothing any more. "
                f"Look again: hubless adopt {given.app.name} -n {given.app.namespace}"
            )
        state = adoption.state_of(app, found, looks, mirror, claimed.epoch, workflow.now())
        entity_id = names.entity_id(app.namespace, app.name)
        entity = await workflow.start_child_workflow(
            "DRPlacementControl",
            state,
            id=entity_id,
            task_queue=names.CONTROL_QUEUE,
            parent_close_policy=ParentClosePolicy.ABANDON,
            task_timeout=WORKFLOW_TASK_TIMEOUT,
            static_summary=f"Protects {app.name} in namespace {app.namespace}",
        )
        if found.verdict is Verdict.ADOPT:
            await entity.signal("cluster_returned", ClusterSignal(cluster=found.serving, reason="adopted"))
            return result.model_copy(update={"adopted": True, "epoch": claimed.epoch.number})
        answer = await call(
            contracts.forward_request,
            contracts.ForwardRequest(
                app=app.ref,
                action="failover",
                request=MoveRequest(
                    target=found.serving,
                    requester=given.requester,
                    reason=given.reason or f"adopted: {found.why}",
                    accept_data_loss=True,
                ).model_dump(mode="json"),
                request_id=f"{workflow.info().run_id}/{found.verdict}",
            ),
            queue=names.CONTROL_QUEUE,
            limits=STORE,
            summary=f"Go on towards {found.serving}",
        )
        return result.model_copy(
            update={"adopted": True, "epoch": answer["epoch"], "workflow_id": answer["workflow_id"]}
        )

    async def _stamp(self, app: AppSpec, cluster: str, epoch: Epoch) -> Observed:
        return await call(
            contracts.stamp_epoch,
            contracts.StampEpoch(app=app.ref, cluster=cluster, epoch=epoch, action="Adopt", clusters=app.cluster_names),
            queue=names.cluster_queue(cluster),
            limits=short_within(LOOK_SECONDS),
            summary=f"Claim the VRG on {cluster}",
        )

    async def _application(self, given: AdoptRequest, mirror: contracts.MirrorSeen) -> AppSpec:
        """The application as the stores have it; one that they do not know is made from a VRG and its policy."""
        if mirror.state and mirror.state.get("spec") and not given.policy:
            return AppSpec.model_validate(mirror.state["spec"])
        silent = [f"{report.profile} ({report.error})" for report in mirror.stores if not report.reachable]
        also = f" Stores that do not answer: {', '.join(silent)}." if silent else ""
        if not given.policy:
            raise _refused(
                f"no store that answers knows {given.app.name}.{also} Bring one back, or name its DRPolicy: "
                f"hubless adopt {given.app.name} -n {given.app.namespace} --policy POLICY"
            )
        health = await workflow.execute_activity(
            contracts.list_health,
            task_queue=names.CONTROL_QUEUE,
            start_to_close_timeout=STORE.start_to_close,
            summary="Ask which clusters there are",
        )
        looks = await asyncio.gather(*(self._look(given, known.cluster) for known in health))
        request = adoption.request_of(given, list(looks))
        if request is None:
            raise _refused(f"no cluster that answers has a VRG {given.app}: there is nothing to adopt.{also}")
        if volumes := adoption.replicated_by_volsync(list(looks)):
            raise _refused(
                f"{', '.join(volumes)} of {given.app} {'is' if len(volumes) == 1 else 'are'} protected with VolSync, "
                "which is not carried in this release. Nothing was changed."
            )
        return await call(
            contracts.resolve_application,
            request,
            queue=names.CONTROL_QUEUE,
            limits=STORE,
            summary=f"Resolve policy {given.policy}",
        )

    async def _look(self, of: AppSpec | AdoptRequest, cluster: str) -> Observed:
        app = of.app if isinstance(of, AdoptRequest) else of.ref
        try:
            return await call(
                contracts.read_vrg,
                contracts.ReadVrg(app=app, cluster=cluster),
                queue=names.cluster_queue(cluster),
                limits=short_within(LOOK_SECONDS),
                summary=f"Look at {cluster}",
            )
        except ActivityError as err:
            return Observed(cluster=cluster, reachable=False, error=failure(err)[1], at=workflow.now())

    async def _placed(self, app: AppSpec, look: Observed) -> tuple[str, str | None]:
        decision: Decision = await call(
            contracts.read_decision,
            contracts.ReadDecision(app=app.ref, placement=app.placement, cluster=look.cluster),
            queue=names.cluster_queue(look.cluster),
            limits=short_within(LOOK_SECONDS),
            summary=f"Read the decision on {look.cluster}",
        )
        return look.cluster, decision.cluster


def _refused(text: str) -> ApplicationError:
    return ApplicationError(text, type="Refused", non_retryable=True)
