"""Registry, credentials and identity: which cluster is behind which gate (S11)."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.access.protocol import ClusterAccess, Object
from ramen import names
from ramen.errors import ClusterUnreachable, Forbidden, GateClosed, HublessError, Unauthorized
from ramen.kinds import CLUSTER_REGISTRY, CONFIG_MAP, NAMESPACE, SECRET, VRG
from tests.worker.fakes import World, kubeconfig_secret, operator_config, registry, two_clusters
from worker.clusters import Clusters, Connect, connect

TOKEN = "very-secret-token-0123456789"


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(world: World, kubeconfig: Path | None = None) -> AsyncIterator[Clusters]:
    """Clusters that are probed every 50 ms; refreshes are called for by the test."""
    async with running(
        Clusters("dr1", kubeconfig, probe_seconds=0.05, refresh_seconds=3600, connect=world.connect)
    ) as clusters:
        yield clusters


@asynccontextmanager
async def running(clusters: Clusters) -> AsyncIterator[Clusters]:
    task = asyncio.create_task(clusters.run())
    try:
        yield clusters
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def is_open(clusters: Clusters, name: str) -> Callable[[], bool]:
    return lambda: name in clusters.names() and clusters.gate(name).is_open


def is_closed(clusters: Clusters, name: str) -> Callable[[], bool]:
    return lambda: name in clusters.names() and clusters.gate(name).is_known and not clusters.gate(name).is_open


async def test_peers_come_from_the_registry() -> None:
    async with serving(two_clusters()) as clusters:
        await until(is_open(clusters, "dr2"))
        assert clusters.names() == ["dr1", "dr2"]
        assert [health.reachable for health in clusters.health()] == [True, True]
        assert await clusters.access("dr2").list(VRG) == ([], "1")


async def test_unknown_cluster_is_named() -> None:
    async with serving(two_clusters()) as clusters:
        with pytest.raises(GateClosed, match="dr7 is not in the ClusterRegistry"):
            clusters.access("dr7")


async def test_another_cluster_behind_the_kubeconfig_keeps_the_gate_closed() -> None:
    world = two_clusters()
    world.servers["dr2"].put(NAMESPACE, {"metadata": {"name": "kube-system", "uid": "uid-of-somebody-else"}})
    async with serving(world) as clusters:
        await until(is_closed(clusters, "dr2"))
        with pytest.raises(GateClosed, match=r"kubeconfig-dr2 reaches another cluster \(uid uid-of-somebody-else\)"):
            clusters.access("dr2")


async def test_wrong_cluster_in_a_new_secret_closes_an_open_gate_and_gets_no_call() -> None:
    world = two_clusters()
    impostor = world.add("elsewhere", "uid-elsewhere")
    impostor.thawed.clear()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        held = clusters.access("dr2")
        world.servers["dr1"].put(SECRET, kubeconfig_secret("kubeconfig-dr2", "elsewhere"))
        refresh = asyncio.create_task(clusters.refresh())
        await until(lambda: bool(impostor.requests))
        # The new server is being asked who it is: until it said so, calls go on where they went before.
        await held.list(VRG)
        assert ("list", VRG.plural) in world.servers["dr2"].requests
        impostor.thawed.set()
        await refresh
        await until(lambda: "another cluster" in clusters.gate("dr2").error)
        with pytest.raises(GateClosed):
            await held.list(VRG)
        assert ("list", VRG.plural) not in impostor.requests


async def test_another_cluster_of_the_same_name_is_taken_up_behind_a_shut_gate() -> None:
    """Registry and Secret change together while the cluster before still answers: nobody may go on with what it saw."""
    world = two_clusters()
    old, new = world.servers["dr2"], world.add("dr2-anew", "uid-dr2-anew")
    new.thawed.clear()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        held, moves = clusters.access("dr2"), list[bool]()
        clusters.gate("dr2").on_change(lambda is_open, _: moves.append(is_open))
        world.servers["dr1"].put(SECRET, kubeconfig_secret("kubeconfig-dr2", "dr2-anew"))
        world.servers["dr1"].put(CLUSTER_REGISTRY, registry(dr1="uid-dr1", dr2="uid-dr2-anew"))
        await until(lambda: bool(new.requests))
        assert moves == [False]
        assert [client.closed for client in world.clients if client.server is old] == [True]
        with pytest.raises(GateClosed):
            await held.list(VRG)
        new.thawed.set()
        await until(is_open(clusters, "dr2"))
        assert moves == [False, True]
        await held.list(VRG)
        assert ("list", VRG.plural) in new.requests
        assert ("list", VRG.plural) not in old.requests


async def test_another_identity_in_the_registry_shuts_the_gate_of_the_cluster_before() -> None:
    world = two_clusters()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        world.servers["dr1"].put(CLUSTER_REGISTRY, registry(dr1="uid-dr1", dr2="uid-dr2-anew"))
        await until(lambda: "reaches another cluster (uid uid-dr2)" in clusters.gate("dr2").error)
        world.servers["dr1"].put(CLUSTER_REGISTRY, registry(dr1="uid-dr1", dr2="uid-dr2"))
        await until(is_open(clusters, "dr2"))


async def test_late_answer_of_a_replaced_client_does_not_open_for_the_new_one() -> None:
    world = two_clusters()
    old, impostor = world.servers["dr2"], world.add("elsewhere", "uid-elsewhere")
    impostor.thawed.clear()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        old.thawed.clear()
        asked = len(old.requests)
        await until(lambda: len(old.requests) > asked)
        world.servers["dr1"].put(SECRET, kubeconfig_secret("kubeconfig-dr2", "elsewhere"))
        refresh = asyncio.create_task(clusters.refresh())
        await until(lambda: bool(impostor.requests))
        moves: list[bool] = []
        clusters.gate("dr2").on_change(lambda is_open, _: moves.append(is_open))
        old.thawed.set()
        await refresh
        assert moves == []


async def test_server_that_becomes_another_cluster_is_noticed() -> None:
    world = two_clusters()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        world.servers["dr2"].put(NAMESPACE, {"metadata": {"name": "kube-system", "uid": "rebuilt"}})
        await until(is_closed(clusters, "dr2"))
        assert "another cluster" in clusters.gate("dr2").error


async def test_changed_kubeconfig_replaces_the_client_under_whoever_holds_it() -> None:
    world = two_clusters()
    moved = world.add("dr2-new-address", "uid-dr2")
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        held = clusters.access("dr2")
        world.servers["dr1"].put(SECRET, kubeconfig_secret("kubeconfig-dr2", "dr2-new-address"))
        await clusters.refresh()
        await until(is_open(clusters, "dr2"))
        await held.list(VRG)
        assert ("list", VRG.plural) in moved.requests


async def test_refused_credentials_close_with_the_remedy_and_heal_by_a_new_secret() -> None:
    world = two_clusters()
    renewed = world.add("renewed", "uid-dr2")
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        world.servers["dr2"].failure = Unauthorized("401")
        await until(is_closed(clusters, "dr2"))
        assert clusters.gate("dr2").error == (
            "dr2 refuses the credentials (401); renew Secret ramen-system/kubeconfig-dr2"
        )
        # The refusal itself asks for another look at the Secrets, long before the next beat.
        world.servers["dr1"].put(SECRET, kubeconfig_secret("kubeconfig-dr2", "renewed"))
        await until(is_open(clusters, "dr2"))
        assert renewed.requests


@pytest.mark.parametrize(
    ("failure", "words"),
    [(ClusterUnreachable("dr2: connection refused"), "connection refused"), (Forbidden("403"), "rbac")],
)
async def test_missing_answers_close_and_the_next_answer_opens(failure: HublessError, words: str) -> None:
    world = two_clusters()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        world.servers["dr2"].failure = failure
        await until(is_closed(clusters, "dr2"))
        assert words in clusters.gate("dr2").error
        world.servers["dr2"].failure = None
        await until(is_open(clusters, "dr2"))


async def test_frozen_server_closes_after_two_limits() -> None:
    world = two_clusters()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        world.servers["dr2"].thawed.clear()
        await until(is_closed(clusters, "dr2"))
        assert "did not answer in 1 s" in clusters.gate("dr2").error


async def test_own_cluster_away_keeps_what_was_read() -> None:
    world = two_clusters()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        world.servers["dr1"].failure = ClusterUnreachable("gone")
        await until(is_closed(clusters, "dr1"))
        with pytest.raises(HublessError):
            await clusters.refresh()
        assert clusters.names() == ["dr1", "dr2"]
        assert clusters.gate("dr2").is_open


async def test_own_cluster_away_at_the_start_is_awaited() -> None:
    world = two_clusters()
    world.servers["dr1"].failure = ClusterUnreachable("gone")
    async with serving(world) as clusters:
        await until(is_closed(clusters, "dr1"))
        assert clusters.names() == ["dr1"]
        world.servers["dr1"].failure = None
        await until(is_open(clusters, "dr2"))


async def test_cluster_that_leaves_the_registry_is_let_go() -> None:
    world = two_clusters()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        revision = clusters.revision
        world.servers["dr1"].put(CLUSTER_REGISTRY, registry(dr1="uid-dr1"))
        await clusters.refresh()
        assert clusters.names() == ["dr1"]
        assert clusters.revision > revision
        assert [client.closed for client in world.clients] == [False, True]


async def test_deleted_registry_is_no_order_to_let_go() -> None:
    world = two_clusters()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        world.servers["dr1"].drop(CLUSTER_REGISTRY, names.REGISTRY_NAME)
        await clusters.refresh()
        assert clusters.names() == ["dr1", "dr2"]


@pytest.mark.parametrize(
    "content", [f"users: [{{user: {{token: {TOKEN}", f"{TOKEN}", f"- {TOKEN}"], ids=["broken", "text", "list"]
)
async def test_broken_kubeconfig_is_named_and_never_quoted(content: str, caplog: pytest.LogCaptureFixture) -> None:
    world = two_clusters()
    secret = kubeconfig_secret("kubeconfig-dr2", "dr2")
    secret["data"][names.KUBECONFIG_KEY] = b64encode(content.encode()).decode()
    world.servers["dr1"].put(SECRET, secret)
    with caplog.at_level(logging.DEBUG):
        async with serving(world) as clusters:
            await until(is_closed(clusters, "dr2"))
            assert "Secret ramen-system/kubeconfig-dr2 holds no kubeconfig" in clusters.gate("dr2").error
            assert TOKEN not in clusters.gate("dr2").error
    assert TOKEN not in caplog.text


async def test_missing_secret_is_named() -> None:
    world = two_clusters()
    world.servers["dr1"].drop(SECRET, "kubeconfig-dr2", names.RAMEN_NAMESPACE)
    async with serving(world) as clusters:
        await until(is_closed(clusters, "dr2"))
        assert "Secret ramen-system/kubeconfig-dr2 is missing on dr1" in clusters.gate("dr2").error


async def test_own_kubeconfig_file_that_changes_is_taken_up(tmp_path: Path) -> None:
    world = two_clusters()
    world.add("dr1-new-address", "uid-dr1")
    file = tmp_path / "admin.conf"
    file.write_text("server: dr1")
    async with serving(world, file) as clusters:
        await until(is_open(clusters, "dr1"))
        file.write_text("server: dr1-new-address")
        world.servers["dr1"].failure = ClusterUnreachable("moved away")
        await until(lambda: bool(world.servers["dr1-new-address"].requests))
        await until(is_open(clusters, "dr1"))


# --- rotation --------------------------------------------------------------------------------------------------------


async def test_a_changed_secret_is_seen_by_the_watch_and_interrupts_nothing() -> None:
    world = two_clusters()
    moved = world.add("dr2-new-address", "uid-dr2")
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        moves: list[bool] = []
        clusters.gate("dr2").on_change(lambda is_open, _: moves.append(is_open))
        # refresh_seconds is an hour: only the watch can tell.
        world.servers["dr1"].put(SECRET, kubeconfig_secret("kubeconfig-dr2", "dr2-new-address"))
        await until(lambda: ("get", NAMESPACE.plural) in moved.requests)
        await clusters.access("dr2").list(VRG)
        await until(lambda: moved.requests.count(("get", NAMESPACE.plural)) > 2)
        assert moves == []


async def test_a_cluster_that_joins_is_seen_by_the_watch() -> None:
    world = two_clusters()
    world.servers["dr1"].put(CLUSTER_REGISTRY, registry(dr1="uid-dr1"))
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr1"))
        await until(lambda: [cluster.name for cluster in clusters.registered] == ["dr1"])
        world.servers["dr1"].put(CLUSTER_REGISTRY, registry(dr1="uid-dr1", dr2="uid-dr2"))
        await until(is_open(clusters, "dr2"))


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Unauthorized("401"), "changed, but dr2 refuses the new one (401); renew it"),
        (ClusterUnreachable("dr2: connection refused"), "the new one does not work: dr2: connection refused"),
    ],
)
async def test_new_credentials_that_do_not_work_leave_the_old_ones_in_use(failure: HublessError, words: str) -> None:
    world = two_clusters()
    world.add("broken", "uid-dr2").failure = failure
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        world.servers["dr1"].put(SECRET, kubeconfig_secret("kubeconfig-dr2", "broken"))
        await until(lambda: words in clusters.note("dr2"))
        assert clusters.gate("dr2").is_open
        await clusters.access("dr2").list(VRG)
        world.servers["dr1"].put(SECRET, kubeconfig_secret("kubeconfig-dr2", "dr2"))
        await until(lambda: clusters.note("dr2") == "")


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"exec": {"command": "/bin/steal"}}, "it gets its credential by a program (exec)"),
        ({"auth-provider": {"name": "gcp"}}, "it gets its credential by a program (auth-provider)"),
        (
            {"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"},
            "names a file of the worker (tokenFile)",
        ),
        ({"client-key": "/etc/worker.key"}, "names a file of the worker (client-key); put its content into it as"),
    ],
)
async def test_a_secret_makes_no_worker_run_a_program_or_give_a_file_away(user: dict[str, object], words: str) -> None:
    world = two_clusters()
    secret = kubeconfig_secret("kubeconfig-dr2", "dr2")
    text = yaml.safe_dump({"server": "dr2", "users": [{"name": "worker", "user": user}]})
    secret["data"][names.KUBECONFIG_KEY] = b64encode(text.encode()).decode()
    world.servers["dr1"].put(SECRET, secret)
    async with serving(world) as clusters:
        await until(is_closed(clusters, "dr2"))
        assert "Secret ramen-system/kubeconfig-dr2 is not used" in clusters.gate("dr2").error
        assert words in clusters.gate("dr2").error
        assert not world.servers["dr2"].requests


async def test_a_call_that_meets_a_401_may_be_tried_again() -> None:
    world = two_clusters()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        held = clusters.access("dr2")
        world.servers["dr2"].failure = Unauthorized("dr2: the API server refused the credentials (401)")
        with pytest.raises(GateClosed):
            await held.list(VRG)
        await until(is_closed(clusters, "dr2"))


async def test_a_401_that_lasts_is_no_tight_loop() -> None:
    world = two_clusters()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        own, peer = world.servers["dr1"], world.servers["dr2"]
        peer.failure = Unauthorized("401")
        await until(is_closed(clusters, "dr2"))
        own.requests.clear()
        peer.requests.clear()
        await until(lambda: len(peer.requests) > 40, 10)  # two seconds of probes every 50 ms
        assert own.requests.count(("list", SECRET.plural)) <= 2


async def test_a_token_file_that_changes_is_read_again(tmp_path: Path) -> None:
    world = two_clusters()
    token = tmp_path / "token"
    token.write_text("first")
    file = tmp_path / "worker.yaml"
    file.write_text(yaml.safe_dump({"server": "dr1", "users": [{"name": "worker", "user": {"tokenFile": "token"}}]}))
    async with serving(world, file) as clusters:
        await until(is_open(clusters, "dr1"))
        assert len(world.tokens("dr1")) == 1
        token.write_text("second")
        await until(lambda: world.tokens("dr1") == ["first", "second"])
        await until(lambda: len(world.clients) >= 3)
        assert clusters.gate("dr1").is_open


async def test_a_program_in_the_own_kubeconfig_runs_again_after_a_401(tmp_path: Path) -> None:
    world = two_clusters()
    file = tmp_path / "worker.yaml"
    file.write_text(yaml.safe_dump({"server": "dr1", "users": [{"name": "w", "user": {"exec": {"command": "login"}}}]}))
    async with serving(world, file) as clusters:
        await until(is_open(clusters, "dr1"))
        made = len(world.connected["dr1"])
        world.servers["dr1"].failure = Unauthorized("401")
        await until(lambda: len(world.connected["dr1"]) > made)
        world.servers["dr1"].failure = None
        await until(is_open(clusters, "dr1"))


def with_authority(certificate: bytes) -> dict[str, Any]:
    """A kubeconfig as people have it, with something in the place of the API server's CA."""
    authority = {"certificate-authority-data": b64encode(certificate).decode()}
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1", **authority}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
    }


