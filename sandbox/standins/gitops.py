"""Process that plays GitOps on one cluster of the sandbox: `python -m sandbox.standins.gitops`.

It follows the PlacementDecision objects of its own cluster, as an Argo CD ApplicationSet with a cluster decision
resource generator would, and knows nothing of Hubless: an application runs here while a decision names this cluster,
for whatever reason, and is pruned with its PVCs while a decision exists that does not. Without a decision object it
leaves the application as it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from activities.access.protocol import ClusterAccess, Object
from ramen.kinds import DEPLOYMENT, PLACEMENT_DECISION, PVC
from ramen.names import PLACEMENT_LABEL
from sandbox.application import Application, ensure, registered
from sandbox.ledger import Ledger
from sandbox.standins import runtime
from sandbox.standins.runtime import Mirror, Name, Next, WorkQueue, name_of

log = logging.getLogger(__name__)

REGISTER_SECONDS = 1.0
"""Between two looks at the folder of registered applications; a new one is applied after at most this."""

BACK_OFF_FIRST, BACK_OFF_LAST, BACK_OFF_FLOOR = 0.2, 5.0, 0.2
"""Seconds between attempts at an application that could not be applied or pruned."""


class GitOps:
    """Applies and prunes the registered applications of one cluster."""

    def __init__(self, access: ClusterAccess, directory: Path) -> None:
        self._access = access
        self._directory = directory
        self._ledger = Ledger.open(directory)
        self._applications: dict[Name, Application] = {}
        self._seen: dict[Name, list[Object]] = {}
        self._decisions = Mirror(access, PLACEMENT_DECISION, self._decided)
        self._deployments = Mirror(access, DEPLOYMENT, self._moved)
        self._claims = Mirror(access, PVC, self._moved)
        self._mirrors = (self._decisions, self._deployments, self._claims)
        self._queue: WorkQueue[Name] = WorkQueue(
            self._pass, runtime.growing(BACK_OFF_FIRST, BACK_OFF_LAST, BACK_OFF_FLOOR)
        )

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run: one watch per kind, the look at the folder, and the queue."""
        return [*(mirror.run() for mirror in self._mirrors), self._register(), self._work()]

    def close(self) -> None:
        """Closes the ledger."""
        self._ledger.close()

    async def _work(self) -> None:
        await asyncio.gather(*(mirror.synced.wait() for mirror in self._mirrors))
        log.info("follows the decisions on %s", self._access.name)
        await self._queue.run()

    async def _register(self) -> None:
        while True:
            found = await asyncio.to_thread(registered, self._directory)
            now = {(application.namespace, application.name): application for application in found}
            self._queue.add_all(key for key, application in now.items() if self._applications.get(key) != application)
            self._applications = now
            await asyncio.sleep(REGISTER_SECONDS)

    # --- who is woken by what ----------------------------------------------

    def _decided(self, before: Object | None, after: Object | None) -> None:
        placement = _placement(after or before or {})
        namespace, _ = name_of(after or before or {})
        for key, application in self._applications.items():
            if key[0] == namespace and application.placement == placement:
                self._queue.add(key)

    def _moved(self, before: Object | None, after: Object | None) -> None:
        meta = (after or before or {})["metadata"]
        key = (meta.get("namespace", ""), (meta.get("labels") or {}).get("app", ""))
        if key in self._applications:
            self._queue.add(key)

    # --- one application ----------------------------------------------

    async def _pass(self, key: Name) -> Next:
        application = self._applications.get(key)
        if application is None:
            return None
        decisions = self._decisions_for(application)
        if decisions is None:
            return None
        self._record(application, decisions)
        if any(entry["clusterName"] == self._access.name for entry in decisions):
            await self._apply(application)
        else:
            await self._prune(application)
        return None

    def _decisions_for(self, application: Application) -> list[Object] | None:
        """What the decision objects say; None when there is none."""
        found = [
            body for body in self._decisions.within(application.namespace) if _placement(body) == application.placement
        ]
        if not found:
            return None
        return [entry for body in found for entry in (body.get("status") or {}).get("decisions") or []]

    def _record(self, application: Application, decisions: list[Object]) -> None:
        key = (application.namespace, application.name)
        if self._seen.get(key) == decisions:
            return
        self._seen[key] = decisions
        self._ledger.add_event(
            time.time(),
            "decision",
            self._access.name,
            application.name,
            application.namespace,
            {"decisions": decisions},
        )
        self._ledger.commit()

    async def _apply(self, application: Application) -> None:
        have = self._deployments.get(application.name, application.namespace)
        claims = [self._claims.get(name, application.namespace) for name in application.claim_names]
        if have is None or not all(claims):
            created = await ensure(self._access, application)
            if created:
                log.info("%s/%s: applied %s", application.namespace, application.name, ", ".join(created))

    async def _prune(self, application: Application) -> None:
        """Deletes what was applied here, the Deployment last: as long as it exists, the application is ours.

        PVCs without it are not: a promotion restores them before any decision names this cluster.
        """
        if self._deployments.get(application.name, application.namespace) is None:
            return
        for mirror, names in ((self._claims, application.claim_names), (self._deployments, [application.name])):
            for name in names:
                body = mirror.get(name, application.namespace)
                if body is None or "deletionTimestamp" in body["metadata"]:
                    continue
                await self._access.delete(mirror.kind, name, application.namespace, uid=body["metadata"]["uid"])
                log.info("%s/%s: pruned %s %s", application.namespace, application.name, mirror.kind.kind, name)


def _placement(decision: Object) -> str:
    labels: dict[str, str] = decision.get("metadata", {}).get("labels") or {}
    return labels.get(PLACEMENT_LABEL, "")


async def run(options: runtime.Options) -> None:
    """Plays GitOps on one cluster until SIGTERM."""
    access = await runtime.connect(options.directory, options.cluster, "gitops")
    gitops = GitOps(access, options.directory)
    try:
        await runtime.until_stopped(gitops.loops())
    finally:
        gitops.close()
        await access.close()


if __name__ == "__main__":
    runtime.configure_logging()
    asyncio.run(run(runtime.parse("Stand-in for GitOps that follows PlacementDecisions")))
