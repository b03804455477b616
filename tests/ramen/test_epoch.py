"""S1: which writes an epoch allows, row by row."""

from __future__ import annotations

import pytest

from ramen.epoch import Epoch, check_write, is_foreign
from ramen.errors import StaleEpoch
from ramen.names import EPOCH

MINE = Epoch(number=8, token="mine")


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(None, id="an object without an epoch belongs to nobody yet"),
        pytest.param(Epoch(number=7, token="old"), id="an older action gives way"),
        pytest.param(Epoch(number=8, token="mine"), id="a retry of the same claim goes on"),
    ],
)
def test_may_write(found: Epoch | None) -> None:
    check_write(MINE, found, "VRG web/shop on dr1")


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(Epoch(number=9, token="new"), id="a newer action is never undone"),
        pytest.param(Epoch(number=8, token="fork"), id="the same number with another token is a fork"),
    ],
)
def test_may_not_write(found: Epoch) -> None:
    with pytest.raises(StaleEpoch, match="VRG web/shop on dr1"):
        check_write(MINE, found, "VRG web/shop on dr1")


@pytest.mark.parametrize(
    ("found", "foreign"),
    [
        pytest.param(None, False, id="no epoch is nobody's"),
        pytest.param(Epoch(number=7, token="b"), False, id="issued here"),
        pytest.param(Epoch(number=6, token="a"), False, id="issued here earlier"),
        pytest.param(Epoch(number=7, token="x"), True, id="our newest number with another token"),
        pytest.param(Epoch(number=6, token="x"), True, id="an earlier number of ours with another token"),
        pytest.param(Epoch(number=9, token="x"), True, id="a number that was not issued here yet"),
        pytest.param(Epoch(number=2, token="x"), False, id="older than all that is remembered"),
    ],
)
def test_foreign(found: Epoch | None, foreign: bool) -> None:
    assert is_foreign(found, [Epoch(number=6, token="a"), Epoch(number=7, token="b")]) is foreign


@pytest.mark.parametrize("text", [None, "", "8", "8.", "x.y", "-1.t", ".t"])
def test_unreadable_is_no_epoch(text: str | None) -> None:
    assert Epoch.parse(text) is None


def test_reads_what_it_writes() -> None:
    obj = {"metadata": {"annotations": {EPOCH: str(MINE)}}}
    assert Epoch.of(obj) == MINE
    assert Epoch.of({"metadata": {}}) is None
    assert Epoch.of(None) is None


@pytest.mark.parametrize("text", ["9" * 5000 + ".a", "\u0663.a", "-1.a", "1.", ".a"])
def test_what_nobody_of_us_wrote_is_no_epoch(text: str) -> None:
    assert Epoch.parse(text) is None
