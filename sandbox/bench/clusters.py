"""Part of `make bench`: how soon an unreachable cluster and its return are noticed, and what an idle registry costs.

Noticed is what the other cluster's worker reports of its gate; the status is the ClusterRegistry on the survivor.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable

from ramen import names
from ramen.kinds import CLUSTER_REGISTRY
from ramen.objects import ClusterRegistry
from sandbox.bench.figures import Table, with_sandbox
from sandbox.driver import Driver
from sandbox.state import Options

LOOK_SECONDS = 0.05
"""Between two looks; the figures are good to this much."""

ROUNDS = 5

PAUSE_SECONDS = 3.0
"""Between two outages, so that each begins at another moment of the probe's beat."""

FLAP_SECONDS = 60
"""How long a cluster comes and goes."""

AWAY_SECONDS, BACK_SECONDS = 4.0, 3.0
"""One flap: longer than the detection takes, so that each one moves the gate."""

IDLE_SECONDS = 180
"""Three minutes: what comes once a minute shows."""

RESTED_SECONDS = 60
"""An installation is at rest when so long nothing but Leases was written: what belongs to its start is over."""

WRITES = ("create", "update", "patch", "delete")

SURVIVOR, LOST = "dr1", "dr2"


async def measure(driver: Driver) -> None:
    """Prints the tables; the sandbox is whole again afterwards."""
    await _idle(driver)
    await _detection(driver)
    await _flapping(driver)


async def _detection(driver: Driver) -> None:
    times = Table("An unreachable cluster and its return, noticed by the other cluster's worker")
    apiserver = f"{LOST}-apiserver"
    processes = driver.sandbox.processes

    async def killed() -> None:
        await processes.kill(apiserver)

    async def frozen() -> None:
        processes.freeze(apiserver)

    async def thawed() -> None:
        processes.thaw(apiserver)

    async def started() -> None:
        await processes.start_again(apiserver)

    for word, break_it, mend_it in (("frozen", frozen, thawed), ("killed", killed, started)):
        for number in range(ROUNDS):
            times.add(f"API server {word}: gate closed", await _after(break_it, lambda: _gate_is(driver, False)))
            if number == 0:  # later ones are flaps, whose writes are held back on purpose
                times.add(f"API server {word}: status says so after", await _until(lambda: _says_gone(driver)))
            times.add(f"API server back after {word}: gate open", await _after(mend_it, lambda: _gate_is(driver, True)))
            await asyncio.sleep(PAUSE_SECONDS)
    times.show()


async def _flapping(driver: Driver) -> None:
    figures = Table(f"A cluster that flaps for {FLAP_SECONDS} s", unit="")
    apiserver, processes = f"{LOST}-apiserver", driver.sandbox.processes
    access = await driver.access(SURVIVOR)
    versions: set[str] = set()
    moves, was_open, ends = 0, True, time.monotonic() + FLAP_SECONDS
    is_frozen, turn = False, time.monotonic()
    while time.monotonic() < ends:
        if time.monotonic() >= turn:
            is_frozen = not is_frozen
            (processes.freeze if is_frozen else processes.thaw)(apiserver)
            turn = time.monotonic() + (AWAY_SECONDS if is_frozen else BACK_SECONDS)
        now_open = await _gate_is(driver, True)
        moves, was_open = moves + (now_open != was_open), now_open
        found = await access.read(CLUSTER_REGISTRY, names.REGISTRY_NAME) or {}
        versions.add(str(found["metadata"]["resourceVersion"]))
        await asyncio.sleep(LOOK_SECONDS)
    processes.thaw(apiserver)
    await _until(lambda: _gate_is(driver, True))
    figures.add("moves of the gate", moves)
    figures.add("writes of the registry's status on the survivor", len(versions) - 1)
    figures.show()


