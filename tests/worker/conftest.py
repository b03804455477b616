"""A real Temporal dev server for the tests that need one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """The dev server, with nothing registered in it."""
    here = str(Path(sys.executable).parent / "temporal")
    path = os.environ.get("TEMPORAL_CLI") or shutil.which("temporal") or here
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=path,
        data_converter=pydantic_data_converter,
        dev_server_log_level="error",
        dev_server_startup_timeout=timedelta(seconds=50),
    ) as env:
        yield env
