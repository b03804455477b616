"""`hubless mirror show`, with clusters and stores in memory: what is silent is said to be silent, never empty."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from activities.access.fake import FakeCluster
from activities.profiles import Profile
from ramen import names
from ramen.epoch import Epoch
from ramen.errors import ClusterUnreachable, HublessError, StoreUnreachable
from ramen.kinds import CONFIG_MAP, NAMESPACE, SECRET
from ramen.objects import RegisteredCluster
from ramen.s3layout import (
    ClusterStatusDocument,
    DecisionDocument,
    EpochClaim,
    HistoryDocument,
    LockDocument,
    StateDocument,
)
from starter.installation import Installation, Member
from starter.main import app

AT = datetime(2026, 3, 1, 14, 1, 31, tzinfo=UTC)
EIGHT = Epoch(number=8, token="eight")


class Bucket:
    """`S3Store` in a dict."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects: dict[str, bytes] = {}
        self.failure: HublessError | None = None

    async def list(self, prefix: str) -> list[str]:
        if self.failure:
            raise self.failure
        return sorted(key for key in self.objects if key.startswith(prefix))

    async def get(self, key: str) -> bytes | None:
        return self.objects.get(key)

    async def close(self) -> None:
        pass


class Site:
    """Two clusters that know the same two stores."""

    def __init__(self) -> None:
        self.clusters = {name: FakeCluster(name) for name in ("dr1", "dr2")}
        self.buckets = {name: Bucket(name) for name in ("s3-dr1", "s3-dr2")}
        for cluster in self.clusters.values():
            cluster.put(NAMESPACE, {"metadata": {"name": names.RAMEN_NAMESPACE}})
            self.configure(cluster, **{name: f"http://{name}" for name in self.buckets})

    def configure(self, cluster: FakeCluster, **endpoints: str) -> None:
        profiles = []
        for name, endpoint in endpoints.items():
            secret = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hunter2"}
            data = {key: b64encode(value.encode()).decode() for key, value in secret.items()}
            cluster.put(SECRET, {"metadata": {"name": name, "namespace": names.RAMEN_NAMESPACE}, "data": data})
            profiles.append(
                {
                    "s3ProfileName": name,
                    "s3Bucket": "ramen",
                    "s3CompatibleEndpoint": endpoint,
                    "s3SecretRef": {"name": name},
                }
            )
        data = {names.RAMEN_CONFIG_KEY: yaml.safe_dump({"s3StoreProfiles": profiles})}
        cluster.put(
            CONFIG_MAP,
            {"metadata": {"name": names.RAMEN_CONFIG_MAP, "namespace": names.RAMEN_NAMESPACE}, "data": data},
        )

    def mirror(self, place: tuple[str, str] = ("web", "shop"), stores: tuple[str, ...] = ("s3-dr1", "s3-dr2")) -> None:
        """After a failover, in these stores."""
        documents = {
            names.epoch_key(*place, 8): EpochClaim(
                number=8, token="eight", action="Failover", request_id="r", holder="drpc/web/shop", claimed_at=AT
            ),
            names.lock_key(*place): LockDocument(
                holder="drpc/web/shop",
                workflow_id="drpc/web/shop/failover-8",
                epoch=EIGHT,
                acquired=AT,
                expires=AT + timedelta(seconds=30),
            ),
            names.state_key(*place): StateDocument(
                phase="FailedOver", progression="CleaningUp", epoch=EIGHT, written_at=AT
            ),
            names.decision_key(*place): DecisionDocument(
                cluster="dr2", previous="dr1", retained=["dr1"], epoch=EIGHT, decided_at=AT
            ),
            names.history_key(*place, 8, "Failover"): HistoryDocument(
                epoch=EIGHT,
                action="Failover",
                result="Done: ",
                started_at=AT,
                finished_at=AT + timedelta(seconds=2),
                times={"serving": 1.6},
            ),
        }
        for store in stores:
            self.buckets[store].objects |= {key: document.encode() for key, document in documents.items()}

    async def open(self, context: str = "") -> Installation:
        return Installation(self.clusters[context or "dr1"], f"uid-{context or 'dr1'}", None)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site()

    async def reach(installation: Installation) -> None:
        for name, cluster in made.clusters.items():
            entry = RegisteredCluster(name=name, cluster_uid=f"uid-{name}")
            member = Member(entry, access=cluster)  # type: ignore[arg-type]
            if cluster.failure:
                member.access, member.problem = None, str(cluster.failure)
            installation.members[name] = member

    monkeypatch.setattr(Installation, "open", made.open)
    monkeypatch.setattr(Installation, "reach_members", reach)
    monkeypatch.setattr(Profile, "store", lambda profile, bucket: made.buckets[profile.name])
    monkeypatch.delenv("TEMPORAL_ADDRESS", raising=False)
    return made


