"""Dangerous commands against a real Temporal server: what they show, ask, refuse, and how they end."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from ramen.app import Observed
from starter import client, confirm
from tests.starter.conftest import Temporal, World, failed_over, hubless, running_step, vrg
from workflows.inputs import ActionRecord, Step, StepState


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits there and can be asked."""
    monkeypatch.setattr(confirm.console, "is_terminal", lambda stream: False)
    monkeypatch.setattr(confirm, "can_ask", lambda: True)


def test_failover_shows_state_and_consequence_and_asks(calm: World, namespace: str, terminal: None) -> None:
    calm.seen.pop("dr1")
    silent = datetime.now(UTC) - timedelta(seconds=42)
    calm.health[0] = calm.health[0].model_copy(
        update={"reachable": False, "since": silent, "last_answer": silent, "error": "timeout"}
    )
    good = silent - timedelta(seconds=41)
    calm.state = calm.state.model_copy(update={"last_good": {"dr2": good}, "protected": {"dr2": good}})
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--reason", "power", answers="y\n")
    assert result.exit_code == 0, result.output
    at, last = f"{good:%H:%M:%S}", f"{silent:%H:%M:%S}"
    text = re.sub(r"\b\d+ s \(", "42 s (", result.stderr).replace("[y/N]: ", "[y/N]:")
    assert text == (
        f"shop ({namespace}) serves on dr1, epoch 7.\n"
        f"  dr1   unreachable for 42 s (last answer {last})\n"
        f"  dr2   reachable; copy of dr1 from {at}\n"
        "\n"
        f"Failing over to dr2 accepts the loss of everything written on dr1 after {at}: at least 41 s, and more for as "
        "long as dr1 runs out of our sight.\n"
        "When dr1 comes back, its old pods may run until it is demoted (usually seconds); what they write is "
        "discarded.\n"
        "Fail over shop to dr2? [y/N]:"
        "✚ Failover of shop, epoch 9\n"
        f"Follow it:   hubless status shop -n {namespace} --watch\n"
    )
    assert result.stdout.endswith(f"drpc/{namespace}/shop/failover-9\n")
    name, request = calm.requests[0]
    assert (name, request.target, request.reason) == ("failover", "dr2", "power")
    assert request.request_id
    assert request.requester


def test_failover_promises_nothing_by_a_clock_that_is_ahead(calm: World, namespace: str) -> None:
    """The array dates syncs by its own clock: by one that is ahead nothing would seem to be lost."""
    good = datetime.now(UTC) + timedelta(minutes=9)
    calm.state = calm.state.model_copy(update={"last_good": {"dr2": good}, "protected": {"dr2": good}})
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--yes")
    assert result.exit_code == 0, result.output
    assert "at least" not in result.stderr
    assert "by a clock that is ahead of this machine's, so how much that is cannot be told" in result.stderr


def test_failover_hints_at_relocate_while_the_source_answers(calm: World, namespace: str) -> None:
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--yes")
    assert result.exit_code == 0, result.output
    assert "dr1 answers: hubless relocate would lose nothing.\n" in result.stderr
    assert "When dr1 comes back" not in result.stderr


def test_no_means_nothing_was_changed(calm: World, namespace: str, terminal: None) -> None:
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr2", answers="n\n")
    assert result.exit_code == 2
    assert result.stderr.endswith("✗ Not confirmed. Nothing was changed.\n")
    assert calm.requests == []


@pytest.mark.parametrize(
    "command",
    [
        ["failover", "--to", "dr2"],
        ["relocate", "--to", "dr2"],
        ["unprotect"],
        ["release"],
        ["abort"],
        ["retry", "--accept-data-loss"],
    ],
)
def test_where_nobody_can_be_asked_yes_has_to_be_said(calm: World, namespace: str, command: list[str]) -> None:
    result = hubless(command[0], "shop", "-n", namespace, *command[1:])
    assert result.exit_code == 2, result.output
    assert "Not asked, because this is no terminal" in result.stderr
    assert "--yes" in result.stderr
    assert calm.requests == []


def test_accepting_a_loss_is_asked_for_a_second_time(calm: World, namespace: str, terminal: None) -> None:
    args = ["failover", "shop", "-n", namespace, "--to", "dr2", "--accept-data-loss"]
    refused = hubless(*args, answers="y\nn\n")
    assert refused.exit_code == 2
    assert "Accept the loss of data on it?" in refused.stderr
    assert calm.requests == []
    assert hubless(*args, answers="y\ny\n").exit_code == 0
    assert calm.requests[0][1].accept_data_loss


def test_missing_volumes_are_named_in_the_question(calm: World, namespace: str, terminal: None) -> None:
    args = ["--accept-missing-volumes", "data-0", "--accept-missing-volumes", "data-1"]
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr2", *args, answers="y\ny\n")
    assert result.exit_code == 0, result.output
    assert "data-0, data-1 will not be restored on dr2. Go on without?" in result.stderr
    assert calm.requests[0][1].accept_missing_volumes == ["data-0", "data-1"]


