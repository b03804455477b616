"""Drives applications in a sandbox as a person would, and says what the servers show, not what a status claims.

Shared by the demo, the benchmark and the scenario tests, so that all three mean the same by "serving" or "protected".
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import yaml
from pydantic import BaseModel

from activities.access.direct import DirectAccess
from activities.contracts import ProtectRequest
from ramen import names
from ramen.app import PodCount
from ramen.errors import HublessError
from ramen.kinds import POD, PVC, VRG
from sandbox.application import Application, deploy, ensure, register
from sandbox.ledger import Ledger
from sandbox.lifecycle import Sandbox
from starter.client import Hubless
from starter.failures import NoWorker, Refused, Unfinished, Unreachable
from workflows.inputs import (
    ActionResult,
    Answer,
    MoveRequest,
    OperatorRequest,
    ProtectUpdate,
    StatusView,
    UnprotectRequest,
)

POLICY = "gold"
"""The sandbox's DRPolicy."""

ANSWER_TRIES = 12
"""Times ten seconds: what two cores may need to answer a hundred requests at once."""

PROTECT_SECONDS = 60.0
"""Longest time in which the workers come to reach a cluster that was given back."""

LOOK_SECONDS = 0.05
"""Pause between two looks of a wait; a figure read from such a wait is good to this much."""


