"""Replicated volumes: what each role accepts, what a switch keeps, and what the array destroys without asking."""

from __future__ import annotations

import random

import pytest

from sandbox.standins.volumes import (
    Content,
    Health,
    Link,
    Pace,
    Role,
    Volume,
    add,
    count,
    missing,
    newest_part,
)

PACE = Pace(lag=5, sync=1, copy=4)
UP, DOWN = Link(), Link(up=False)


def replicated() -> Volume:
    """A volume that is primary on dr1 and whose first copy to dr2 is complete at second 4."""
    volume = Volume.of("v", ("dr1", "dr2"), "dr1")
    volume.provision("dr1")
    volume.write("dr1", 10)
    volume.promote("dr1", UP)
    volume.advance(0, UP, PACE)
    volume.advance(4, UP, PACE)
    assert volume.sides["dr2"].health is Health.GOOD
    return volume


def failed_over() -> Volume:
    """Promoted by force on dr2 with five writes on dr1 that were not replicated; dr1 is still primary."""
    volume = replicated()
    volume.write("dr1", 5)
    volume.promote("dr2", DOWN)
    return volume


def numbers(content: Content) -> set[tuple[int, int]]:
    return {(branch, n) for branch, ranges in content.items() for low, high in ranges for n in range(low, high + 1)}


def test_contents_behave_like_sets_of_numbers() -> None:
    dice = random.Random(7)
    for _ in range(200):
        left: Content = {}
        right: Content = {}
        for content in (left, right, left, right, left, right):
            low = dice.randint(1, 20)
            add(content, dice.randint(1, 2), low, low + dice.randint(0, 5))
        assert numbers(missing(left, right)) == numbers(left) - numbers(right)
        assert count(left) == len(numbers(left))


def test_a_part_of_a_copy_has_new_writes_and_lacks_old_ones() -> None:
    assert newest_part({1: [(1, 10)], 2: [(1, 4)]}, 0.5) == {1: [(6, 10)], 2: [(3, 4)]}


def test_only_a_writable_side_accepts() -> None:
    volume = replicated()
    assert volume.write("dr1", 3) == (1, 11, 13)
    assert volume.write("dr2", 3) is None


def test_a_sync_carries_what_was_there_when_it_began_once_it_ended() -> None:
    volume = replicated()
    volume.write("dr1", 5)
    volume.advance(5, UP, PACE)
    volume.write("dr1", 5)
    volume.advance(5.9, UP, PACE)
    assert count(volume.sides["dr2"].content) == 10
    volume.advance(6, UP, PACE)
    assert count(volume.sides["dr2"].content) == 15
    assert volume.last_sync is not None
    assert (volume.last_sync.started, volume.last_sync.completed) == (5, 6)


def test_no_sync_completes_without_a_link_and_an_interrupted_one_leaves_the_copy_before_it() -> None:
    volume = replicated()
    volume.write("dr1", 5)
    volume.advance(5, UP, PACE)
    for second in range(6, 60):
        volume.advance(second, DOWN, PACE)
    assert count(volume.sides["dr2"].content) == 10


def test_without_delays_a_sync_ends_in_the_pass_that_starts_it() -> None:
    volume = replicated()
    volume.write("dr1", 5)
    volume.advance(10, UP, Pace(lag=0, sync=0, copy=0))
    assert count(volume.sides["dr2"].content) == 15


def test_a_demotion_under_a_healthy_peer_moves_the_last_writes_and_the_way_back_is_clean() -> None:
    volume = replicated()
    volume.write("dr1", 5)
    assert volume.demote("dr1")
    assert volume.write("dr1", 1) is None
    assert not volume.in_sync("dr1"), "the last writes are not over yet"
    volume.advance(5, UP, PACE)
    volume.advance(6, UP, PACE)
    assert volume.in_sync("dr1")
    promotion = volume.promote("dr2", UP)
    assert promotion is not None
    assert not promotion.forced
    assert count(promotion.content) == 15
    assert volume.sides["dr1"].health is Health.GOOD, "no resync is needed after a clean switch"


def test_a_demotion_without_a_link_never_says_in_sync() -> None:
    volume = replicated()
    volume.write("dr1", 5)
    volume.demote("dr1")
    for second in range(5, 60):
        volume.advance(second, DOWN, PACE)
    assert not volume.in_sync("dr1")


