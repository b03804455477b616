"""The keeper of one cluster's DRPC copies over a cluster in memory and workflows that answer to order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from activities.access.fake import FakeCluster
from activities.access.protocol import Object
from activities.contracts import ProtectRequest
from ramen import names
from ramen.app import ActionKind, AppSpec, Decision, PolicyCluster
from ramen.desired import released_annotations
from ramen.drpc_edits import Entity, Known, Written
from ramen.epoch import Epoch
from ramen.errors import ClusterUnreachable, Conflict, HublessError, Refused
from ramen.kinds import DRPC, EVENT, NAMESPACE, Kind
from worker.drpc_status import EDIT_ACCEPTED
from worker.drpcs import BETWEEN_SECONDS, IDLE_SHARE, REMEMBERED_EVENTS, Keeper
from worker.entities import NoAnswer, known
from workflows import view
from workflows.inputs import ActionRecord, Answer, AppState, MoveRequest, Outcome, StatusView, UnprotectRequest
from workflows.state import check_serving

KEY = ("web", "shop")
AT = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)
APP = AppSpec(
    namespace="web",
    name="shop",
    uid="u",
    policy="gold",
    clusters=[PolicyCluster(name="dr1", s3_profile="s3-dr1"), PolicyCluster(name="dr2", s3_profile="s3-dr2")],
    preferred_cluster="dr1",
    pvc_selector={"matchLabels": {"app": "shop"}},
    placement="shop",
    scheduling_interval="1m",
)


def record(kind: ActionKind, number: int, target: str, outcome: Outcome | None = Outcome.DONE) -> ActionRecord:
    return ActionRecord(
        kind=kind,
        workflow_id=f"drpc/web/shop/{kind.lower()}-{number}",
        epoch=number,
        target=target,
        requested_at=AT,
        serving_at=AT if outcome else None,
        cleaned_at=AT if outcome else None,
        reprotected_at=AT if outcome else None,
        outcome=outcome,
    )


class Workflows:
    """Stands in for `Entities`: one application's state, and how it answers."""

    def __init__(self) -> None:
        self.state: AppState | None = None
        self.ended = False
        self.away = False
        self.refusal = ""
        self.failure: HublessError | None = None
        self.answering = ""
        self.meanwhile: Callable[[], None] | None = None
        """What happens between the question and a request that follows from its answer."""
        self.asked = 0
        self.sent: list[tuple[str, Any]] = []

    def move_to(self, kind: ActionKind, number: int, target: str, outcome: Outcome | None = Outcome.DONE) -> None:
        history = [*(self.state.history if self.state else [])]
        done = record(kind, number, target, outcome)
        self.state = AppState(
            namespace="web",
            name="shop",
            app=APP,
            issued=[Epoch(number=number, token="t")],
            decision=Decision(cluster=target),
            action=done,
            history=[*history, *([done] if outcome else [])],
            protected={"dr2": AT},
            answers=self.state.answers if self.state else {},
        )

    async def ask(self, namespace: str, name: str) -> tuple[Known, StatusView | None]:
        self.asked += 1
        if self.away:
            return Known(Entity.UNKNOWN, why="Temporal does not answer"), None
        if self.state is None:
            return Known(Entity.UNPROTECTED if self.ended else Entity.ABSENT), None
        told = StatusView(drpc=view.drpc(self.state, AT), hubless=view.hubless(self.state), state=self.state)
        return known(self.state, self.answering), told

    async def protect(self, request: ProtectRequest, request_id: str, requester: str) -> Answer:
        self._send("protect", request_id, request)
        self.move_to(ActionKind.DEPLOY, 1, request.spec["preferredCluster"])
        return Answer(action=ActionKind.DEPLOY, workflow_id="", epoch=1, message="")

    async def send(self, namespace: str, name: str, update: str, request: MoveRequest | UnprotectRequest) -> Answer:
        self._send(update, request.request_id, request)
        if self.meanwhile is not None:
            self.meanwhile()
        if isinstance(request, MoveRequest):
            kind = ActionKind.FAILOVER if update == "failover" else ActionKind.RELOCATE
            self.move_to(kind, (request.basis_epoch or 0) + 1, request.target)
            assert self.state is not None
            answer = Answer(action=kind, workflow_id="", epoch=2, message="")
            self.state = self.state.model_copy(update={"answers": {request.request_id: answer}})
        else:
            assert self.state is not None
            check_serving(self.state, request.basis_serving)
            self.state, self.ended = None, True
        return Answer(action=ActionKind.FAILOVER, workflow_id="", epoch=2, message="")

    def is_slow(self) -> None:
        """The epoch is claimed and the answer is not out; meanwhile whoever asked waited for too long."""
        self.move_to(ActionKind.DEPLOY, 2, "dr1")
        self.answering = self.sent[-1][1]

    def answers(self, kind: ActionKind, target: str) -> None:
        """What was looked into is accepted now."""
        self.move_to(kind, 2, target, None)
        assert self.state is not None
        answer = Answer(action=kind, workflow_id="", epoch=2, message="")
        self.state = self.state.model_copy(update={"answers": {self.answering: answer}})
        self.answering = ""

    def _send(self, verb: str, request_id: str, request: Any) -> None:
        self.sent.append((verb, request_id))
        if self.failure:
            raise self.failure
        if self.refusal:
            raise Refused(self.refusal)


