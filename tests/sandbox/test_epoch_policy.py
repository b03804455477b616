"""The API server itself refuses what an older action writes to a VRG (S1): `deploy/epoch-policy.yaml` on a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

import ramen.crds
from activities.access.direct import DirectAccess
from activities.access.protocol import Object
from ramen.errors import Forbidden, HublessError
from ramen.kinds import BY_KIND, CRD, NAMESPACE, VRG
from ramen.names import EPOCH
from sandbox import state as sandbox_state
from sandbox.bootstrap import apply, connect
from sandbox.controlplane import ControlPlane
from sandbox.processes import Processes
from sandbox.tools import Tool, ToolMissing, find

POLICY = Path(__file__).parents[2] / "deploy" / "epoch-policy.yaml"
IN_FORCE_SECONDS = 30.0
"""The API server takes up a new policy by a watch of its own, in about a second."""

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
async def access(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DirectAccess]:
    """A bare control plane with the VRG's CRD and the policy in force."""
    try:
        tools = {tool: find(tool) for tool in (Tool.ETCD, Tool.KUBE_APISERVER)}
    except ToolMissing as err:
        pytest.skip(str(err))
    if None in tools.values():
        pytest.skip("no etcd or kube-apiserver: hubless sandbox up fetches them")
    current = sandbox_state.create("policy", tmp_path_factory.mktemp("policy"), sandbox_state.Options())
    plane = ControlPlane(current, "dr1", {tool: path for tool, path in tools.items() if path})
    processes = Processes(current.directory)
    plane.prepare()
    try:
        for spec in (plane.etcd(), plane.apiserver()):
            await processes.start(spec)
        client = await connect(current, "dr1")
        await fill(client)
        yield client
        await client.close()
    finally:
        for name in reversed(processes.names()):
            await processes.stop(name)


async def fill(access: DirectAccess) -> None:
    definitions = [body for body in ramen.crds.generate() if body["spec"]["names"]["kind"] == VRG.kind]
    for kind, body in [
        *((CRD, definition) for definition in definitions),
        *((BY_KIND[body["kind"]], body) for body in yaml.safe_load_all(POLICY.read_text())),
        (NAMESPACE, {"metadata": {"name": "web"}}),
    ]:
        await apply(access, kind, body)
    async with asyncio.timeout(IN_FORCE_SECONDS):
        while True:
            try:
                probe = await create(access, "2.a")
                await stamp(access, probe, "1.a")
            except Forbidden:
                return
            except HublessError:
                pass  # the CRD is not served yet
            await asyncio.sleep(0.1)


async def create(access: DirectAccess, epoch: str | None) -> Object:
    metadata: dict[str, Any] = {"name": f"shop-{uuid4().hex[:8]}", "namespace": "web", "annotations": {}}
    if epoch is not None:
        metadata["annotations"][EPOCH] = epoch
    spec = {"pvcSelector": {}, "replicationState": "primary", "s3Profiles": [], "sync": {}}
    return await access.create(VRG, {"metadata": metadata, "spec": spec})


async def stamp(access: DirectAccess, vrg: Object, epoch: str | None) -> Object:
    """An update as a worker sends it; None drops the annotation."""
    patch = {"metadata": {"annotations": {EPOCH: epoch}}, "spec": {"replicationState": "secondary"}}
    return await access.patch(VRG, vrg["metadata"]["name"], patch, "web")


@pytest.mark.parametrize(
    ("before", "after"), [(None, "1.a"), (None, None), ("unreadable", "1.a"), ("9.a", "9.a"), ("9.a", "10.b")]
)
async def test_what_goes_on_or_up_is_let_through(access: DirectAccess, before: str | None, after: str | None) -> None:
    vrg = await create(access, before)
    updated = await stamp(access, vrg, after)
    assert updated["spec"]["replicationState"] == "secondary"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("10.a", "9.b", "the update is of epoch 9, but this VRG is at epoch 10 of a newer action"),
        ("9.a", "9.b", "another token"),
        ("9.a", None, "annotation hubless.io/epoch must stay: this VRG is at epoch 9"),
        ("9.a", "", "must stay"),
        ("9.a", "ten.b", "must stay"),
        ("9.a", "10", "must stay"),
    ],
)
async def test_what_is_older_or_another_or_nothing_is_refused(
    access: DirectAccess, before: str, after: str | None, words: str
) -> None:
    vrg = await create(access, before)
    with pytest.raises(Forbidden, match=words):
        await stamp(access, vrg, after)
    unchanged = await access.read(VRG, vrg["metadata"]["name"], "web")
    assert unchanged == vrg


async def test_a_replace_without_annotations_is_refused(access: DirectAccess) -> None:
    vrg = await create(access, "3.a")
    body = {**vrg, "metadata": {**vrg["metadata"], "annotations": {}}}
    with pytest.raises(Forbidden, match="must stay"):
        await access.replace(VRG, body)


async def test_status_finalizers_and_deletion_are_not_its_business(access: DirectAccess) -> None:
    vrg = await create(access, "3.a")
    name = vrg["metadata"]["name"]
    await access.patch(VRG, name, {"status": {"state": "Primary"}}, "web", subresource="status")
    await access.patch(VRG, name, {"metadata": {"finalizers": ["example.com/hold"]}}, "web")
    await access.delete(VRG, name, "web")
    await access.patch(VRG, name, {"metadata": {"finalizers": []}}, "web")
    assert await access.read(VRG, name, "web") is None
