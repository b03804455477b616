"""Copies of one object on all clusters become equal, and none is lost or brought back by mistake."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ramen import names
from ramen.convergence import (
    PAST_LENGTH,
    Accept,
    Create,
    Delete,
    Drop,
    Leave,
    Object,
    Overwrite,
    Release,
    Revision,
    Step,
    digest,
    revision,
    step,
    winner,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIXED = ("interval",)


def spec(value: str = "a", interval: str = "1m") -> Object:
    return {"value": value, "interval": interval}


def new(**given: Any) -> Object:
    """An object as a user creates it."""
    return {"metadata": {"name": "gold", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec(**given)}


def copy(
    number: int = 1, edited: str = "2026-01-01T00:00:00Z dr1", born: str = "2026-01-01T00:00:00Z", **given: Any
) -> Object:
    """A copy that Hubless accepted or wrote."""
    made = new(**given)
    marks = {names.COPY: f"{number}.{digest(made['spec'])}", names.EDITED: edited, names.BORN: born}
    made["metadata"]["annotations"] = marks
    return made


def edit(obj: Object, **given: Any) -> Object:
    """The object after somebody's `kubectl edit`."""
    return deepcopy(obj) | {"spec": {**obj["spec"], **given}}


def leaving(obj: Object) -> Object:
    """The object after somebody's `kubectl delete`."""
    changed = deepcopy(obj)
    changed["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:10Z"
    return changed


def on(
    cluster: str, copies: dict[str, Object | None], silent: tuple[str, ...] = (), users: tuple[str, ...] = ()
) -> Step:
    return step(cluster, copies, silent, users, FIXED, NOW)


class World:
    """Clusters whose writers take turns."""

    def __init__(self, **copies: Object | None) -> None:
        self.copies: dict[str, Object | None] = dict(copies)
        self.silent: set[str] = set()
        self.users: tuple[str, ...] = ()
        self.now = NOW

    def turn(self, cluster: str, sees: tuple[str, ...] = ()) -> Step:
        """The writer of one cluster looks and acts once."""
        seen = {name: obj for name, obj in self.copies.items() if name not in self.silent or name == cluster}
        self.now += timedelta(seconds=1)
        found = step(cluster, seen, sorted(self.silent - {cluster}), self.users, FIXED, self.now)
        mine = self.copies[cluster]
        match found:
            case Accept(annotations) if mine:
                mine["metadata"].setdefault("annotations", {}).update(annotations)
            case Overwrite(wanted, annotations, _) if mine:
                mine["spec"] = deepcopy(wanted)
                mine["metadata"].setdefault("annotations", {}).update(annotations)
            case Create(wanted, annotations, _):
                self.copies[cluster] = {
                    "metadata": {"name": "gold", "annotations": dict(annotations)},
                    "spec": deepcopy(wanted),
                }
            case Delete() if mine:
                self.copies[cluster] = leaving(mine)
            case Release() | Drop():
                self.copies[cluster] = None
        return found

    def settle(self, *order: str) -> list[Step]:
        """Turns until nobody has anything to do; a world that never comes to rest fails."""
        for _ in range(20):
            steps = [self.turn(cluster) for cluster in order or tuple(self.copies)]
            if all(isinstance(each, Leave) for each in steps):
                return steps
        raise AssertionError(f"no rest: {self.copies}")

    def values(self) -> list[Any]:
        return [obj and obj["spec"]["value"] for obj in self.copies.values()]


ORDERS = [("dr1", "dr2"), ("dr2", "dr1")]


@pytest.mark.parametrize("order", ORDERS)
def test_an_object_created_on_one_cluster_comes_to_the_others(order: tuple[str, str]) -> None:
    world = World(dr1=None, dr2=new())
    world.settle(*order)
    assert world.values() == ["a", "a"]
    assert revision(world.copies["dr1"] or {}) == revision(world.copies["dr2"] or {})


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_manifest_applied_everywhere_is_one_object(order: tuple[str, str]) -> None:
    world = World(dr1=new(), dr2=new())
    world.settle(*order)
    assert {revision(obj or {}).number for obj in world.copies.values()} == {1}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("where", ["dr1", "dr2"])
def test_an_edit_on_any_cluster_reaches_the_others(order: tuple[str, str], where: str) -> None:
    world = World(dr1=copy(), dr2=copy())
    world.copies[where] = edit(copy(), value="b")
    world.settle(*order)
    assert world.values() == ["b", "b"]


@pytest.mark.parametrize("order", ORDERS)
def test_an_old_copy_that_returns_edits_nothing(order: tuple[str, str]) -> None:
    world = World(dr1=copy(1), dr2=copy(1))
    world.silent = {"dr1"}
    world.copies["dr2"] = edit(copy(1), value="b")
    world.turn("dr2")
    world.silent = set()
    world.settle(*order)
    assert world.values() == ["b", "b"]


@pytest.mark.parametrize("order", ORDERS)
def test_of_two_edits_during_a_partition_the_first_wins_and_the_other_is_told(order: tuple[str, str]) -> None:
    world = World(dr1=copy(1), dr2=copy(1))
    world.copies = {"dr1": edit(copy(1), value="late"), "dr2": edit(copy(1), value="early")}
    world.silent = {"dr1"}
    world.turn("dr2")
    world.silent = {"dr2"}
    world.turn("dr1")
    world.silent = set()
    world.settle(*order)
    assert world.values() == ["early", "early"]
    told = (world.copies["dr1"] or {})["metadata"]["annotations"][names.OVERRULED]
    assert "dr1 gave way to the one of" in told
    assert names.OVERRULED not in (world.copies["dr2"] or {})["metadata"]["annotations"]


def test_an_edit_is_accepted_before_an_older_copy_is_written_over_it() -> None:
    found = on("dr1", {"dr1": edit(copy(1), value="b"), "dr2": copy(3, value="c")})
    assert isinstance(found, Accept)
    assert found.annotations[names.COPY].startswith("4.")


@pytest.mark.parametrize("order", ORDERS)
def test_a_lost_copy_is_made_again(order: tuple[str, str]) -> None:
    world = World(dr1=None, dr2=copy(5))
    world.settle(*order)
    assert world.values() == ["a", "a"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("where", ["dr1", "dr2"])
def test_a_deletion_on_any_cluster_is_one_everywhere(order: tuple[str, str], where: str) -> None:
    world = World(dr1=copy(), dr2=copy(), dr3=copy())
    world.copies[where] = leaving(copy())
    world.settle(*order, "dr3")
    assert world.values() == [None, None, None]


@pytest.mark.parametrize("order", ORDERS)
def test_a_deletion_waits_for_a_silent_cluster(order: tuple[str, str]) -> None:
    world = World(dr1=leaving(copy()), dr2=copy(), dr3=copy())
    world.silent = {"dr3"}
    steps = world.settle(*order)
    assert any("dr3 does not answer" in each.waits for each in steps if isinstance(each, Leave))
    assert world.values() == ["a", "a", "a"]
    world.silent = set()
    world.settle(*order, "dr3")
    assert world.values() == [None, None, None]


def test_an_object_in_use_is_kept_and_says_for_whom() -> None:
    world = World(dr1=leaving(copy()), dr2=copy())
    world.users = ("web/shop",)
    assert world.settle() == [Leave("in use by web/shop: unprotect first, or give it another policy"), Leave()]
    world.users = ()
    world.settle()
    assert world.values() == [None, None]


def test_a_finalizer_goes_only_when_every_copy_is_leaving() -> None:
    assert on("dr1", {"dr1": leaving(copy()), "dr2": leaving(copy())}) == Release()
    assert on("dr1", {"dr1": leaving(copy()), "dr2": None}) == Release()
    assert isinstance(on("dr1", {"dr1": leaving(copy()), "dr2": copy()}), Leave)
    assert isinstance(on("dr1", {"dr1": leaving(copy()), "dr2": leaving(copy())}, silent=("dr3",)), Leave)


def test_a_released_copy_is_not_made_again_while_another_one_leaves() -> None:
    assert on("dr1", {"dr1": None, "dr2": leaving(copy())}) == Leave()


@pytest.mark.parametrize("order", ORDERS)
def test_copies_that_can_never_be_equal_say_so_and_the_younger_goes_alone(
    order: tuple[str, str],
) -> None:
    young = copy(1, edited="2026-01-02T00:00:00Z dr2", born="2026-01-02T00:00:00Z", interval="5m", value="x")
    world = World(dr1=copy(), dr2=young)
    steps = dict(zip(order, world.settle(*order), strict=True))
    assert steps["dr1"] == Leave()
    assert steps["dr2"] == Leave(
        "interval differ from dr1 and can never change: delete the copy on dr2, it is made again like the one on dr1"
    )
    world.copies["dr2"] = leaving(world.copies["dr2"] or {})
    world.settle(*order)
    assert world.values() == ["a", "a"]


def test_a_newer_revision_does_not_win_over_what_can_never_change() -> None:
    young = copy(9, born="2026-01-02T00:00:00Z", interval="5m")
    assert winner({"dr1": copy(1), "dr2": young}, FIXED) == "dr1"


def test_a_copy_that_nobody_accepted_wins_nothing() -> None:
    assert winner({"dr1": new(), "dr2": None}, FIXED) == ""
    assert on("dr2", {"dr1": new(), "dr2": None}) == Leave()


def test_an_annotation_that_makes_no_sense_is_none() -> None:
    broken = copy()
    broken["metadata"]["annotations"][names.COPY] = "x.y"
    assert revision(broken).number == 0
    assert isinstance(on("dr1", {"dr1": broken}), Accept)


def test_the_order_of_keys_is_no_edit() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


# --- one name, two lives ----------------------------------------------------------------------------------------------

REBORN = "2026-01-02T00:00:00Z"


@pytest.mark.parametrize("order", ORDERS)
def test_an_object_made_again_is_not_deleted_for_a_copy_of_its_former_life(order: tuple[str, str]) -> None:
    """`kubectl delete` and `apply` right after it, while the other cluster's copy is still on its way out."""
    world = World(dr1=new(value="b"), dr2=leaving(copy(2)))
    world.settle(*order)
    assert world.values() == ["b", "b"]
    assert not any(obj and "deletionTimestamp" in obj["metadata"] for obj in world.copies.values())


@pytest.mark.parametrize("users", [(), ("web/shop",)])
def test_a_copy_of_a_former_life_that_returns_does_not_overwrite_the_one_made_again(users: tuple[str, ...]) -> None:
    world = World(dr1=copy(1, born=REBORN, value="new"), dr2=leaving(copy(5, value="old")))
    world.users = users
    assert isinstance(world.turn("dr1"), Leave)
    assert isinstance(world.turn("dr2"), Drop)
    world.settle()
    assert world.values() == ["new", "new"]


def test_a_missing_copy_is_made_while_a_third_one_of_a_former_life_is_on_its_way_out() -> None:
    copies: dict[str, Object | None] = {"dr1": None, "dr2": copy(1, born=REBORN), "dr3": leaving(copy(5))}
    assert isinstance(on("dr1", copies), Create)
    copies["dr2"] = copy(5)
    assert isinstance(on("dr1", copies), Leave), "that one will be deleted as well"


def test_the_next_life_counts_on_from_the_former_one() -> None:
    found = on("dr1", {"dr1": new(value="b"), "dr2": leaving(copy(5))})
    assert isinstance(found, Accept)
    assert found.annotations[names.COPY].startswith("6.")
    assert found.annotations[names.BORN] == found.annotations[names.EDITED].split()[0]


# --- edits that gave way ----------------------------------------------------------------------------------------------


def test_an_edit_that_gives_way_to_two_edits_elsewhere_is_not_silently_lost() -> None:
    world = World(dr1=copy(1), dr2=copy(1))
    world.silent = {"dr2"}
    for value in ("b", "c"):
        world.copies["dr1"] = edit(world.copies["dr1"] or {}, value=value)
        world.turn("dr1")
    world.silent = {"dr1"}
    world.copies["dr2"] = edit(world.copies["dr2"] or {}, value="fence")
    world.turn("dr2")
    world.silent = set()
    world.settle()
    assert world.values() == ["c", "c"]
    assert "gave way" in (world.copies["dr2"] or {})["metadata"]["annotations"][names.OVERRULED]
    assert names.OVERRULED not in (world.copies["dr1"] or {})["metadata"]["annotations"]


@pytest.mark.parametrize("missed", [1, 3, 30])
def test_a_copy_that_is_only_old_gave_no_way(missed: int) -> None:
    world = World(dr1=copy(1), dr2=copy(1))
    world.silent = {"dr2"}
    for number in range(missed):
        world.copies["dr1"] = edit(world.copies["dr1"] or {}, value=str(number))
        world.turn("dr1")
    world.silent = set()
    world.settle()
    assert world.values() == [str(missed - 1)] * 2
    assert names.OVERRULED not in (world.copies["dr2"] or {})["metadata"]["annotations"]
    assert len((world.copies["dr1"] or {})["metadata"]["annotations"][names.PAST].split()) <= PAST_LENGTH


@pytest.mark.parametrize("text", ["1" * 5000 + ".abc", "\u00b2.abc", "x.abc", "3.", ""])
def test_an_annotation_that_nobody_of_us_wrote_counts_as_none(text: str) -> None:
    obj = copy()
    obj["metadata"]["annotations"][names.COPY] = text
    assert revision(obj) == Revision()
