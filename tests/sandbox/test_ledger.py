"""The ledger's figures, from an array in memory whose clock the test turns; nothing here believes a status."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramen.errors import NotFound
from ramen.names import RETAINED_FOR_FAILOVER
from sandbox import faults
from sandbox.faults import Faults
from sandbox.ledger import Claim, Ledger, SwitchFigures, Writes
from sandbox.standins.storage import Storage
from sandbox.standins.volumes import Pace

RATE = 5
START = 1_800_000_000.0


class World:
    """One application with one volume, `v`, and what its surroundings tell the ledger."""

    def __init__(self, directory: Path, pace: Pace | None = None) -> None:
        self.directory = directory
        self.pace = pace or Pace(lag=5, sync=1, copy=4)
        self.now = START
        self.busy = 0.0
        """Seconds that pass from one look at the clock to the next, as on a machine with too much to do."""
        self.ledger = Ledger.open(directory)
        self.storage = self.array()

    def array(self) -> Storage:
        """The array, or one that was started again."""
        return Storage(self.directory, ("dr1", "dr2"), self.ledger, self.pace, RATE, clock=self.clock)

    def clock(self) -> float:
        self.now += self.busy
        return self.now

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.now += 0.25
            self.storage.tick()

    def faulty(self, **what: object) -> None:
        faults.save(self.directory, Faults.model_validate(what))
        # The file's own time is the real clock's, and the world's clock is another one.
        os.utime(self.directory / faults.FILE, (self.now, self.now))
        self.storage.tick()

    def bound(self, cluster: str, handle: str = "v") -> None:
        self.ledger.add_claim(Claim(self.now, cluster, "web", "data", "shop", handle, "web/shop"))

    def asked(self, cluster: str, role: str = "primary") -> None:
        self.ledger.add_event(self.now, "vrg", cluster, "shop", "web", {"role": role})

    def decided(self, *entries: tuple[str, str], seen_by: str = "dr2") -> None:
        decisions = [{"clusterName": cluster, "reason": reason} for cluster, reason in entries]
        self.ledger.add_event(self.now, "decision", seen_by, "shop", "web", {"decisions": decisions})

    def served(self) -> None:
        """Serves on dr1, protected, copied to dr2, second 20; syncs begin every five seconds."""
        self.storage.provision("v", "dr1")
        self.bound("dr1")
        self.storage.set_pod("dr1", "pod-1", ["v"])
        # Whole seconds of the story fall between two writes, so that every figure is a whole number of them.
        self.now += 0.1
        self.asked("dr1")
        self.storage.promote("v", "dr1")
        self.run(20)

    def failover(self, *, promote_after: float = 1.0, decide_after: float = 1.0) -> None:
        """To dr2, with dr1 writing all the while."""
        self.asked("dr2")
        self.bound("dr2")
        self.run(promote_after)
        self.storage.promote("v", "dr2")
        self.run(decide_after)
        self.decided(("dr1", RETAINED_FOR_FAILOVER), ("dr2", "dr2"))
        self.storage.set_pod("dr2", "pod-2", ["v"])

    def figures(self) -> SwitchFigures:
        self.storage.tick()
        return self.ledger.switch("web", "shop", START + 10)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.ledger.close()


def test_a_row_knows_how_many_of_its_writes_came_before_a_moment() -> None:
    row = Writes("v", "dr1", "primary", True, 1, 11, 15, 100.0, 100.8, "pod")
    assert [row.before(moment) for moment in (99, 100.0, 100.1, 100.2, 100.21, 100.8, 101)] == [0, 0, 1, 1, 2, 4, 5]
    assert row.time_of(13) == pytest.approx(100.4)


def test_steady_writes_take_one_row_whatever_the_number_of_ticks(world: World) -> None:
    world.served()
    rows = [row for row in world.ledger.writes("v") if row.role == "primary"]
    assert len(rows) == 1
    assert rows[0].number == 20 * RATE


def test_a_failover_loses_what_the_last_completed_sync_had_not_taken_and_nothing_older(world: World) -> None:
    world.served()
    world.faulty(cut_off=["dr1"])
    world.run(7)
    world.failover()
    world.run(4)
    found = world.figures()
    assert found.from_cluster == "dr1"
    assert found.to_cluster == "dr2"
    assert found.last_sync_start is not None
    assert found.checked == 27 * RATE
    late = found.promotion_asked - found.last_sync_start
    assert found.lost == pytest.approx(late * RATE, abs=1)
    assert found.oldest_lost_age == pytest.approx(late, abs=1 / RATE)
    assert found.lost_older_than_last_sync == 0


@pytest.mark.parametrize("busy", [0.05, 0.11, 0.15, 0.23])
def test_a_busy_array_dates_no_sync_later_than_the_writes_that_it_carries(tmp_path: Path, busy: float) -> None:
    world = World(tmp_path, Pace(lag=0.5, sync=0, copy=0))
    world.busy = busy
    world.served()
    world.faulty(lost=["dr1"])
    asked = world.now
    world.failover()
    found = world.ledger.switch("web", "shop", asked)
    assert found.lost_older_than_last_sync == 0, found
    world.ledger.close()


def test_the_old_side_that_goes_on_writing_is_counted_until_and_after_the_decision(world: World) -> None:
    world.served()
    world.faulty(cut_off=["dr1"])
    world.failover(promote_after=1, decide_after=2)
    world.run(4)
    found = world.figures()
    assert found.during_switch == 3 * RATE
    assert found.orphaned == 4 * RATE
    world.run(2)
    assert world.figures().orphaned == 6 * RATE, "it grows until the demotion"


def test_a_lost_site_writes_nothing_and_nothing_after_the_order_counts(world: World) -> None:
    world.served()
    world.faulty(lost=["dr1"])
    world.failover()
    world.run(5)
    found = world.figures()
    assert (found.during_switch, found.orphaned) == (0, 0)


def test_pods_of_a_returning_site_write_once_they_are_known_again(world: World) -> None:
    world.served()
    world.faulty(lost=["dr1"])
    world.failover()
    world.faulty()
    world.run(3)
    assert world.figures().orphaned == 0
    world.storage.resume("dr1")
    world.run(3)
    assert world.figures().orphaned == 3 * RATE
    world.storage.demote("v", "dr1")
    world.run(3)
    assert world.figures().orphaned == 3 * RATE
    assert world.ledger.totals("web", "shop")["dr1"].rejected == 3 * RATE


def relocate(world: World, *, demote: bool = True) -> SwitchFigures:
    world.storage.set_pod("dr1", "pod-1", [])
    world.decided()
    if demote:
        world.storage.demote("v", "dr1")
        world.run(2)
    world.asked("dr2")
    world.bound("dr2")
    world.storage.promote("v", "dr2")
    world.decided(("dr2", "dr2"))
    world.storage.set_pod("dr2", "pod-2", ["v"])
    world.run(10)
    return world.figures()


def test_a_relocate_loses_nothing(world: World) -> None:
    world.served()
    found = relocate(world)
    assert (found.lost, found.during_switch, found.orphaned) == (0, 0, 0)
    assert found.checked == 20 * RATE
    assert found.volumes[0].forced is False
    assert world.ledger.divergence("web", "shop").total == 0


def test_a_relocate_without_the_final_sync_is_seen(world: World) -> None:
    world.served()
    world.run(3)
    assert relocate(world, demote=False).lost > 0


def test_a_half_copied_volume_that_is_promoted_lost_old_writes(world: World) -> None:
    world.served()
    world.faulty(cut_off=["dr1"])
    world.failover()
    world.faulty()
    world.storage.demote("v", "dr1")
    world.decided(("dr2", "dr2"))
    world.run(10)
    assert world.storage.resync("v", "dr1")
    world.run(2)
    began = world.now
    world.asked("dr1")
    world.storage.promote("v", "dr1")
    world.run(1)
    found = world.ledger.switch("web", "shop", began)
    assert found.from_cluster == "dr2"
    assert not found.volumes[0].whole
    assert found.lost_older_than_last_sync == found.lost > 20


def test_a_volume_that_was_never_restored_is_lost_altogether(world: World) -> None:
    world.served()
    world.asked("dr2")
    world.decided(("dr2", "dr2"))
    world.run(1)
    found = world.figures()
    assert found.promoted is None
    assert found.lost == found.checked == 20 * RATE


def test_an_empty_volume_under_the_same_claim_is_not_taken_for_the_data(world: World) -> None:
    world.served()
    world.storage.provision("w", "dr2")
    world.bound("dr2", "w")
    world.asked("dr2")
    world.storage.promote("v", "dr2")
    world.storage.promote("w", "dr2")
    world.run(1)
    found = world.figures()
    assert found.lost == found.checked == 20 * RATE


def test_data_destroyed_before_a_switch_are_lost_not_forgotten(world: World) -> None:
    world.served()
    world.storage.set_pod("dr1", "pod-1", [])
    world.storage.destroy("v", "dr1")
    world.run(1)
    world.faulty(lost=["dr1"])
    world.failover()
    found = world.figures()
    assert found.checked == 20 * RATE
    assert found.lost > 0


def test_discarded_writes_of_an_earlier_switch_are_not_counted_again(world: World) -> None:
    world.served()
    world.faulty(cut_off=["dr1"])
    world.failover()
    assert world.figures().lost > 0
    world.faulty()
    world.storage.set_pod("dr1", "pod-1", [])
    world.storage.demote("v", "dr1")
    world.storage.resync("v", "dr1")
    world.run(12)
    assert world.ledger.divergence("web", "shop").total == 0
    world.storage.set_pod("dr2", "pod-2", [])
    world.storage.demote("v", "dr2")
    world.run(2)
    began = world.now
    world.asked("dr1")
    world.storage.promote("v", "dr1")
    world.decided(("dr1", "dr1"))
    world.run(1)
    found = world.ledger.switch("web", "shop", began)
    assert (found.from_cluster, found.lost, found.orphaned) == ("dr2", 0, 0)
    assert found.checked > 0


def test_divergence_sees_two_histories_and_allows_the_lag(world: World) -> None:
    world.served()
    world.run(3)
    assert world.ledger.divergence("web", "shop").total == 0, "the lag of replication is no divergence"
    world.faulty(cut_off=["dr1"])
    world.failover()
    world.run(2)
    found = world.ledger.divergence("web", "shop")
    assert found.only_on_follower > 0
    assert found.absent_on_follower > 0
    assert found.primaries == {"data": ["dr1", "dr2"]}


def test_a_side_that_misses_an_old_write_is_found(world: World) -> None:
    world.served()
    world.run(2)
    volume = world.storage.volume("v")
    assert volume is not None
    assert volume.sides["dr2"].transfer is None
    volume.sides["dr2"].content = {1: [(1, 3), (5, volume.sides["dr2"].content[1][0][1])]}
    world.ledger.save_volume(volume)
    world.ledger.commit()
    assert world.ledger.divergence("web", "shop").absent_on_follower == 1


def test_paused_replication_keeps_the_age_of_the_copy(world: World) -> None:
    world.served()
    world.faulty(replication="paused")
    before = world.ledger.data_as_of("web", "shop")
    world.run(30)
    assert world.ledger.data_as_of("web", "shop") == before
    world.faulty()
    world.run(6)
    assert (world.ledger.data_as_of("web", "shop") or 0) > (before or math.inf)


def test_a_restarted_array_goes_on_with_the_same_numbers(world: World) -> None:
    world.served()
    world.storage = world.array()
    world.storage.set_pod("dr1", "pod-1", ["v"])
    world.run(2)
    volume = world.ledger.volume("v")
    assert volume is not None
    assert volume.sides["dr1"].content == {1: [(1, 22 * RATE)]}


def test_a_switch_that_nobody_asked_for_is_not_made_up(world: World) -> None:
    world.served()
    with pytest.raises(NotFound):
        world.figures()
