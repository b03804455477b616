"""Which clusters are served while the registry changes under a leave that takes its time."""

from __future__ import annotations

import asyncio

import pytest

from worker.gate import Gate
from worker.members import Members


class Registry:
    """A registry whose clusters the test brings and takes away."""

    def __init__(self, *names: str) -> None:
        self.revision = 0
        self.gates = {name: Gate(name) for name in names}
        self._moved = asyncio.Event()

    def names(self) -> list[str]:
        return list(self.gates)

    def gate(self, name: str) -> Gate:
        return self.gates[name]

    async def changed_since(self, revision: int) -> None:
        while self.revision == revision:
            await self._moved.wait()

    def take(self, name: str) -> None:
        self.gates.pop(name).shut(f"{name} left the ClusterRegistry")
        self._changed()

    def bring(self, name: str) -> None:
        self.gates[name] = Gate(name)
        self._changed()

    def _changed(self) -> None:
        self.revision += 1
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


class Serving:
    """What serves the clusters: by name, the gate that it follows."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.gates: dict[str, Gate] = {}
        self.leaving: set[str] = set()
        self.may_leave = asyncio.Event()
        self.may_leave.set()
        self.members = Members(registry, self.join, self.leave)

    def join(self, name: str) -> None:
        assert name not in self.gates, "two serve one cluster"
        self.gates[name] = self.registry.gate(name)

    async def leave(self, name: str) -> None:
        self.leaving.add(name)
        await self.may_leave.wait()
        self.leaving.discard(name)
        del self.gates[name]


async def until_serving(serving: Serving) -> None:
    """Until what is served is what the registry has, told by the gates."""
    async with asyncio.timeout(5):
        while serving.gates != serving.registry.gates:
            await asyncio.sleep(0)


@pytest.mark.parametrize("returning", ["dr2", "dr3"], ids=["another one", "the one that is being left"])
async def test_a_cluster_that_leaves_and_returns_while_one_is_left_is_served_by_its_new_gate(returning: str) -> None:
    registry = Registry("dr1", "dr2", "dr3")
    serving = Serving(registry)
    running = asyncio.create_task(serving.members.run())
    try:
        await until_serving(serving)
        serving.may_leave.clear()
        registry.take("dr3")
        async with asyncio.timeout(5):
            while "dr3" not in serving.leaving:
                await asyncio.sleep(0)
        if returning in registry.gates:
            registry.take(returning)
        registry.bring(returning)
        serving.may_leave.set()
        await until_serving(serving)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_cluster_that_left_before_it_was_taken_up_is_not_served() -> None:
    registry = Registry("dr1", "dr3")
    serving = Serving(registry)
    await serving.members.look()
    registry.take("dr3")
    registry.bring("dr2")
    serving.may_leave.clear()
    looking = asyncio.create_task(serving.members.look())
    async with asyncio.timeout(5):
        while "dr3" not in serving.leaving:
            await asyncio.sleep(0)
    registry.take("dr2")
    serving.may_leave.set()
    await looking
    assert list(serving.gates) == ["dr1"]