def as_real(world: World) -> Connect:
    """Makes the product's own client of a whole kubeconfig, and a fake of the short ones of these tests."""

    async def made(name: str, content: dict[str, Any] | None) -> ClusterAccess:
        return await (connect if content and "clusters" in content else world.connect)(name, content)

    return made


async def test_a_certificate_that_is_none_is_named_and_the_old_credentials_stay() -> None:
    world = two_clusters()
    clusters = Clusters("dr1", None, probe_seconds=0.05, refresh_seconds=3600, connect=as_real(world))
    async with running(clusters):
        await until(is_open(clusters, "dr2"))
        secret = kubeconfig_secret("kubeconfig-dr2", "dr2")
        body = yaml.safe_dump(with_authority(b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----"))
        secret["data"][names.KUBECONFIG_KEY] = b64encode(body.encode()).decode()
        world.servers["dr1"].put(SECRET, secret)
        await until(lambda: "cannot be used" in clusters.note("dr2"))
        assert clusters.gate("dr2").is_open


async def test_an_own_file_that_is_read_half_written_ends_no_probe(tmp_path: Path) -> None:
    world = two_clusters()
    file = tmp_path / "own.yaml"
    file.write_text("server: dr1")
    clusters = Clusters("dr1", file, probe_seconds=0.05, refresh_seconds=3600, connect=as_real(world))
    async with running(clusters):
        await until(is_open(clusters, "dr1"))
        file.write_text(yaml.safe_dump(with_authority(b"half")))
        await until(lambda: bool(clusters.note("dr1")))
        file.write_text("server: dr1")
        world.servers["dr1"].failure = ClusterUnreachable("dead")
        await until(is_closed(clusters, "dr1"))


async def test_a_probe_that_fails_in_no_known_way_closes_the_gate_and_goes_on() -> None:
    world = two_clusters()
    async with serving(world) as clusters:
        await until(is_open(clusters, "dr2"))
        world.servers["dr2"].failure = ValueError("nobody thought of this")
        await until(is_closed(clusters, "dr2"))
        assert "was not asked: ValueError" in clusters.gate("dr2").error
        world.servers["dr2"].failure = None
        await until(is_open(clusters, "dr2"))


async def test_a_configuration_that_cannot_be_applied_ends_no_worker() -> None:
    world = two_clusters()
    async with serving(world) as clusters:

        def fail(config: Object | None, secrets: list[Object]) -> None:
            raise AttributeError("nobody thought of this")

        seen: list[int] = []
        clusters.on_refresh(fail)
        clusters.on_refresh(lambda config, secrets: seen.append(1))
        await until(is_open(clusters, "dr2"))
        world.servers["dr1"].put(CONFIG_MAP, operator_config({"s3ProfileName": "east"}))
        await until(lambda: len(seen) > 0)
