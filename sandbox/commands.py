"""`hubless sandbox`: two clusters, their stores and Temporal on this machine, and ways to break them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer
import yaml

from ramen.errors import HublessError, Refused
from sandbox import faults, s3server, sites
from sandbox.lifecycle import Sandbox, SandboxError
from sandbox.processes import ProcessFailed
from sandbox.state import Options
from sandbox.tools import ToolMissing
from starter import console, exitcodes
from starter.run import run

app = typer.Typer(no_args_is_help=True, help="Two clusters, stores and Temporal on this machine.")
fault = typer.Typer(no_args_is_help=True, help="Lose, cut off, freeze, slow or restart a part.")
app.add_typer(fault, name="fault")

Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the sandbox; several can run side by side.")]
Cluster = Annotated[str, typer.Argument(metavar="CLUSTER", help="dr1 or dr2.")]
OptionalCluster = Annotated[str, typer.Argument(metavar="[CLUSTER]", help="dr1 or dr2; not for what exists once.")]

PARTS = {"api": "apiserver", "store": "s3", "worker": "worker", "operator": "operator", "gitops": "gitops"}
"""Parts that each cluster has, by the word of the command line."""

ONCE = {"temporal": "temporal", "array": "array"}
"""Parts that the sandbox has once."""

LOSE_HISTORY = "lose-history"
"""A verb of Temporal alone: it comes back empty, and `hubless adopt` holds the applications again."""

VERBS = ("stop", "start", "freeze", "thaw", "restart", "kill")


def _run(name: str, work: Callable[[Sandbox], Awaitable[int]]) -> None:
    """Runs a command on a sandbox; what is wrong is one line and an exit code."""

    async def guarded() -> int:
        try:
            return await work(Sandbox.named(name, say=console.action))
        except (SandboxError, Refused, ToolMissing) as err:
            console.failure(str(err))
            return exitcodes.REFUSED
        except (ProcessFailed, HublessError) as err:
            console.failure(str(err))
            return exitcodes.FAILED

    run(guarded())


@app.command()
def up(
    name: Name = "default",
    vrg_operator: Annotated[
        str, typer.Option("--vrg-operator", metavar="builtin|none|PATH", help="Who reconciles the VRGs.")
    ] = "builtin",
    delays: Annotated[
        str, typer.Option("--delays", metavar="real|zero", help="Pauses of storage and operator.")
    ] = "real",
    lag: Annotated[float, typer.Option("--lag", metavar="SECONDS", help="Between two syncs of the array.")] = 5.0,
    without: Annotated[str, typer.Option("--without", metavar="PARTS", help="Parts to leave out, by commas.")] = "",
) -> None:
    """Start the sandbox, or what of it does not run.

    \b
    Examples:
      # two clusters with everything, with the pauses of the real operator
      hubless sandbox up
    \b
      # quick, for trying things out
      hubless sandbox up --delays zero
    \b
      # with a dr-cluster operator that you built
      hubless sandbox up --vrg-operator ./bin/manager
    """

    async def work(sandbox: Sandbox) -> int:
        if delays not in ("real", "zero"):
            raise SandboxError(f"--delays {delays}: give real or zero")
        left_out = [part for part in without.split(",") if part]
        options = Options(
            vrg_operator=vrg_operator, delays="zero" if delays == "zero" else "real", lag=lag, without=left_out
        )
        state = await sandbox.up(options)
        console.result(f"Temporal      {state.temporal_address}")
        console.result(f"Temporal Web  {state.temporal_ui}")
        for cluster in state.clusters:
            console.result(f"{cluster}           {state.kubeconfig(cluster)}")
        console.tell(f'Next: eval "$(hubless sandbox env --name {name})" && hubless check')
        return exitcodes.DONE

    _run(name, work)


@app.command()
def down(name: Name = "default") -> None:
    """Stop what `up` started, and nothing else; data stay."""

    async def work(sandbox: Sandbox) -> int:
        stopped = await sandbox.down()
        console.success(f"{len(stopped)} processes stopped; the data stay in {sandbox.directory}")
        return exitcodes.DONE

    _run(name, work)


@app.command()
def reset(name: Name = "default") -> None:
    """Forget all data and start again with the same ports and options."""

    async def work(sandbox: Sandbox) -> int:
        await sandbox.reset()
        return exitcodes.DONE

    _run(name, work)


@app.command()
def remove(name: Name = "default") -> None:
    """Stop the sandbox and delete its directory."""

    async def work(sandbox: Sandbox) -> int:
        await sandbox.remove()
        return exitcodes.DONE

    _run(name, work)


@app.command()
def status(
    name: Name = "default",
    output: Annotated[str, typer.Option("--output", "-o", metavar="json|yaml", help="For machines.")] = "",
) -> None:
    """Show every process with its state and memory, the addresses, and the faults in force."""

    async def work(sandbox: Sandbox) -> int:
        found = sandbox.status()
        if output == "json":
            console.result(json.dumps(found, indent=2))
        elif output == "yaml":
            console.result(yaml.safe_dump(found, sort_keys=False).rstrip())
        elif output:
            raise SandboxError(f"-o {output}: give json or yaml")
        else:
            _show(found)
        return exitcodes.DONE

    _run(name, work)


def _show(found: dict[str, Any]) -> None:
    console.result(f"Temporal {found['temporal']}, Temporal Web {found['temporalWeb']}")
    rows = [[p["name"], p["status"], f"{p['memoryMB']} MB" if p["pid"] else "-"] for p in found["processes"]]
    console.result(console.table(["PROCESS", "STATE", "MEMORY"], rows))
    console.result(f"Faults: {json.dumps(found['faults']) if found['faults'] else 'none'}")


@app.command()
def kubeconfig(cluster: Cluster, name: Name = "default") -> None:
    """Print the path of a cluster's kubeconfig.

    \b
    Examples:
      # look at a cluster with kubectl
      KUBECONFIG=$(hubless sandbox kubeconfig dr1) kubectl get vrg -A
    """

    async def work(sandbox: Sandbox) -> int:
        sites.check(sandbox, cluster)
        console.result(str(sandbox.state.kubeconfig(cluster)))
        return exitcodes.DONE

    _run(name, work)


@app.command()
def env(name: Name = "default") -> None:
    """Print what a shell needs to reach this sandbox.

    \b
    Examples:
      # use hubless, temporal and kubectl on the sandbox
      eval "$(hubless sandbox env)"
    """

    async def work(sandbox: Sandbox) -> int:
        for variable, value in sandbox.environment().items():
            console.result(f"export {variable}={value}")
        return exitcodes.DONE

    _run(name, work)


# --- faults ---------------------------------------------------------------------------------------------------------


@fault.command("cluster")
def fault_cluster(
    verb: Annotated[str, typer.Argument(metavar="lose|cut-off|return", help="What happens to the site.")],
    cluster: Cluster,
    name: Name = "default",
) -> None:
    """Lose a whole site, cut it off while its applications go on writing, or give it back.

    \b
    Examples:
      # the site burns down
      hubless sandbox fault cluster lose dr1
    \b
      # nobody reaches it, but its pods go on writing
      hubless sandbox fault cluster cut-off dr1
    \b
      # it is back: pods, operator and worker in random order
      hubless sandbox fault cluster return dr1
    """

    async def work(sandbox: Sandbox) -> int:
        act = {"lose": sites.lose, "cut-off": sites.cut_off, "return": sites.give_back}.get(verb)
        if act is None:
            raise SandboxError(f"{verb}: give lose, cut-off or return")
        await act(sandbox, cluster)
        console.success(f"{cluster}: {verb} done")
        return exitcodes.DONE

    _run(name, work)


@fault.command("replication")
def fault_replication(
    verb: Annotated[str, typer.Argument(metavar="pause|resume", help="No sync completes while paused.")],
    name: Name = "default",
) -> None:
    """Stop and resume the replication between the two sites."""

    async def work(sandbox: Sandbox) -> int:
        if verb not in ("pause", "resume"):
            raise SandboxError(f"{verb}: give pause or resume")
        now = faults.load(sandbox.state.directory)
        now.replication = "paused" if verb == "pause" else "ok"
        faults.save(sandbox.directory, now)
        return exitcodes.DONE

    _run(name, work)


@fault.command("array-clock")
def fault_array_clock(
    seconds: Annotated[float, typer.Argument(metavar="SECONDS", help="Ahead; negative is behind, 0 is right.")],
    name: Name = "default",
) -> None:
    """Set the clock wrong with which the array dates its syncs.

    \b
    Examples:
      # ten minutes ahead
      hubless sandbox fault array-clock 600
    \b
      # ten minutes behind
      hubless sandbox fault array-clock -- -600
    """

    async def work(sandbox: Sandbox) -> int:
        now = faults.load(sandbox.state.directory)
        faults.save(sandbox.directory, now.model_copy(update={"array_clock": seconds}))
        return exitcodes.DONE

    _run(name, work)


def _volume_fault(part: str, allowed: tuple[str, ...]) -> None:
    """Adds `fault promotion|demotion|resync`."""

    def command(
        verb: Annotated[str, typer.Argument(metavar="FAULT", help="What volumes do there; ok ends it.")],
        cluster: Cluster,
        name: Name = "default",
    ) -> None:
        async def work(sandbox: Sandbox) -> int:
            sites.check(sandbox, cluster)
            if verb not in (*allowed, "ok"):
                raise SandboxError(f"{verb}: give {' or '.join((*allowed, 'ok'))}")
            now = faults.load(sandbox.directory)
            places = {**getattr(now, part), cluster: verb}
            if verb == "ok":
                places.pop(cluster)
            faults.save(sandbox.directory, faults.Faults.model_validate({**now.model_dump(), part: places}))
            return exitcodes.DONE

        _run(name, work)

    fault.command(part, help=f"Make every {part} of volumes on a cluster {' or '.join(allowed)}, or ok again.")(command)


_volume_fault("promotion", ("hang", "fail"))
_volume_fault("demotion", ("hang",))
_volume_fault("resync", ("hang",))


def _process_fault(part: str) -> None:
    """Adds `fault api|worker|operator|gitops|temporal|array`."""

    def command(
        verb: Annotated[str, typer.Argument(metavar="stop|start|freeze|thaw|restart|kill", help="What happens.")],
        cluster: OptionalCluster = "",
        name: Name = "default",
    ) -> None:
        async def work(sandbox: Sandbox) -> int:
            if part == "temporal" and verb == LOSE_HISTORY:
                await sites.lose_history(sandbox)
                console.success("temporal: started again without any history; next: hubless adopt --all")
                return exitcodes.DONE
            return await _process(sandbox, part, verb, cluster)

        _run(name, work)

    fault.command(part, help=f"Stop, start, freeze, thaw, restart or kill: {part}.")(command)


async def _process(sandbox: Sandbox, part: str, verb: str, cluster: str) -> int:
    """Does what a verb says to the process that plays a part."""
    if verb not in VERBS:
        raise SandboxError(f"{verb}: give one of {', '.join(VERBS)}")
    if part in PARTS and not cluster:
        raise SandboxError(f"each cluster has its own: give one of {', '.join(sandbox.state.clusters)}")
    if part in PARTS:
        sites.check(sandbox, cluster)
    process = f"{cluster}-{PARTS[part]}" if part in PARTS else ONCE[part]
    if process not in sandbox.processes.names():
        raise SandboxError(f"{process} was never started here; see: hubless sandbox status --name {sandbox.name}")
    await _act(sandbox, verb, process)
    console.success(f"{process}: {verb} done")
    return exitcodes.DONE


@fault.command("store")
def fault_store(
    verb: Annotated[
        str, typer.Argument(metavar="VERB|CLUSTER", help="stop, start, freeze, thaw, restart or kill; or whose store.")
    ],
    cluster: OptionalCluster = "",
    slow: Annotated[float, typer.Option("--slow", metavar="SECONDS", min=0, help="Every answer is late.")] = 0.0,
    trickle: Annotated[bool, typer.Option("--trickle", help="Answers come byte by byte.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Writes are refused for want of space.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Writes and deletions are refused.")] = False,
    no_conditional_writes: Annotated[
        bool, typer.Option("--no-conditional-writes", help="Conditional writes are answered with 501.")
    ] = False,
    ignore_conditions: Annotated[
        bool, typer.Option("--ignore-conditions", help="Conditional writes are taken as plain ones.")
    ] = False,
    lying: Annotated[bool, typer.Option("--lying", help="Writes are acknowledged and nothing is kept.")] = False,
    page: Annotated[bool, typer.Option("--page", help="A balancer's page, with 200, is all that answers.")] = False,
    empty: Annotated[bool, typer.Option("--empty", help="Delete all objects; mending brings none back.")] = False,
    mend: Annotated[bool, typer.Option("--mend", help="End what was ordered before.")] = False,
    bucket: Annotated[str, typer.Option("--bucket", metavar="BUCKET", help="Only requests to this bucket.")] = "",
    name: Name = "default",
) -> None:
    """Stop, start, freeze, thaw, restart or kill a store, or make it misbehave.

    What was ordered before ends with the next order.

    \b
    Examples:
      # the store of dr1 is dead
      hubless sandbox fault store kill dr1
    \b
      # it answers three seconds late
      hubless sandbox fault store dr1 --slow 3
    \b
      # it says that it wrote, and did not
      hubless sandbox fault store dr1 --lying
    \b
      # it is as it should be
      hubless sandbox fault store dr1 --mend
    """
    ordered = faults.StoreFault(
        bucket=bucket,
        slow=slow,
        trickle=trickle,
        full="minio" if full else "",
        read_only=read_only,
        conditions="refused" if no_conditional_writes else "ignored" if ignore_conditions else "",
        lying=lying,
        page=page,
    )
    is_fault = ordered != faults.StoreFault(bucket=bucket)

    async def work(sandbox: Sandbox) -> int:
        if not (is_fault or empty or mend):
            return await _process(sandbox, "store", verb, cluster)
        if cluster or (mend and (is_fault or empty)):
            raise SandboxError("give a cluster and either faults or --mend, as in: fault store dr1 --slow 3")
        sites.check(sandbox, verb)
        if empty:
            console.success(f"{verb}-s3: {await s3server.empty(sandbox.state, verb)} objects deleted")
        if is_fault or mend:
            await sites.spoil_store(sandbox, verb, ordered)
            console.success(f"{verb}-s3: {'mended' if mend else 'spoilt'}")
        return exitcodes.DONE

    _run(name, work)


async def _act(sandbox: Sandbox, verb: str, process: str) -> None:
    processes = sandbox.processes
    if verb == "freeze":
        processes.freeze(process)
    elif verb == "thaw":
        processes.thaw(process)
    elif verb == "stop":
        await processes.stop(process)
    elif verb == "kill":
        await processes.kill(process)
    elif verb == "restart":
        await processes.restart(process)
    else:
        await processes.start_again(process)


for _part in (*PARTS, *ONCE):
    if _part != "store":  # it has more faults than its process
        _process_fault(_part)