async def _idle(driver: Driver) -> None:
    """Writes and reads of both workers on both API servers, nothing protected and nothing wrong, per minute."""
    await _quiet(driver)
    await _rested(driver)
    before = await _calls(driver)
    await asyncio.sleep(IDLE_SECONDS)
    spent = await _calls(driver) - before
    minutes = IDLE_SECONDS / 60
    figures = Table("An idle installation: requests of both workers per cluster and minute, probes aside", unit="")
    for cluster in driver.clusters:
        for kind, verbs in (("writes", WRITES), ("reads", ("get", "list", "watch"))):
            number = sum(count for (where, verb, _), count in spent.items() if where == cluster and verb in verbs)
            figures.add(f"{kind} on {cluster}", number / minutes)
        for (where, verb, resource), count in sorted(spent.items()):
            if where == cluster and verb in WRITES and count:
                figures.add(f"of these, {verb} of {resource} on {cluster}", count / minutes)
    figures.show()


# --- looking ------------------------------------------------------------------------------------------------


async def _after(change: Callable[[], Awaitable[None]], condition: Callable[[], Awaitable[bool]]) -> float:
    """Seconds from the beginning of a change until the condition holds."""
    began = time.monotonic()
    await change()
    await _until(condition)
    return time.monotonic() - began


async def _until(condition: Callable[[], Awaitable[bool]], seconds: float = 180) -> float:
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began


async def _gate_is(driver: Driver, is_open: bool) -> bool:
    body = json.loads(await asyncio.to_thread(_get, driver, SURVIVOR, "readyz"))
    return any(each["cluster"] == LOST and each["reachable"] is is_open for each in body["clusters"])


def _get(driver: Driver, worker: str, path: str) -> str:
    """A page of a worker's HTTP endpoint, whatever its status code."""
    url = f"http://127.0.0.1:{driver.sandbox.state.clusters[worker].ports['worker']}/{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as err:
        return err.read().decode()


async def _entry(driver: Driver) -> tuple[str, int]:
    """State and flaps of the lost cluster in the survivor's registry."""
    found = await (await driver.access(SURVIVOR)).read(CLUSTER_REGISTRY, names.REGISTRY_NAME)
    entries = {each.name: each for each in ClusterRegistry.of(found or {}).status.clusters}
    return (entries[LOST].state, entries[LOST].flaps) if LOST in entries else ("", 0)


async def _status_says(driver: Driver, state: str) -> bool:
    return (await _entry(driver))[0] == state


async def _says_gone(driver: Driver) -> bool:
    return await _status_says(driver, "Unavailable")


async def _quiet(driver: Driver) -> None:
    """Waits until the gate is open and the status says so."""
    await _until(lambda: _gate_is(driver, True))
    await _until(lambda: _status_says(driver, "Available"))


async def _rested(driver: Driver) -> None:
    written, since = await _writes(driver), time.monotonic()
    async with asyncio.timeout(600):
        while time.monotonic() < since + RESTED_SECONDS:
            await asyncio.sleep(1)
            if (now := await _writes(driver)) != written:
                written, since = now, time.monotonic()


async def _writes(driver: Driver) -> int:
    """Writes of both workers so far, Leases aside."""
    calls = await _calls(driver)
    return sum(count for (_, verb, resource), count in calls.items() if verb in WRITES and resource != "leases")


async def _calls(driver: Driver) -> Counter[tuple[str, str, str]]:
    """Requests of both workers so far by cluster, verb and resource."""
    found: Counter[tuple[str, str, str]] = Counter()
    for worker in driver.clusters:
        for line in (await asyncio.to_thread(_get, driver, worker, "metrics")).splitlines():
            if line.startswith("hubless_api_calls_total{"):
                labels, _, value = line[len("hubless_api_calls_total{") :].partition("} ")
                given = dict(part.split("=", 1) for part in labels.replace('"', "").split(","))
                found[given["cluster"], given["verb"], given["resource"]] += int(float(value))
    return found


if __name__ == "__main__":
    asyncio.run(with_sandbox(Options(delays="zero", lag=1.0), measure))
    os._exit(0)
