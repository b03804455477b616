"""`hubless cluster add|rotate|remove|list` against real API servers with RBAC on, as an administrator types them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from ramen import names
from ramen.kinds import CLUSTER_REGISTRY, SECRET
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox

pytestmark = pytest.mark.sandbox

HUBLESS = str(Path(sys.executable).with_name("hubless"))

CALM_SECONDS = 2.0
"""Longer than a worker takes to copy an edit that it has seen."""


class Administrator:
    """Somebody with a kubeconfig of both clusters, who types."""

    def __init__(self, driver: Driver, directory: Path) -> None:
        self.driver = driver
        self.directory = directory
        self.state = driver.sandbox.state

    async def types(self, *words: str, context: str = "dr1") -> tuple[int, str, str]:
        """Exit code, stdout, stderr of `hubless cluster ...`."""
        more = ["--context", self.state.clusters[context].name] if context else []
        process = await asyncio.create_subprocess_exec(
            *(HUBLESS, "cluster", *words, *more),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.driver.sandbox.environment()},
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    def worker_file(self, cluster: str, **user: object) -> Path:
        """A kubeconfig file for workers; with `user` in place of its credential."""
        content = yaml.safe_load(self.state.kubeconfig(cluster, "worker").read_text())
        if user:
            content["users"][0]["user"] = user
        path = self.directory / f"{cluster}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    async def objects(self) -> list[object]:
        """Registry and kubeconfig Secrets of both clusters, as far as people write them."""
        found: list[object] = []
        for cluster in self.driver.clusters:
            access = await self.driver.access(cluster)
            registry = await access.read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
            found.append((registry or {}).get("spec"))
            secrets, _ = await access.list(SECRET, names.RAMEN_NAMESPACE)
            found.append({secret["metadata"]["name"]: secret.get("data") for secret in secrets})
        return found


@pytest.fixture
async def admin(sandbox: Sandbox, driver: Driver, tmp_path: Path) -> AsyncIterator[Administrator]:
    """Both clusters answer, nothing of an earlier test is still being copied, and their registry is as it was when the
    test ends."""
    found = Administrator(driver, tmp_path)

    async def is_calm() -> bool:
        before = await found.objects()
        await asyncio.sleep(CALM_SECONDS)
        return await found.objects() == before

    await driver.until(is_calm, "the registry and its Secrets to be copied everywhere")
    kept: dict[str, tuple[dict, list[dict]]] = {}
    for cluster in driver.clusters:
        access = await driver.access(cluster)
        registry = await access.read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
        assert registry is not None
        kept[cluster] = (registry["spec"], (await access.list(SECRET, names.RAMEN_NAMESPACE))[0])
    try:
        yield found
    finally:
        for cluster, (spec, secrets) in kept.items():
            access = await driver.access(cluster)
            await access.patch(CLUSTER_REGISTRY, names.REGISTRY_NAME, {"spec": spec})
            for secret in secrets:
                body = {"metadata": {"name": secret["metadata"]["name"], "namespace": names.RAMEN_NAMESPACE}}
                if await access.read(SECRET, secret["metadata"]["name"], names.RAMEN_NAMESPACE) is None:
                    await access.create(SECRET, {**body, "data": secret.get("data"), "type": secret["type"]})


async def test_list_says_what_the_workers_see(admin: Administrator) -> None:
    async def both() -> bool:
        code, out, _ = await admin.types("list", "-o", "json")
        return code == 0 and [each["state"] for each in json.loads(out)] == ["Available", "Available"]

    await admin.driver.until(both, "both clusters to be Available")
    code, out, err = await admin.types("list", context="dr2")
    assert code == 0, err
    assert out.splitlines()[0].split() == ["NAME", "REGION", "STATE", "SINCE", "VERSION", "FLAPS", "LAST", "ERROR"]
    assert out.splitlines()[1].split()[:3] == ["dr1", "east", "Available"]


async def test_adding_what_is_there_changes_nothing(admin: Administrator) -> None:
    before = await admin.objects()
    code, _, err = await admin.types("add", "dr2", "--kubeconfig", str(admin.worker_file("dr2")), "--region", "west")
    first = await admin.objects()
    assert code == 0, err
    code, _, err = await admin.types("add", "dr2", "--kubeconfig", str(admin.worker_file("dr2")), "--region", "west")
    assert code == 0, err
    assert "nothing to do" in err
    assert await admin.objects() == first
    assert first[0] == before[0], "the registry says the same"


async def test_a_cluster_is_taken_out_and_added_again(admin: Administrator) -> None:
    """dr2 leaves: both registries name dr1 alone. dr2 is added: both name both, and dr1's worker reaches it."""
    code, _, err = await admin.types("remove", "dr2")
    assert code == 0, err
    objects = await admin.objects()
    assert [entry["name"] for entry in objects[0]["clusters"]] == ["dr1"]  # type: ignore[index]
    assert "kubeconfig-dr2" not in objects[1]  # type: ignore[operator]
    code, _, err = await admin.types("add", "dr2", "--kubeconfig", str(admin.worker_file("dr2")), "--region", "west")
    assert code == 0, err
    for spec in (await admin.objects())[0::2]:
        assert [entry["name"] for entry in spec["clusters"]] == ["dr1", "dr2"]  # type: ignore[index]

    async def reached() -> bool:
        code, out, _ = await admin.types("list", "-o", "json")
        return code == 0 and [each["state"] for each in json.loads(out)] == ["Available", "Available"]

    await admin.driver.until(reached, "dr1's worker to reach dr2 again")


