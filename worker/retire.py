"""Closing of clients that were replaced: later, because calls that began before the change still use them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

RETIRE_SECONDS = 10.0
"""Longer than the time limit of any single call to a cluster or store."""


class Retired:
    """Clients that are closed after a while; keeps the tasks alive until then."""

    def __init__(self, seconds: float = RETIRE_SECONDS) -> None:
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, close: Callable[[], Awaitable[None]]) -> None:
        """Calls `close` when the last call has surely ended."""

        async def later() -> None:
            try:
                await asyncio.sleep(self._seconds)
            finally:
                await close()

        task = asyncio.create_task(later())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Closes all of them now; for the end of the process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
