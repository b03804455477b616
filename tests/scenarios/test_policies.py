"""DRPolicies and DRClusters on the real API servers: applied anywhere, judged and equal everywhere."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from activities.contracts import ProtectRequest
from ramen import names
from ramen.conditions import Condition, find
from ramen.errors import Invalid
from ramen.kinds import (
    BY_KIND,
    DRCLUSTER,
    DRPC,
    DRPOLICY,
    NAMESPACE,
    STORAGE_CLASS,
    VOLUME_REPLICATION_CLASS,
    VRG,
    Kind,
)
from ramen.objects import DRCluster, DRPolicy
from sandbox import bootstrap
from sandbox.application import Application, register
from sandbox.driver import POLICY, Driver, patiently
from sandbox.lifecycle import Sandbox
from workflows.inputs import ProtectUpdate

DOCS = Path(__file__).parents[2] / "docs" / "policies.md"
CLUSTERS = ("dr1", "dr2")
SLOW = "array-5m"
FAST = "array-fast"
WRITER_SECONDS = 150
"""A test before may have killed the holder of a Lease: nobody writes statuses on its cluster for 80 seconds then."""


def documented() -> list[dict[str, Any]]:
    """Every object that docs/policies.md tells a user to apply."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return [body for block in blocks for body in yaml.safe_load_all(block)]


