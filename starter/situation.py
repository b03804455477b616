"""Everything that is known of one application at this moment, gathered once: its own view and a live look."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from activities.contracts import ClusterHealth
from ramen.app import AppRef, Observed, PodCount
from starter import looks
from starter.client import Hubless
from starter.durations import moment_of
from starter.failures import Stopped
from workflows.inputs import ActionRecord, Outcome, StatusView, StepsView, Waiting


@dataclass
class Situation:
    """One application: what its workflow says, what its action waits for, what each cluster shows now."""

    view: StatusView
    steps: StepsView | None = None
    obstacle: str = ""
    """Why the running action's step does not get on, in the words of whoever waits; only where it was asked for."""
    seen: dict[str, Observed] = field(default_factory=dict)
    remembered: dict[str, Observed] = field(default_factory=dict)
    """What a watch last saw of the clusters that do not answer."""
    health: dict[str, ClusterHealth] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The DRPC's namespace."""
        return self.view.state.namespace

    @property
    def name(self) -> str:
        """The DRPC's name."""
        return self.view.state.name

    @property
    def where(self) -> str:
        """`shop -n web`, as it is typed after a verb."""
        return f"{self.name} -n {self.namespace}"

    @property
    def clusters(self) -> list[str]:
        """Clusters of the policy, in its order."""
        return self.view.state.app.cluster_names if self.view.state.app else []

    @property
    def serving(self) -> str | None:
        """The cluster that the decision names."""
        return self.view.state.decision.cluster

    @property
    def epoch(self) -> int | None:
        """Number of the newest epoch."""
        return self.view.state.epoch.number if self.view.state.epoch else None

    @property
    def action(self) -> ActionRecord | None:
        """The action that runs, or the last one."""
        return self.view.state.action

    @property
    def serving_since(self) -> datetime | None:
        """When the application began to serve where it serves; an aborted relocate made its source serve again."""
        state = self.view.state
        for record in reversed([*state.history, *([state.action] if state.action else [])]):
            serves = record.source if record.outcome is Outcome.ABORTED else record.target
            if record.serving_at and serves == self.serving:
                return record.serving_at
        return state.decision.decided_at

    @property
    def pods(self) -> PodCount:
        """Pods that mount the protected volumes on the serving cluster, by the live look; none when it is silent."""
        seen = self.seen.get(self.serving or "")
        return seen.pods if seen and seen.reachable else PodCount()

    @property
    def runs(self) -> bool:
        """Whether all its pods are Ready; only then may the words `the application runs` be said."""
        return self.pods.ready == self.pods.total > 0

    @property
    def waiting(self) -> Waiting | None:
        """What is awaited: by the action that runs, else the oldest debt of an absent cluster."""
        if self.steps and self.steps.waiting:
            return self.steps.waiting
        debts = [debt for debt in self.view.state.debts if not self.view.child]
        if debts:
            oldest = min(debts, key=lambda debt: debt.since)
            return Waiting(reason=f"{oldest.cluster} to come back", cluster=oldest.cluster, since=oldest.since)
        return None

    @property
    def needs_you(self) -> str:
        """The decision that only a person can take, with the command; empty while none is asked for."""
        return (self.steps.needs_operator if self.steps else "") or self.view.state.interrupted

    @property
    def last_sync(self) -> datetime | None:
        """Begin of the last completed sync of the whole application, as the serving cluster reports it."""
        seen = self.seen.get(self.serving or "")
        status = ((seen.vrg if seen else None) or {}).get("status") or {}
        drpc = self.view.drpc.get("status") or {}
        return moment_of(status.get("lastGroupSyncTime")) or moment_of(drpc.get("lastGroupSyncTime"))

    @property
    def unproven_volumes(self) -> list[str]:
        """Volumes that the serving cluster has by the live look and that no proof of a good copy covered yet (D16)."""
        seen = self.seen.get(self.serving or "")
        proven = {(volume.namespace, volume.name) for volume in self.view.state.volumes}
        return [v.name for v in (seen.volumes if seen else []) if (v.namespace, v.name) not in proven]

    def copy_as_of(self, cluster: str) -> datetime | None:
        """The newest time up to which that cluster's copy is known to hold everything; None when not known."""
        known = [self.view.state.last_good.get(cluster)]
        if cluster in self.view.state.protected or cluster not in self.view.state.last_good:
            known.append(self.last_sync)
        times = [moment for moment in known if moment]
        return max(times) if times else None


async def gather(hubless: Hubless, namespace: str, name: str, *, live: bool = True) -> Situation:
    """Asks the application's workflow, its running action and, if `live`, every cluster.

    Raises `Refused` for an unknown application, `NoWorker` when nobody answers for it.
    """
    view = await hubless.status(namespace, name)
    steps: StepsView | None = None
    if view.child:
        try:
            steps = await hubless.steps(view.child)
        except Stopped:
            # The action may have ended between the two queries; its waits are then no longer true.
            steps = None
    found = Situation(view=view, steps=steps)
    if live:
        await asyncio.gather(ask_obstacle(hubless, found), look_at(hubless, found))
    return found


async def ask_obstacle(hubless: Hubless, found: Situation) -> None:
    """Adds what holds the present wait up."""
    if found.waiting and found.view.child:
        found.obstacle = await hubless.obstacle(found.view.child)


async def look_at(hubless: Hubless, found: Situation, clusters: list[str] | None = None) -> None:
    """Adds a live look at the clusters of the policy, or at some of them."""
    app = AppRef(namespace=found.namespace, name=found.name)
    wanted = found.clusters if clusters is None else clusters
    found.seen, found.health = await asyncio.gather(
        looks.look_everywhere(hubless.client, app, wanted), looks.health_by_name(hubless.client)
    )
    silent = [name for name, seen in found.seen.items() if not seen.reachable]
    memories = await asyncio.gather(*(looks.last_seen(hubless.client, app, name) for name in silent))
    found.remembered = {memory.cluster: memory for memory in memories if memory}
