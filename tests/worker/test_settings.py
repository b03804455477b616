"""Settings: where they come from, and what a wrong one says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker.commands import app
from worker.settings import SettingsError, load


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HUBLESS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HUBLESS_CLUSTER", "dr1")


def test_defaults_need_only_the_cluster() -> None:
    settings = load()
    assert (settings.cluster, settings.http_host, settings.kubeconfig) == ("dr1", "127.0.0.1", None)


def test_variable_wins_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text("slots: 5\nprobe_seconds: 3\n")
    monkeypatch.setenv("HUBLESS_SLOTS", "7")
    settings = load(file)
    assert (settings.slots, settings.probe_seconds) == (7, 3.0)


def test_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBLESS_KUBECONFIG", "")
    assert load().kubeconfig is None


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HUBLESS_SLOTS", "many", ["HUBLESS_SLOTS=many", "2 to 1000"]),
        ("HUBLESS_SLOTS", "0", ["HUBLESS_SLOTS=0", "2 to 1000"]),
        ("HUBLESS_HTTP_PORT", "99999", ["HUBLESS_HTTP_PORT=99999", "free port"]),
        ("HUBLESS_PROBE_SECONDS", "0", ["HUBLESS_PROBE_SECONDS=0", "0.2 to 60"]),
        ("HUBLESS_LOG_LEVEL", "loud", ["HUBLESS_LOG_LEVEL=loud", "debug, info"]),
        ("HUBLESS_CLUSTER", "DR_1", ["HUBLESS_CLUSTER=DR_1", "the name of the cluster"]),
        ("HUBLESS_CLUSTER", "", ["HUBLESS_CLUSTER is not set", "the name of the cluster"]),
    ],
)
def test_wrong_value_names_setting_and_remedy_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load()
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("slotz: 3\n", ["slotz", "no such setting", "slots"]),
        ("- slots\n", ["mapping"]),
        ("token: {secret: [\n", ["no YAML"]),
    ],
)
def test_wrong_file_is_refused(tmp_path: Path, content: str, words: list[str]) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert all(word in str(caught.value) for word in words)
    assert "secret" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml"):
        load(tmp_path / "absent.yaml")


def test_command_has_a_run_verb() -> None:
    result = CliRunner().invoke(app, ["run", "--help"])
    assert result.exit_code == 0
    assert "TEMPORAL_ADDRESS" in result.output
