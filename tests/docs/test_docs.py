"""The documents name commands that exist and link to files that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def commands() -> set[tuple[str, ...]]:
    """Every `hubless …` of the pages, as the words before the first argument or option."""
    found = set()
    for page in PAGES:
        for line in re.findall(r"(?:^|[`\s])hubless ([a-z][a-z -]*)", page.read_text(), re.MULTILINE):
            words = line.split()
            depth = 2 if words[0] in ("sandbox", "cluster", "worker", "mirror") else 1
            found.add(tuple(words[:depth]))
    return found


@pytest.mark.parametrize("words", sorted(commands()), ids=" ".join)
def test_command_exists(words: tuple[str, ...]) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "starter.main", *words, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, f"hubless {' '.join(words)}: {asked.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named_exist(page: Path) -> None:
    """A document that names a test as its proof names one that is there."""
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(?:[a-z_/]+\.py::)?(test_[a-z0-9_]+)`", page.read_text())
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_the_concepts_fit_on_one_page() -> None:
    assert len((ROOT / "docs/concepts.md").read_text().splitlines()) <= 120
