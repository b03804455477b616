"""docker-compose.yml: a compose implementation reads it, and every command and variable in it exists in our code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from temporalio.envconfig import ClientConfigProfile

from worker.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
OURS = ("worker-dr1", "worker-dr2", "hubless")


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The file as podman-compose understands it.

    Its `config` only reads files, but it refuses to start without a `podman` that tells its version; none is needed.
    """
    tools = tmp_path_factory.mktemp("tools")
    podman = tools / "podman"
    podman.write_text("#!/bin/sh\necho podman version 5.0.0\n")
    podman.chmod(0o755)
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["podman-compose", "--profile", "cli", "-f", str(ROOT / "docker-compose.yml"), "config"],
        env={**os.environ, "PATH": path, "POSTGRES_PASSWORD": "for-the-test"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_every_part_of_a_realistic_installation_is_there(composed: dict[str, Any]) -> None:
    assert {"postgresql", "temporal", "temporal-ui", "s3", *OURS} <= set(composed["services"])


def test_nothing_is_published_beyond_loopback(composed: dict[str, Any]) -> None:
    for name, service in composed["services"].items():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), f"{name} publishes {port}"


@pytest.mark.parametrize("service", OURS)
def test_every_command_exists(composed: dict[str, Any], service: str) -> None:
    words = composed["services"][service]["command"]
    asked = subprocess.run(
        [sys.executable, "-m", "starter.main", *words, "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert asked.returncode == 0, f"{service}: {' '.join(words)}: {asked.stderr}"


@pytest.mark.parametrize("service", OURS)
def test_every_variable_exists(composed: dict[str, Any], service: str) -> None:
    ours = {PREFIX + name.upper() for name in Settings.model_fields}
    for variable, value in composed["services"][service]["environment"].items():
        if variable.startswith(PREFIX):
            assert variable in ours, f"{variable} is no setting"
        else:
            read = ClientConfigProfile.load(override_env_vars={variable: str(value)}, disable_file=True)
            assert str(value) in (read.address, read.namespace), f"{variable} is not read"


def test_the_image_contains_what_it_runs() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    for package in ("ramen", "activities", "workflows", "worker", "starter"):
        assert f"COPY {package} {package}" in dockerfile


def test_destructive_buttons_are_taken_away(composed: dict[str, Any]) -> None:
    environment = composed["services"]["temporal-ui"]["environment"]
    for button in ("WORKFLOW_TERMINATE", "WORKFLOW_RESET", "ACTIVITY_COMMANDS", "BATCH_ACTIONS"):
        assert environment[f"TEMPORAL_{button}_DISABLED"] == "true"
    assert "TEMPORAL_WORKFLOW_CANCEL_DISABLED" not in environment