def test_each_loss_has_a_question_of_its_own(calm: World, namespace: str, terminal: None) -> None:
    args = ["--accept-missing-volumes", "data-0", "--accept-data-loss"]
    refused = hubless("failover", "shop", "-n", namespace, "--to", "dr2", *args, answers="y\ny\nn\n")
    assert refused.exit_code == 2
    assert "Accept the loss of data on it?" in refused.stderr
    assert calm.requests == []


def test_unknown_cluster_is_refused_before_any_question(calm: World, namespace: str) -> None:
    result = hubless("relocate", "shop", "-n", namespace, "--to", "dr7")
    assert (result.exit_code, result.stderr) == (2, "✗ dr7 is not a cluster of policy gold (dr1, dr2).\n")


def test_a_refusal_is_printed_as_the_application_says_it(calm: World, namespace: str) -> None:
    calm.refuse = (
        "Refused",
        "shop cannot be relocated to dr1: dr1 does not answer (since 14:01:31). A relocate needs both clusters. "
        "Wait for dr1 (hubless cluster check dr1).",
    )
    result = hubless("relocate", "shop", "-n", namespace, "--to", "dr2", "--yes")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "✗ shop cannot be relocated to dr1: dr1 does not answer (since 14:01:31).\n"
        "  A relocate needs both clusters. Wait for dr1 (hubless cluster check dr1).\n"
    )
    assert result.stdout == ""


def test_a_failure_that_is_no_refusal_has_another_code(calm: World, namespace: str) -> None:
    calm.refuse = ("Boom", "something else")
    result = hubless("relocate", "shop", "-n", namespace, "--to", "dr2", "--yes")
    assert result.exit_code == 1
    assert result.stderr.endswith("✗ The request failed: something else\n")


def test_a_request_that_no_worker_got_to_see_is_sent_again(calm: World, namespace: str) -> None:
    """As after a restart of Temporal: nobody refused anything."""
    calm.unprocessed = 2
    result = hubless("relocate", "shop", "-n", namespace, "--to", "dr2", "--yes")
    assert result.exit_code == 0, result.output
    assert (calm.unprocessed, len(calm.requests)) == (0, 1)


