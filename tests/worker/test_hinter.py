"""Hints: at once, not twice, again while the difference lasts, by one sender."""

from __future__ import annotations

import pytest

from activities.access.protocol import Object
from activities.waiting import Key
from tests.worker.fakes import policy, under_policy, vrg
from tests.worker.test_attention import told
from worker.watches import FIRST_PAUSE_SECONDS, FOLLOWER_SECONDS, Hinter
from workflows.inputs import ClusterSignal

SHOP: Key = ("web", "shop")


class Scene:
    """One application, a clock, and what was sent."""

    def __init__(self, own: str = "dr1") -> None:
        self.now = 100.0
        self.seen: dict[str, Object | None] = {"dr1": vrg("primary"), "dr2": vrg("secondary")}
        self.sent: list[tuple[Key, str, str]] = []
        self.contents: list[ClusterSignal] = []
        self.policies: list[Object] = []
        self.hinter = Hinter(
            own, lambda _: self.seen, self._send, lambda: self.now, policies=lambda: list(self.policies)
        )

    async def _send(self, app: Key, signal: str, content: ClusterSignal) -> None:
        self.sent.append((app, signal, content.reason))
        self.contents.append(content)

    async def change(self, cluster: str, body: Object) -> None:
        old, self.seen[cluster] = self.seen[cluster], body
        self.hinter.changed(old, body)
        await self.hinter.judge()

    async def after(self, seconds: float) -> int:
        """Lets time pass; how many hints are sent now."""
        before, self.now = len(self.sent), self.now + seconds
        await self.hinter.judge()
        return len(self.sent) - before


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_agreement_sends_nothing(scene: Scene) -> None:
    scene.seen["dr2"] = vrg("secondary", volumes=told("data"))
    await scene.change("dr1", vrg("primary", protected=("data",)))
    assert await scene.after(3600) == 0
    assert scene.sent == []


async def test_difference_is_told_at_once(scene: Scene) -> None:
    await scene.change("dr2", vrg("primary"))
    assert [(app, signal) for app, signal, _ in scene.sent] == [(SHOP, "vrg_observed")]
    assert "both Primary" in scene.sent[0][2]


async def test_new_peer_classes_of_the_policy_are_told_as_such_until_the_vrgs_have_them(scene: Scene) -> None:
    scene.policies = [policy("block")]
    for cluster, role in (("dr1", "primary"), ("dr2", "secondary")):
        await scene.change(cluster, under_policy(vrg(role), "block"))
    assert scene.sent == []
    scene.policies = [policy("block", "fast")]
    scene.hinter.mark([SHOP])
    await scene.hinter.judge()
    assert scene.sent[0][2] == "the policy has new peer classes for the VRG on dr1 and dr2"
    assert scene.contents[0].policy_changed
    for cluster, role in (("dr1", "primary"), ("dr2", "secondary")):
        await scene.change(cluster, under_policy(vrg(role), "block", "fast"))
    assert await scene.after(3600) == 0


async def test_a_difference_of_the_vrgs_says_nothing_of_the_policy(scene: Scene) -> None:
    await scene.change("dr2", vrg("primary"))
    assert not scene.contents[0].policy_changed


async def test_difference_that_lasts_is_told_again_ever_more_slowly(scene: Scene) -> None:
    await scene.change("dr2", vrg("primary"))
    assert await scene.after(FIRST_PAUSE_SECONDS - 1) == 0
    assert await scene.after(1) == 1
    assert await scene.after(FIRST_PAUSE_SECONDS) == 0
    assert await scene.after(FIRST_PAUSE_SECONDS) == 1


async def test_agreement_ends_the_hints(scene: Scene) -> None:
    await scene.change("dr2", vrg("primary"))
    await scene.change("dr2", vrg("secondary"))
    assert await scene.after(3600) == 0


async def test_at_most_one_hint_in_a_pause_however_the_reason_changes(scene: Scene) -> None:
    await scene.change("dr2", vrg("primary"))
    await scene.change("dr2", vrg("secondary"))
    await scene.change("dr2", vrg("secondary", "6.old"))
    assert len(scene.sent) == 1
    assert await scene.after(FIRST_PAUSE_SECONDS) == 1
    assert "epoch 6" in scene.sent[1][2]


async def test_worker_of_the_second_cluster_speaks_only_when_the_difference_lasts() -> None:
    scene = Scene(own="dr2")
    await scene.change("dr2", vrg("primary"))
    assert scene.sent == []
    assert await scene.after(FOLLOWER_SECONDS) == 1


async def test_worker_of_the_second_cluster_speaks_at_once_when_the_first_is_out_of_sight() -> None:
    scene = Scene(own="dr2")
    del scene.seen["dr1"]
    scene.seen["dr2"] = vrg("primary", clusters="dr2,dr3")
    scene.seen["dr3"] = None
    scene.hinter.mark([SHOP])
    await scene.hinter.judge()
    assert len(scene.sent) == 1


async def test_mark_judges_an_application_whose_vrg_is_not_there(scene: Scene) -> None:
    scene.seen["dr2"] = None
    scene.hinter.mark([SHOP])
    await scene.hinter.judge()
    assert scene.sent[0][2] == "dr2 has no VRG"
