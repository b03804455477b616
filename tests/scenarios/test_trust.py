"""After a full run on real servers: no right is missing, none is idle, and nothing secret lies anywhere.

The run is an application's life: protected, failed over, relocated home, unprotected, with a store's keys rotated in
between. The API servers themselves wrote down what was asked of them.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from activities.access.direct import DirectAccess
from activities.access.s3 import S3Store
from ramen import names
from ramen.kinds import DRCLUSTER, DRPOLICY, SECRET, Kind
from sandbox.application import Application
from sandbox.bootstrap import s3_name
from sandbox.controlplane import audit_log
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from sandbox.pki import user_name
from sandbox.s3server import OPERATOR_BUCKET
from tests.scenarios.checks import Story
from tests.worker.test_rbac import Use, granted, used

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]

ELSEWHERE: dict[Use, str] = {
    ("groupsnapshot.storage.k8s.io", "volumegroupsnapshotclasses", "watch"): "the sandbox has no CRD of that kind",
    ("apiextensions.k8s.io", "customresourcedefinitions", "get"): "hubless cluster add looks for the kinds",
}
"""Rights that a run in the sandbox cannot use, with what they are for."""


@pytest.fixture
async def lived(driver: Driver, application: Application) -> Story:
    """An application that has been through everything."""
    story = await Story.begin(driver, application)
    await story.move("failover", "dr2")
    await driver.protected(application)
    await rotate_store_secret(driver)
    await come_and_go(driver, DRCLUSTER, {"s3ProfileName": "s3-dr1", "region": "nowhere"})
    await come_and_go(driver, DRPOLICY, {"drClusters": list(driver.clusters), "schedulingInterval": "5m"})
    await story.move("relocate", "dr1")
    await driver.protected(application)
    await driver.ended(await driver.unprotect(application))
    return story


async def come_and_go(driver: Driver, kind: Kind, spec: dict[str, Any]) -> None:
    """An object that a person makes on one cluster comes to the other one, and goes from both when it is deleted."""
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "trust"}, "spec": spec}
    here, there = [await driver.access(cluster) for cluster in driver.clusters]
    await here.create(kind, body)

    async def arrived() -> bool:
        return await there.read(kind, "trust") is not None

    async def gone() -> bool:
        return [await access.read(kind, "trust") for access in (here, there)] == [None, None]

    await driver.until(arrived, f"{kind.kind} trust to come to the other cluster")
    await here.delete(kind, "trust")
    await driver.until(gone, f"{kind.kind} trust to go")


async def rotate_store_secret(driver: Driver) -> None:
    """Adds a key to a store's Secret on dr1, and waits until the workers brought it to dr2."""
    name = s3_name("dr2")
    one, other = await driver.access("dr1"), await driver.access("dr2")
    mark = b64encode(b"rotated").decode()
    await one.patch(SECRET, name, {"data": {"rotated": mark}}, names.RAMEN_NAMESPACE)

    async def arrived() -> bool:
        found = await other.read(SECRET, name, names.RAMEN_NAMESPACE)
        return found is not None and found["data"].get("rotated") == mark

    await driver.until(arrived, "the store's Secret to reach dr2", 60)


async def test_every_right_is_used_nothing_secret_is_anywhere_and_nothing_was_refused(
    sandbox: Sandbox, driver: Driver, lived: Story
) -> None:
    await asyncio.sleep(2)  # the API servers write their audit logs in batches
    asked: set[Use] = set()
    refused: set[tuple[str, str, str]] = set()
    allowed: set[tuple[str, str, str]] = set()
    for cluster in driver.clusters:
        for entry in audited(audit_log(sandbox.directory, cluster)):
            if "objectRef" in entry and entry["user"]["username"] == user_name("worker"):
                request = (cluster, entry["verb"], urlsplit(entry["requestURI"]).path)
                forbidden = entry["annotations"].get("authorization.k8s.io/decision") == "forbid"
                (refused if forbidden else allowed).add(request)
                reference = entry["objectRef"]
                resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
                asked.add((reference.get("apiGroup", ""), resource, entry["verb"]))
    # An API server that has just started refuses what it allows once it has read its roles.
    assert sorted(refused - allowed) == []
    hidden = secrets(sandbox)
    places = [place async for place, text in everything(sandbox, driver) if any(secret in text for secret in hidden)]
    assert places == []
    rights = granted("hubless-worker") | granted("hubless-worker-secrets")
    # What an ordinary life does not need (an abort, a cluster that lacks a Secret) is at least spelled in the code.
    idle = rights - asked - used() - ELSEWHERE.keys()
    assert sorted(idle) == [], "granted, and never used"


