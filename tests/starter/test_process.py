"""The `hubless` process itself: exit codes of a real process, Ctrl-C, laziness, plug-ins, completion."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from starter import durations, exitcodes, main
from tests.starter.conftest import Temporal, World, hubless, running_step

SECONDS = 20.0
"""A process that has not ended by then hangs."""

COMMAND = [sys.executable, "-m", "starter.main"]


def started(*args: str) -> subprocess.Popen[str]:
    """A real process of the command line."""
    return subprocess.Popen(
        [*COMMAND, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background may have Ctrl-C ignored, which a child would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_ctrl_c_leaves_the_action_running_and_says_so(world: World, namespace: str) -> None:
    world.action_ends = False
    process = started("failover", "shop", "-n", namespace, "--to", "dr2", "--yes", "--wait")
    assert process.stderr
    before = ""
    for line in process.stderr:
        before += line
        if line.startswith("Failover of shop, epoch 9"):
            break
    process.send_signal(signal.SIGINT)
    _, after = process.communicate(timeout=SECONDS)
    assert process.returncode == exitcodes.UNFINISHED, before + after
    assert after == f"◎ Stopped watching. The failover goes on: hubless status shop -n {namespace} --watch\n"


def test_a_process_ends_with_the_code_of_its_command(temporal: Temporal, world: World, namespace: str) -> None:
    good = started("status", "shop", "-n", namespace)
    bad = started("status", "nope", "-n", namespace)
    out, err = good.communicate(timeout=SECONDS)
    assert (good.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert "the application runs" in out
    out, err = bad.communicate(timeout=SECONDS)
    assert (bad.returncode, out) == (2, "")


def test_help_lists_every_command_and_code_without_loading_any() -> None:
    script = (
        "import sys, starter.main as m\n"
        "try: m.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print('heavy:', [x for x in ('temporalio', 'pydantic', 'rich', 'worker', 'sandbox') if x in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS, check=True)
    for name in (*main.OWN, "worker", "sandbox", "demo"):
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE), name
    for code, meaning in exitcodes.MEANING.items():
        assert f"{code}  {meaning}" in done.stdout
    assert done.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("name", [name for name in main.OWN if name not in ("cluster", "crds", "mirror")])
def test_every_help_has_examples_with_a_comment(name: str) -> None:
    result = hubless(name, "--help")
    assert result.exit_code == 0
    examples = result.stdout.split("Examples:")[1].split("Options:")[0]
    comments = re.findall(r"^ +# ", examples, re.MULTILINE)
    wanted = 3 if name in ("protect", "failover", "relocate", "abort", "retry", "unprotect") else 1
    assert len(comments) >= wanted


def test_a_broken_plugin_ends_only_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint(name="sandbox", value="no_such_module_of_ours:app", group=main.PLUGINS)
    monkeypatch.setattr(main, "entry_points", lambda group: [broken])
    result = hubless("sandbox", "up")
    assert result.exit_code == 1
    assert "✗ The command sandbox cannot be loaded: ModuleNotFoundError" in result.stderr
    assert hubless("status").exit_code == 0
    assert "sandbox" in hubless("--help").stdout


def test_an_unknown_command_is_bad_input() -> None:
    assert hubless("failovr").exit_code == 2


def completed(words: str, temporal: Temporal | None) -> list[str]:
    """What a shell offers for the last word."""
    env = {**os.environ, "_HUBLESS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    env["TEMPORAL_ADDRESS"] = temporal.address if temporal else "127.0.0.1:1"
    script = (
        "import sys; sys.argv = ['hubless']; from starter import complete; from starter.main import main; "
        # What is offered is tested here, not how fast this machine is.
        f"complete.COMPLETE_SECONDS = {SECONDS}; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, timeout=SECONDS)
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_of_commands_and_of_nothing_when_temporal_is_away() -> None:
    assert completed("hubless fail", None) == ["failover"]
    assert completed("hubless failover sh", None) == []


def test_completion_of_applications(world: World, temporal: Temporal, namespace: str) -> None:
    assert completed(f"hubless status -n {namespace} sh", temporal) == ["shop"]


def test_completion_of_clusters(world: World, temporal: Temporal) -> None:
    assert completed("hubless failover shop --to dr", temporal) == ["dr1", "dr2"]


def test_durations_are_said_and_read() -> None:
    assert [durations.span(s) for s in (0, 42, 119, 120, 7199, 7200, 1036800, -5)] == [
        "0 s",
        "42 s",
        "119 s",
        "2 min",
        "119 min",
        "2 h",
        "12 d",
        "0 s",
    ]
    assert [durations.precise(s) for s in (0.12, 1.6, 42)] == ["0.1 s", "1.6 s", "42 s"]
    assert [durations.parse_span(t) for t in ("90", "30s", "5m", "2h", "1.5 s")] == [90, 30, 300, 7200, 1.5]
    moment = datetime(2026, 11, 23, 14, 3, 2, 600000, tzinfo=UTC)
    assert durations.rfc3339(moment) == "2026-11-23T14:03:02.600Z"
    assert durations.clock(moment, moment + timedelta(minutes=1)) == "14:03:02"
    assert durations.clock(moment, moment + timedelta(days=1)) == "2026-11-23 14:03:02"


def test_colours_need_a_terminal_and_no_color_turns_them_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from starter import console

    with (tmp_path / "out").open("w") as stream:
        assert console.marked("✔", "done", stream) == "✔ done"
        monkeypatch.setattr(console, "is_terminal", lambda _: True)
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert console.marked("✔", "done", stream) == "\x1b[32m✔\x1b[0m done"
        monkeypatch.setenv("NO_COLOR", "1")
        assert console.marked("✔", "done", stream) == "✔ done"


def test_a_terminal_gets_a_question_and_a_live_table(world: World, namespace: str) -> None:
    world.steps = [running_step()]
    primary, secondary = os.openpty()
    process = subprocess.Popen(
        [*COMMAND, "failover", "shop", "-n", namespace, "--to", "dr1", "--wait"],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(secondary)
    shown = b""
    while True:
        try:
            part = os.read(primary, 4096)
        except OSError:  # the way a terminal ends on Linux
            break
        shown += part
        if part and b"[y/N]" in shown and b"answered" not in shown:
            os.write(primary, b"y\n")
            shown += b"<answered>"
    os.close(primary)
    assert process.wait(SECONDS) == 0
    text = shown.decode()
    assert "Fail over shop to dr1? [y/N]" in text
    assert "\x1b[" in text.split("<answered>")[1], "a live table moves the cursor"
    assert "◎ Restore and promote on dr2" in text
    assert f"drpc/{namespace}/shop/failover-9" in text
