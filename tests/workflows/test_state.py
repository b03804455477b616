"""What an entity refuses and what not, as rules over what was seen; no Temporal is needed to read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from activities.contracts import StoresSeen
from ramen.app import ActionKind, AppRef, Decision, Observed, StoreReport, Volume
from ramen.epoch import Epoch
from ramen.errors import HublessError, NoStore, Refused, VolumesMissing
from ramen.names import EPOCH
from tests.workflows.world import app_spec
from workflows import state as decide
from workflows import view
from workflows.inputs import ActionRecord, ActionResult, AppState, MoveRequest, Outcome

NOW = datetime(2026, 11, 28, 14, 0, tzinfo=UTC)
VOLUMES = [Volume(namespace="web", name="data-0", pv="pv-0")]
STATE = AppState(
    namespace="web",
    name="shop",
    app=app_spec(),
    issued=[Epoch(number=7, token="t7")],
    decision=Decision(cluster="dr1"),
    volumes=VOLUMES,
    protected={"dr2": NOW},
)
UNPROVEN = STATE.model_copy(update={"protected": {}, "last_good": {"dr2": NOW}})
STORED = StoresSeen(stores=[StoreReport(profile="s3-dr2", reachable=True, volumes=VOLUMES)])
EMPTY = StoresSeen(stores=[StoreReport(profile="s3-dr2", reachable=True)])
SILENT_STORE = StoresSeen(stores=[StoreReport(profile="s3-dr2", reachable=False, error="refused")])


def seen(
    role: str = "secondary", state: str = "Secondary", observed: int = 3, cluster: str = "dr2", action: str = ""
) -> Observed:
    """A look at a VRG of generation 3."""
    vrg: dict[str, Any] = {
        "metadata": {"name": "shop", "namespace": "web", "generation": 3, "annotations": {EPOCH: "7.t7"}},
        "spec": {"replicationState": role, "action": action},
        "status": {"state": state, "observedGeneration": observed, "conditions": []},
    }
    return Observed(cluster=cluster, vrg=vrg)


SECONDARY = seen()
FLAPPING = seen(state="Unknown")
NO_VRG = Observed(cluster="dr2")
SILENT = Observed(cluster="dr2", reachable=False, error="connection refused")
LOSS = {"accept_data_loss": True}


@pytest.mark.parametrize(
    ("state", "target", "stores", "accepted", "refused", "named"),
    [
        pytest.param(STATE, SECONDARY, STORED, {}, None, "", id="a proven copy on a Secondary is taken"),
        pytest.param(
            STATE,
            FLAPPING,
            STORED,
            {},
            Refused,
            "--accept-data-loss",
            id="R5: a lost state is refused and says the way",
        ),
        pytest.param(STATE, FLAPPING, STORED, LOSS, None, "", id="S5: with the loss accepted a lost state is no gate"),
        pytest.param(STATE, NO_VRG, STORED, {}, Refused, "dr2 has no VRG", id="R5: no VRG is refused"),
        pytest.param(STATE, NO_VRG, STORED, LOSS, None, "", id="S5: with the loss accepted the VRG is made anew"),
        pytest.param(
            STATE, SILENT, STORED, LOSS, Refused, "does not answer", id="D10: nobody promotes what is unknown"
        ),
        pytest.param(
            UNPROVEN, SECONDARY, STORED, {}, Refused, "14:00:00", id="S2: a copy being rebuilt, last good named"
        ),
        pytest.param(UNPROVEN, SECONDARY, STORED, LOSS, None, "", id="S2: its loss can be accepted"),
        pytest.param(STATE, SECONDARY, EMPTY, LOSS, VolumesMissing, "data-0", id="S3: no empty restore, loss or not"),
        pytest.param(STATE, SECONDARY, SILENT_STORE, LOSS, NoStore, "s3-dr2", id="S9: no store, no promotion"),
        pytest.param(
            STATE,
            SECONDARY,
            EMPTY,
            {"accept_missing_volumes": ["data-0"]},
            None,
            "",
            id="S3: a volume that is named as missing may be missing",
        ),
    ],
)
def test_gates_of_a_failover(
    state: AppState,
    target: Observed,
    stores: StoresSeen,
    accepted: dict[str, Any],
    refused: type[HublessError] | None,
    named: str,
) -> None:
    request = MoveRequest(target="dr2", **accepted)
    if refused is None:
        decide.check_failover(state, request, target, stores)
        return
    with pytest.raises(refused) as caught:
        decide.check_failover(state, request, target, stores)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "decided", "refused"),
    [
        pytest.param(seen(state="Unknown", action="Relocate"), "dr2", False, id="the side that a relocate demotes"),
        pytest.param(seen(state="Unknown", action="Failover"), "dr2", True, id="a failover's demotion is left alone"),
        pytest.param(seen(state="Unknown", action="Relocate"), "dr1", True, id="a side that holds no more than a copy"),
    ],
)
def test_a_failover_back_to_a_side_in_the_middle_of_its_demotion(target: Observed, decided: str, refused: bool) -> None:
    """S5: the side that serves by the decision has every write; the failover lets its demotion end first."""
    state = STATE.model_copy(update={"decision": Decision(cluster=decided), "protected": {"dr1": NOW, "dr2": NOW}})
    request = MoveRequest(target="dr2")
    if refused:
        with pytest.raises(Refused, match="not Secondary"):
            decide.check_failover(state, request, target, STORED)
    else:
        decide.check_failover(state, request, target, STORED)
    assert decide.is_unsettled(state, target) == refused


@pytest.mark.parametrize(
    ("target", "unsettled"),
    [
        pytest.param(SECONDARY, False, id="a Secondary is settled"),
        pytest.param(FLAPPING, True, id="a state that is lost for a moment is worth another look"),
        pytest.param(NO_VRG, True, id="so is a VRG that is not there yet"),
        pytest.param(SILENT, False, id="a cluster that does not answer is not asked again"),
    ],
)
def test_what_is_worth_another_look(target: Observed, unsettled: bool) -> None:
    assert decide.is_unsettled(STATE, target) is unsettled


@pytest.mark.parametrize(
    ("peer", "action"),
    [
        pytest.param(seen("primary", "Primary"), "Failover", id="a former primary resynchronises"),
        pytest.param(seen(action="Relocate"), None, id="a relocate that came to its end is left alone"),
        pytest.param(
            seen(state="Unknown", action="Relocate"), "Failover", id="one that did not would stay degraded for good"
        ),
        pytest.param(seen(state="Unknown", action="Failover"), None, id="a resync under way is left alone"),
        pytest.param(NO_VRG, None, id="a VRG that is made anew has nothing to resynchronise"),
    ],
)
def test_how_a_side_that_does_not_serve_is_demoted(peer: Observed, action: str | None) -> None:
    assert decide.demotion_action(AppRef(namespace="web", name="shop"), peer) == action


@pytest.mark.parametrize(
    ("epoch", "superseded"),
    [
        pytest.param(7, True, id="the newest action met an epoch that nobody here issued"),
        pytest.param(6, False, id="an action that the newest one supersedes met our own epoch"),
    ],
)
def test_whose_epoch_an_action_met(epoch: int, superseded: bool) -> None:
    record = ActionRecord(kind=ActionKind.REPROTECT, workflow_id="drpc/web/shop/reprotect", epoch=epoch)
    result = ActionResult(
        action=ActionKind.REPROTECT, outcome=Outcome.SUPERSEDED, message="newer epoch", foreign_epoch=True
    )
    assert bool(decide.after(STATE, record, result, NOW).superseded) is superseded


def test_a_request_made_at_another_epoch_is_refused() -> None:
    """Of two edits at once the first accepted one wins; who names no epoch is not asked for one."""
    decide.check_basis(STATE, None)
    decide.check_basis(STATE, 7)
    with pytest.raises(Refused, match="at epoch 7 by now, and this was asked for at epoch 6"):
        decide.check_basis(STATE, 6)


@pytest.mark.parametrize(
    ("decided", "phase"),
    [
        pytest.param("dr1", "Deployed", id="stopped before its decision"),
        pytest.param("dr2", "FailedOver", id="stopped while its decision went out"),
    ],
)
def test_the_phase_after_a_superseded_failover_follows_the_decision(decided: str, phase: str) -> None:
    deployed = ActionRecord(kind=ActionKind.DEPLOY, workflow_id="d", epoch=6, target="dr1", outcome=Outcome.DONE)
    stopped = deployed.model_copy(
        update={"kind": ActionKind.FAILOVER, "epoch": 7, "target": "dr2", "outcome": Outcome.SUPERSEDED}
    )
    history = [deployed, stopped]
    state = STATE.model_copy(update={"action": stopped, "history": history, "decision": Decision(cluster=decided)})
    assert view.phase(state) == phase