class World:
    """Cluster dr1 with its keeper."""

    def __init__(self) -> None:
        self.cluster = FakeCluster("dr1")
        self.cluster.put(NAMESPACE, {"metadata": {"name": "web"}})
        self.workflows = Workflows()
        self.time = 1000.0
        self.vrgs: dict[str, Object | None] = {"dr1": None}
        self.keeper = self.worker()

    def worker(self) -> Keeper:
        return Keeper(
            "dr1",
            lambda: self.cluster,
            lambda: True,
            lambda _: self.vrgs,
            lambda: self.workflows,  # type: ignore[arg-type,return-value]
            now=lambda: self.time,
        )

    async def restart(self) -> None:
        """Another worker becomes the writer, and knows nothing but what it reads."""
        await self.keeper.watch.stop()
        self.keeper = self.worker()

    async def look(self, times: int = 4, mark: bool = False) -> None:
        """Lets the watch see what is there, and looks until nothing is due."""
        await self.keeper.watch.ensure_live(5)
        if mark:
            self.time += BETWEEN_SECONDS
            self.keeper.mark([KEY])
        for _ in range(times):
            obj = self.obj
            version = obj["metadata"]["resourceVersion"] if obj else None
            for _ in range(200):
                seen, _ = self.keeper.watch.latest(KEY)
                if (seen[0]["metadata"]["resourceVersion"] if seen else None) == version:
                    break
                await _tick()
            await self.keeper.look()

    @property
    def obj(self) -> Object | None:
        return self.cluster.get(DRPC, "shop", "web")

    @property
    def there(self) -> Object:
        assert self.obj is not None
        return self.obj

    @property
    def events(self) -> list[str]:
        return [event["reason"] for event in self.cluster._objects.get(EVENT, {}).values()]

    def condition(self, kind: str) -> dict[str, Any]:
        return next((each for each in self.there["status"]["conditions"] if each["type"] == kind), {})

    def create(self, **more: Any) -> None:
        spec = view.copy_spec(AppState(namespace="web", name="shop", app=APP)) | more
        self.cluster.put(DRPC, {"metadata": {"name": "shop", "namespace": "web"}, "spec": spec})

    def edit(self, **spec: Any) -> None:
        obj = self.there
        obj["spec"] |= spec
        self.cluster.put(DRPC, obj)

    @property
    def writes(self) -> int:
        return sum(count for (verb, _), count in self.cluster.calls.items() if verb not in ("get", "list", "watch"))


