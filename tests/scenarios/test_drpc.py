"""DRPC objects with kubectl's eyes and hands, on real API servers (design 7, S7, S16)."""

from __future__ import annotations

import json
import ssl
import urllib.request
from base64 import b64decode
from pathlib import Path
from typing import Any

import yaml

from ramen import names
from ramen.errors import AlreadyExists, Conflict, HublessError
from ramen.kinds import DRPC, EVENT, PVC
from sandbox import sites
from sandbox.application import Application
from sandbox.driver import POLICY, Driver
from sandbox.lifecycle import Sandbox
from tests.scenarios.checks import Story
from worker.drpc_status import EDIT_ACCEPTED

COLUMNS = (
    "Name Age preferredCluster failoverCluster desiredState currentState progression start time duration peer ready"
)


class Kubectl:
    """One application's DRPC on each cluster, as an administrator reads and edits it."""

    def __init__(self, driver: Driver, application: Application) -> None:
        self.driver, self.app = driver, application

    async def get(self, cluster: str) -> dict[str, Any] | None:
        return await (await self.driver.access(cluster)).read(DRPC, self.app.name, self.app.namespace)

    async def create(self, cluster: str, preferred: str, **more: Any) -> None:
        spec = {
            "placementRef": {"kind": "Placement", "name": self.app.placement},
            "drPolicyRef": {"name": POLICY},
            "preferredCluster": preferred,
            "pvcSelector": {"matchLabels": self.app.labels},
            **more,
        }
        body = {"metadata": {"name": self.app.name, "namespace": self.app.namespace}, "spec": spec}
        await (await self.driver.access(cluster)).create(DRPC, body, self.app.namespace)

    async def edit(self, cluster: str, **spec: Any) -> None:
        access = await self.driver.access(cluster)
        await access.patch(DRPC, self.app.name, {"spec": spec}, self.app.namespace)

    async def delete(self, cluster: str) -> None:
        await (await self.driver.access(cluster)).delete(DRPC, self.app.name, self.app.namespace)

    async def events(self, cluster: str) -> list[tuple[str, str]]:
        found, _ = await (await self.driver.access(cluster)).list(EVENT, self.app.namespace)
        return [
            (event["reason"], event["message"])
            for event in found
            if event["involvedObject"].get("name") == self.app.name and event["involvedObject"]["kind"] == DRPC.kind
        ]

    async def phase(self, cluster: str, phase: str, seconds: float = 90) -> dict[str, Any]:
        """Waits until the object says so; returns it."""
        found: dict[str, Any] = {}

        async def said() -> bool:
            nonlocal found
            found = await self.get(cluster) or {}
            return bool(found.get("status", {}).get("phase") == phase)

        await self.driver.until(said, f"{self.app.name} on {cluster} to be {phase}", seconds)
        return found

    async def condition(self, cluster: str, kind: str, status: str, seconds: float = 60) -> dict[str, Any]:
        found: dict[str, Any] = {}

        async def said() -> bool:
            nonlocal found
            obj = await self.get(cluster) or {}
            listed = obj.get("status", {}).get("conditions") or []
            found = next((each for each in listed if each["type"] == kind), {})
            return bool(found.get("status") == status)

        await self.driver.until(said, f"{kind} of {self.app.name} on {cluster} to be {status}", seconds)
        return found

    def table(self, cluster: str) -> tuple[list[str], list[Any]]:
        """Columns and row as `kubectl get drpc -o wide` prints them: the API server's own table."""
        config = yaml.safe_load(Path(self.driver.sandbox.state.kubeconfig(cluster)).read_text())
        server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=b64decode(server["certificate-authority-data"]).decode())
        request = urllib.request.Request(
            server["server"] + DRPC.path(self.app.namespace, self.app.name),
            headers={
                "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io",
                "Authorization": f"Bearer {user['token']}",
            },
        )
        with urllib.request.urlopen(request, context=context, timeout=5) as answer:
            found = json.load(answer)
        return [column["name"] for column in found["columnDefinitions"]], found["rows"][0]["cells"]