def show(*args: str) -> Result:
    return CliRunner().invoke(app, ["mirror", "show", *args], prog_name="hubless")


def shown(*args: str) -> tuple[int, dict[str, Any]]:
    answer = show(*args, "-o", "json")
    return answer.exit_code, json.loads(answer.stdout)


def test_one_application_store_by_store(site: Site) -> None:
    site.mirror()
    answer = show("shop", "-n", "web")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.split("\n\n")[1].splitlines() == [
        "s3-dr1 (http://s3-dr1)",
        "  Epoch     8, Failover, claimed 2026-03-01 14:01:31 by drpc/web/shop",
        "  Lock      expired at 2026-03-01 14:02:01 by this machine's clock, holder drpc/web/shop, workflow "
        "drpc/web/shop/failover-8, epoch 8",
        "  State     FailedOver, CleaningUp, epoch 8, written 2026-03-01 14:01:31",
        "  Decision  dr2, previous dr1, retained dr1, epoch 8",
        "  History   8 Failover: Done, 2026-03-01 14:01:31 to 2026-03-01 14:01:33, serving 1.6 s",
    ]


def test_all_applications_are_one_line_each(site: Site) -> None:
    site.mirror()
    site.mirror(("web", "wiki"))
    for store in site.buckets.values():
        del store.objects[names.state_key("web", "wiki")]
    rows = show().stdout.splitlines()
    assert [row.split()[:5] for row in rows[1:3]] == [
        ["web", "shop", "8", "Failover", "FailedOver"],
        ["web", "wiki", "8", "Failover", "not"],
    ]


def test_a_silent_store_is_no_empty_store(site: Site) -> None:
    site.mirror(stores=("s3-dr1",))
    site.buckets["s3-dr2"].failure = StoreUnreachable("S3 profile s3-dr2: nobody is there")
    code, found = shown("shop", "-n", "web")
    assert code == 1
    assert found["stores"][1] == {
        "profile": "s3-dr2",
        "endpoint": "http://s3-dr2",
        "answers": False,
        "error": "S3 profile s3-dr2: nobody is there",
    }
    (application,) = found["applications"]
    assert list(application["stores"]) == ["s3-dr1"]
    assert application["disagreements"] == []
    assert "✗ Store s3-dr2 is silent: S3 profile s3-dr2: nobody is there" in show("shop", "-n", "web").stdout


def test_nothing_is_said_to_be_absent_while_a_store_is_silent(site: Site) -> None:
    for store in site.buckets.values():
        store.failure = StoreUnreachable("away")
    assert "No application" not in show().stdout
    assert show("shop", "-n", "web").exit_code == 1


def test_an_application_that_no_store_knows_is_refused(site: Site) -> None:
    site.mirror()
    answer = show("other", "-n", "web")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "No store knows other" in answer.stderr


def test_an_empty_store_beside_a_full_one_is_a_disagreement(site: Site) -> None:
    site.mirror(stores=("s3-dr1",))
    answer = show("shop", "-n", "web")
    assert answer.exit_code == 1
    assert "⚠ The stores disagree: s3-dr2 holds nothing of it, s3-dr1 does.\n" in answer.stdout
    assert "  holds nothing of it" in answer.stdout
    assert "⚠ web/shop: s3-dr2 holds nothing of it, s3-dr1 does." in show().stdout


