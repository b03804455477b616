"""What is inferred of an application that no workflow holds any more: every row is a rule (drpc.md 3.9)."""

from __future__ import annotations

from typing import Any

import pytest

from ramen import names
from ramen.app import AppRef, Observed
from ramen.desired import released_annotations
from ramen.epoch import Epoch
from ramen.recovery import Evidence, Verdict, infer, told

APP = AppRef(namespace="web", name="shop")


def vrg(
    cluster: str,
    role: str,
    epoch: str = "7.a",
    *,
    decision: str = "",
    previous: str = "",
    action: str = "",
    flag: str = "",
    claimed_by: str = "",
    decided_in: str = "",
    volumes: str = "",
) -> Observed:
    annotations = {names.EPOCH: epoch, names.DECISION: decision, names.PREVIOUS: previous}
    annotations |= {names.ACTION: claimed_by, names.DECISION_EPOCH: decided_in, names.VOLUMES: volumes}
    body: dict[str, Any] = {
        "metadata": {"name": "shop", "namespace": "web", "annotations": annotations},
        "spec": {"replicationState": role, "action": action} | ({flag: True} if flag else {}),
    }
    return Observed(cluster=cluster, vrg=body)


def released(cluster: str, role: str, epoch: str = "7.a") -> Observed:
    annotations = {key: value for key, value in released_annotations(Epoch.parse(epoch)).items() if value}  # type: ignore[arg-type]
    return Observed(cluster=cluster, vrg={"metadata": {"annotations": annotations}, "spec": {"replicationState": role}})


def gone(cluster: str) -> Observed:
    return Observed(cluster=cluster)


def silent(cluster: str) -> Observed:
    return Observed(cluster=cluster, reachable=False, error="connection refused")


P1, S2 = vrg("dr1", "primary", decision="dr1"), vrg("dr2", "secondary")
CLAIMED1 = vrg("dr1", "primary", "8.b", decision="dr1", decided_in="7", claimed_by="Failover")
"""dr1 was decided for in epoch 7, and a failover of epoch 8 to another cluster claimed it."""
PROMOTED2 = vrg("dr2", "primary", "8.b", decision="dr2", previous="dr1")


def case(
    name: str,
    looks: list[Observed],
    verdict: Verdict,
    serving: str = "",
    says: str = "",
    placed: dict[str, str | None] | None = None,
    claim: str = "",
    decided: str | None = None,
    stores: tuple[str, ...] = (),
    decided_at: str = "",
) -> Any:
    """A row; by default every cluster that answers is placed on dr1."""
    answering = {look.cluster: "dr1" for look in looks if look.reachable}
    where = placed if placed is not None else answering
    seen = Evidence(APP, looks, where, Epoch.parse(claim), decided, stores, Epoch.parse(decided_at))
    return pytest.param(seen, verdict, serving, says, id=name)


