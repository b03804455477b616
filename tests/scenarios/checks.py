"""What has to be true after a scenario, read from the servers and the ledger of writes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ramen.epoch import Epoch
from sandbox.application import Application
from sandbox.driver import Driver
from sandbox.ledger import SwitchFigures

REST_SECONDS = 30
"""Longest wait until both sides are equal: some syncs of one second each."""


@dataclass
class Story:
    """One application that runs and is protected on dr1, and when it was last asked to move."""

    driver: Driver
    application: Application
    asked: float = field(default_factory=time.time)

    @classmethod
    async def begin(cls, driver: Driver, application: Application) -> Story:
        """Deploys and protects the application, and waits until a loss of dr1 would be survivable."""
        await driver.deploy(application, "dr1")
        await driver.ended(await driver.protect(application, "dr1"))
        await driver.protected(application)
        return cls(driver, application)

    async def move(self, verb: str, target: str, **more: Any) -> Any:
        """Asks for a move, notes when, and waits for its end."""
        self.asked = time.time()
        return await self.driver.ended(await self.driver.move(verb, self.application, target, **more))

    async def serves(self, cluster: str) -> None:
        """All pods of the application become Ready on a cluster."""
        await self.driver.until(
            lambda: self.driver.serves(self.application, cluster), f"{self.application.name} to serve on {cluster}"
        )

    def figures(self) -> SwitchFigures:
        """Figures of the last move."""
        ledger = self.driver.ledger()
        try:
            return ledger.switch(self.application.namespace, self.application.name, self.asked)
        finally:
            ledger.close()

    async def nothing_old_was_lost(self) -> SwitchFigures:
        """A failover loses nothing that a completed sync had brought over."""
        figures = self.figures()
        assert figures.lost_older_than_last_sync == 0, figures
        return figures

    async def nothing_was_lost(self) -> None:
        """A relocate loses nothing at all."""
        figures = self.figures()
        assert (figures.lost, figures.during_switch, figures.orphaned) == (0, 0, 0), figures

    async def settled(self, cluster: str) -> None:
        """Serves there, re-protected, the other side clean and Secondary, both sides equal, one epoch everywhere."""
        await self.serves(cluster)
        await self.driver.protected(self.application)
        other = next(name for name in self.driver.clusters if name != cluster)
        primary, secondary = [await self.driver.vrg(self.application, name) for name in (cluster, other)]
        assert primary is not None
        assert secondary is not None
        assert primary["spec"]["replicationState"] == "primary"
        assert secondary["spec"]["replicationState"] == "secondary"
        assert Epoch.of(primary) == Epoch.of(secondary)
        assert await self.driver.claims(self.application, other) == []
        assert (await self.driver.pods(self.application, other)).total == 0
        status = await self.driver.status(self.application)
        assert status.state.decision.cluster == cluster

        async def equal() -> bool:
            ledger = self.driver.ledger()
            try:
                return ledger.divergence(self.application.namespace, self.application.name).total == 0
            finally:
                ledger.close()

        await self.driver.until(equal, "both sides to be equal at rest", REST_SECONDS)