async def test_create_edit_lose_return(driver: Driver, sandbox: Sandbox, application: Application) -> None:
    """The worst day with kubectl alone: protected on dr2's API server, dr1 lost, failed over there, dr1 returns."""
    kubectl = Kubectl(driver, application)
    await driver.deploy(application, "dr1")
    await _namespace(driver, "dr2", application)
    await kubectl.create("dr2", preferred="dr1")
    await kubectl.phase("dr2", "Deployed")
    await driver.protected(application)
    for cluster in driver.clusters:
        await kubectl.condition(cluster, "Protected", "True")
    await _equal(kubectl)
    story = Story(driver, application)

    await sites.lose(sandbox, "dr1")
    await kubectl.edit("dr2", action="Failover", failoverCluster="dr2")
    await kubectl.phase("dr2", "FailedOver")
    await story.serves("dr2")
    columns, row = kubectl.table("dr2")
    assert " ".join(columns) == COLUMNS
    assert [row[2], row[3], row[4], row[5], row[6], row[9]] == [
        "dr1", "dr2", "Failover", "FailedOver", "Cleaning Up", "False",
    ]  # fmt: skip

    async def told() -> bool:
        return "DRPCFailoverSuccess" in [reason for reason, _ in await kubectl.events("dr2")]

    await driver.until(told, "the event that comes after the status")
    reasons = [reason for reason, _ in await kubectl.events("dr2")]
    assert reasons.count("DRPCFailoverSuccess") == 1, reasons

    await sites.give_back(sandbox, "dr1")
    await story.settled("dr2")
    await kubectl.condition("dr1", "PeerReady", "True")
    await kubectl.condition("dr2", "PeerReady", "True")
    await _equal(kubectl)
    found = await driver.status(application)
    assert found.state.epoch is not None
    assert found.state.epoch.number == 2, "the old copy of dr1 asked for nothing"
    assert "DRPCEditRefused" not in [reason for reason, _ in await kubectl.events("dr1")]


async def test_edits_that_are_refused_and_edits_on_both_sides(driver: Driver, application: Application) -> None:
    kubectl = Kubectl(driver, application)
    await Story.begin(driver, application)
    for cluster in driver.clusters:
        await kubectl.phase(cluster, "Deployed")
    await kubectl.edit("dr2", action="Failover", failoverCluster="dr9")
    refused = await kubectl.condition("dr2", EDIT_ACCEPTED, "False")
    assert "dr9 is not a cluster of policy gold (dr1, dr2)" in refused["message"]
    obj = await kubectl.get("dr2")
    assert obj is not None
    assert "action" not in obj["spec"], "a refused edit is set back"
    events = [message for reason, message in await kubectl.events("dr2") if reason == "DRPCEditRefused"]
    assert len(events) == 1, events

    await kubectl.edit("dr1", action="Failover", failoverCluster="dr2")
    await kubectl.edit("dr2", action="Relocate", preferredCluster="dr2")
    await driver.until(lambda: _settled(driver, application, 2), "the first edit to be carried out", 90)
    status = await driver.status(application)
    assert status.state.epoch is not None
    assert status.state.epoch.number == 2, "one of both edits was accepted, the other refused"
    for cluster in driver.clusters:
        await driver.until(lambda at=cluster: _spec_is(kubectl, at, status.drpc["spec"]), f"{cluster} to converge", 60)
    both = [await kubectl.events(cluster) for cluster in driver.clusters]
    assert [reason for events in both for reason, _ in events].count("DRPCEditRefused") >= 2


async def test_deletions(driver: Driver, application: Application) -> None:
    """S7: deleted where it does not serve, it comes again; deleted where it serves, the protection ends."""
    kubectl = Kubectl(driver, application)
    story = await Story.begin(driver, application)
    for cluster in driver.clusters:
        await kubectl.phase(cluster, "Deployed")
    first = await kubectl.get("dr2")
    assert first is not None
    await kubectl.delete("dr2")

    async def made_again() -> bool:
        obj = await kubectl.get("dr2")
        return bool(obj and obj["metadata"]["uid"] != first["metadata"]["uid"] and obj.get("status", {}).get("phase"))

    await driver.until(made_again, "the copy on dr2 to be made again")
    notice = await kubectl.condition("dr2", EDIT_ACCEPTED, "False")
    assert f"hubless unprotect {application.name} -n web" in notice["message"]
    assert await driver.vrg(application, "dr2") is not None

    await kubectl.delete("dr1")
    await driver.unprotected(application)
    for cluster in driver.clusters:
        await driver.until(lambda at=cluster: _is_gone(kubectl, at), f"the DRPC on {cluster} to go")
        assert await driver.vrg(application, cluster) is None
    await story.serves("dr1")