async def _tick() -> None:
    await asyncio.sleep(0)


@pytest.fixture
async def world() -> Any:
    found = World()
    yield found
    await found.keeper.watch.stop()


async def test_what_was_created_with_kubectl_is_protected_once(world: World) -> None:
    world.create()
    await world.look()
    assert world.workflows.sent == [("protect", f"kubectl/dr1/{world.there['metadata']['uid']}/1")]
    assert world.there["status"]["phase"] == "Deployed"
    assert names.DRPC_FINALIZER in world.there["metadata"]["finalizers"]
    assert [each["type"] for each in world.there["status"]["conditions"]] == ["Available", "PeerReady", "Protected"]


async def test_a_copy_of_what_was_protected_elsewhere(world: World) -> None:
    world.workflows.move_to(ActionKind.DEPLOY, 1, "dr2")
    await world.look(mark=True)
    assert world.there["spec"]["preferredCluster"] == "dr1"
    assert world.there["status"]["hubless"]["servesOn"] == "dr2"
    assert world.workflows.sent == []


async def test_an_idle_application_costs_nothing(world: World) -> None:
    world.create()
    await world.look()
    asked, writes = world.workflows.asked, world.writes
    for _ in range(100):
        world.time += 60
        await world.keeper.look()
    assert (world.workflows.asked, world.writes) == (asked, writes)


async def test_an_edit_is_asked_for_once_and_the_copy_follows(world: World) -> None:
    world.create()
    await world.look()
    world.edit(action="Failover", failoverCluster="dr2")
    await world.look(8)
    assert [verb for verb, _ in world.workflows.sent] == ["protect", "failover"]
    assert world.there["status"]["phase"] == "FailedOver"
    assert world.there["status"]["hubless"]["epoch"] == 2
    assert world.events.count("DRPCFailoverSuccess") == 1


async def test_a_refused_edit_is_set_back_says_why_and_is_not_repeated(world: World) -> None:
    world.create()
    await world.look()
    world.workflows.refusal = "dr2 does not answer. Check it: hubless cluster check dr2"
    world.edit(action="Failover", failoverCluster="dr2")
    for _ in range(20):
        await world.look()
        world.time += 60
    assert [verb for verb, _ in world.workflows.sent] == ["protect", "failover"]
    assert "action" not in world.there["spec"]
    assert world.condition(EDIT_ACCEPTED)["message"] == world.workflows.refusal
    assert world.events.count("DRPCEditRefused") == 1


async def test_a_refused_new_object_is_left_alone_and_tried_again_ever_more_slowly(world: World) -> None:
    world.workflows.refusal = "DRPolicy gold is missing on dr1. Create it, or name another one."
    world.create()
    for _ in range(60):
        await world.look(1)
        world.time += 1
    assert 2 < len(world.workflows.sent) < 9
    assert len(set(world.workflows.sent)) == len(world.workflows.sent), "Temporal repeats what it said of a request"
    assert world.condition("Available")["message"] == world.workflows.refusal
    assert world.condition("Available")["status"] == "False"
    assert world.events.count("DRPCEditRefused") == 1
    world.workflows.refusal = ""
    world.time += 60
    await world.look()
    assert world.there["status"]["phase"] == "Deployed"


async def test_an_old_copy_that_returns_edits_nothing(world: World) -> None:
    world.create()
    await world.look()
    world.workflows.move_to(ActionKind.FAILOVER, 2, "dr2")
    await world.look(mark=True)
    assert [verb for verb, _ in world.workflows.sent] == ["protect"]
    assert world.there["spec"]["failoverCluster"] == "dr2"


