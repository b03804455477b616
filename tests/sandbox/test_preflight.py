"""What a newcomer is told before anything is installed: each lack with the one command that mends it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest

from sandbox import preflight


@pytest.fixture
def good_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that lacks nothing but the server programs."""
    certificates = tmp_path / "ca.pem"
    certificates.touch()
    monkeypatch.setenv("HUBLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    for variable, _ in preflight.TOOLS.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(preflight, "memory_gb", lambda: 16.0)
    monkeypatch.setattr(preflight, "free_gb", lambda path: 50.0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr("ssl.get_default_verify_paths", lambda: SimpleNamespace(cafile=str(certificates), capath=None))


pytestmark = pytest.mark.usefixtures("good_machine")


def test_a_good_machine_lacks_nothing() -> None:
    assert preflight.problems() == []
    assert preflight.main() == 0


def test_debian_without_venv_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert any("apt-get install -y python3-venv" in line for line in preflight.problems())


def test_missing_certificates_are_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl.get_default_verify_paths", lambda: SimpleNamespace(cafile=None, capath=None))
    assert any("apt-get install -y ca-certificates" in line for line in preflight.problems())


def test_little_memory_is_refused_with_both_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "memory_gb", lambda: 2.0)
    assert preflight.main() == 1
    assert "2 GB of memory; 6 GB are needed" in capsys.readouterr().err


def test_little_space_counts_only_while_there_is_something_to_get(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preflight, "free_gb", lambda path: 1.0)
    assert any("HUBLESS_CACHE" in line for line in preflight.problems())
    for tool, (_, version) in preflight.TOOLS.items():
        program = tmp_path / "cache" / "bin" / f"{tool}-{version}" / tool
        program.parent.mkdir(parents=True)
        program.touch()
    assert preflight.problems() == []


def test_what_will_be_fetched_or_built_is_named_with_its_time() -> None:
    said: list[str] = []
    preflight.outlook(said.append)
    text = "\n".join(said)
    assert "kube-apiserver" in text
    assert f"about {preflight.BUILD_MINUTES} minutes" in text


def test_it_runs_with_the_standard_library_alone() -> None:
    script = Path(preflight.__file__)
    result = subprocess.run([sys.executable, "-I", "-S", str(script)], capture_output=True, text=True, check=False)
    assert "Machine:" in result.stderr
    assert "Traceback" not in result.stderr
