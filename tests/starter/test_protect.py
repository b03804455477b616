"""`protect`: what is refused before anything starts, and what travels when it is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramen.app import Observed
from starter.failures import Refused
from starter.manifest import build, selector
from tests.starter.conftest import WORLDS, Temporal, World, failed_over, hubless

FLAGS = ["--policy", "gold", "--preferred", "dr1", "--selector", "app=shop", "--placement", "shop"]

DRPC = """\
apiVersion: ramendr.openshift.io/v1alpha1
kind: DRPlacementControl
metadata:
  name: shop
  namespace: {namespace}
spec:
  preferredCluster: dr1
  drPolicyRef: {{name: gold}}
  placementRef: {{kind: Placement, name: shop}}
  pvcSelector: {{matchLabels: {{app: shop}}}}
"""


@pytest.fixture
def unprotected(temporal: Temporal, namespace: str) -> World:
    """Clusters that answer, and no application yet."""
    world = failed_over(namespace)
    world.seen["dr1"] = Observed(cluster="dr1")
    WORLDS[namespace] = WORLDS["current"] = world
    return world


def test_flags_become_the_spec_of_a_drpc(unprotected: World, temporal: Temporal, namespace: str) -> None:
    result = hubless("protect", "shop", "-n", namespace, *FLAGS, "--reason", "new")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"drpc/{namespace}/shop/deploy-9\n"
    assert result.stderr.endswith(f"Follow it:   hubless status shop -n {namespace} --watch\n")
    name, update = unprotected.requests[0]
    assert (name, update.reason, update.request.name, update.request.namespace) == ("apply", "new", "shop", namespace)
    assert update.request.spec == {
        "drPolicyRef": {"name": "gold"},
        "preferredCluster": "dr1",
        "placementRef": {"kind": "Placement", "name": "shop"},
        "pvcSelector": {"matchLabels": {"app": "shop"}},
    }
    temporal.close(namespace)


def test_a_refused_request_leaves_no_workflow(unprotected: World, temporal: Temporal, namespace: str) -> None:
    def refused() -> str:
        result = hubless("protect", "shop", "-n", namespace, *FLAGS)
        assert result.exit_code == 2, result.output
        assert not temporal.exists(namespace)
        return result.stderr

    unprotected.refuse_resolve = "policy gold does not exist. Make a DRPolicy of that name."
    assert refused() == "✗ policy gold does not exist. Make a DRPolicy of that name.\n"
    unprotected.refuse_resolve = ""
    unprotected.missing_kinds = ["VolumeReplication"]
    assert refused().startswith("✗ dr1 lacks the kinds VolumeReplication.\n  Install them: hubless crds")
    unprotected.missing_kinds = []
    unprotected.unsupported = ["VolSync (PVC data-1 has no VolumeReplicationClass)"]
    assert "this release does not carry VolSync" in refused()


def test_a_manifest_says_the_same_as_flags(tmp_path: Path) -> None:
    file = tmp_path / "drpc.yaml"
    file.write_text(DRPC.format(namespace="web"))
    from_file = build("", "", file, "", "", "", [])
    assert from_file == build("shop", "web", None, "gold", "dr1", "shop", ["app=shop"])
    assert build("", "", file, "", "dr2", "", []).spec["preferredCluster"] == "dr2"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("spec: [", "is not valid YAML in line 1"),
        ("kind: ConfigMap", "holds 0 objects of kind DRPlacementControl"),
        (DRPC.format(namespace="web") + "---\n" + DRPC.format(namespace="web"), "holds 2 objects"),
        (DRPC.format(namespace="web").replace("v1alpha1", "v9"), "apiVersion is 'ramendr.openshift.io/v9'"),
        (DRPC.format(namespace="other"), "--namespace is web, but"),
        ("kind: DRPlacementControl\napiVersion: ramendr.openshift.io/v1alpha1\nspec: 5", "spec is not a mapping"),
        ("kind: DRPlacementControl\napiVersion: ramendr.openshift.io/v1alpha1\nmetadata: []", "metadata is not a mapp"),
    ],
)
def test_a_bad_manifest_is_named_with_what_is_wrong(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "drpc.yaml"
    file.write_text(content)
    with pytest.raises(Refused, match=r".*") as refused:
        build("shop", "web", file, "", "", "", [])
    assert says in refused.value.text
    assert "\n" not in refused.value.text


def test_bad_flags_are_named(tmp_path: Path) -> None:
    for call, says in (
        (("shop", "web", None, "", "dr1", "shop", ["app=shop"]), "Missing: --policy"),
        (("shop", "web", None, "gold", "dr1", "shop", ["app"]), "--selector 'app' is not key=value"),
        (("shop", "web", tmp_path / "absent.yaml", "", "", "", []), "cannot be read: No such file"),
    ):
        with pytest.raises(Refused, match=says):
            build(*call)


def test_a_file_is_judged_before_temporal_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    assert hubless("protect", "-f", str(tmp_path / "absent.yaml")).exit_code == 2


def test_a_selector_in_kubectls_form_is_several_labels() -> None:
    """Taken as one value it would select nothing, and the application be called protected with no volumes."""
    assert selector(["app=shop,tier=db", "zone=a"]) == {"matchLabels": {"app": "shop", "tier": "db", "zone": "a"}}
    with pytest.raises(Refused, match="is not key=value"):
        selector(["app=shop,"])