@pytest.mark.parametrize(
    ("seen", "verdict", "serving", "says"),
    [
        case("a Primary that is decided for is held", [P1, S2], Verdict.ADOPT, "dr1"),
        case("also while its peer is away", [P1, silent("dr2")], Verdict.ADOPT, "dr1"),
        *(
            case(
                f"one whose final sync was asked for is brought back, or nothing would place it again: {flag}",
                [vrg("dr1", "primary", "8.b", decision="dr1", flag=flag), S2],
                Verdict.BRING_BACK,
                "dr1",
                "cut off",
                placed={"dr1": None, "dr2": None},
                decided="dr1",
            )
            for flag in ("prepareForFinalSync", "runFinalSync")
        ),
        case(
            "a peer that is away with its store may have moved on: a person decides (unknown is not absent)",
            [P1, silent("dr2")],
            Verdict.ASK,
            says="a later move there would not be seen",
            stores=("s3-dr2",),
        ),
        case(
            "a store that is away hides nothing while every cluster answers",
            [P1, S2],
            Verdict.ADOPT,
            "dr1",
            stores=("s3-dr2",),
        ),
        case(
            "a protection that had hardly begun is begun again",
            [gone("dr1"), vrg("dr2", "secondary", claimed_by="Deploy")],
            Verdict.NOTHING,
            says="hubless protect shop -n web",
        ),
        case(
            "unless its VRG has volumes: then the Primary was lost, and a person decides",
            [gone("dr1"), vrg("dr2", "secondary", claimed_by="Deploy", volumes='[{"name": "data"}]')],
            Verdict.ASK,
            says="nothing says which cluster served last",
        ),
        case(
            "unless a move came after it",
            [gone("dr1"), vrg("dr2", "secondary", claimed_by="Failover")],
            Verdict.ASK,
        ),
        case(
            "unless the other cluster is silent: it may be Primary (unknown is not absent)",
            [silent("dr1"), vrg("dr2", "secondary", claimed_by="Deploy")],
            Verdict.ADOPT,
            "dr1",
        ),
        case("nothing anywhere is nothing to adopt", [gone("dr1"), gone("dr2")], Verdict.NOTHING, says="protect"),
        case(
            "no VRG where somebody is silent: the stores name the silent one",
            [silent("dr1"), gone("dr2")],
            Verdict.ADOPT,
            "dr1",
            decided="dr1",
        ),
        case(
            "no VRG where somebody is silent and no store knows: a person decides (unknown is not absent)",
            [silent("dr1"), gone("dr2")],
            Verdict.ASK,
            says="dr1",
        ),
        case(
            "a promotion whose decision was not published is finished",
            [vrg("dr1", "primary", "8.b", decision="dr1"), PROMOTED2],
            Verdict.FINISH,
            "dr2",
            claim="8.b",
            decided="dr1",
        ),
        case(
            "also with the source away",
            [silent("dr1"), PROMOTED2],
            Verdict.FINISH,
            "dr2",
            placed={"dr2": None},
            claim="8.b",
        ),
        case(
            "a promotion that only the stores know as decided is carried to its decision there",
            [silent("dr1"), PROMOTED2],
            Verdict.FINISH,
            "dr2",
            placed={"dr2": None},
            decided="dr2",
        ),
        case(
            "a side that a failover left is not held against the decision in the stores",
            [CLAIMED1, silent("dr2")],
            Verdict.ASK,
            says="the stores say that epoch 8 decided for dr2",
            claim="8.b",
            decided="dr2",
            decided_at="8.b",
        ),
        case(
            "nor where that side has lost its VRG",
            [P1, gone("dr2")],
            Verdict.ASK,
            says="decided for dr2",
            claim="8.b",
            decided="dr2",
            decided_at="8.b",
        ),
        case(
            "a side that a failover claimed is not held while the stores may lag behind",
            [CLAIMED1, silent("dr2")],
            Verdict.ASK,
            says="a move claimed it with epoch 8",
            claim="8.b",
            decided="dr1",
            decided_at="7.a",
        ),
        case(
            "it is where the stores know that the move ended where it was",
            [CLAIMED1, silent("dr2")],
            Verdict.ADOPT,
            "dr1",
            claim="8.b",
            decided="dr1",
            decided_at="8.b",
        ),
        case(
            "a relocate whose target is silent may have promoted it, or left the source with the only whole copy",
            [vrg("dr1", "secondary", "8.b", action="Relocate"), silent("dr2")],
            Verdict.ASK,
            says="whether dr2 was promoted is not known",
            placed={"dr1": None},
            claim="8.b",
            decided="dr1",
            decided_at="7.a",
        ),
        case(
            "unless the stores say that it was decided for",
            [vrg("dr1", "secondary", "8.b", action="Relocate"), silent("dr2")],
            Verdict.ADOPT,
            "dr2",
            placed={"dr1": None},
            claim="8.b",
            decided="dr2",
            decided_at="8.b",
        ),
        case(
            "a Primary that nothing places is placed, also while its peer is away",
            [P1, silent("dr2")],
            Verdict.FINISH,
            "dr1",
            placed={"dr1": None},
            decided="dr1",
        ),
        case(
            "a returned Primary of an older epoch is a debt",
            [P1, PROMOTED2],
            Verdict.ADOPT,
            "dr2",
            says="dr1 is Primary of an older epoch",
            placed={"dr1": "dr1", "dr2": "dr2"},
        ),
        case(
            "a claim that changed nothing yet is lost, where every side answers",
            [P1, S2],
            Verdict.ADOPT,
            "dr1",
            says="ask for it again",
            claim="8.b",
        ),
        case(
            "a claim that a silent side may carry is for a person",
            [P1, silent("dr2")],
            Verdict.ASK,
            says="dr2, which may carry it",
            claim="8.b",
        ),
        case(
            "a claim that is stamped on the side that answers went no further",
            [vrg("dr1", "primary", "8.b", decision="dr1"), silent("dr2")],
            Verdict.ADOPT,
            "dr1",
            claim="8.b",
        ),
        case(
            "a relocate that was cut off after the demotion brings the source back",
            [vrg("dr1", "secondary", "8.b", action="Relocate"), vrg("dr2", "secondary", "8.b")],
            Verdict.BRING_BACK,
            "dr1",
            placed={"dr1": None, "dr2": None},
        ),
        case(
            "the decision in the stores says who was the source",
            [vrg("dr1", "secondary", action="Relocate"), vrg("dr2", "secondary", action="Relocate")],
            Verdict.BRING_BACK,
            "dr2",
            decided="dr2",
        ),
        case(
            "a decision that contradicts the demoted side may be an old one: a person decides",
            [vrg("dr1", "secondary", "9.c"), vrg("dr2", "secondary", "9.c", action="Relocate")],
            Verdict.ASK,
            says="dr2 was demoted by a relocate, but the stores name dr1",
            claim="9.c",
            decided="dr1",
        ),
        case(
            "both Secondary and nothing says who served", [vrg("dr1", "secondary"), S2], Verdict.ASK, says="dr1 | dr2"
        ),
        case(
            "a Secondary alone: the silent one is taken for the Primary, and the failover is named",
            [silent("dr1"), S2],
            Verdict.ADOPT,
            "dr1",
            says="hubless failover shop -n web --to dr2",
        ),
        case(
            "one number, two tokens: two Temporals acted (S1)",
            [vrg("dr1", "primary", "8.a", decision="dr1"), vrg("dr2", "primary", "8.b", decision="dr2")],
            Verdict.ASK,
            says="two Temporals",
        ),
        case(
            "two Primaries of one epoch that do not know of each other",
            [vrg("dr1", "primary"), vrg("dr2", "primary")],
            Verdict.ASK,
            says="both Primary",
        ),
        case(
            "Ramen's own VRGs carry no epoch and are held as they are",
            [vrg("dr1", "primary", ""), vrg("dr2", "secondary", "")],
            Verdict.ADOPT,
            "dr1",
            says="driven by a Ramen hub",
            placed={"dr1": None, "dr2": None},
        ),
        case(
            "what was given back is held where the hub has it, whatever our last decision was",
            [released("dr1", "secondary"), released("dr2", "primary")],
            Verdict.ADOPT,
            "dr2",
            says="driven by a Ramen hub",
            placed={"dr1": "dr1", "dr2": "dr1"},
            claim="7.a",
            decided="dr1",
        ),
        case(
            "a hub's Primary beside a silent cluster may be the older one",
            [vrg("dr1", "primary", ""), silent("dr2")],
            Verdict.ASK,
            says="dr1 | dr2",
        ),
        case(
            "of two Primaries that were given back none is the newer",
            [released("dr1", "primary", "7.a"), released("dr2", "primary", "6.b")],
            Verdict.ASK,
            says="both Primary",
        ),
    ],
)
def test_inference(seen: Evidence, verdict: Verdict, serving: str, says: str) -> None:
    found = infer(seen)
    assert (found.verdict, found.serving) == (verdict, serving), found
    assert says in f"{found.why} {found.plan}", found
    assert "\n" not in found.why + found.plan