def test_a_broken_document_is_named_with_its_key(site: Site) -> None:
    site.mirror()
    site.buckets["s3-dr2"].objects[names.lock_key("web", "shop")] = b"{"
    for args in ((), ("shop", "-n", "web")):
        answer = show(*args)
        assert answer.exit_code == 1
        assert "drpc-web/shop/lock" in answer.stdout
    assert "Lock      free" not in show("shop", "-n", "web").stdout


def test_the_json_has_the_same_keys_with_and_without_documents(site: Site) -> None:
    site.mirror(stores=("s3-dr1",))
    _, found = shown("shop", "-n", "web")
    full, empty = found["applications"][0]["stores"].values()
    assert list(full) == list(empty)
    assert full["lock"]["expiresAt"] == "2026-03-01T14:02:01Z"
    assert (full["history"][0]["times"], empty["history"], empty["lock"]) == ({"serving": 1.6}, [], None)
    _, overview = shown()
    assert overview["applications"][0]["stores"]["s3-dr1"]["history"] is None


def test_a_cluster_that_is_away_costs_nothing_but_a_word(site: Site) -> None:
    site.mirror()
    site.clusters["dr1"].failure = ClusterUnreachable("dr1 did not answer in 5 s")
    answer = show("shop", "-n", "web", "--context", "dr2")
    assert answer.exit_code == 1
    assert "8, Failover" in answer.stdout
    assert "dr1 is not asked for its stores: dr1 did not answer in 5 s" in answer.stderr


def test_stores_that_only_a_peer_knows_are_read_too(site: Site) -> None:
    site.mirror()
    site.configure(site.clusters["dr1"], **{"s3-dr1": "http://s3-dr1"})
    _, found = shown("shop", "-n", "web")
    assert [store["profile"] for store in found["stores"]] == ["s3-dr1", "s3-dr2"]


def test_a_profile_that_leads_elsewhere_on_a_peer_is_said(site: Site) -> None:
    site.mirror()
    site.configure(site.clusters["dr2"], **{"s3-dr1": "http://elsewhere", "s3-dr2": "http://s3-dr2"})
    answer = show("shop", "-n", "web")
    assert answer.exit_code == 1
    assert "S3 profile s3-dr1 leads to http://elsewhere on dr2" in answer.stderr


def test_a_profile_without_its_secret_is_a_silent_store(site: Site) -> None:
    site.mirror()
    for cluster in site.clusters.values():
        cluster.drop(SECRET, "s3-dr2", names.RAMEN_NAMESPACE)
    code, found = shown("shop", "-n", "web")
    assert code == 1
    assert [(store["profile"], store["answers"]) for store in found["stores"]] == [("s3-dr1", True), ("s3-dr2", False)]
    assert "Secret ramen-system/s3-dr2 is missing" in found["stores"][1]["error"]


def test_clusters_are_shown_as_they_were_last_reported(site: Site) -> None:
    site.mirror()
    document = ClusterStatusDocument(
        cluster="dr1", last_seen=AT, api_server_version="v1.36.3", operator_version="v0.9", worker="dr1@a:1"
    )
    site.buckets["s3-dr2"].objects[names.cluster_status_key("dr1")] = document.encode()
    assert "by dr1@a:1; Kubernetes v1.36.3, operator v0.9" in show().stdout
    _, found = shown()
    assert found["clusters"][0]["reportedAt"] == "2026-03-01T14:01:31Z"


def test_a_cluster_that_did_not_answer_when_it_was_reported_is_said_to(site: Site) -> None:
    document = ClusterStatusDocument(
        cluster="dr1", reachable=False, last_seen=AT, written_at=AT + timedelta(seconds=9), worker="dr1@a:1"
    )
    site.buckets["s3-dr2"].objects[names.cluster_status_key("dr1")] = document.encode()
    assert "by dr1@a:1, which did not answer since 2026-03-01 14:01:31;" in show().stdout


def test_no_credential_is_shown(site: Site) -> None:
    site.mirror()
    site.buckets["s3-dr2"].failure = StoreUnreachable("away")
    assert "hunter2" not in show().output + show("-o", "json").output