def audited(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):  # the last one may still be being written
            yield json.loads(line)


UNLISTED = (SECRET.plural, "componentstatuses")
"""Where secrets belong; and what is no object."""

# --- what must be nowhere ------------------------------------------------------------------------------------------


def secrets(sandbox: Sandbox) -> list[bytes]:
    """Every credential of the sandbox, as it is and as base64 would hide it."""
    state = sandbox.state
    plain = [state.s3_secret_key, state.s3_access_key]
    plain += [token for cluster in state.clusters.values() for token in cluster.tokens.values()]
    return [spelling for text in plain for spelling in spellings(text.encode())]


def spellings(secret: bytes) -> Iterator[bytes]:
    """The text itself, and the middle of its base64 at each of the three places where it can begin."""
    yield secret
    for shift in range(3):
        encoded = b64encode(b"\0" * shift + secret)
        yield encoded[4 : len(encoded) // 4 * 4 - 4]


@pytest.mark.parametrize("shift", range(3))
def test_a_secret_is_found_in_base64_wherever_it_begins(shift: int) -> None:
    hidden = b64encode(b"x" * shift + b"token: 0123456789abcdef0123456789abcdef\n")
    assert any(spelling in hidden for spelling in spellings(b"0123456789abcdef0123456789abcdef"))


async def everything(sandbox: Sandbox, driver: Driver) -> AsyncIterator[tuple[str, bytes]]:
    """Every history, log, object that is no Secret, and object in a store, with the name of its place."""
    async for execution in driver.hubless.client.list_workflows():
        handle = driver.hubless.client.get_workflow_handle(execution.id, run_id=execution.run_id)
        yield f"history {execution.id}", (await handle.fetch_history()).to_json().encode()
    for path in sorted((sandbox.directory / "logs").iterdir()):
        yield f"log {path.name}", path.read_bytes()
    for cluster in driver.clusters:
        access = await driver.access(cluster)
        for kind in await kinds(access):
            for item in (await access.list(kind))[0]:
                yield f"{kind.kind} {item['metadata']['name']} on {cluster}", json.dumps(item).encode()
        for bucket in (OPERATOR_BUCKET, names.COORDINATION_BUCKET):
            async for place, body in stored(sandbox, cluster, bucket):
                yield place, body


async def kinds(access: DirectAccess) -> list[Kind]:
    """Every kind that the API server can list, Secrets aside: events and our own statuses among them."""
    groups = await access._request("GET", "/apis", {}, None, "groups")
    versions = ["", *(group["preferredVersion"]["groupVersion"] for group in groups["groups"])]
    found = []
    for version in versions:
        path = f"/apis/{version}" if version else "/api/v1"
        for item in (await access._request("GET", path, {}, None, path))["resources"]:
            if "list" in item["verbs"] and "/" not in item["name"] and item["name"] not in UNLISTED:
                group, _, number = version.rpartition("/")
                found.append(Kind(group, number or "v1", item["name"], item["kind"], item["namespaced"]))
    return found


async def stored(sandbox: Sandbox, cluster: str, bucket: str) -> AsyncIterator[tuple[str, bytes]]:
    state = sandbox.state
    store = S3Store.connect(state.clusters[cluster].s3_url, bucket, state.s3_access_key, state.s3_secret_key)
    try:
        for key in await store.list(""):
            body = await store.get(key) or b""
            yield f"{bucket}/{key} in the store of {cluster}", body
            if body[:2] == b"\x1f\x8b":
                yield f"{bucket}/{key} in the store of {cluster}, unpacked", gzip.decompress(body)
    finally:
        await store.close()
