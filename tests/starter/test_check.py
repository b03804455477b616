"""`check` and `cluster check`: counts at the end, exit 1 for a problem, nothing claimed that was not seen."""

from __future__ import annotations

from activities.contracts import InstallationProof, PolicyCheck, StoreProof
from ramen.app import StoreReport
from tests.starter.conftest import Temporal, World, hubless


def test_check_names_every_problem_and_counts(world: World, namespace: str) -> None:
    world.stores = [
        StoreReport(profile="s3-dr1", reachable=False, error="connection refused"),
        StoreReport(profile="s3-dr2", reachable=True, volumes=world.state.volumes[:1]),
    ]
    result = hubless("check")
    assert result.exit_code == 1, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("✔ Temporal answers at 127.0.0.1:")
    assert "⚠ One worker polls hubless.control (fake@hubless.control): when it goes, no action can start" in lines
    assert any(line.startswith("✗ dr1 does not answer since ") and "refused" in line for line in lines)
    assert "✔ dr2 answers, Kubernetes v1.36; 1 worker on hubless.cluster.dr2" in lines
    assert "✔ dr2 has every kind that Hubless needs" in lines
    assert "✗ Store s3-dr1 does not answer: connection refused" in lines
    assert any(f"shop in namespace {namespace}: data-1 not in store s3-dr2" in line for line in lines)
    assert lines[-1] == "✗ Check completed (7 ok, 1 warning, 3 problems)"


def test_check_without_problems_is_zero(calm: World) -> None:
    calm.stores = [
        StoreReport(profile=profile, reachable=True, volumes=calm.state.volumes) for profile in ("s3-dr1", "s3-dr2")
    ]
    result = hubless("check")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "✔ Check completed (14 ok, 1 warning, 0 problems)"


def test_check_says_what_policies_say_of_themselves_once_with_the_clusters(calm: World) -> None:
    problem = "DRPolicy lead: failed to find DRClusters (DRClusterNotFound)"
    calm.policies = [
        PolicyCheck(cluster="dr1", valid={"gold": "array"}, problems=[problem], warnings=["DRCluster dr2: careful"]),
        PolicyCheck(cluster="dr2", valid={"gold": "array"}, problems=[problem]),
        PolicyCheck(cluster="dr3", error="this worker does not reach dr3"),
    ]
    result = hubless("check")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert "✔ Policy gold is valid, peer classes: array (on dr1, dr2)" in lines
    assert f"✗ {problem} (on dr1, dr2)" in lines
    assert "⚠ DRCluster dr2: careful (on dr1)" in lines
    assert "⚠ DRPolicies on dr3 are not known: this worker does not reach dr3" in lines


def test_check_without_a_policy_says_so(calm: World) -> None:
    calm.policies = [PolicyCheck(cluster="dr1"), PolicyCheck(cluster="dr2")]
    assert "⚠ No cluster has a DRPolicy, so nothing can be protected." in hubless("check").stdout


def test_cluster_check_looks_at_one_cluster(calm: World) -> None:
    result = hubless("cluster", "check", "dr2")
    assert result.exit_code == 0, result.output
    assert "dr1 answers" not in result.stdout
    calm.missing_kinds = ["DRPlacementControl"]
    result = hubless("cluster", "check", "dr2")
    assert result.exit_code == 1
    assert "✗ dr2 lacks the kinds DRPlacementControl. Install them: hubless crds | kubectl apply -f -" in result.stdout


def test_cluster_check_refuses_an_unknown_cluster(calm: World, temporal: Temporal) -> None:
    result = hubless("cluster", "check", "dr7")
    assert result.exit_code == 2
    assert result.stderr.startswith("✗ dr7 is not a cluster of the registry (dr1, dr2).")


def test_check_says_from_which_cluster_a_store_cannot_be_written(calm: World) -> None:
    refused = (
        "S3 profile s3-dr1: http://dr1 refuses the credentials for bucket ramen (AccessDenied); correct the Secret"
    )
    calm.proofs["dr2"] = InstallationProof(
        cluster="dr2",
        stores=[
            StoreProof(profile="s3-dr1", bucket="ramen", problem=refused),
            StoreProof(profile="s3-dr2", bucket="ramen"),
            StoreProof(profile="s3-dr2", bucket="ramen-coordination", conditional_writes=False),
        ],
        problems=["Secret ramen-system/s3-dr1 differs between dr1 and dr2"],
    )
    result = hubless("cluster", "check", "dr2")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert f"✗ dr2: {refused}" in lines
    assert "✔ dr2 reads and writes s3-dr2 (buckets ramen, ramen-coordination)" in lines
    assert any(
        line.startswith("⚠ dr2: s3-dr2 has no conditional writes in bucket ramen-coordination") for line in lines
    )
    assert "✗ dr2: Secret ramen-system/s3-dr1 differs between dr1 and dr2" in lines
