"""A short selection of `make chaos`: a worker is killed while four actions stand at their irreversible steps."""

from __future__ import annotations

from sandbox.chaos.bench import Bench
from sandbox.chaos.plan import Row
from sandbox.driver import Driver
from starter import console

STEPS = ("Failover/action-02-apply_vrg", "Failover/action-03-publish_decision", "Relocate/action-06-demote_witnessed")
"""The promotion, the decision, and the demotion whose final sync must be witnessed."""


async def test_a_worker_is_killed_at_the_steps_that_cannot_be_taken_back(driver: Driver) -> None:
    bench = Bench(driver, console.action)
    await bench.begin()
    try:
        steps = {step.id: step for step in await bench.discover()}
        rows = [
            Row(step=step, part="worker of the target", fault="kill", when="after" if number % 2 else "before")
            for number, step in enumerate(STEPS)
        ]
        results = await bench.batch(rows, steps)
        await bench.unprotect_all()
    finally:
        await bench.end()
    assert [result for result in results.values() if result.verdict != "passed"] == []
