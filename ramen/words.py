"""Words that every place builds the same way."""

from __future__ import annotations


def counted(number: int, word: str, every: int | None = None) -> str:
    """`1 volume`, `2 volumes`; with `every` also `1 of 2 volumes`, where that number decides the form."""
    form = word if (number if every is None else every) == 1 else f"{word}s"
    return f"{number} {form}" if every is None else f"{number} of {every} {form}"
