"""Applications go to a Ramen hub and come from one, on real servers: nothing that runs is touched on either way."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ramen import names
from ramen.desired import is_released
from ramen.epoch import Epoch
from ramen.errors import Forbidden
from ramen.kinds import DRPC, POD, PVC, VALIDATING_ADMISSION_POLICY_BINDING, VRG
from ramen.recovery import Verdict
from sandbox import sites
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.lifecycle import Sandbox
from tests.scenarios.checks import Story
from tests.scenarios.test_losing_temporal import adopt

HUBLESS = str(Path(sys.executable).with_name("hubless"))

BINDING = "hubless-epoch"
"""What puts the admission policy of the epoch in force."""


async def types(sandbox: Sandbox, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of a command, as an administrator types it."""
    process = await asyncio.create_subprocess_exec(
        *(HUBLESS, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **sandbox.environment()},
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def picture(driver: Driver, application: Application) -> dict[str, Any]:
    """By cluster: all that must not change. The UIDs of pods tell a restart, the generation a write of the spec."""
    found: dict[str, Any] = {}
    for cluster in driver.clusters:
        access = await driver.access(cluster)
        vrg = await access.read(VRG, application.name, application.namespace)
        assert vrg is not None
        labels = ",".join(f"{key}={value}" for key, value in application.labels.items())
        running = {}
        for kind in (POD, PVC):
            objects, _ = await access.list(kind, application.namespace, labels)
            running[kind.kind] = sorted((each["metadata"]["name"], each["metadata"]["uid"]) for each in objects)
        metadata = vrg["metadata"]
        found[cluster] = (metadata["uid"], metadata["generation"], metadata.get("finalizers"), vrg["spec"], running)
    return found


async def released(driver: Driver, sandbox: Sandbox, application: Application) -> None:
    """Gives the application back and checks that its clusters are as they were."""
    before = await picture(driver, application)
    code, _, err = await types(sandbox, "release", application.name, "-n", application.namespace, "--yes", "--wait")
    assert code == 0, err
    await driver.unprotected(application)
    assert await picture(driver, application) == before
    for cluster in driver.clusters:
        vrg = await driver.vrg(application, cluster)
        assert is_released(vrg)
    await driver.until(lambda: no_copies(driver, application), "the copies of the DRPC to go")
    assert await picture(driver, application) == before, "a copy that goes is no unprotect (S7)"


async def no_copies(driver: Driver, application: Application) -> bool:
    """Whether no cluster has a DRPC of the application."""
    for cluster in driver.clusters:
        if await (await driver.access(cluster)).read(DRPC, application.name, application.namespace):
            return False
    return True


@asynccontextmanager
async def without_the_policy(driver: Driver, cluster: str) -> AsyncIterator[None]:
    """A cluster as it is under a hub: nobody there keeps an epoch."""
    access = await driver.access(cluster)
    binding = await access.read(VALIDATING_ADMISSION_POLICY_BINDING, BINDING)
    assert binding is not None
    await access.delete(VALIDATING_ADMISSION_POLICY_BINDING, BINDING)
    try:
        yield
    finally:
        body = {"metadata": {"name": BINDING}, "spec": binding["spec"]}
        await access.create(VALIDATING_ADMISSION_POLICY_BINDING, body)


async def hub_made(driver: Driver, application: Application, cluster: str) -> None:
    """Makes a VRG look as a hub leaves it: the UID of the hub's DRPC, and nothing of ours."""
    access = await driver.access(cluster)
    vrg = await driver.vrg(application, cluster)
    assert vrg is not None
    ours = {key: None for key in vrg["metadata"]["annotations"] if key.startswith("hubless.io/")}
    patch = {"metadata": {"annotations": {**ours, names.DRPC_UID: "0f6d4f0e-hub"}}}

    async def patched() -> bool:
        try:
            await access.patch(VRG, application.name, patch, application.namespace)
        except Forbidden:
            return False  # the API server learns of the missing policy within a second or so
        return True

    async with without_the_policy(driver, cluster):
        await driver.until(patched, f"{cluster} to take what a hub writes")


async def annotate(driver: Driver, application: Application, cluster: str, key: str, value: str | None) -> None:
    """Sets one annotation of the VRG, or takes it away."""
    patch = {"metadata": {"annotations": {key: value}}}
    await (await driver.access(cluster)).patch(VRG, application.name, patch, application.namespace)


async def test_an_application_goes_to_a_hub_and_comes_back(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    story = await Story.begin(driver, application)
    await released(driver, sandbox, application)
    await the_stores_say_so(sandbox, application)
    await what_a_hub_writes_is_taken_and_what_a_zombie_writes_is_not(driver, application)
    code, _, err = await types(sandbox, "adopt", application.name, "-n", application.namespace, "--yes")
    assert code == 0, err
    assert "given back to a Ramen hub" in err
    before = await picture(driver, application)
    for cluster in driver.clusters:
        await hub_made(driver, application, cluster)
    held = await adopt(driver, application, policy="gold", placement=application.placement)
    assert (held.inference.verdict, held.inference.serving) == (Verdict.ADOPT, "dr1")
    status = await driver.status(application)
    assert status.state.app is not None
    assert status.state.app.pvc_selector == {"matchLabels": application.labels}
    await story.settled("dr1")
    assert await picture(driver, application) == before
    for cluster in driver.clusters:
        vrg = await driver.vrg(application, cluster)
        assert vrg is not None
        assert vrg["metadata"]["annotations"][names.DRPC_UID] == "0f6d4f0e-hub", "the VRGs keep the UID that they had"
    assert (await story.move("failover", "dr2")).promoted
    await story.settled("dr2")
    await story.nothing_old_was_lost()
    await released(driver, sandbox, application)


async def test_while_a_site_is_lost_its_store_is_silent_and_nothing_is_given_away(
    driver: Driver, sandbox: Sandbox, application: Application
) -> None:
    await Story.begin(driver, application)
    await sites.lose(sandbox, "dr1")
    place = (application.name, "-n", application.namespace)
    code, _, err = await types(sandbox, "release", *place, "--yes")
    assert (code, "dr1 does not answer" in err) == (2, True), err
    assert not is_released(await driver.vrg(application, "dr2"))
    context = sandbox.state.clusters["dr2"].name
    code, out, err = await types(sandbox, "mirror", "show", *place, "--context", context)
    assert code == 1, (out, err)
    assert "✗ Store s3-dr1 is silent: " in out
    assert "s3-dr2 (" in out
    assert "Deploy, claimed " in out
    assert "holds nothing" not in out
    assert "dr1 is not asked for its stores" in err


async def the_stores_say_so(sandbox: Sandbox, application: Application) -> None:
    """The mirror shows the claim of the release in every store, no proof, and both clusters."""
    code, out, err = await types(sandbox, "mirror", "show", application.name, "-n", application.namespace, "-o", "json")
    found = json.loads(out)
    assert code == 0, (found, err)
    assert [store["answers"] for store in found["stores"]] == [True, True]
    (shown,) = found["applications"]
    for copy in shown["stores"].values():
        assert (copy["claim"]["action"], copy["state"]["phase"], copy["lock"]) == ("Release", "Released", None)
        assert copy["history"][-1]["action"] == "Release"
    assert [(each["name"], each["reachable"]) for each in found["clusters"]] == [("dr1", True), ("dr2", True)]
    assert all(each["apiServerVersion"] for each in found["clusters"])
    code, out, _ = await types(sandbox, "mirror", "show", "-n", application.namespace)
    assert f"{application.name}  " in out


async def what_a_hub_writes_is_taken_and_what_a_zombie_writes_is_not(driver: Driver, application: Application) -> None:
    """S1: with the admission policy in force. A hub's agent merges annotations and so leaves the epoch alone."""
    for cluster in driver.clusters:
        vrg = await driver.vrg(application, cluster)
        epoch = Epoch.of(vrg)
        assert epoch is not None
        await annotate(driver, application, cluster, names.DRPC_UID, "0f6d4f0e-hub")
        with pytest.raises(Forbidden):
            await annotate(driver, application, cluster, names.EPOCH, f"{epoch.number - 1}.zombie")
        with pytest.raises(Forbidden):
            await annotate(driver, application, cluster, names.EPOCH, None)
