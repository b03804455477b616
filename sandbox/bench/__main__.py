"""`make bench`: everything that this package measures, one after the other."""

from __future__ import annotations

import argparse
import asyncio
import os

import psutil

from sandbox.bench import clusters, idle, losing, many, moves, stores
from sandbox.bench.figures import MANY_LAG_SECONDS, with_sandbox
from sandbox.driver import Driver
from sandbox.state import Options
from starter import console


async def main(rounds: int, apps: int, skip_idle: bool) -> None:
    """Runs everything; progress on stderr, tables on stdout."""
    console.result(
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )
    await with_sandbox(
        Options(delays="real"), lambda driver: moves.measure(driver, rounds, "as the real operator delays")
    )

    async def without_delays(driver: Driver) -> None:
        await moves.measure(driver, rounds, "storage and operator answer at once")
        if not skip_idle:
            await idle.measure(driver)
            await clusters.measure(driver)
        await losing.losing(driver, rounds)
        await stores.measure(driver, rounds)  # last: it leaves proxies in front of the stores

    await with_sandbox(Options(delays="zero", lag=1.0), without_delays)
    if apps:
        await with_sandbox(Options(delays="zero", lag=MANY_LAG_SECONDS), lambda driver: many.measure(driver, apps))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.bench", description="Measures Hubless on a sandbox of its own and prints tables."
    )
    parser.add_argument("--rounds", type=int, default=5, help="moves of one application")
    parser.add_argument("--many", type=int, default=100, help="applications failed over at once; 0 leaves it out")
    parser.add_argument("--skip-idle", action="store_true", help="leave out the idle minute")
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.many, given.skip_idle))
    os._exit(0)  # the SDK's threads can crash the interpreter's teardown
