"""Where an application begins when nobody said so: each row is what was seen, and the choice or the refusal."""

from __future__ import annotations

import pytest

from ramen.errors import Refused
from ramen.placement import Candidate, choose

A, B = Candidate("dr1"), Candidate("dr2")
AWAY = "dr1 did not answer in 1 s"


def one(cluster: str, **seen: object) -> Candidate:
    return Candidate(cluster, **seen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "cluster", "reason"),
    [
        ([A, B], "dr1", "the first ready one of policy gold"),
        ([B, A], "dr2", "the first ready one of policy gold"),
        ([one("dr1", store="no bucket"), B], "dr2", "the store of dr1 cannot be used (no bucket)"),
        ([one("dr1", lacks=("block",)), B], "dr2", "dr1 lacks StorageClass block"),
        ([A, one("dr2", volumes=1)], "dr2", "1 volume of shop is there"),
        ([A, one("dr2", volumes=2, store="x", lacks=("y",))], "dr2", "2 volumes of shop are there"),
        ([one("dr1", silent=AWAY), one("dr2", volumes=2)], "dr2", "2 volumes of shop are there"),
    ],
    ids=[
        "the policy's order",
        "the policy's order, reversed",
        "a store that is away",
        "a class that is missing",
        "volumes decide",
        "volumes decide even over readiness",
        "volumes here, the other side away",
    ],
)
def test_the_choice_and_its_reason(seen: list[Candidate], cluster: str, reason: str) -> None:
    choice = choose("shop", "gold", seen)
    assert choice.cluster == cluster
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ([one("dr1", volumes=1), one("dr2", volumes=1)], "dr1 and dr2 hold volumes"),
        ([one("dr1", silent=AWAY), B], "not known whether shop runs on dr1 (dr1 did not answer in 1 s)"),
        ([one("dr1", silent=AWAY), one("dr2", silent="x")], "runs on dr1, dr2"),
        ([one("dr1", store="x"), one("dr2", lacks=("block",))], "dr2 lacks StorageClass block"),
    ],
    ids=["volumes on both", "unknown is not absent", "nothing answers", "nothing is ready"],
)
def test_what_cannot_be_told_is_refused(seen: list[Candidate], words: str) -> None:
    with pytest.raises(Refused, match="preferredCluster is empty") as refused:
        choose("shop", "gold", seen)
    assert words in str(refused.value)
    assert "--preferred CLUSTER" in str(refused.value)