@pytest.mark.parametrize(
    ("name", "cluster", "user", "words"),
    [
        ("dr3", "dr2", {}, "That cluster is in the registry already, as dr2"),
        ("dr1", "dr2", {}, "dr1 in the registry is another cluster"),
        ("dr2", "dr2", {"token": "0" * 32}, "refuses its credential (401)"),
        ("dr2", "dr2", {"exec": {"command": "aws", "apiVersion": "client.authentication.k8s.io/v1"}}, "by a program"),
        ("dr2", "dr2", {"tokenFile": "/etc/passwd"}, "it names a file of the worker (tokenFile)"),
    ],
)
async def test_a_refusal_says_why_and_changes_nothing(
    admin: Administrator, name: str, cluster: str, user: dict[str, object], words: str
) -> None:
    before = await admin.objects()
    code, _, err = await admin.types("add", name, "--kubeconfig", str(admin.worker_file(cluster, **user)))
    assert (code, words in err) == (2, True), err
    assert await admin.objects() == before


async def test_missing_rights_are_named(admin: Administrator) -> None:
    before = await admin.objects()
    nobody = admin.state.clusters["dr2"].tokens["kwok"]
    assert nobody
    file = admin.worker_file("dr2", token=admin.state.clusters["dr2"].tokens["worker"])
    access = await admin.driver.access("dr2")
    from ramen.kinds import CLUSTER_ROLE

    role = await access.read(CLUSTER_ROLE, "hubless-worker")
    assert role is not None
    less = [rule for rule in role["rules"] if "volumereplicationgroups" not in rule["resources"]]
    try:
        await access.replace(CLUSTER_ROLE, {**role, "rules": less})
        code, _, err = await admin.types("add", "dr2", "--kubeconfig", str(file))
    finally:
        fresh = await access.read(CLUSTER_ROLE, "hubless-worker")
        await access.replace(CLUSTER_ROLE, {**(fresh or {}), "rules": role["rules"]})
    assert code == 2
    assert "volumereplicationgroups.ramendr.openshift.io" in err
    assert "kubectl apply -f deploy/rbac.yaml" in err
    assert await admin.objects() == before


async def test_rotate_refuses_another_cluster_and_takes_the_right_one(admin: Administrator) -> None:
    before = await admin.objects()
    code, _, err = await admin.types("rotate", "dr2", "--kubeconfig", str(admin.worker_file("dr1")))
    assert code == 2
    assert "reaches another cluster" in err
    assert await admin.objects() == before
    file = admin.worker_file("dr2")
    file.write_text(file.read_text() + "# renewed\npreferences: {}\n")
    code, _, err = await admin.types("rotate", "dr2", "--kubeconfig", str(file))
    assert code == 0, err
    code, _, err = await admin.types("rotate", "dr2", "--kubeconfig", str(file))
    assert "Nothing to do" in err