async def test_an_edit_waits_for_temporal_and_says_so(world: World) -> None:
    world.create()
    await world.look()
    world.workflows.away = True
    world.edit(action="Failover", failoverCluster="dr2")
    await world.look()
    assert world.condition(EDIT_ACCEPTED)["message"] == "not carried out yet: Temporal does not answer"
    assert world.there["spec"]["action"] == "Failover"
    world.workflows.away = False
    world.time += 60
    await world.look(8)
    assert [verb for verb, _ in world.workflows.sent] == ["protect", "failover"]
    assert world.condition(EDIT_ACCEPTED) == {}


async def test_deleted_where_it_serves_the_protection_ends(world: World) -> None:
    world.create()
    await world.look()
    await world.cluster.delete(DRPC, "shop", "web")
    await world.look(8)
    assert [verb for verb, _ in world.workflows.sent] == ["protect", "unprotect"]
    assert world.obj is None


async def test_deleted_elsewhere_it_is_made_again(world: World) -> None:
    world.workflows.move_to(ActionKind.DEPLOY, 1, "dr2")
    await world.look(mark=True)
    uid = world.there["metadata"]["uid"]
    await world.cluster.delete(DRPC, "shop", "web")
    await world.look(8)
    assert world.there["metadata"]["uid"] != uid
    assert world.workflows.sent == []
    assert "hubless unprotect shop -n web" in world.condition(EDIT_ACCEPTED)["message"]


@pytest.mark.parametrize("serving", ["dr1", ""], ids=["served here", "was being deployed here"])
async def test_deleted_while_a_failover_decides_it_is_made_again(world: World, serving: str) -> None:
    """S7: the application serves elsewhere when the request arrives, at the epoch that the deletion was made at."""
    world.workflows.move_to(ActionKind.FAILOVER, 2, serving, None)
    await world.look(mark=True)
    uid = world.there["metadata"]["uid"]
    world.workflows.meanwhile = lambda: world.workflows.move_to(ActionKind.FAILOVER, 2, "dr2")
    await world.cluster.delete(DRPC, "shop", "web")
    await world.look(8)
    assert [verb for verb, _ in world.workflows.sent] == ["unprotect"]
    assert world.workflows.state is not None, "still protected"
    assert world.there["metadata"]["uid"] != uid
    assert "DRPCMadeAgain" in world.events
    assert "serves on dr2 by now" in world.condition(EDIT_ACCEPTED)["message"]


async def test_a_terminating_namespace_gets_its_copy_released(world: World) -> None:
    world.create()
    await world.look()
    world.cluster.put(NAMESPACE, {"metadata": {"name": "web", "deletionTimestamp": "2026-11-28T08:00:00Z"}})
    await world.cluster.delete(DRPC, "shop", "web")
    await world.look(8)
    assert world.obj is None
    assert [verb for verb, _ in world.workflows.sent] == ["protect"]


async def test_the_copy_of_what_was_unprotected_goes(world: World) -> None:
    world.create()
    await world.look()
    world.workflows.state, world.workflows.ended = None, True
    await world.look(8, mark=True)
    assert world.obj is None


@pytest.mark.parametrize("ended", [True, False], ids=["the workflow ended", "Temporal forgot it"])
async def test_the_copy_of_what_was_given_back_goes_and_asks_for_nothing(world: World, ended: bool) -> None:
    """S7: a hub drives the VRG; a deletion that was taken for an unprotect would delete it."""
    world.create()
    await world.look()
    left = released_annotations(Epoch(number=2, token="t"))
    annotations = {key: value for key, value in left.items() if value}
    world.vrgs = {"dr1": {"metadata": {"name": "shop", "namespace": "web", "annotations": annotations}}}
    world.workflows.state, world.workflows.ended = None, ended
    asked = list(world.workflows.sent)
    await world.look(8, mark=True)
    assert world.obj is None
    assert world.workflows.sent == asked
    world.create()
    await world.look(8, mark=True)
    assert world.workflows.sent == asked, "nor is a new object a wish to take it back"
    assert "given back to a Ramen hub" in world.condition("Available")["message"]