class Driver:
    """The hands and eyes of somebody who has a sandbox and the command line."""

    def __init__(self, sandbox: Sandbox, hubless: Hubless) -> None:
        self.sandbox = sandbox
        self.hubless = hubless
        self.look_seconds = LOOK_SECONDS
        self._access: dict[str, DirectAccess] = {}
        self._connecting = asyncio.Lock()

    async def close(self) -> None:
        """Closes the connections to the clusters."""
        for access in self._access.values():
            await access.close()

    @property
    def clusters(self) -> list[str]:
        """Names of the sandbox's clusters."""
        return list(self.sandbox.state.clusters)

    async def access(self, cluster: str) -> DirectAccess:
        """An administrator's client for one cluster."""
        async with self._connecting:
            if cluster not in self._access:
                text = await asyncio.to_thread(self.sandbox.state.kubeconfig(cluster).read_text)
                self._access[cluster] = await DirectAccess.from_kubeconfig(cluster, yaml.safe_load(text))
        return self._access[cluster]

    def ledger(self) -> Ledger:
        """The ledger of writes, opened anew: it is small, and a reader sees what was committed."""
        return Ledger.open(self.sandbox.directory)

    # --- what a person does -------------------------------------------------------------------------------------

    async def deploy(self, application: Application, cluster: str, seconds: float = 60) -> None:
        """Runs the application on a cluster, unprotected, and waits until all its pods are Ready."""
        await deploy(self.sandbox.directory, await self.access(cluster), application)
        await self.until(lambda: self.serves(application, cluster), f"{application.name} to run on {cluster}", seconds)

    async def protect(self, application: Application, cluster: str) -> Answer:
        """Asks for the protection of an application that runs on `cluster`.

        A worker that has just started, or that a busy machine keeps from answering, is given a minute to reach it.
        """
        limit = time.monotonic() + PROTECT_SECONDS
        while True:
            update = protection(application, cluster, uuid.uuid4().hex)
            try:
                return await patiently(lambda update=update: self.hubless.apply(update, ""))  # type: ignore[misc]
            except Refused as err:
                if "does not answer" not in str(err) or time.monotonic() > limit:
                    raise
            await asyncio.sleep(self.look_seconds)

    async def move(self, verb: str, application: Application, target: str, request_id: str = "", **more: Any) -> Answer:
        """Asks for a failover or a relocate."""
        request_id = request_id or uuid.uuid4().hex
        request = MoveRequest(target=target, request_id=request_id, requester="sandbox", **more)
        return await self._ask(verb, application, request, request_id)

    async def say(self, verb: str, application: Application, **more: Any) -> Answer:
        """Asks for `abort`, `retry` or `resume`."""
        request_id = uuid.uuid4().hex
        request = OperatorRequest(request_id=request_id, requester="sandbox", **more)
        return await self._ask(verb, application, request, request_id)

    async def unprotect(self, application: Application, **more: Any) -> Answer:
        """Asks for the end of the protection."""
        request_id = uuid.uuid4().hex
        request = UnprotectRequest(request_id=request_id, requester="sandbox", **more)
        return await self._ask("unprotect", application, request, request_id)

    async def unprotected(self, application: Application, seconds: float = 120) -> None:
        """Waits until the application's entity has ended, after which it can be protected again."""
        handle = self.hubless.client.get_workflow_handle(names.entity_id(application.namespace, application.name))
        async with asyncio.timeout(seconds):
            await handle.result()

    async def _ask(self, verb: str, application: Application, request: BaseModel, request_id: str) -> Answer:
        namespace, name = application.namespace, application.name
        return await patiently(lambda: self.hubless.ask(verb, namespace, name, request, request_id, ""))

    async def ended(self, answer: Answer, seconds: float = 120) -> ActionResult:
        """Waits until an action's workflow ends."""
        async with asyncio.timeout(seconds):
            return await self.hubless.result(answer.workflow_id)

    # --- what the servers show -------------------------------------------------------------------------------------

    async def status(self, application: Application) -> StatusView:
        """The entity's own view."""
        return await self.hubless.status(application.namespace, application.name)

    async def pods(self, application: Application, cluster: str) -> PodCount:
        """Pods of the application on a cluster's API server."""
        labels = ",".join(f"{key}={value}" for key, value in application.labels.items())
        pods, _ = await (await self.access(cluster)).list(POD, application.namespace, labels)
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return PodCount(ready=sum(map(_ready, alive)), total=len(alive))

    async def claims(self, application: Application, cluster: str) -> list[str]:
        """Names of the application's PVCs on a cluster's API server."""
        labels = ",".join(f"{key}={value}" for key, value in application.labels.items())
        found, _ = await (await self.access(cluster)).list(PVC, application.namespace, labels)
        return [claim["metadata"]["name"] for claim in found]

    async def vrg(self, application: Application, cluster: str) -> dict[str, Any] | None:
        """The VRG on a cluster's API server."""
        return await (await self.access(cluster)).read(VRG, application.name, application.namespace)

    async def serves(self, application: Application, cluster: str) -> bool:
        """Whether all pods of the application on a cluster are Ready; a cluster that does not answer serves nobody."""
        try:
            pods = await self.pods(application, cluster)
        except HublessError:
            return False
        return 0 < pods.total == pods.ready

    async def protected(self, application: Application, seconds: float = 240) -> StatusView:
        """Waits until the entity says re-protected with no debt and no action left."""
        view: StatusView | None = None

        async def settled() -> bool:
            nonlocal view
            view = await self.status(application)
            action = view.state.action
            return bool(
                not view.child and not view.state.debts and view.state.protected and action and action.reprotected_at
            )

        await self.until(settled, f"{application.name} to be re-protected", seconds)
        if view is None:
            raise HublessError(f"{application.name} was never looked at")
        return view

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> float:
        """Waits until `condition` (an async function) holds; returns seconds. Raises `TimeoutError` naming `what`.

        A server that cannot answer yet, as one that is starting, makes nothing hold.
        """

        async def holds() -> bool:
            try:
                return bool(await condition())
            except (HublessError, NoWorker, Unreachable):
                return False

        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                while not await holds():
                    await asyncio.sleep(self.look_seconds)
        except TimeoutError as err:
            raise TimeoutError(f"waited {seconds:g} s for {what}") from err
        return time.monotonic() - began

    async def redeploy(self, application: Application, cluster: str) -> None:
        """Applies what is missing of the application, as a GitOps tool that knows of no decision would."""
        await ensure(await self.access(cluster), application)
        register(self.sandbox.directory, application)


def protection(application: Application, cluster: str, request_id: str) -> ProtectUpdate:
    """The request to protect an application that runs on `cluster`, by the sandbox's policy."""
    spec = {
        "placementRef": {"kind": "Placement", "name": application.placement},
        "drPolicyRef": {"name": POLICY},
        "preferredCluster": cluster,
        "pvcSelector": {"matchLabels": application.labels},
    }
    request = ProtectRequest(namespace=application.namespace, name=application.name, spec=spec)
    return ProtectUpdate(request=request, request_id=request_id)


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Asks again with the same request ID while there is no answer, as the command line tells its user to do."""
    for _ in range(ANSWER_TRIES):
        try:
            return await ask()
        except Unfinished:
            continue
    return await ask()


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)
