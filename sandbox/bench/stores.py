"""Part of `make bench`: what the mirror costs and adds to the time to serving; alone: `python -m sandbox.bench.stores`.

Serving must not wait for the mirror (D8, D15), so failovers are measured with stores that answer at once, with a
coordination bucket that answers late, and with one that does not exist. Only the coordination bucket is spoilt: the
operator's own bucket is on the way of every promotion, mirror or not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from activities.mirror import Mirror
from ramen import names
from ramen.epoch import Epoch
from ramen.s3layout import DecisionDocument, EpochClaim, StateDocument
from sandbox import s3server, sites
from sandbox.application import Application
from sandbox.bench.figures import Table, with_sandbox
from sandbox.driver import Driver
from sandbox.faults import StoreFault
from sandbox.state import Options
from starter import console

TRIPS = 50

LATE_SECONDS = 0.2
"""A store in another country."""

PATIENT = 10.0
"""Limit of a round trip that is to be measured and not cut off."""


async def round_trips(driver: Driver) -> None:
    """One write of each kind to both stores at once, as an action makes them, each apart."""
    state = driver.sandbox.state
    stores = {f"s3-{cluster}": s3server.store(state, cluster, names.COORDINATION_BUCKET) for cluster in driver.clusters}
    mirror, app = Mirror(stores), ("bench", "round-trips")
    table = Table(f"Round trips of the mirror to both stores, {TRIPS} of each", unit="ms")

    async def timed(name: str, step: Callable[[], Awaitable[Any]]) -> None:
        began = time.perf_counter()
        await step()
        table.add(name, (time.perf_counter() - began) * 1000)

    try:
        await mirror.newest_epoch(*app, PATIENT)  # opens the connections
        for number in range(1, TRIPS + 1):
            epoch, now = Epoch(number=number, token="bench"), datetime.now(UTC)
            claim = EpochClaim(number=number, token="bench", action="Failover", request_id=f"{number}", claimed_at=now)
            document = StateDocument(epoch=epoch, written_at=now, phase="FailedOver")
            decision = DecisionDocument(cluster="dr2", epoch=epoch, decided_at=now)
            steps: dict[str, Callable[[], Awaitable[Any]]] = {
                "take the lock": partial(mirror.acquire_lock, *app, "bench", epoch, seconds=PATIENT),
                "claim the epoch": partial(mirror.claim_epoch, *app, claim, PATIENT),
                "write the state": partial(mirror.write_state, *app, document, PATIENT),
                "write the decision": partial(mirror.write_decision, *app, decision, PATIENT),
                "read state and decision": partial(_read, mirror, app),
                "release the lock": partial(mirror.release_lock, *app, "bench", epoch, seconds=PATIENT),
            }
            for name, step in steps.items():
                await timed(name, step)
        table.show()
    finally:
        await mirror.delete_application(*app)
        for store in stores.values():
            await store.close()


async def _read(mirror: Mirror, app: tuple[str, str]) -> None:
    await asyncio.gather(mirror.read_state(*app, PATIENT), mirror.read_decision(*app, PATIENT))


async def added(driver: Driver, rounds: int) -> None:
    """Failovers back and forth, with each kind of store in turn, so that the machine's load is the same for all."""
    app = Application.of("bench", "mirror")
    kinds = {
        "stores as they are": None,
        "proxy in front, answers at once": StoreFault(),
        f"coordination buckets {LATE_SECONDS * 1000:g} ms late": StoreFault(
            bucket=names.COORDINATION_BUCKET, slow=LATE_SECONDS
        ),
        "coordination buckets silent": StoreFault(bucket=names.COORDINATION_BUCKET, slow=60),
    }
    table = Table("What the mirror adds to the time to serving: failovers, orchestration only")
    await driver.deploy(app, "dr1")
    await driver.ended(await driver.protect(app, "dr1"))
    await driver.protected(app)
    home = "dr1"
    # The proxies stay once they are there, so what needs none comes first.
    for name, fault in list(kinds.items())[:1]:
        for _ in range(rounds):
            home = await _fail_over(driver, app, home, name, fault, table)
    for _ in range(rounds):
        for name, fault in list(kinds.items())[1:]:
            home = await _fail_over(driver, app, home, name, fault, table)
    for cluster in driver.clusters:
        await sites.spoil_store(driver.sandbox, cluster, StoreFault())
    table.show()
    await driver.ended(await driver.unprotect(app))


async def _fail_over(
    driver: Driver, app: Application, home: str, name: str, fault: StoreFault | None, table: Table
) -> str:
    target = next(cluster for cluster in driver.clusters if cluster != home)
    if fault is not None:
        for cluster in driver.clusters:
            await sites.spoil_store(driver.sandbox, cluster, fault)
        await asyncio.sleep(1)
    asked = time.time()
    answer = await driver.move("failover", app, target)
    answered = time.time() - asked
    result = await driver.ended(answer)
    serving = (result.serving_at.timestamp() if result.serving_at else time.time()) - asked
    table.add(f"{name}: request to answer", answered)
    table.add(f"{name}: request to serving", serving - result.clusters_seconds)
    if fault is not None:
        for cluster in driver.clusters:
            await sites.spoil_store(driver.sandbox, cluster, StoreFault())
    await driver.protected(app)
    console.action(f"{name}: on {target}")
    return target


async def measure(driver: Driver, rounds: int) -> None:
    """Prints both tables; the stores are as they should be afterwards, behind their proxies."""
    await round_trips(driver)
    await added(driver, rounds)


async def main(rounds: int) -> None:
    """On a sandbox of its own, whose storage and operator answer at once."""
    await with_sandbox(Options(delays="zero", lag=1.0), lambda driver: measure(driver, rounds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures what the mirror in the stores costs.")
    parser.add_argument("--rounds", type=int, default=5, help="failovers of each kind")
    asyncio.run(main(parser.parse_args().rounds))
    os._exit(0)  # the SDK's threads can crash the interpreter's teardown
