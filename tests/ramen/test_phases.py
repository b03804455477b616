"""Phases keep Ramen's spelling, and only the turns that can happen are taken."""

from __future__ import annotations

import itertools

import pytest

from ramen.errors import Refused
from ramen.phases import FINAL, PROGRESSING, TRANSITIONS, Action, Phase, Progression, check_transition

WALKS = [
    pytest.param(["", "Initiating", "Deploying", "Deployed"], id="a deployment"),
    pytest.param(["Deployed", "Initiating", "FailingOver", "FailedOver"], id="a failover"),
    pytest.param(["FailedOver", "Initiating", "Relocating", "Relocated"], id="a relocate"),
    pytest.param(["Deploying", "FailingOver", "FailedOver"], id="a failover supersedes a deployment"),
    pytest.param(["Relocating", "FailingOver", "FailedOver"], id="a failover supersedes a relocate"),
    pytest.param(["FailingOver", "Deployed"], id="an aborted failover goes back to where it came from"),
    pytest.param(["Relocating", "FailedOver"], id="an aborted relocate goes back to where it came from"),
    pytest.param(["", "WaitForUser", "Initiating", "FailedOver"], id="a lost state is found again"),
    pytest.param(["FailingOver", "FailingOver"], id="to stay is no transition"),
    pytest.param(["Relocating", "Deleting"], id="a deletion is possible at any time"),
]


@pytest.mark.parametrize("walk", WALKS)
def test_walk(walk: list[str]) -> None:
    for old, new in itertools.pairwise(walk):
        check_transition(Phase(old), Phase(new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("Deployed", "FailedOver", id="an action cannot be skipped"),
        pytest.param("Deployed", "FailingOver", id="every action begins with Initiating"),
        pytest.param("FailingOver", "Relocating", id="a relocate does not supersede a failover"),
        pytest.param("FailingOver", "Deploying", id="a failover does not turn into a deployment"),
        pytest.param("Deleting", "Initiating", id="nothing follows a deletion"),
        pytest.param("Deployed", "", id="nothing becomes new again"),
    ],
)
def test_wrong_turn(old: str, new: str) -> None:
    with pytest.raises(Refused, match="cannot follow"):
        check_transition(Phase(old), Phase(new))


def test_every_phase_but_the_deletion_can_be_left() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert [phase for phase in Phase if not TRANSITIONS[phase]] == [Phase.DELETING]
    assert all(Phase.DELETING in TRANSITIONS[phase] for phase in Phase if phase is not Phase.DELETING)


def test_final_and_progressing_phases_are_apart() -> None:
    assert {"Deployed", "FailedOver", "Relocated"} == FINAL
    assert {"Initiating", "Deploying", "FailingOver", "Relocating"} == PROGRESSING


def test_spelling_that_scripts_depend_on() -> None:
    assert {"Cleaning Up", "WaitOnUserToCleanUp", "UpdatingPlRule", "EnsuringVolSyncSetup"} <= set(Progression)
    assert len(Progression) == 26
    assert [action.value for action in Action] == ["Failover", "Relocate"]