def test_a_forced_promotion_finds_the_last_completed_sync_and_splits_the_history() -> None:
    volume = replicated()
    volume.write("dr1", 5)
    promotion = volume.promote("dr2", DOWN)
    assert promotion is not None
    assert promotion.forced
    assert promotion.whole
    assert count(promotion.content) == 10
    assert promotion.last_sync is not None
    assert volume.sides["dr1"].writable, "nobody has told the old side"
    volume.write("dr1", 2)
    volume.write("dr2", 3)
    assert count(missing(volume.sides["dr1"].content, volume.sides["dr2"].content)) == 7


def test_a_side_demoted_under_a_primary_waits_for_a_resync_that_discards_what_only_it_has() -> None:
    volume = failed_over()
    volume.demote("dr1")
    assert volume.sides["dr1"].health is Health.DIVERGED
    volume.advance(20, UP, PACE)
    assert volume.sides["dr1"].health is Health.DIVERGED, "it does not heal by itself"
    assert not volume.resync("dr1", 20, DOWN, PACE)
    assert volume.resync("dr1", 20, UP, PACE)
    assert volume.last_sync is None, "while it is copied nothing vouches for it"
    volume.advance(24, UP, PACE)
    assert volume.in_sync("dr1")
    assert volume.sides["dr1"].content == volume.sides["dr2"].content


def test_a_copy_that_is_promoted_half_way_has_holes() -> None:
    volume = failed_over()
    volume.write("dr2", 10)
    volume.demote("dr1")
    volume.resync("dr1", 20, UP, PACE)
    volume.advance(22, UP, PACE)
    promotion = volume.promote("dr1", DOWN)
    assert promotion is not None
    assert not promotion.whole
    assert promotion.last_sync is None
    assert promotion.content == {1: [(6, 10)], 2: [(6, 10)]}


@pytest.mark.parametrize("copy", [0.0, 4.0])
def test_a_stuck_resync_never_ends_and_leaves_holes(copy: float) -> None:
    volume, pace, stuck = failed_over(), Pace(copy=copy), Link(stuck=frozenset({"dr1"}))
    volume.demote("dr1")
    volume.resync("dr1", 20, stuck, pace)
    for second in range(20, 60):
        volume.advance(second, stuck, pace)
    assert not volume.in_sync("dr1")
    assert volume.sides["dr1"].usable() == {1: [(6, 10)]}
    volume.advance(80, UP, pace)
    assert volume.in_sync("dr1")


def test_an_aborted_failover_makes_the_promoted_side_the_one_that_diverged() -> None:
    volume = failed_over()
    volume.write("dr2", 3)
    volume.demote("dr2")
    assert volume.author == "dr1"
    assert volume.sides["dr2"].health is Health.DIVERGED
    assert volume.resync("dr2", 20, UP, PACE)
    volume.advance(24, UP, PACE)
    assert volume.sides["dr2"].content == {1: [(1, 15)]}


def test_an_aborted_relocate_goes_on_where_it_was() -> None:
    volume = replicated()
    volume.demote("dr1")
    promotion = volume.promote("dr1", UP)
    assert promotion is not None
    assert not missing({1: [(1, 10)]}, promotion.content)
    assert volume.sides["dr2"].health is Health.GOOD


def test_deleting_a_primary_destroys_its_data_and_deleting_a_secondary_does_not() -> None:
    volume = replicated()
    assert not volume.destroy("dr2")
    assert volume.destroy("dr1")
    assert volume.sides["dr1"].role is Role.ABSENT
    assert count(volume.sides["dr2"].content) == 10


def test_promoting_a_side_without_data_serves_emptiness() -> None:
    volume = Volume.of("v", ("dr1", "dr2"), "dr2")
    promotion = volume.promote("dr2", UP)
    assert promotion is not None
    assert (promotion.content, promotion.whole) == ({}, False)


def test_the_end_of_replication_leaves_the_primary_alone_and_drops_the_copy() -> None:
    volume = replicated()
    assert volume.disable("dr1")
    assert volume.write("dr1", 1) is not None
    assert volume.sides["dr2"].role is Role.ABSENT
    volume.advance(100, UP, PACE)
    assert volume.sides["dr2"].role is Role.ABSENT


def test_a_volume_survives_being_written_down() -> None:
    volume = failed_over()
    assert Volume.model_validate_json(volume.model_dump_json()) == volume
