"""Losing a site and getting it back: everything that runs at one cluster, at once.

A lost site is dead: nothing there writes or answers. A site that is cut off lives on out of sight: nobody reaches its
API server, store or worker, but its applications go on writing. Either way the site comes back as sites do: servers
first, then pods, operator, GitOps and worker in no particular order (design 10).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ramen.errors import Refused
from sandbox import faults, s3server
from sandbox.lifecycle import Sandbox, together
from sandbox.processes import ProcessFailed

CONTROLLERS = ("controller-manager", "scheduler", "kwok")
"""Ended with their API server; they come back once it answers."""

PARTS = ("worker", "operator", "gitops")
"""What acts on the cluster's objects."""

SERVERS = ("apiserver", "etcd", "s3", s3server.FRONT)
"""What others talk to."""


def check(sandbox: Sandbox, cluster: str) -> None:
    """Raises `Refused` for a cluster that the sandbox does not have."""
    known = list(sandbox.state.clusters)
    if cluster not in known:
        raise Refused(f"{cluster} is no cluster of this sandbox ({', '.join(known)}).")


async def lose(sandbox: Sandbox, cluster: str) -> None:
    """The site is gone at once: processes are killed, not stopped, and its pods write nothing more."""
    check(sandbox, cluster)
    _change(sandbox, lambda now: now.lost.append(cluster) if cluster not in now.lost else None)
    await _kill(sandbox, cluster, (*PARTS, *CONTROLLERS, *SERVERS))


async def cut_off(sandbox: Sandbox, cluster: str) -> None:
    """Nobody reaches the site, but its applications go on writing."""
    check(sandbox, cluster)
    _change(sandbox, lambda now: now.cut_off.append(cluster) if cluster not in now.cut_off else None)
    await _kill(sandbox, cluster, (*PARTS, *CONTROLLERS, *SERVERS))


async def give_back(sandbox: Sandbox, cluster: str, order: random.Random | None = None) -> None:
    """The site returns: servers, then its pods, operator, GitOps and worker in random order."""
    check(sandbox, cluster)
    await together(*(_start(sandbox, cluster, server) for server in SERVERS if server != "apiserver"))
    await _start(sandbox, cluster, "apiserver")

    async def pods() -> None:
        _change(sandbox, lambda now: _without(now, cluster))

    steps: list[Callable[[], Coroutine[Any, Any, None]]] = [pods]
    steps += [partial(_start, sandbox, cluster, part) for part in (*CONTROLLERS, *PARTS)]
    (order or random.SystemRandom()).shuffle(steps)
    await together(*(_after(0.2 * place, step) for place, step in enumerate(steps)))


async def spoil_store(sandbox: Sandbox, cluster: str, fault: faults.StoreFault) -> None:
    """The store of a site does what the fault says; a fault without content mends it.

    What plays faults stands in front of the store from the first one on, for which the store is started again.
    """
    check(sandbox, cluster)
    state, processes = sandbox.state, sandbox.processes
    if "s3-behind" not in state.clusters[cluster].ports:
        raise Refused("this sandbox was made before stores could misbehave; run: hubless sandbox remove, and up.")
    _change(sandbox, lambda now: now.stores.update({cluster: fault}))
    front = s3server.front(state, cluster)
    if processes.status(front.name) != "running":
        await processes.start(s3server.behind(processes.spec(f"{cluster}-s3"), state, cluster))
        await s3server.ensure_buckets(state, cluster, "s3-behind")
        await processes.start(front)


async def lose_history(sandbox: Sandbox) -> None:
    """Temporal dies and comes back empty: every history is gone, the workers stay."""
    await sandbox.processes.kill("temporal")
    for path in (sandbox.directory / "data").glob("temporal.db*"):
        path.unlink()
    await sandbox.processes.start_again("temporal")


async def _after(seconds: float, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Parts of a real site do not come up at the same moment."""
    await asyncio.sleep(seconds)
    await step()


async def start_again(sandbox: Sandbox, name: str) -> None:
    """Starts a process; a server that did not come up on a busy machine is started once more."""
    try:
        await sandbox.processes.start_again(name)
    except ProcessFailed:
        await sandbox.processes.start_again(name)


async def _start(sandbox: Sandbox, cluster: str, part: str) -> None:
    name = f"{cluster}-{part}"
    if name in sandbox.processes.names():
        await start_again(sandbox, name)


async def _kill(sandbox: Sandbox, cluster: str, parts: tuple[str, ...]) -> None:
    names = [f"{cluster}-{part}" for part in parts]
    await together(*(_kill_one(sandbox, name) for name in names if sandbox.processes.status(name) != "stopped"))


async def _kill_one(sandbox: Sandbox, name: str) -> None:
    await sandbox.processes.kill(name)


def _without(now: faults.Faults, cluster: str) -> None:
    now.lost = [name for name in now.lost if name != cluster]
    now.cut_off = [name for name in now.cut_off if name != cluster]


def _change(sandbox: Sandbox, change: Callable[[faults.Faults], None]) -> None:
    now = faults.load(sandbox.directory)
    change(now)
    faults.save(sandbox.directory, now)