async def test_a_worker_that_reaches_nobody_says_so(driver: Driver, sandbox: Sandbox, application: Application) -> None:
    kubectl = Kubectl(driver, application)
    await Story.begin(driver, application)
    await kubectl.phase("dr1", "Deployed")
    await sites.lose(sandbox, "dr2")
    await sandbox.processes.kill("dr1-s3")
    await sandbox.processes.kill("temporal")
    found = await kubectl.condition("dr1", "Available", "Unknown", 90)
    assert found["reason"] == "Isolated"
    assert "epoch 1; may have been failed over since" in found["message"]
    await sandbox.processes.start_again("dr1-s3")
    await sandbox.processes.start_again("temporal")
    await sites.give_back(sandbox, "dr2")
    await kubectl.condition("dr1", "Available", "True", 90)


async def test_a_refused_protection_goes_on_once_its_cause_is_mended(driver: Driver, application: Application) -> None:
    """The workflow itself refuses it, and Temporal repeats for ever what was said of a request (S15)."""
    kubectl = Kubectl(driver, application)
    await driver.deploy(application, "dr1")
    access = await driver.access("dr1")
    claim = f"{application.name}-odd"
    await access.create(
        PVC,
        {
            "metadata": {"name": claim, "namespace": application.namespace, "labels": application.labels},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "nowhere",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    )
    await kubectl.create("dr1", preferred="dr1", failoverCluster="dr2")
    refused = await kubectl.condition("dr1", "Available", "False")
    assert f"PVC {claim} on dr1 has StorageClass nowhere" in refused["message"]
    await access.delete(PVC, claim, application.namespace)
    obj = await kubectl.phase("dr1", "Deployed", 120)
    assert obj["spec"]["failoverCluster"] == "dr2", "prepared, which asks for nothing"
    await driver.protected(application)
    refusals = [message for reason, message in await kubectl.events("dr1") if reason == "DRPCEditRefused"]
    assert refusals.count(refused["message"]) == 1, "said once"
    assert not [said for said in refusals if "failover" in said.lower()], "not of the failover that is prepared"
    await kubectl.edit("dr1", action="Failover")
    await kubectl.phase("dr1", "FailedOver")
    await driver.protected(application)


# --- small hands -------------------------------------------------------------------------------------------------


async def _namespace(driver: Driver, cluster: str, application: Application) -> None:
    from ramen.kinds import NAMESPACE

    try:
        await (await driver.access(cluster)).create(NAMESPACE, {"metadata": {"name": application.namespace}})
    except (AlreadyExists, Conflict):
        pass


async def _settled(driver: Driver, application: Application, epoch: int) -> bool:
    view = await driver.status(application)
    action = view.state.action
    return bool(action and action.epoch >= epoch and action.outcome)


async def _spec_is(kubectl: Kubectl, cluster: str, spec: dict[str, Any]) -> bool:
    obj = await kubectl.get(cluster)
    return bool(obj and obj["spec"] == spec)


async def _is_gone(kubectl: Kubectl, cluster: str) -> bool:
    return await kubectl.get(cluster) is None


async def _equal(kubectl: Kubectl) -> None:
    """Both sides say the same, apart from times and generations of the objects themselves."""

    def said(obj: dict[str, Any] | None) -> Any:
        status = (obj or {}).get("status") or {}
        listed = [(each["type"], each["status"], each["reason"], each["message"]) for each in status["conditions"]]
        fields = ("phase", "progression", "actionStartTime", "actionDuration", "hubless")
        moves = {name: (obj or {})["spec"].get(name) for name in ("action", "failoverCluster", "preferredCluster")}
        return listed, {name: status.get(name) for name in fields}, moves

    async def equal() -> bool:
        try:
            one, other = [said(await kubectl.get(cluster)) for cluster in kubectl.driver.clusters]
        except (KeyError, HublessError):
            return False
        return bool(one == other)

    await kubectl.driver.until(equal, "both copies to say the same", 45)
    obj = await kubectl.get("dr2")
    assert obj is not None
    kinds = [each["type"] for each in obj["status"]["conditions"]]
    assert kinds[:3] == ["Available", "PeerReady", "Protected"]
    assert obj["status"]["lastGroupSyncTime"]
    assert obj["status"]["resourceConditions"]["conditions"]
    assert names.DRPC_FINALIZER in obj["metadata"]["finalizers"]
