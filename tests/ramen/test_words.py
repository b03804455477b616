"""Counts read as a person would say them."""

from __future__ import annotations

import pytest

from ramen.words import counted


@pytest.mark.parametrize(
    ("number", "every", "said"),
    [
        (0, None, "0 volumes"),
        (1, None, "1 volume"),
        (2, None, "2 volumes"),
        (1, 2, "1 of 2 volumes"),
        (0, 1, "0 of 1 volume"),
    ],
)
def test_a_count_is_said(number: int, every: int | None, said: str) -> None:
    assert counted(number, "volume", every) == said
