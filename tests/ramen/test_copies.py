"""Which copy wins, as a table: histories read from the newest content to the oldest."""

from __future__ import annotations

import itertools
import random

import pytest

from ramen.copies import REMEMBERED, Copy, Verb, annotation, digest, edited, judge


def copy(text: str) -> Copy:
    """`c<b,a`: says c, and b was noted last, a before. `b,a`: says b as noted. `-`: not there. `b<`: never noted."""
    if text == "-":
        return Copy("")
    now, sep, noted = text.partition("<")
    if not sep:
        return Copy(text.split(",")[0], tuple(text.split(",")))
    return Copy(now, tuple(noted.split(",")) if noted else ())


@pytest.mark.parametrize(
    ("dr1", "dr2", "verb", "lineage"),
    [
        # what dr1 has, what dr2 has: what dr1's writer does
        ("-", "-", Verb.KEEP, ""),
        ("a", "a", Verb.KEEP, ""),
        # First meeting: equal copies are noted, others are nobody's to judge.
        ("a<", "a<", Verb.NOTE, "a"),
        ("a<", "b<", Verb.CONFLICT, ""),
        ("a", "b<", Verb.CONFLICT, ""),
        ("a<", "b", Verb.CONFLICT, ""),
        # A copy that is not there is made; a deletion is no order.
        ("-", "a", Verb.TAKE, "a"),
        ("-", "a<", Verb.TAKE, "a"),
        ("-", "b<a", Verb.TAKE, "b,a"),
        ("a", "-", Verb.KEEP, ""),
        ("a<", "-", Verb.NOTE, "a"),
        # An edit of one side wins over what it was made from.
        ("b<a", "a", Verb.NOTE, "b,a"),
        ("a", "b<a", Verb.TAKE, "b,a"),
        ("a", "b,a", Verb.TAKE, "b,a"),
        ("b,a", "a", Verb.KEEP, ""),
        ("a", "c,b,a", Verb.TAKE, "c,b,a"),
        ("a", "d<c,b,a", Verb.TAKE, "d,c,b,a"),
        # A cluster that returns with an old copy edits nothing.
        ("b,a", "d,c,b,a", Verb.TAKE, "d,c,b,a"),
        # Back to an older content is an edit like any other.
        ("b,a", "a<b,a", Verb.TAKE, "a,b,a"),
        ("a<b,a", "b,a", Verb.NOTE, "a,b,a"),
        # Both were edited since they agreed: whatever the order in which it is noticed.
        ("b<a", "c<a", Verb.CONFLICT, ""),
        ("b,a", "c<a", Verb.CONFLICT, ""),
        ("b,a", "c,a", Verb.CONFLICT, ""),
        ("c,b,a", "d,a", Verb.CONFLICT, ""),
        ("c<b,a", "b<a", Verb.NOTE, "c,b,a"),
        ("c<a", "c<a", Verb.NOTE, "c,a"),
        # Somebody made them equal: the conflict is over, and both choose the same history.
        ("d<b,a", "d<c,a", Verb.NOTE, "d,c,a"),
        ("d<c,a", "d<b,a", Verb.NOTE, "d,c,a"),
        # A copy made anew by hand carries no history: nobody knows whether it is older or newer.
        ("b<", "b,a", Verb.NOTE, "b,a"),
        ("a<", "b,a", Verb.CONFLICT, ""),
    ],
)
def test_two_copies(dr1: str, dr2: str, verb: Verb, lineage: str) -> None:
    verdict = judge("dr1", {"dr1": copy(dr1), "dr2": copy(dr2)})
    assert (verdict.verb, ",".join(verdict.lineage)) == (verb, lineage)
    if verb is Verb.TAKE:
        assert verdict.source == "dr2"
    if verb is Verb.CONFLICT:
        assert verdict.between == ("dr1", "dr2")


def test_a_third_cluster_takes_from_whoever_is_newest() -> None:
    copies = {"dr1": copy("a"), "dr2": copy("b,a"), "dr3": copy("-")}
    assert judge("dr3", copies).source == "dr2"
    assert judge("dr1", copies).source == "dr2"


def test_a_conflict_of_two_leaves_the_third_alone() -> None:
    copies = {"dr1": copy("b<a"), "dr2": copy("c<a"), "dr3": copy("a")}
    assert {judge(cluster, copies).verb for cluster in copies} == {Verb.CONFLICT}


def test_a_copy_that_is_further_behind_than_is_remembered_is_reported() -> None:
    history = ",".join(f"v{number}" for number in range(30, 0, -1))
    old, new = copy("v1"), Copy("v30", tuple(history.split(","))[:REMEMBERED])
    assert judge("dr1", {"dr1": old, "dr2": new}).verb is Verb.CONFLICT


def test_who_writes_on_purpose_leaves_the_history_that_follows() -> None:
    first = edited("", None, ["dr1"])
    second = edited(first, ["dr1"], ["dr1", "dr2"])
    back = edited(second, ["dr1", "dr2"], ["dr1"])
    one, two = digest(["dr1"]), digest(["dr1", "dr2"])
    assert (first, second, back) == (one, f"{two},{one}", f"{one},{two},{one}")
    assert edited(second, ["dr1", "dr2"], ["dr1", "dr2"]) == second


@pytest.mark.parametrize("seed", range(40))
def test_edits_one_after_another_reach_every_cluster_and_none_is_ever_overwritten_unseen(seed: int) -> None:
    """Random edits, outages and looks; then everybody answers.

    Either all copies are equal and every edit is in the history of the winner, or a conflict is reported.
    """
    dice = random.Random(seed)
    clusters = ["dr1", "dr2", "dr3"]
    copies = dict.fromkeys(clusters, Copy("a"))
    names = (f"e{number}" for number in itertools.count())
    edits: list[str] = []

    def look(cluster: str, reached: list[str]) -> Verb:
        verdict = judge(cluster, {name: copies[name] for name in reached})
        if verdict.verb is Verb.NOTE:
            copies[cluster] = Copy(copies[cluster].digest, tuple(annotation(verdict.lineage).split(",")))
        elif verdict.verb is Verb.TAKE:
            copies[cluster] = Copy(copies[verdict.source].digest, tuple(annotation(verdict.lineage).split(",")))
        return verdict.verb

    for _ in range(dice.randrange(1, 8)):
        cluster = dice.choice(clusters)
        edit = next(names)
        edits.append(edit)
        copies[cluster] = Copy(edit, copies[cluster].noted)
        for _ in range(dice.randrange(0, 6)):
            look(who := dice.choice(clusters), sorted({who, *dice.sample(clusters, dice.randrange(0, 3))}))
    for _ in range(4):
        verbs = {look(cluster, clusters) for cluster in clusters}
    if Verb.CONFLICT in verbs:
        return
    assert verbs == {Verb.KEEP}
    assert len({copy.digest for copy in copies.values()}) == 1


def test_a_hash_hides_order_of_keys_and_nothing_else() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(["a", "b"]) != digest(["b", "a"])
    assert digest({}) == digest([]) == digest(None) == ""