class Hands:
    """What a person with `kubectl` does and sees."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    async def apply(self, cluster: str, body: dict[str, Any]) -> None:
        await bootstrap.apply(await self.driver.access(cluster), BY_KIND[body["kind"]], body)

    async def edit(self, cluster: str, kind: Kind, name: str, **spec: Any) -> None:
        await (await self.driver.access(cluster)).patch(kind, name, {"spec": spec})

    async def delete(self, cluster: str, kind: Kind, name: str, namespace: str | None = None) -> None:
        await (await self.driver.access(cluster)).delete(kind, name, namespace)

    async def policy(self, cluster: str, name: str) -> DRPolicy | None:
        found = await (await self.driver.access(cluster)).read(DRPOLICY, name)
        return DRPolicy.of(found) if found else None

    async def drcluster(self, cluster: str, name: str) -> DRCluster | None:
        found = await (await self.driver.access(cluster)).read(DRCLUSTER, name)
        return DRCluster.of(found) if found else None

    async def said(self, cluster: str, kind: Kind, name: str, type: str) -> Condition | None:
        found = await (self.policy if kind is DRPOLICY else self.drcluster)(cluster, name)
        return find(found.status.conditions, type) if found else None

    async def until_said(self, kind: Kind, name: str, type: str, holds: Callable[[Condition], bool]) -> None:
        """Waits until the condition says so on both clusters."""

        async def on_both() -> bool:
            said = [await self.said(cluster, kind, name, type) for cluster in CLUSTERS]
            return all(each is not None and holds(each) for each in said)

        await self.driver.until(on_both, f"{type} of {kind.kind} {name} on both clusters", WRITER_SECONDS)

    async def until_gone(self, kind: Kind, name: str) -> None:
        """Waits until no cluster has the object."""

        async def gone() -> bool:
            return not any([await (await self.driver.access(cluster)).read(kind, name) for cluster in CLUSTERS])

        await self.driver.until(gone, f"{kind.kind} {name} to be gone", 60)


@pytest.fixture
async def hands(driver: Driver) -> AsyncIterator[Hands]:
    found = Hands(driver)
    yield found
    for cluster in CLUSTERS:
        await found.delete(cluster, DRPOLICY, "silver")
        await found.delete(cluster, VOLUME_REPLICATION_CLASS, SLOW)
        await found.delete(cluster, STORAGE_CLASS, FAST)
    await found.until_gone(DRPOLICY, "silver")


async def test_the_sandboxs_policy_is_validated_by_the_workers(hands: Hands) -> None:
    uids = []
    for cluster in CLUSTERS:
        found = await (await hands.driver.access(cluster)).read(NAMESPACE, "kube-system")
        assert found is not None
        uids.append(found["metadata"]["uid"])
    for cluster in CLUSTERS:
        policy = await hands.policy(cluster, POLICY)
        assert policy is not None
        assert policy.metadata.finalizers == [names.POLICY_FINALIZER]
        peers = policy.status.async_
        assert peers is not None
        assert [peer.model_dump(mode="json") for peer in peers.peer_classes] == [
            {
                "storageClassName": "array",
                "storageID": ["array-dr1", "array-dr2"],
                "clusterIDs": uids,
                "replicationID": "array-replication",
            }
        ]


async def test_the_documented_policy_applied_on_one_cluster_is_judged_on_both(hands: Hands) -> None:
    *objects, replication_class = documented()
    for body in objects:
        await hands.apply("dr2", body)
    await hands.until_said(DRPOLICY, "silver", "Validated", lambda said: said.status == "True")
    await hands.until_said(
        DRPOLICY,
        "silver",
        "PeerClassesMatched",
        lambda said: said.reason == "ClassesDiffer" and "dr1: array-1m has schedulingInterval 1m" in said.message,
    )
    await hands.apply("dr1", replication_class)
    await hands.until_said(
        DRPOLICY,
        "silver",
        "PeerClassesMatched",
        lambda said: "dr2 has no VolumeReplicationClass for it" in said.message,
    )
    labels = {**replication_class["metadata"]["labels"], names.STORAGE_ID: "array-dr2"}
    await hands.apply("dr2", replication_class | {"metadata": {"name": SLOW, "labels": labels}})
    await hands.until_said(DRPOLICY, "silver", "PeerClassesMatched", lambda said: said.message == "array (async)")
    await hands.until_said(DRPOLICY, "silver", "CopiesEqual", lambda said: said.message == "revision 1 on dr1, dr2")


@pytest.mark.parametrize("field", ["schedulingInterval", "drClusters", "replicationClassSelector"])
async def test_what_can_never_change_is_refused_by_the_api_server(hands: Hands, field: str) -> None:
    value: Any = {"schedulingInterval": "9m", "drClusters": ["dr2", "dr1"]}.get(field, {"matchLabels": {"a": "b"}})
    with pytest.raises(Invalid, match=f"{field} is immutable"):
        await hands.edit("dr1", DRPOLICY, POLICY, **{field: value})


@pytest.mark.parametrize(("field", "value"), [("region", "moon"), ("s3ProfileName", "other")])
async def test_region_and_store_of_a_drcluster_never_change(hands: Hands, field: str, value: str) -> None:
    with pytest.raises(Invalid, match=f"{field} is immutable"):
        await hands.edit("dr2", DRCLUSTER, "dr1", **{field: value})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"drClusters": ["dr1"], "schedulingInterval": "1m"}, "requires a list of 2 clusters"),
        ({"drClusters": ["dr1", "dr2"], "schedulingInterval": "3s"}, "schedulingInterval"),
        ({"drClusters": ["dr1", "dr2"], "schedulingInterval": "0"}, "schedulingInterval"),
    ],
)
async def test_a_policy_that_makes_no_sense_is_refused_by_the_api_server(hands: Hands, spec: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        await (await hands.driver.access("dr1")).create(DRPOLICY, {"metadata": {"name": "silver"}, "spec": spec})


async def test_an_edit_on_one_cluster_reaches_the_other_and_a_bad_one_is_said(hands: Hands) -> None:
    await hands.edit("dr2", DRCLUSTER, "dr1", cidrs=["10.1.0.0/16", "nonsense"])
    await hands.until_said(
        DRCLUSTER,
        "dr1",
        "Validated",
        lambda said: said.reason == "ValidationFailed" and "nonsense" in said.message,
    )
    await hands.edit("dr1", DRCLUSTER, "dr1", cidrs=["10.1.0.0/16"])
    await hands.until_said(DRCLUSTER, "dr1", "Validated", lambda said: said.status == "True")
    await hands.edit("dr1", DRCLUSTER, "dr1", cidrs=[])

    async def equal() -> bool:
        found = [await hands.drcluster(cluster, "dr1") for cluster in CLUSTERS]
        return all(each is not None and not each.spec.cidrs for each in found)

    await hands.driver.until(equal, "the last edit to be everywhere", 60)


async def test_a_wrong_s3_profile_and_an_unknown_cluster_are_said_with_the_remedy(hands: Hands) -> None:
    body = {"kind": "DRCluster", "metadata": {"name": "dr9"}, "spec": {"s3ProfileName": "s3-nowhere"}}
    await hands.apply("dr1", body)
    try:
        await hands.until_said(
            DRCLUSTER,
            "dr9",
            "Validated",
            lambda said: (
                said.reason == "s3ConnectionFailed"
                and "S3 profile s3-nowhere is not in ConfigMap" in said.message
                and "(there: s3-dr1, s3-dr2)" in said.message
                and "kubeconfigSecret: kubeconfig-dr9" in said.message
            ),
        )
    finally:
        await hands.delete("dr2", DRCLUSTER, "dr9")
    await hands.until_gone(DRCLUSTER, "dr9")


async def test_a_policy_in_use_is_kept_until_it_is_not(hands: Hands) -> None:
    for body in documented()[:-1]:
        await hands.apply("dr1", body)
    await hands.until_said(DRPOLICY, "silver", "Validated", lambda said: said.status == "True")
    access = await hands.driver.access("dr2")
    # Without a name of a Placement it is refused by whoever takes DRPCs up, and all the same it names the policy.
    spec = {"drPolicyRef": {"name": "silver"}, "placementRef": {}, "pvcSelector": {}}
    await access.create(DRPC, {"metadata": {"name": "user", "namespace": "ramen-ops"}, "spec": spec}, "ramen-ops")
    try:
        await hands.delete("dr1", DRPOLICY, "silver")

        async def waits() -> bool:
            said = await hands.said("dr1", DRPOLICY, "silver", "Deletable")
            return said is not None and "in use by ramen-ops/user" in said.message

        await hands.driver.until(waits, "the deletion to say what it waits for", 60)
        kept = await hands.policy("dr2", "silver")
        assert kept is not None
        assert not kept.is_being_deleted
    finally:
        await hands.delete("dr2", DRPC, "user", "ramen-ops")
    await hands.until_gone(DRPOLICY, "silver")


async def test_a_cluster_that_was_away_gets_the_edit_and_brings_none(hands: Hands, sandbox: Sandbox) -> None:
    sandbox.processes.freeze("dr1-apiserver")
    try:
        await hands.edit("dr2", DRCLUSTER, "dr2", cidrs=["10.2.0.0/16"])

        async def accepted() -> bool:
            found = await hands.drcluster("dr2", "dr2")
            edited = found.metadata.annotations[names.EDITED] if found else ""
            return bool(found and found.spec.cidrs and edited.endswith("dr2") and "Z" in edited)

        await hands.driver.until(accepted, "the edit to be accepted on dr2", 60)
    finally:
        sandbox.processes.thaw("dr1-apiserver")

    async def there(cidrs: list[str]) -> bool:
        found = [await hands.drcluster(cluster, "dr2") for cluster in CLUSTERS]
        return all(each is not None and each.spec.cidrs == cidrs for each in found)

    await hands.driver.until(lambda: there(["10.2.0.0/16"]), "the edit to be on both", 60)
    await hands.edit("dr1", DRCLUSTER, "dr2", cidrs=[])
    await hands.driver.until(lambda: there([]), "the next edit to be on both", 60)


async def protect(driver: Driver, application: Application) -> str:
    """Asks for protection without naming a cluster; the answer's message."""
    spec = {
        "placementRef": {"kind": "Placement", "name": application.placement},
        "drPolicyRef": {"name": POLICY},
        "pvcSelector": {"matchLabels": application.labels},
    }
    request = ProtectRequest(namespace=application.namespace, name=application.name, spec=spec)
    update = ProtectUpdate(request=request, request_id=uuid4().hex)
    return (await patiently(lambda: driver.hubless.apply(update, ""))).message


