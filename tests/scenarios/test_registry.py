"""The registry on real servers: its status on both clusters, rotation of credentials, and what it costs."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable

import pytest

from activities.access.protocol import ClusterAccess
from ramen import names
from ramen.kinds import CLUSTER_REGISTRY, SECRET
from ramen.objects import ClusterHealth, ClusterRegistry, ClusterRegistryStatus
from sandbox.bootstrap import s3_name
from sandbox.driver import Driver

pytestmark = pytest.mark.sandbox


async def status(driver: Driver, on: str) -> ClusterRegistryStatus:
    """The status of the registry on one cluster."""
    found = await (await driver.access(on)).read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
    assert found is not None
    return ClusterRegistry.of(found).status


async def entry(driver: Driver, on: str, of: str) -> ClusterHealth:
    """What the registry on one cluster says of another."""
    entries = {each.name: each for each in (await status(driver, on)).clusters}
    return entries.get(of, ClusterHealth(name=of))


def says(driver: Driver, on: str, of: str, state: str) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return (await entry(driver, on, of)).state == state

    return holds


async def test_both_clusters_say_how_both_are(driver: Driver) -> None:
    for on in driver.clusters:
        for of in driver.clusters:
            await driver.until(says(driver, on, of, "Available"), f"{of} to be Available on {on}")

    async def both_serve() -> bool:
        return len((await entry(driver, "dr1", "dr2")).workers) == 2

    await driver.until(both_serve, "both workers to be named", 90)
    found = await entry(driver, "dr1", "dr2")
    assert found.version.startswith("v1.")
    assert {worker.partition("@")[0] for worker in found.workers} == {"dr1", "dr2"}
    assert found.last_error == ""


async def test_an_outage_is_in_the_status_of_the_survivor_and_so_is_the_return(driver: Driver) -> None:
    processes = driver.sandbox.processes
    before = (await status(driver, "dr1")).reporter
    # The outages of earlier tests have used up what this worker may write at once.
    await processes.stop("dr1-worker")
    await processes.start_again("dr1-worker")

    async def has_begun() -> bool:
        return (await status(driver, "dr1")).reporter != before

    await driver.until(has_begun, "the new worker to write the status", 120)
    await driver.until(says(driver, "dr1", "dr2", "Available"), "dr2 to be Available")
    processes.freeze("dr2-apiserver")
    await driver.until(says(driver, "dr1", "dr2", "Unavailable"), "dr2 to be Unavailable")
    assert "dr2 did not answer" in (await entry(driver, "dr1", "dr2")).last_error
    processes.thaw("dr2-apiserver")
    await driver.until(says(driver, "dr1", "dr2", "Available"), "dr2 to be Available again", 120)


@pytest.mark.timeout(480)
async def test_a_rotated_kubeconfig_is_used_at_once_and_a_broken_one_interrupts_nothing(driver: Driver) -> None:
    """The worker of dr1 reaches dr2 by a Secret on dr1."""
    access = await driver.access("dr1")
    await driver.until(says(driver, "dr1", "dr2", "Available"), "dr2 to be Available")
    before = await entry(driver, "dr1", "dr2")
    secret = await access.read(SECRET, "kubeconfig-dr2", names.RAMEN_NAMESPACE)
    assert secret is not None
    good = secret["data"][names.KUBECONFIG_KEY]
    worker = driver.sandbox.state.kubeconfig("dr2", "worker").read_text()
    token = driver.sandbox.state.clusters["dr2"].tokens["worker"]

    async def write(text: str) -> None:
        data = {names.KUBECONFIG_KEY: b64encode(text.encode()).decode()}
        await access.patch(SECRET, "kubeconfig-dr2", {"data": data}, names.RAMEN_NAMESPACE)

    async def says_refused() -> bool:
        return "refuses the new one (401)" in (await entry(driver, "dr1", "dr2")).last_error

    try:
        await write(worker.replace(token, "f" * 32))
        await driver.until(says_refused, "the refusal to be said", 200)
        found = await entry(driver, "dr1", "dr2")
        assert (found.state, found.since) == ("Available", before.since)
        assert "f" * 32 not in found.last_error
    finally:
        await access.patch(SECRET, "kubeconfig-dr2", {"data": {names.KUBECONFIG_KEY: good}}, names.RAMEN_NAMESPACE)

    async def says_nothing() -> bool:
        return not (await entry(driver, "dr1", "dr2")).last_error

    await driver.until(says_nothing, "the refusal to be gone", 200)


async def test_an_idle_registry_is_hardly_ever_written(driver: Driver) -> None:
    """At most one write a minute on each cluster: neither probes nor beats make one."""
    await driver.until(says(driver, "dr1", "dr2", "Available"), "dr2 to be Available")
    access = await driver.access("dr1")

    async def version() -> str:
        found = await access.read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
        assert found is not None
        return str(found["metadata"]["resourceVersion"])

    await asyncio.sleep(2)
    versions = {await version()}
    for _ in range(20):
        await asyncio.sleep(1)
        versions.add(await version())
    assert len(versions) <= 2


async def test_edits_on_both_clusters_are_reported_by_kubectl_and_check_and_overwritten_by_nobody(
    driver: Driver,
) -> None:
    one, other = await driver.access("dr1"), await driver.access("dr2")
    name = s3_name("dr2")

    async def synced() -> str:
        found = await other.read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
        conditions = {each.type: each for each in ClusterRegistry.of(found or {}).status.conditions}
        return f"{conditions['Synced'].status}: {conditions['Synced'].message}" if "Synced" in conditions else ""

    async def mark(access: ClusterAccess, text: str | None) -> None:
        value = b64encode(text.encode()).decode() if text else None
        await access.patch(SECRET, name, {"data": {"mark": value}}, names.RAMEN_NAMESPACE)

    async def is_equal() -> bool:
        return (await synced()).startswith("True")

    async def says_conflict() -> bool:
        return (await synced()).startswith(f"False: Secret ramen-system/{name} differs between dr1 and dr2")

    await driver.until(is_equal, "everything to be equal", 90)
    # dr2's worker writes dr2 and dr1's worker dr1: both edits are noticed where they were made.
    await asyncio.gather(mark(one, "ann"), mark(other, "bob"))
    try:
        await driver.until(says_conflict, "the conflict to be reported", 150)
        for access, text in ((one, "ann"), (other, "bob")):
            found = await access.read(SECRET, name, names.RAMEN_NAMESPACE)
            assert found is not None
            assert found["data"]["mark"] == b64encode(text.encode()).decode()
    finally:
        await asyncio.gather(mark(one, None), mark(other, None))
    await driver.until(is_equal, "everything to be equal again", 150)