def test_no_answer_prints_the_request_id_and_the_same_command(
    temporal: Temporal, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(client, "QUERY_SECONDS", 2.0)
    temporal.open_without_worker(namespace)
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--reason", "site lost", "--yes")
    assert result.exit_code == 3, result.output
    found = re.search(r"◎ No answer in 1 s: not known whether it started. Request ID: (\S+)\n(.*)\n", result.stderr)
    assert found, result.stderr
    assert found[2].endswith(
        f"hubless failover shop -n {namespace} --to dr2 --reason 'site lost' --yes --request-id {found[1]}"
    )
    again = hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--yes", "--request-id", found[1])
    assert again.exit_code == 3
    assert f"Request ID: {found[1]}" in again.stderr
    assert again.stderr.count("--request-id") == 1
    temporal.close(namespace)


def test_the_same_request_id_is_the_same_update(calm: World, namespace: str) -> None:
    args = ["failover", "shop", "-n", namespace, "--to", "dr2", "--yes", "--request-id", "id-1"]
    assert hubless(*args).exit_code == 0
    assert hubless(*args).exit_code == 0
    assert len(calm.requests) == 1


def test_temporal_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    for command in (["status"], ["failover", "shop", "-n", "web", "--to", "dr2", "--yes"], ["check"]):
        result = hubless(*command)
        assert result.exit_code == 4, result.output
        assert result.stderr.startswith(
            "✗ Temporal does not answer at 127.0.0.1:1 (connection refused). Nothing was started; running applications "
            "are not affected.\n"
        )


def test_temporal_namespace_missing(temporal: Temporal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "nowhere")
    result = hubless("status", "shop", "-n", "web")
    assert result.exit_code == 4, result.output
    assert "has no namespace nowhere" in result.stderr


def test_wait_follows_to_the_end_and_names_the_next_command(world: World, namespace: str) -> None:
    now = datetime.now(UTC)
    world.steps = [
        Step(
            title="Read both clusters",
            state=StepState.DONE,
            started_at=now - timedelta(seconds=1),
            ended_at=now - timedelta(seconds=0.9),
            note="dr1 does not answer, goes on without it",
        ),
        running_step(),
    ]
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--yes", "--wait")
    assert result.exit_code == 0, result.output
    assert re.search(r"✔ Read both clusters +0\.1 s   dr1 does not answer, goes on without it\n", result.stderr)
    assert re.search(
        r"◎ Restore and promote on dr2 +\d+(\.\d)? s   waiting for dr2 to restore and promote 2 volumes", result.stderr
    )
    assert "● Serving on dr2 after 1.6 s   data as of " in result.stderr
    assert "14:01:30, 2 of 2 volumes, pods 2 of 2 Ready\n" in result.stderr
    assert "◎ Clean up dr1" in result.stderr
    assert "Clean-up goes on by itself, also when this terminal is closed." in result.stderr
    assert result.stderr.endswith(f"Follow it:   hubless status shop -n {namespace} --watch\n")
    assert result.stdout == f"drpc/{namespace}/shop/failover-9\n"


def test_wait_ends_with_three_when_the_time_is_over(world: World, namespace: str) -> None:
    world.action_ends = False
    world.needs_operator = "data-1 is in no store that answers"
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--yes", "--wait", "--timeout", "5s")
    assert result.exit_code == 3, result.output
    assert result.stderr.endswith(
        f"◎ Still running after 5.0 s. The failover goes on: hubless status shop -n {namespace} --watch\n"
    )
    assert result.stderr.count("⚠ data-1 is in no store that answers") == 1


def test_wait_says_what_holds_a_step_up_when_it_lasts(world: World, namespace: str) -> None:
    world.action_ends, world.steps, world.obstacle = False, [running_step()], "PVC data-0 is being deleted on dr2"
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--yes", "--wait", "--timeout", "12s")
    assert result.exit_code == 3, result.output
    assert result.stderr.count("  Held up: PVC data-0 is being deleted on dr2\n") == 1


def test_a_bad_duration_is_bad_input(temporal: Temporal) -> None:
    result = hubless("failover", "shop", "-n", "web", "--to", "dr2", "--wait", "--timeout", "soon")
    assert result.exit_code == 2
    assert "'soon' is not a duration; examples: 30s, 5m, 2h" in result.stderr


def test_abort_and_retry_say_what_the_application_answers(world: World, namespace: str) -> None:
    assert hubless("abort", "shop", "-n", namespace, "--yes").stderr.splitlines()[-2] == "✔ it aborts"
    result = hubless("retry", "shop", "-n", namespace, "--accept-missing-volumes", "data-1", "--yes")
    assert result.exit_code == 0, result.output
    assert [name for name, _ in world.requests] == ["abort", "retry"]
    assert world.requests[1][1].accept_missing_volumes == ["data-1"]
    world.refuse = ("Refused", "Too late to abort: dr2 was promoted at 14:03:01.")
    assert hubless("abort", "shop", "-n", namespace, "--yes").exit_code == 2


def test_unprotect_carries_the_forgotten_cluster(world: World, namespace: str) -> None:
    refused = hubless("unprotect", "shop", "-n", namespace, "--forget-cluster", "dr9", "--yes")
    assert (refused.exit_code, refused.stderr) == (2, "✗ dr9 is not a cluster of shop (dr1, dr2).\n")
    result = hubless("unprotect", "shop", "-n", namespace, "--forget-cluster", "dr1", "--yes")
    assert result.exit_code == 0, result.output
    assert world.requests[0][1].forget_clusters == ["dr1"]


def test_release_says_what_it_means_and_asks(calm: World, namespace: str, terminal: None) -> None:
    result = hubless("release", "shop", "-n", namespace, "--reason", "back to the hub", answers="y\n")
    assert result.exit_code == 0, result.output
    assert "Releasing shop changes nothing that runs." in result.stderr
    assert "a loss of dr1 is no concern of ours" in result.stderr
    ((verb, request),) = calm.requests
    assert (verb, request.reason) == ("release", "back to the hub")


def test_the_running_action_is_part_of_the_present_state(namespace: str) -> None:
    world = failed_over(namespace)
    action = world.state.action
    assert isinstance(action, ActionRecord)
    from starter.situation import Situation
    from workflows.inputs import StatusView

    state = world.state.model_copy(update={"action": action.model_copy(update={"outcome": None})})
    now = Situation(view=StatusView(drpc={}, hubless={}, state=state), seen=dict(world.seen))
    now.seen["dr1"] = Observed(cluster="dr1", vrg=vrg("primary", 7))
    assert "  Failover to dr2 runs (epoch 8)." in confirm.present_state(now, "dr1")


def test_a_copy_that_is_being_rebuilt_is_not_called_a_copy(world: World, namespace: str) -> None:
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr1", "--yes")
    assert re.search(r"  dr1   unreachable for .*; copy not proven good, last good .*14:01:30\n", result.stderr)


def test_going_where_it_serves_already_promises_no_loss(world: World, namespace: str) -> None:
    world.refuse = ("Refused", "shop already serves on dr2.")
    result = hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--yes")
    assert result.exit_code == 2
    assert "Failing over" not in result.stderr
    assert result.stderr.endswith("✗ shop already serves on dr2.\n")