async def test_without_a_preferred_cluster_it_stays_where_its_volumes_are(
    driver: Driver, application: Application
) -> None:
    await driver.deploy(application, "dr2")
    assert "on dr2 (chosen: 2 volumes of" in await protect(driver, application)
    view = (await driver.protected(application)).state
    assert view.app is not None
    assert view.app.placement_reason
    assert await driver.serves(application, "dr2")
    assert not await driver.claims(application, "dr1")


async def test_a_new_application_is_placed_by_readiness_and_gitops_follows_the_decision(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    """Nobody deploys it: GitOps knows its manifests and sees the PlacementDecision, nothing else."""
    for cluster in CLUSTERS:
        access = await driver.access(cluster)
        await bootstrap.apply(access, NAMESPACE, {"metadata": {"name": application.namespace}})
    register(sandbox.directory, application)
    assert f"on dr1 (chosen: the first ready one of policy {POLICY}" in await protect(driver, application)
    await driver.until(lambda: driver.serves(application, "dr1"), "GitOps to deploy it on dr1", 60)
    assert not await driver.claims(application, "dr2")


async def test_a_storage_class_that_comes_later_reaches_the_vrgs_of_what_is_protected(hands: Hands) -> None:
    driver, app = hands.driver, Application.of("late-class", "app")
    await driver.deploy(app, "dr1")
    await driver.ended(await driver.protect(app, "dr1"))
    before = await driver.protected(app)
    for cluster in CLUSTERS:
        access = await driver.access(cluster)
        array = await access.read(STORAGE_CLASS, bootstrap.STORAGE_CLASS_NAME)
        assert array is not None
        labels = array["metadata"]["labels"]
        await access.create(STORAGE_CLASS, {**array, "metadata": {"name": FAST, "labels": labels}})

    async def given() -> bool:
        found = [await (await driver.access(cluster)).read(VRG, app.name, app.namespace) for cluster in CLUSTERS]
        classes = [{peer["storageClassName"] for peer in (vrg or {})["spec"]["async"]["peerClasses"]} for vrg in found]
        return all(FAST in each and bootstrap.STORAGE_CLASS_NAME in each for each in classes)

    await driver.until(given, f"the VRGs of {app.name} to have {FAST}", WRITER_SECONDS)
    after = await driver.protected(app)
    assert after.state.epoch == before.state.epoch, "nothing was decided"
    assert after.state.decision == before.state.decision
    await driver.ended(await driver.unprotect(app))
