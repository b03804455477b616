"""The application's own workflow over a long time: its history stays short, and nothing of what it knows is lost."""

from __future__ import annotations

from tests.workflows.conftest import Application
from workflows.entity import LONG_HISTORY
from workflows.inputs import ClusterSignal


async def test_a_long_history_is_continued_as_new_at_rest(shop: Application) -> None:
    """Whoever takes a lost worker's place replays all of it before anything else (S14)."""
    await shop.protect()
    before = await shop.protected()
    first = (await shop.entity.describe()).run_id
    for _ in range(LONG_HISTORY):
        await shop.entity.signal("cluster_returned", ClusterSignal(cluster="dr1"))
        await shop.status()
        description = await shop.entity.describe()
        if description.run_id != first:
            break
    assert description.run_id != first, f"{description.history_length} events"
    after = await shop.protected()
    assert after.state == before.state
    moving = await shop.move("failover", "dr2")
    await shop.ended(moving.workflow_id)
    assert (await shop.protected()).state.decision.cluster == "dr2"