async def test_a_lost_workflow_deletes_nothing(world: World) -> None:
    world.create()
    await world.look()
    world.workflows.state = None
    await world.look(mark=True)
    assert "hubless adopt shop -n web" in world.condition("Available")["message"]


async def test_a_workflow_of_a_restored_database_does_not_overwrite_a_newer_status(world: World) -> None:
    world.workflows.move_to(ActionKind.FAILOVER, 7, "dr2")
    await world.look(mark=True)
    world.workflows.move_to(ActionKind.DEPLOY, 3, "dr1")
    await world.look(mark=True)
    assert world.there["status"]["hubless"]["servesOn"] == "dr2"
    assert world.there["status"]["hubless"]["epoch"] == 7


async def test_a_copy_stays_while_nobody_can_see_whether_there_is_a_vrg(world: World) -> None:
    """Unknown is not absent (D10), and a workflow that ended may be an old backup's (D13)."""
    world.create()
    await world.look()
    world.vrgs, world.workflows.state, world.workflows.ended = {}, None, True
    await world.look(mark=True)
    assert "hubless adopt" in world.condition("Available")["message"]
    world.vrgs = {"dr1": None}
    await world.look(mark=True)
    assert world.obj is None


async def test_a_refused_protection_is_another_request_once_its_cause_may_be_mended(world: World) -> None:
    """Temporal gives a request that it refused the same refusal for ever."""
    world.workflows.refusal = "dr1 does not answer."
    world.create()
    await world.look()
    world.time += 60
    await world.look()
    world.workflows.refusal = ""
    world.time += 120
    await world.look()
    uid = world.there["metadata"]["uid"]
    sent = [request_id for _, request_id in world.workflows.sent]
    assert sent[0] == f"kubectl/dr1/{uid}/1"
    assert len(set(sent)) == len(sent) == 3
    assert all(each.startswith(f"{sent[0]}/") for each in sent[1:])
    assert world.there["status"]["phase"] == "Deployed"


async def test_a_failover_cluster_in_the_first_manifest_stays_and_is_no_refused_edit(world: World) -> None:
    world.create(failoverCluster="dr2")
    await world.look()
    assert world.there["spec"]["failoverCluster"] == "dr2"
    assert "DRPCEditRefused" not in world.events
    world.edit(action="Failover")
    await world.look()
    assert [verb for verb, _ in world.workflows.sent] == ["protect", "failover"]


@pytest.mark.parametrize(
    ("failure", "requests"),
    [
        (ClusterUnreachable("VRG web/shop on dr2: no answer. Nothing was started."), 2),
        (NoAnswer("not known whether it was started"), 1),
    ],
    ids=["failed: nothing was started, so it is another request", "no answer: the same request again"],
)
async def test_an_edit_that_failed_is_asked_for_again(world: World, failure: HublessError, requests: int) -> None:
    world.create()
    await world.look()
    world.workflows.failure = failure
    world.edit(action="Failover", failoverCluster="dr2")
    await world.look(1)
    assert (
        "not carried out yet" in world.condition(EDIT_ACCEPTED)["message"]
        or str(failure) in (world.condition(EDIT_ACCEPTED)["message"])
    )
    world.workflows.failure = None
    world.time += 60
    await world.look()
    moves = [request_id for verb, request_id in world.workflows.sent if verb == "failover"]
    assert len(moves) == 2
    assert len(set(moves)) == requests
    assert world.there["status"]["phase"] == "FailedOver"


