"""Orders for a store that misbehaves: where the proxy stands, and what the command line takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sandbox import commands, s3server, state
from sandbox.state import Options


def test_the_proxy_takes_the_port_that_clients_know_and_the_store_another(tmp_path: Path) -> None:
    current = state.create("test", tmp_path, Options())
    ports = current.clusters["dr1"].ports
    usual = s3server.spec(current, "dr1", Path("weed"))
    moved, front = s3server.behind(usual, current, "dr1"), s3server.front(current, "dr1")
    assert f"-s3.port={ports['s3']}" in usual.argv
    assert f"-s3.port={ports['s3']}" not in moved.argv
    assert f"-s3.port={ports['s3-behind']}" in moved.argv
    assert moved.probe is not None
    assert moved.probe.port == ports["s3-behind"]
    assert front.argv[-4:] == ["--port", str(ports["s3"]), "--target", str(ports["s3-behind"])]
    assert moved.name == "dr1-s3" != front.name


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dr1", "--slow", "3", "--mend"], "give a cluster and either faults or --mend"),
        (["kill", "dr1", "--lying"], "give a cluster and either faults or --mend"),
        (["dr7", "--lying"], "dr7 is no cluster of this sandbox"),
        (["dr1"], "dr1: give one of stop, start"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.setenv("HUBLESS_SANDBOX_DIR", str(tmp_path))
    state.create("test", tmp_path, Options())
    result = CliRunner().invoke(commands.app, ["fault", "store", *words])
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert not (tmp_path / "faults.json").exists()
