"""A sandbox on real servers: what it offers once it is up, and that it goes away without a trace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from ramen.kinds import CLUSTER_REGISTRY, DEPLOYMENT, DRPOLICY, NODE, POD
from ramen.names import COORDINATION_BUCKET, REGISTRY_NAME
from sandbox import s3server
from sandbox.bootstrap import OPERATOR_BUCKET, POLICY, connect
from sandbox.lifecycle import Sandbox, SandboxError, _parts_among
from sandbox.state import PARTS, Options

SERVERS_ONLY = Options(without=list(PARTS), delays="zero")


@pytest.mark.sandbox
async def test_a_second_up_starts_nothing(sandbox: Sandbox) -> None:
    before = {name: sandbox.processes.pid(name) for name in sandbox.processes.names()}
    await sandbox.up()
    assert {name: sandbox.processes.pid(name) for name in sandbox.processes.names()} == before
    assert {entry["status"] for entry in sandbox.status()["processes"]} == {"running"}


@pytest.mark.sandbox
async def test_both_clusters_know_policy_registry_and_each_other(sandbox: Sandbox) -> None:
    for cluster in sandbox.state.clusters:
        access = await connect(sandbox.state, cluster)
        try:
            policy = await access.read(DRPOLICY, POLICY)
            registry = await access.read(CLUSTER_REGISTRY, REGISTRY_NAME)
            nodes, _ = await access.list(NODE)
        finally:
            await access.close()
        assert policy is not None
        assert policy["spec"]["drClusters"] == list(sandbox.state.clusters)
        assert len(policy["status"]["async"]["peerClasses"][0]["clusterIDs"]) == 2
        assert registry is not None
        assert [entry["name"] for entry in registry["spec"]["clusters"]] == list(sandbox.state.clusters)
        assert len(nodes) == 2


@pytest.mark.sandbox
@pytest.mark.parametrize("bucket", [OPERATOR_BUCKET, COORDINATION_BUCKET])
async def test_the_stores_keep_conditional_writes(sandbox: Sandbox, bucket: str) -> None:
    for cluster in sandbox.state.clusters:
        store = s3server.store(sandbox.state, cluster, bucket)
        try:
            assert await store.probe_conditional_writes()
        finally:
            await store.close()


@pytest.mark.sandbox
async def test_a_deployment_gets_pods_that_run_on_the_nodes(sandbox: Sandbox) -> None:
    access = await connect(sandbox.state, "dr1")
    labels = {"app": "lifecycle-test"}
    body = {
        "metadata": {"name": "lifecycle-test", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}},
        },
    }
    try:
        await access.create(DEPLOYMENT, body)
        pods: list[dict[str, object]] = []
        async with asyncio.timeout(30):
            while not pods:
                found, _ = await access.list(POD, "default", labels="app=lifecycle-test")
                pods = [pod for pod in found if pod["status"].get("phase") == "Running"]
                await asyncio.sleep(0.1)
        await access.delete(DEPLOYMENT, "lifecycle-test", "default")
    finally:
        await access.close()


def test_parts_are_told_from_servers_by_their_names() -> None:
    names = ["array", "dr1-gitops", "dr2-worker", "dr1-operator", "temporal", "dr1-apiserver"]
    assert _parts_among(names) == {"array", "dr1-gitops", "dr2-worker", "dr1-operator"}


async def test_a_part_that_does_not_exist_is_refused_before_anything_starts(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    with pytest.raises(SandboxError, match="no part wrokers"):
        await sandbox.up(Options(without=["wrokers"]))
    assert sandbox.processes.names() == []


async def test_a_missing_operator_program_is_refused_before_anything_starts(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    with pytest.raises(SandboxError, match="is no program"):
        await sandbox.up(Options(vrg_operator=str(tmp_path / "manager")))
    assert sandbox.processes.names() == []


async def test_a_command_on_no_sandbox_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="hubless sandbox up"):
        Sandbox(tmp_path).status()


@pytest.mark.matrix
@pytest.mark.sandbox
@pytest.mark.timeout(600)
async def test_two_side_by_side_and_down_ends_one_of_them_only(tmp_path: Path) -> None:
    one, two = Sandbox(tmp_path / "one", "one"), Sandbox(tmp_path / "two", "two")
    try:
        await one.up(SERVERS_ONLY)
        await two.up(SERVERS_ONLY)
        started = {name: psutil.Process(one.processes.pid(name)) for name in one.processes.names()}
        children = [child for process in started.values() for child in process.children(recursive=True)]
        assert sorted(await one.down()) == sorted(started)
        assert [process for process in (*started.values(), *children) if process.is_running()] == []
        assert {entry["status"] for entry in two.status()["processes"]} == {"running"}
        assert await one.down() == []

        ports = one.state.clusters
        await one.up(SERVERS_ONLY.model_copy(update={"without": ["gitops", "worker", "operator"]}))
        assert one.state.clusters == ports
        assert one.processes.status("array") == "running"
        await one.up(SERVERS_ONLY)
        assert one.processes.status("array") == "stopped"
        assert one.processes.status("dr1-apiserver") == "running"
        await one.remove()
        assert not one.directory.exists()
    finally:
        for sandbox in (one, two):
            if sandbox.directory.exists():
                await sandbox.down()
