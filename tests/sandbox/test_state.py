"""What a sandbox remembers: ports that collide with nobody's, credentials that nobody else reads, faults."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from sandbox import faults, state
from sandbox.faults import Faults
from sandbox.state import Options


def all_ports(found: state.SandboxState) -> list[int]:
    """Every port of a sandbox."""
    return [*found.ports.values(), *(port for cluster in found.clusters.values() for port in cluster.ports.values())]


def test_every_port_is_given_once_and_survives_the_file(tmp_path: Path) -> None:
    made = state.create("one", tmp_path, Options(lag=2))
    ports = all_ports(made)
    assert len(set(ports)) == len(ports)
    assert state.load(tmp_path) == made


def test_a_port_that_somebody_listens_on_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        monkeypatch.setattr(state, "PORT_FIRST", port)
        monkeypatch.setattr(state, "PORT_LAST", port + 1)
        with pytest.raises(OSError, match="no free port"):
            state.create("one", tmp_path, Options())


def test_tokens_are_for_their_owner_only(tmp_path: Path) -> None:
    state.create("one", tmp_path, Options())
    assert (tmp_path / state.FILE).stat().st_mode & 0o077 == 0


def test_no_file_means_no_sandbox(tmp_path: Path) -> None:
    assert state.load(tmp_path) is None


def test_the_directory_can_be_named_outright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUBLESS_SANDBOX_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state.directory_of("one") == tmp_path / "hubless" / "sandboxes" / "one"
    monkeypatch.setenv("HUBLESS_SANDBOX_DIR", str(tmp_path / "here"))
    assert state.directory_of("one") == tmp_path / "here"


def test_no_file_means_no_fault_and_a_saved_one_comes_back(tmp_path: Path) -> None:
    assert faults.load(tmp_path) == Faults()
    wanted = Faults(lost=["dr1"], replication="paused", promotion={"dr2": "hang"})
    faults.save(tmp_path, wanted)
    assert faults.load(tmp_path) == wanted
    assert [path.name for path in tmp_path.iterdir()] == [faults.FILE]


def test_a_fault_that_nobody_plays_is_refused() -> None:
    with pytest.raises(ValidationError):
        Faults.model_validate({"promotion": {"dr1": "explode"}})
    with pytest.raises(ValidationError):
        Faults.model_validate({"tornado": True})