@pytest.mark.parametrize("is_restarted", [False, True], ids=["the same worker", "another worker"])
@pytest.mark.parametrize("is_accepted", [True, False], ids=["accepted", "refused"])
async def test_an_edit_whose_answer_takes_long_is_not_told_as_refused(
    world: World, is_accepted: bool, is_restarted: bool
) -> None:
    """Its epoch is claimed before its answer is out, and no other request of it may be sent."""
    world.create()
    await world.look()
    world.workflows.failure = NoAnswer("not known whether it was started")
    world.edit(action="Failover", failoverCluster="dr2")
    await world.look(1)
    world.workflows.is_slow()
    if is_restarted:
        await world.restart()
    for _ in range(3):
        world.time += 60
        await world.look()
    assert world.there["spec"]["action"] == "Failover"
    assert world.condition(EDIT_ACCEPTED)["status"] == "Unknown"
    assert "DRPCEditRefused" not in world.events
    assert [verb for verb, _ in world.workflows.sent] == ["protect", "failover"]
    if is_accepted:
        world.workflows.answers(ActionKind.FAILOVER, "dr2")
    else:
        world.workflows.answering = ""
    world.time += 60
    await world.look()
    assert ("action" in world.there["spec"]) is is_accepted
    assert ("DRPCEditRefused" in world.events) is not is_accepted
    assert world.condition(EDIT_ACCEPTED).get("status") == (None if is_accepted else "False")
    assert [verb for verb, _ in world.workflows.sent] == ["protect", "failover"]


async def test_a_deletion_whose_answer_takes_long_is_not_undone(world: World) -> None:
    world.create()
    await world.look()
    uid = world.there["metadata"]["uid"]
    world.workflows.failure = NoAnswer("not known whether it was started")
    await world.cluster.delete(DRPC, "shop", "web")
    await world.look(1)
    world.workflows.is_slow()
    world.time += 60
    await world.look()
    assert world.there["metadata"]["uid"] == uid
    assert "DRPCMadeAgain" not in world.events
    world.workflows.answers(ActionKind.UNPROTECT, "")
    world.time += 60
    await world.look()
    assert world.there["metadata"]["uid"] == uid, "the unprotect goes on"
    world.workflows.state, world.workflows.ended = None, True
    world.time += 60
    await world.look()
    assert world.obj is None
    assert [verb for verb, _ in world.workflows.sent] == ["protect", "unprotect"]


async def test_after_a_look_that_took_long_statuses_make_way_but_an_edit_does_not_wait(world: World) -> None:
    """Under load a quarter of the loop is the statuses' share; somebody who edited a copy waits for an answer."""
    world.workflows.move_to(ActionKind.DEPLOY, 1, "dr1")
    ask = world.workflows.ask

    async def slowly(namespace: str, name: str) -> tuple[Known, StatusView | None]:
        world.time += 1.0
        return await ask(namespace, name)

    world.workflows.ask = slowly  # type: ignore[method-assign]

    async def asked_beyond(times: int) -> None:
        while world.workflows.asked <= times:
            await asyncio.sleep(0.01)

    running = asyncio.create_task(world.keeper.run())
    try:
        world.keeper.mark([KEY])
        await asyncio.wait_for(asked_beyond(0), 10)
        world.keeper.mark([KEY], urgent=True)
        await asyncio.wait_for(asked_beyond(1), IDLE_SHARE - 0.5)
        world.time += BETWEEN_SECONDS
        world.keeper.mark([KEY])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asked_beyond(2), 1.0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_an_application_that_is_slow_to_answer_holds_up_no_other(world: World) -> None:
    world.workflows.move_to(ActionKind.DEPLOY, 1, "dr1")
    ask, slow = world.workflows.ask, asyncio.Event()

    async def asked(namespace: str, name: str) -> tuple[Known, StatusView | None]:
        if name == "slow":
            await slow.wait()
        return await ask(namespace, name)

    world.workflows.ask = asked  # type: ignore[method-assign]
    world.keeper.mark([("web", "slow")])
    running = asyncio.create_task(world.keeper.run())
    try:
        async with asyncio.timeout(10):
            while "web/slow" not in {"/".join(key) for key in world.keeper._looking}:
                await asyncio.sleep(0.01)
            world.keeper.mark([KEY], urgent=True)
            while world.obj is None or "status" not in world.there or not world.there["status"].get("phase"):
                await asyncio.sleep(0.01)
        assert ("web", "slow") in world.keeper._looking
    finally:
        slow.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_refusal_is_told_though_its_first_write_met_another_writer(world: World) -> None:
    world.create()
    await world.look()
    world.workflows.refusal = "dr2 does not answer"
    world.edit(action="Failover", failoverCluster="dr2")
    missed = 0

    def before(verb: str, kind: Kind, name: str) -> None:
        nonlocal missed
        if (verb, kind) == ("update", DRPC) and "action" not in world.there["spec"] and not missed:
            missed += 1
            raise Conflict("somebody wrote it meanwhile")

    world.cluster.before = before
    await world.look()
    world.time += 60
    await world.look()
    assert missed == 1
    assert "dr2 does not answer" in world.condition(EDIT_ACCEPTED)["message"]
    assert "action" not in world.there["spec"]


