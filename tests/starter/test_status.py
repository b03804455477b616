"""`status` and `history` against a real Temporal server: the screens, and what machines read."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from ramen.app import ActionKind, Decision, Observed, PodCount, Volume
from starter import screen
from starter.situation import Situation
from tests.starter.conftest import Temporal, World, hubless, running_step, vrg
from workflows.inputs import AppState, Debt, Outcome, StatusView, StepsView, Waiting


def test_status_of_one_application_says_all_facts(world: World, namespace: str) -> None:
    result = hubless("status", "shop", "-n", namespace)
    assert result.exit_code == 0, result.stderr
    # The scene is fixed in 2026-11-23: its distance from today, and the widths that follow from it, are left out.
    text = re.sub(r"\d{4}-\d\d-\d\d ", "", result.stdout)
    text = re.sub(r"come back, \d+ \w+", "come back, N", text)
    text = re.sub(r"(\S) {2,}", r"\1  ", re.sub(r"^ {4,}", "    ", text, flags=re.MULTILINE))
    assert text == (
        f"shop ({namespace}) serves on dr2 since 14:03:01, epoch 8.\n"
        "  Not protected: a loss of dr2 now would lose everything since 14:01:30.\n"
        "  Waiting for dr1 to come back, N. Then: demote, resynchronise, protect. Nothing to do for you until then.\n"
        "\n"
        "Clusters  dr1 unreachable since 14:01:31  wants Secondary, last seen Primary (epoch 7)\n"
        "    dr2 reachable  Primary, ready, epoch 8\n"
        "Pods  2 of 2 Ready on dr2: the application runs\n"
        'Action  Failover, asked by ann at 14:03:00, "site dr1 lost power"\n'
        "    requested 0 s · serving 1.6 s · cleaned - · re-protected -\n"
        f"Next  hubless status shop -n {namespace} --watch\n"
    )


def test_the_words_the_application_runs_need_every_pod(world: World, namespace: str) -> None:
    for ready, total in ((1, 2), (0, 0)):
        world.seen["dr2"] = Observed(cluster="dr2", vrg=vrg("primary", 8), pods=PodCount(ready=ready, total=total))
        text = hubless("status", "shop", "-n", namespace).stdout
        assert f"{ready} of {total} Ready on dr2\n" in text
        assert "the application runs" not in text


def test_a_volume_that_no_proof_covers_is_not_called_protected(world: World, namespace: str) -> None:
    volumes = [*world.state.volumes, Volume(namespace="web", name="data-9", pv="pv-9")]
    world.seen["dr2"] = Observed(cluster="dr2", vrg=vrg("primary", 8), volumes=volumes, pods=PodCount(ready=2, total=2))
    text = hubless("status", "shop", "-n", namespace).stdout
    assert text.splitlines()[1] == "  Not protected: data-9 came lately, and a loss of dr2 now would lose it."


def test_pods_of_a_silent_cluster_are_not_known(world: World, namespace: str) -> None:
    del world.seen["dr2"]
    text = hubless("status", "shop", "-n", namespace).stdout
    assert "Pods       not known: dr2 does not answer" in text
    assert "the application runs" not in text


def test_a_move_that_was_ended_from_outside_says_how_to_go_on(world: World, namespace: str) -> None:
    words = f"Failover to dr2 was ended from outside. Go on: hubless failover shop -n {namespace} --to dr2"
    world.state = world.state.model_copy(update={"interrupted": words})
    text = hubless("status", "shop", "-n", namespace).stdout
    assert text.splitlines()[2] == f"  Needs you: {words}"
    assert text.splitlines()[-1] == "Next       what is said above"
    row = next(row for row in hubless("status").stdout.splitlines() if row.startswith(namespace))
    assert row.endswith(f"needs you: {words}")
    assert re.split(r"\s{2,}", row)[4] == "?", "nobody looked whether the source was demoted already"


def test_after_an_aborted_relocate_it_serves_since_its_source_was_placed_again(world: World, namespace: str) -> None:
    action = world.state.action
    assert action
    assert action.serving_at
    again = action.serving_at + timedelta(hours=1)
    aborted = {"kind": ActionKind.RELOCATE, "source": "dr2", "target": "dr1", "outcome": Outcome.ABORTED}
    record = action.model_copy(update={**aborted, "serving_at": again, "epoch": 9})
    world.state = world.state.model_copy(update={"history": [action], "action": record})
    assert "serves on dr2 since 2026-11-23 15:03:01" in hubless("status", "shop", "-n", namespace).stdout


def test_an_application_whose_vrg_is_secondary_is_not_said_to_serve(world: World, namespace: str) -> None:
    world.seen["dr2"] = Observed(cluster="dr2", vrg=vrg("secondary", 8), pods=PodCount())
    headline = hubless("status", "shop", "-n", namespace).stdout.splitlines()[0]
    assert headline == f"shop ({namespace}) serves nowhere now, last on dr2, epoch 8."


def test_a_serving_cluster_that_is_silent_keeps_its_headline(world: World, namespace: str) -> None:
    """Nobody sees that it stopped: unknown is not absent (D10)."""
    del world.seen["dr2"]
    headline = hubless("status", "shop", "-n", namespace).stdout.splitlines()[0]
    assert headline == f"shop ({namespace}) serves on dr2 since 2026-11-23 14:03:01, epoch 8."


def test_table_of_all_applications(world: World, namespace: str) -> None:
    result = hubless("status")
    assert result.exit_code == 0, result.stderr
    header, *rows = result.stdout.splitlines()
    assert header.split("  ")[0] == "NAMESPACE"
    assert re.split(r"\s{2,}", header)[1:] == [
        "NAME",
        "SERVES ON",
        "SINCE",
        "SERVING",
        "CLEANED",
        "RE-PROTECTED",
        "LAST SYNC",
        "NOW",
    ]
    row = next(row for row in rows if row.startswith(namespace))
    cells = re.split(r"\s{2,}", row)
    assert cells[1:3] == ["shop", "dr2"]
    assert cells[4:8] == ["yes", "waiting dr1", "no", "-"]
    assert cells[8].startswith("waiting for dr1 to come back, ")


def test_wide_table_adds_columns(world: World, namespace: str) -> None:
    row = next(row for row in hubless("status", "-o", "wide").stdout.splitlines() if row.startswith(namespace))
    assert re.split(r"\s{2,}", row)[-4:] == ["8", "Failover by ann", "gold", "dr1,dr2"]


def test_json_has_the_promised_shape_and_order(world: World, namespace: str) -> None:
    result = hubless("status", "shop", "-n", namespace, "-o", "json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert list(found) == ["apiVersion", "kind", "metadata", "spec", "status", "hubless"]
    assert (found["apiVersion"], found["kind"]) == ("ramendr.openshift.io/v1alpha1", "DRPlacementControl")
    assert list(found["hubless"]) == ["epoch", "decision", "action", "pods", "debts"]
    assert found["hubless"] == {
        "epoch": 8,
        "decision": {"cluster": "dr2", "retained": ["dr1"]},
        "action": {
            "kind": "Failover",
            "workflowId": f"drpc/{namespace}/shop/failover-8",
            "requestedAt": "2026-11-23T14:03:00Z",
            "servingAt": "2026-11-23T14:03:01Z",
            "cleanedAt": None,
            "reprotectedAt": None,
            "dataAsOf": "2026-11-23T14:01:30Z",
            "waiting": None,
            "pointOfNoReturnPassed": True,
        },
        "pods": {"ready": 2, "total": 2},
        "debts": [{"cluster": "dr1", "wants": "Secondary", "since": "2026-11-23T14:03:02Z"}],
    }
    assert list(found["hubless"]["action"])[-2:] == ["waiting", "pointOfNoReturnPassed"]


def test_json_asks_the_running_action_what_it_waits_for(world: World, temporal: Temporal, namespace: str) -> None:
    world.action_ends = False
    step = running_step()
    world.steps = [step]
    assert hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--yes").exit_code == 0
    action = world.state.action
    assert action
    running = f"drpc/{namespace}/shop/failover-9"
    world.state = world.state.model_copy(
        update={"action": action.model_copy(update={"outcome": None, "workflow_id": running, "epoch": 9})}
    )
    found = json.loads(hubless("status", "shop", "-n", namespace, "-o", "json").stdout)
    waiting = found["hubless"]["action"]["waiting"]
    assert list(waiting) == ["for", "cluster", "since", "heldUp"]
    assert (waiting["for"], waiting["cluster"]) == ("dr2 to restore and promote 2 volumes", "dr2")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", waiting["since"])
    text = hubless("status", "shop", "-n", namespace).stdout
    assert re.search(r"Waiting for dr2 to restore and promote 2 volumes, \d+ s\.", text)
    world.aborting = "it hangs"
    assert "(being aborted: it hangs)\n" in hubless("status", "shop", "-n", namespace).stdout
    world.needs_operator = "data-1 is in no store: dr2 cannot restore it"
    text = hubless("status", "shop", "-n", namespace).stdout
    assert "Needs you: data-1 is in no store: dr2 cannot restore it" in text
    assert f"Next       hubless retry shop -n {namespace}, or hubless abort shop -n {namespace}" in text


@pytest.mark.parametrize(
    ("retry_seconds", "said"),
    [(30.0, "PVC data-0 is being deleted on dr2\n"), (0.01, "PVC data-0 is being deleted on dr2, still\n")],
    ids=["between two attempts", "while it waits"],
)
def test_a_wait_says_what_holds_it_up(world: World, namespace: str, retry_seconds: float, said: str) -> None:
    world.action_ends, world.steps = False, [running_step()]
    world.obstacle, world.retry_seconds = "PVC data-0 is being deleted on dr2", retry_seconds
    assert hubless("failover", "shop", "-n", namespace, "--to", "dr2", "--yes").exit_code == 0
    assert world.state.action
    running = world.state.action.model_copy(
        update={"outcome": None, "workflow_id": f"drpc/{namespace}/shop/failover-9", "epoch": 9}
    )
    world.state = world.state.model_copy(update={"action": running})
    limit = time.monotonic() + 20
    while f"Held up: {said}" not in (text := hubless("status", "shop", "-n", namespace).stdout):
        assert time.monotonic() < limit, text
    one = json.loads(hubless("status", "shop", "-n", namespace, "-o", "json").stdout)
    (listed,) = json.loads(hubless("status", "-n", namespace, "-o", "json").stdout)["items"]
    for document in (one, listed):
        assert document["hubless"]["action"]["waiting"]["heldUp"] == said.strip()


def test_yaml_is_the_same_document(world: World, namespace: str) -> None:
    as_json = json.loads(hubless("status", "shop", "-n", namespace, "-o", "json").stdout)
    as_yaml = yaml.safe_load(hubless("status", "shop", "-n", namespace, "-o", "yaml").stdout)
    assert as_yaml["hubless"] == as_json["hubless"]
    listed = json.loads(hubless("status", "-n", namespace, "-o", "json").stdout)
    assert [item["hubless"] for item in listed["items"]] == [as_json["hubless"]]


def test_unknown_application_is_refused_with_a_remedy(temporal: Temporal, namespace: str) -> None:
    for command in (["status"], ["failover", "--to", "dr2", "--yes"], ["relocate", "--to", "dr2", "--yes"], ["abort"]):
        result = hubless(command[0], "nope", "-n", namespace, *command[1:])
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert result.stderr.startswith(f"✗ nope in namespace {namespace} is not protected by Hubless.\n")
        assert "hubless protect" in result.stderr


def test_a_name_needs_a_namespace(temporal: Temporal) -> None:
    result = hubless("status", "shop")
    assert result.exit_code == 2
    assert "In which namespace is shop?" in result.stderr


def test_history_names_who_when_and_how_long(world: World, namespace: str) -> None:
    result = hubless("history", "shop", "-n", namespace, "-o", "wide")
    assert result.exit_code == 0, result.stderr
    header, row = result.stdout.splitlines()
    assert header.startswith("EPOCH  ACTION")
    cells = re.split(r"\s{2,}", row)
    assert cells[:4] == ["8", "Failover", "dr1", "dr2"]
    assert cells[5:] == ["ann", "1.6 s", "-", "-", "done", "site dr1 lost power", f"drpc/{namespace}/shop/failover-8"]
    found = json.loads(hubless("history", "shop", "-n", namespace, "-o", "json").stdout)
    assert found[0]["servingAt"] == "2026-11-23T14:03:01.600Z"


@pytest.mark.parametrize(
    ("cluster", "ahead"),
    [
        ("dr1", " Then: demote, resynchronise, protect. Nothing to do for you until then."),
        ("dr2", " Nothing to do for you until then."),
    ],
    ids=["the side that is cleaned is waited for", "the side that serves is waited for"],
)
def test_what_is_done_already_is_not_announced(cluster: str, ahead: str) -> None:
    since = datetime.now(UTC)
    state = AppState(
        namespace="web",
        name="shop",
        decision=Decision(cluster="dr2"),
        debts=[Debt(cluster="dr1", wants="Secondary", since=since)],
    )
    steps = StepsView(title="Reprotect", steps=[], waiting=Waiting(reason="something", cluster=cluster, since=since))
    now = Situation(StatusView(drpc={}, hubless={}, state=state), steps)
    (line,) = (line for line in screen.screen(now).splitlines() if "for something" in line)
    assert line.endswith(ahead)
    assert ("demote" in line) == ("demote" in ahead)
