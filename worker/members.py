"""Follows the clusters of the registry: what serves a cluster begins when it joins and ends when it leaves.

A cluster is told by its gate, not by its name. Whoever leaves takes its time, up to the graceful time of a worker, and
meanwhile another cluster may leave and come back: it has the same name and a new gate, and whatever hangs on the old
one, which stays shut for good, would serve it never again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from worker.gate import Gate


class Gates(Protocol):
    """Who is in the registry, as `worker.clusters.Clusters` holds it."""

    def names(self) -> list[str]: ...

    def gate(self, name: str) -> Gate: ...


class Registry(Gates, Protocol):
    """The same, and when it changes."""

    revision: int

    async def changed_since(self, revision: int) -> None: ...


def is_member(registry: Gates, name: str, gate: Gate) -> bool:
    """Whether a cluster is in the registry and has not left it since it had this gate."""
    return name in registry.names() and registry.gate(name) is gate


class Members:
    """Calls `join` and `leave` for each cluster in turn; `leave` always ends before the same name joins again."""

    def __init__(
        self, registry: Registry, join: Callable[[str], None], leave: Callable[[str], Awaitable[None]]
    ) -> None:
        self._registry = registry
        self._join = join
        self._leave = leave
        self._joined: dict[str, Gate] = {}

    async def run(self) -> None:
        """Follows until cancelled."""
        while True:
            revision = self._registry.revision
            await self.look()
            await self._registry.changed_since(revision)

    async def look(self) -> None:
        """Lets go of the clusters that left, and takes up those that are new."""
        for name in [name for name, gate in self._joined.items() if not is_member(self._registry, name, gate)]:
            await self._leave(name)
            del self._joined[name]
        # Names and gates are read after the last wait, so all of them are members still.
        for name in sorted(set(self._registry.names()) - self._joined.keys()):
            self._joined[name] = self._registry.gate(name)
            self._join(name)