async def test_a_refusal_is_told_though_the_worker_dies_right_after_the_edit_was_set_back(world: World) -> None:
    world.create()
    await world.look()
    world.workflows.refusal = "dr2 does not answer"
    world.edit(action="Failover", failoverCluster="dr2")

    def dies(verb: str, kind: Kind, name: str) -> None:
        if "action" not in world.there["spec"]:
            raise asyncio.CancelledError

    world.cluster.before = dies
    with contextlib.suppress(asyncio.CancelledError):
        await world.look(1)
    world.cluster.before = None
    assert "action" not in world.there["spec"]
    await world.restart()
    await world.look()
    assert world.events.count("DRPCEditRefused") == 1


async def test_a_refusal_is_told_once_though_the_worker_dies_before_the_edit_is_set_back(world: World) -> None:
    world.create()
    await world.look()
    world.workflows.refusal = "dr2 does not answer"
    world.edit(action="Failover", failoverCluster="dr2")

    def dies(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind) == ("update", DRPC):
            raise asyncio.CancelledError

    world.cluster.before = dies
    with contextlib.suppress(asyncio.CancelledError):
        await world.look(1)
    world.cluster.before = None
    assert world.there["spec"]["action"] == "Failover"
    await world.restart()
    await world.look()
    assert "action" not in world.there["spec"]
    assert world.events.count("DRPCEditRefused") == 1


async def dies_before_its_note(world: World) -> None:
    """A worker makes the copy of an application that is protected on the other cluster, and dies."""
    world.workflows.move_to(ActionKind.DEPLOY, 1, "dr2")

    def dies(verb: str, kind: Kind, name: str) -> None:
        if world.obj is not None:
            raise asyncio.CancelledError

    world.cluster.before = dies
    with contextlib.suppress(asyncio.CancelledError):
        await world.look(1, mark=True)
    world.cluster.before = None


async def test_a_copy_whose_maker_dies_before_its_note_protects_nothing_again(world: World) -> None:
    """An unprotect ended meanwhile: without a note the copy looks like a new object of a user."""
    await dies_before_its_note(world)
    assert world.obj is not None
    world.workflows.state, world.workflows.ended = None, True
    await world.restart()
    await world.look(8)
    assert world.workflows.sent == []
    assert world.obj is None


async def test_a_copy_whose_maker_dies_before_its_note_is_noted_by_the_next(world: World) -> None:
    await dies_before_its_note(world)
    await world.restart()
    await world.look()
    written = Written.of(world.there)
    assert written is not None
    assert written.uid == world.there["metadata"]["uid"]
    assert world.workflows.sent == []


async def test_events_of_a_tool_that_edits_without_end_are_not_remembered_without_end(world: World) -> None:
    world.create()
    await world.look()
    world.workflows.refusal = "dr2 does not answer"
    for _ in range(REMEMBERED_EVENTS + 5):
        world.edit(action="Failover", failoverCluster="dr2")
        await world.look(2)
    assert len(world.keeper._apps[KEY].said) <= REMEMBERED_EVENTS