def test_a_hubs_primary_that_is_named_is_held_and_not_promoted_again() -> None:
    seen = Evidence(APP, [vrg("dr1", "primary", ""), silent("dr2")], {"dr1": None})
    assert (told(seen, "dr1").verdict, told(seen, "dr1").serving) == (Verdict.ADOPT, "dr1")


def test_the_epoch_of_a_tombstone_is_counted_on_but_is_no_epoch_of_a_hubs_vrg() -> None:
    look = vrg("dr1", "primary", "").model_copy(update={"tombstone": Epoch.parse("9.t")})
    found = infer(Evidence(APP, [look, vrg("dr2", "secondary", "")], {"dr1": None, "dr2": None}))
    assert (found.verdict, found.epoch) == (Verdict.ADOPT, Epoch.parse("9.t"))
    assert "hub" in found.why


def test_a_person_may_name_any_side() -> None:
    seen = Evidence(APP, [P1, silent("dr2")], {"dr1": "dr1"}, Epoch.parse("8.b"))
    assert (told(seen, "dr1").verdict, told(seen, "dr1").serving) == (Verdict.ADOPT, "dr1")
    held = told(seen, "dr2")
    assert (held.verdict, held.serving) == (Verdict.ADOPT, "dr2")
    assert "Nothing is written there" in held.plan
    assert held.epoch == Epoch(number=8, token="b")
    other = told(Evidence(APP, [P1, S2], {"dr1": "dr1", "dr2": "dr1"}), "dr2")
    assert (other.verdict, other.serving) == (Verdict.FINISH, "dr2")
    assert "however good its copy is" in other.plan
