"""`hubless demo`: an application is protected, loses its site, comes back, and goes home, on real servers.

Everything that is printed was read from the API servers or the ledger of writes; nothing is taken from a status. The
exit code is 0 only when all of it was seen.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from ramen import names
from ramen.errors import HublessError
from ramen.kinds import VRG
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.ledger import Divergence, SwitchFigures
from sandbox.lifecycle import Sandbox
from sandbox.sites import give_back, lose
from sandbox.state import Options, directory_of
from starter import console
from starter.client import Hubless
from starter.run import run

app = typer.Typer(invoke_without_command=True, help="Lose a site, fail over, come home: on real servers.")

SECONDS_OF_WORK = 6.0
"""How long the application writes before something happens: more than one replication lag, so that there is data."""

STAND_INS = """What stood in for something real:
  storage array   two sides in one process, with the ledger of writes; no byte of data is stored
  dr-cluster operator   ours, on the contract that was recorded from Ramen's (hubless sandbox up --vrg-operator PATH)
  GitOps          follows the PlacementDecision as an Argo CD ApplicationSet would
  nodes and pods  KWOK says that pods run; no container does
Real: kube-apiserver, etcd, kube-controller-manager, kube-scheduler, Temporal, SeaweedFS (S3), the workers."""


@dataclass
class Timeline:
    """What happened, and what was seen of it."""

    failures: list[str] = field(default_factory=list)

    def check(self, seen: bool, what: str) -> None:
        """Notes a thing that had to be seen and was not."""
        if not seen:
            self.failures.append(what)
            console.warning(f"not seen: {what}")


@app.callback()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything up at the end, to look around.")] = False,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the sandbox.")] = "demo",
    delays: Annotated[
        str, typer.Option("--delays", help="real: as measured at Ramen's operator; zero: none.")
    ] = "real",
) -> None:
    """Run the main job once, on a sandbox of its own, and print what really happened.

    \b
    Examples:
      # the whole story, and clean up after it
      hubless demo
    \b
      # leave the sandbox up and look at it in Temporal Web
      hubless demo --keep
    \b
      # without the pauses that storage and operator make
      hubless demo --delays zero
    """
    run(_demo(directory_of(name), name, keep, "zero" if delays == "zero" else "real"))


async def _demo(directory: Path, name: str, keep: bool, delays: str) -> int:
    sandbox = Sandbox(directory, name, say=console.action)
    try:
        await sandbox.up(Options(delays="zero" if delays == "zero" else "real"))
        return await _story(sandbox)
    finally:
        if keep:
            console.tell(f"The sandbox is still up. Stop it: hubless sandbox down --name {name}")
        else:
            await sandbox.remove()


async def _story(sandbox: Sandbox) -> int:
    os.environ.update(sandbox.environment())
    hubless = await Hubless.connect()
    driver = Driver(sandbox, hubless)
    timeline = Timeline()
    shop = Application.of("web", "shop")
    try:
        await _play(driver, shop, timeline)
    finally:
        await driver.close()
    web = f"{sandbox.state.temporal_ui}/namespaces/{names.TEMPORAL_NAMESPACE}/workflows"
    console.result("")
    console.result(f"In Temporal Web (with --keep): {web}")
    console.result(STAND_INS)
    for failure in timeline.failures:
        console.failure(failure)
    return 1 if timeline.failures else 0


async def _play(driver: Driver, shop: Application, timeline: Timeline) -> None:
    console.action("the application starts on dr1 and counts its writes")
    await driver.deploy(shop, "dr1")
    began = time.time()
    protect = await driver.protect(shop, "dr1")
    await driver.ended(protect)
    serving = time.time() - began
    await driver.protected(shop)
    console.result(
        f"Protected:    on dr1                 serving after {serving:.1f} s   "
        f"re-protected after {time.time() - began:.1f} s"
    )
    await asyncio.sleep(SECONDS_OF_WORK)
    failed_over = await _site_lost(driver, shop, timeline)
    await _site_back(driver, shop, timeline, failed_over)
    await asyncio.sleep(SECONDS_OF_WORK)
    await _home(driver, shop, timeline)
    await _end(driver, shop, timeline)


async def _site_lost(driver: Driver, shop: Application, timeline: Timeline) -> float:
    """Returns when the failover was asked for, which is how the ledger finds the switch again."""
    console.action("dr1 is lost: applications, API server, store and worker stop")
    await lose(driver.sandbox, "dr1")
    asked = time.time()
    failover = await driver.move("failover", shop, "dr2", reason="site dr1 is lost")
    await driver.ended(failover)
    serving = time.time() - asked
    pods = await driver.until(lambda: driver.serves(shop, "dr2"), "the pods on dr2 to be Ready")
    figures = _figures(driver, shop, asked)
    lag = f"{figures.oldest_lost_age:.1f} s" if figures.oldest_lost_age is not None else "0 s"
    console.result(
        f"Site lost:    failed over to dr2     serving after {serving:.1f} s   pods Ready {pods:.1f} s later   "
        f"{figures.lost} writes lost, the oldest {lag} before the promotion"
    )
    timeline.check(figures.lost_older_than_last_sync == 0, "nothing older than the last completed sync was lost")
    timeline.check(await driver.serves(shop, "dr2"), "all pods of shop Ready on dr2")
    return asked


async def _site_back(driver: Driver, shop: Application, timeline: Timeline, failed_over: float) -> None:
    console.action("dr1 returns, its pods, operator and worker in random order")
    # The site comes up part by part; what is measured begins when its API server answers again.
    coming = asyncio.ensure_future(give_back(driver.sandbox, "dr1"))
    await driver.until(lambda: _answers(driver, "dr1"), "the API server of dr1", 120)
    back = time.time()

    async def demoted() -> bool:
        vrg = await driver.vrg(shop, "dr1")
        if vrg is None:
            return False
        seen = vrg.get("status", {}).get("observedGeneration") == vrg["metadata"]["generation"]
        return bool(seen and vrg["spec"]["replicationState"] == "secondary")

    demotion = await driver.until(demoted, "dr1 to be demoted", 120)
    await coming

    async def cleaned() -> bool:
        return not await driver.claims(shop, "dr1") and (await driver.pods(shop, "dr1")).total == 0

    await driver.until(cleaned, "dr1 to be clean", 120)
    clean = time.time() - back
    await driver.protected(shop)
    figures = _figures(driver, shop, failed_over)
    console.result(
        f"Site back:    dr1 demoted after {demotion:.1f} s, clean after {clean:.1f} s, "
        f"protected again after {time.time() - back:.1f} s   "
        f"{figures.during_switch} writes during the switch, {figures.orphaned} orphaned and discarded"
    )
    timeline.check((await driver.pods(shop, "dr1")).total == 0, "no pod of shop left on dr1")


async def _home(driver: Driver, shop: Application, timeline: Timeline) -> None:
    console.action("shop goes home to dr1")
    asked = time.time()
    relocate = await driver.move("relocate", shop, "dr1", reason="dr1 is repaired")
    await driver.ended(relocate)
    serving = time.time() - asked
    pods = await driver.until(lambda: driver.serves(shop, "dr1"), "the pods on dr1 to be Ready")
    await driver.protected(shop)
    figures = _figures(driver, shop, asked)
    console.result(
        f"Moved home:   relocated to dr1       serving after {serving:.1f} s   pods Ready {pods:.1f} s later   "
        f"{figures.lost} writes lost, {figures.during_switch} during the switch, {figures.orphaned} orphaned"
    )
    for what in ("lost", "during_switch", "orphaned"):
        timeline.check(getattr(figures, what) == 0, f"a relocate with 0 writes {what.replace('_', ' ')}")
    equal: Divergence | None = None

    async def at_rest() -> bool:
        nonlocal equal
        ledger = driver.ledger()
        try:
            equal = ledger.divergence(shop.namespace, shop.name)
        finally:
            ledger.close()
        return equal.total == 0

    try:
        await driver.until(at_rest, "both sides to be equal", 30)
    except TimeoutError:
        timeline.check(False, f"both sides equal at rest ({equal})")
    console.result(
        f"Both sides equal at the end: {'yes' if equal and equal.total == 0 else 'no'} "
        f"({figures.checked:,} writes checked)"
    )


async def _end(driver: Driver, shop: Application, timeline: Timeline) -> None:
    answer = await driver.unprotect(shop)
    await driver.ended(answer)
    left = [cluster for cluster in driver.clusters if await driver.vrg(shop, cluster) is not None]
    timeline.check(not left, f"no {VRG.kind} left ({', '.join(left)})")
    timeline.check(await driver.serves(shop, "dr1"), "shop runs on after the unprotect")
    console.result("Unprotected:  no VRG left, shop goes on running on dr1")


async def _answers(driver: Driver, cluster: str) -> bool:
    try:
        await (await driver.access(cluster)).version()
    except HublessError:
        return False
    return True


def _figures(driver: Driver, shop: Application, since: float) -> SwitchFigures:
    ledger = driver.ledger()
    try:
        return ledger.switch(shop.namespace, shop.name, since)
    finally:
        ledger.close()
