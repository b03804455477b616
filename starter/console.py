"""Six verbs for progress on stderr, results on stdout; colours only where a person looks at a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

import typer

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"

MARKS: dict[str, str] = {"►": CYAN, "✚": GREEN, "◎": YELLOW, "✔": GREEN, "⚠": YELLOW, "✗": RED, "●": GREEN}


def is_terminal(stream: TextIO) -> bool:
    """Whether a person sees what is written there."""
    return stream.isatty()


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Colours the text unless the stream is no terminal or NO_COLOR is set (no-color.org)."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def marked(mark: str, text: str, stream: TextIO) -> str:
    """A line that begins with one of the marks, the mark coloured."""
    return f"{paint(mark, MARKS[mark], stream)} {text}"


def action(text: str) -> None:
    """► something begins."""
    typer.echo(marked("►", text, sys.stderr), err=True)


def made(text: str) -> None:
    """✚ something new exists."""
    typer.echo(marked("✚", text, sys.stderr), err=True)


def waiting(text: str) -> None:
    """◎ something is awaited."""
    typer.echo(marked("◎", text, sys.stderr), err=True)


def success(text: str) -> None:
    """✔ something is done."""
    typer.echo(marked("✔", text, sys.stderr), err=True)


def warning(text: str) -> None:
    """⚠ somebody has to look."""
    typer.echo(marked("⚠", text, sys.stderr), err=True)


def failure(text: str) -> None:
    """✗ it was refused or failed."""
    typer.echo(marked("✗", text, sys.stderr), err=True)


def tell(text: str = "") -> None:
    """A plain line for people, on stderr."""
    typer.echo(text, err=True)


def result(text: str) -> None:
    """A result, on stdout."""
    typer.echo(text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded with two spaces between them, as kubectl prints them; no trailing blanks."""
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    )
