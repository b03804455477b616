"""Brings a sandbox up and down: what runs, in which order, and what has to be true before the next step."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from ramen.errors import HublessError
from ramen.names import RAMEN_NAMESPACE, TEMPORAL_NAMESPACE
from sandbox import bootstrap, faults, s3server, state, temporal_server
from sandbox.controlplane import ControlPlane
from sandbox.processes import Probe, Processes, Spec
from sandbox.state import PARTS, Options, SandboxState
from sandbox.tools import Tool, ensure_all

Say = Callable[[str], None]
"""Takes one line of progress."""


class SandboxError(HublessError):
    """The sandbox cannot do what was asked; the text names the remedy."""


class Sandbox:
    """One sandbox directory and the processes that belong to it."""

    def __init__(self, directory: Path, name: str = "default", say: Say = lambda line: None) -> None:
        self.directory = directory
        self.name = name
        self.processes = Processes(directory)
        self._say = say

    @classmethod
    def named(cls, name: str, say: Say = lambda line: None) -> Sandbox:
        """The sandbox of that name in its usual place (`sandbox.state.directory_of`)."""
        return cls(state.directory_of(name), name, say)

    @property
    def state(self) -> SandboxState:
        """Ports, paths, options; raises `SandboxError` when there is no sandbox."""
        found = state.load(self.directory)
        if found is None:
            raise SandboxError(f"no sandbox in {self.directory}; run `hubless sandbox up`")
        return found

    async def up(self, options: Options | None = None) -> SandboxState:
        """Starts what is not running yet, fills empty clusters, and returns when everything answers.

        Parts that the options leave out are stopped; what runs with other arguments than wanted is restarted.

        Without options those of the last time hold. Raises `ProcessFailed`, `ToolMissing` or `SandboxError`.
        """
        began = time.monotonic()
        current = state.load(self.directory) or state.create(self.name, self.directory, options or Options())
        if options is not None:
            current.options = options
            current.save()
        parts = self._parts(current)
        tools = await asyncio.to_thread(ensure_all, self._say)
        planes = [ControlPlane(current, cluster, tools) for cluster in current.clusters]
        fresh = not current.seeded or any(self._stopped(f"{cluster}-apiserver") for cluster in current.clusters)
        for plane in planes:
            plane.prepare()
        await together(
            self._clusters(current, planes, fresh),
            *(self._store(current, cluster, tools[Tool.WEED]) for cluster in current.clusters),
            self._temporal(current, tools[Tool.TEMPORAL]),
        )
        current.seeded = True
        current.save()
        unwanted = _parts_among(self.processes.names()) - {spec.name for spec in parts}
        await together(*(self._stop(name) for name in sorted(unwanted) if not self._stopped(name)))
        await together(*(self._start(spec) for spec in parts))
        if "worker" not in current.options.without:
            await bootstrap.validated(current)
            self._say("policy: validated")
        self._say(f"sandbox {current.name} is up after {time.monotonic() - began:.1f} s")
        return current

    async def down(self) -> list[str]:
        """Stops what `up` started and nothing else; the names of what was running. Data stay."""
        running = [name for name in self.processes.names() if self.processes.status(name) != "stopped"]
        # Clients first: a worker that loses its server on the way down would only fill its log.
        for group in _stopping_order(running):
            await together(*(self._stop(name) for name in group))
        return running

    async def reset(self) -> SandboxState:
        """Stops everything, forgets all data, and starts again with the same ports and options."""
        current = self.state
        await self.down()
        for name in ("data", "run", "logs", "kubeconfigs", "pki", "applications"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for path in self.directory.glob("ledger.db*"):
            path.unlink()
        faults.save(self.directory, faults.Faults())
        current.seeded = False
        current.save()
        return await self.up()

    async def remove(self) -> None:
        """Stops everything and deletes the directory; raises `SandboxError` when it holds no sandbox."""
        directory = self.state.directory
        await self.down()
        shutil.rmtree(directory)

    def status(self) -> dict[str, Any]:
        """State of every process with its memory (MB) and port numbers, addresses, and faults in force."""
        current = self.state
        return {
            "name": current.name,
            "directory": str(current.directory),
            "temporal": current.temporal_address,
            "temporalWeb": current.temporal_ui,
            "options": current.options.model_dump(),
            "faults": faults.load(self.directory).model_dump(exclude_defaults=True),
            "clusters": {
                name: {
                    "api": cluster.api_url,
                    "s3": cluster.s3_url,
                    "kubeconfig": str(current.kubeconfig(name)),
                }
                for name, cluster in current.clusters.items()
            },
            "processes": [self._describe(name) for name in self.processes.names()],
        }

    def environment(self) -> dict[str, str]:
        """What a shell, a worker or a test needs to reach this sandbox."""
        current = self.state
        return {
            "TEMPORAL_ADDRESS": current.temporal_address,
            "TEMPORAL_NAMESPACE": TEMPORAL_NAMESPACE,
            "HUBLESS_SANDBOX_DIR": str(current.directory),
            "KUBECONFIG": ":".join(str(current.kubeconfig(cluster)) for cluster in current.clusters),
        }

    def _describe(self, name: str) -> dict[str, Any]:
        status = self.processes.status(name)
        pid = self.processes.pid(name)
        memory = 0.0
        if pid:
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = psutil.Process(pid).memory_info().rss / 1e6
        return {"name": name, "status": status, "pid": pid, "memoryMB": round(memory)}

    async def _clusters(self, current: SandboxState, planes: list[ControlPlane], fresh: bool) -> None:
        await together(*(self._control_plane(plane) for plane in planes))
        seeding = [bootstrap.bootstrap(current)] if fresh else []
        followers = [self._start(spec) for plane in planes for spec in plane.followers()]
        await together(*followers, *seeding)
        self._say("clusters: ready")

    async def _control_plane(self, plane: ControlPlane) -> None:
        await self._start(plane.etcd())
        await self._start(plane.apiserver())

    async def _store(self, current: SandboxState, cluster: str, weed: Path) -> None:
        fresh = self._stopped(f"{cluster}-s3")
        await self.processes.stop(f"{cluster}-{s3server.FRONT}")  # it has the store's port
        self.processes.forget(f"{cluster}-{s3server.FRONT}")
        await self._start(s3server.spec(current, cluster, weed))
        if fresh:
            await s3server.ensure_buckets(current, cluster)

    async def _temporal(self, current: SandboxState, temporal: Path) -> None:
        await self._start(temporal_server.spec(current, temporal))
        if not current.seeded:
            await temporal_server.prepare(current, temporal)

    async def _start(self, spec: Spec) -> None:
        if self._stopped(spec.name):
            self._say(f"{spec.name}: starting")
        await self.processes.start(spec)

    async def _stop(self, name: str) -> None:
        self._say(f"{name}: stopping")
        await self.processes.stop(name)

    def _stopped(self, name: str) -> bool:
        return self.processes.status(name) == "stopped"

    def _parts(self, current: SandboxState) -> list[Spec]:
        """Specs of stand-ins and workers; raises `SandboxError` for a part that does not exist."""
        options = current.options
        unknown = set(options.without) - set(PARTS)
        if unknown:
            raise SandboxError(f"no part {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
        specs: list[Spec] = []
        if "array" not in options.without:
            lag = ["--lag", f"{options.lag:g}"]
            specs.append(self._standin("array", "array", *lag, "--delay-scale", f"{options.delay_scale:g}"))
        for cluster in current.clusters:
            here = ("--cluster", cluster)
            if "operator" not in options.without and options.vrg_operator != "none":
                specs.append(self._operator(current, cluster))
            if "gitops" not in options.without:
                specs.append(self._standin("gitops", f"{cluster}-gitops", *here))
            if "worker" not in options.without:
                specs.append(_worker(current, cluster))
        return specs

    def _standin(self, module: str, name: str, *arguments: str) -> Spec:
        full = f"sandbox.standins.{module}"
        if find_spec(full) is None:
            raise SandboxError(f"the stand-in {full} is missing; leave it out with --without {module}")
        argv = [sys.executable, "-m", full, "--dir", str(self.directory), *arguments]
        return Spec(name=name, argv=argv)

    def worker_spec(self, cluster: str, holds: bool = False) -> Spec:
        """How the worker of a cluster is started; a test may start another one by it, or one that can be held at a
        step (`sandbox.holding`)."""
        usual = _worker(self.state, cluster)
        if not holds:
            return usual
        env = {**usual.env, "HUBLESS_SANDBOX_DIR": str(self.directory)}
        return usual.model_copy(update={"argv": [sys.executable, "-m", "sandbox.holding"], "env": env})

    def _operator(self, current: SandboxState, cluster: str) -> Spec:
        choice, name = current.options.vrg_operator, f"{cluster}-operator"
        if choice == "builtin":
            scale = f"{current.options.delay_scale:g}"
            return self._standin("operator", name, "--cluster", cluster, "--delay-scale", scale)
        program = Path(choice).expanduser().absolute()
        if not program.is_file():
            raise SandboxError(f"--vrg-operator: {choice} is no program; give its path, `builtin` or `none`")
        return Spec(
            name=name,
            argv=[str(program), f"--kubeconfig={current.kubeconfig(cluster, 'operator')}"],
            env={"RAMEN_CONTROLLER_TYPE": "dr-cluster", "POD_NAMESPACE": RAMEN_NAMESPACE},
            probe=Probe(port=current.clusters[cluster].ports["operator"], path="/readyz"),
        )


def _worker(current: SandboxState, cluster: str) -> Spec:
    port = current.clusters[cluster].ports["worker"]
    return Spec(
        name=f"{cluster}-worker",
        argv=[str(Path(sys.executable).with_name("hubless")), "worker", "run"],
        env={
            "HUBLESS_CLUSTER": cluster,
            "HUBLESS_KUBECONFIG": str(current.kubeconfig(cluster, "worker")),
            "HUBLESS_HTTP_PORT": str(port),
            "TEMPORAL_ADDRESS": current.temporal_address,
            "TEMPORAL_NAMESPACE": TEMPORAL_NAMESPACE,
        },
        probe=Probe(port=port),
    )


def _parts_among(names: list[str]) -> set[str]:
    """Those processes that play one of `PARTS`."""
    return {name for name in names if name.rsplit("-", 1)[-1] in PARTS}


def _stopping_order(names: list[str]) -> list[list[str]]:
    """Groups that end one after the other: parts, controllers, API servers, then what keeps data."""
    rank = {
        "kwok": 1,
        "scheduler": 1,
        "controller-manager": 1,
        "apiserver": 2,
        "etcd": 3,
        "s3": 3,
        "s3front": 3,
        "temporal": 3,
    }
    groups: list[list[str]] = [[], [], [], []]
    for name in names:
        part = name if name in rank else name.split("-", 1)[-1]
        groups[rank.get(part, 0)].append(name)
    return [group for group in groups if group]


async def together(*steps: Coroutine[Any, Any, Any]) -> None:
    """Runs steps side by side; the first failure cancels the others and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
    except BaseExceptionGroup as failures:
        first: BaseException = failures
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
