"""Every test here runs on the real servers of the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scenarios take longer than unit tests, and are selected by `-m sandbox`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.sandbox)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(480))
