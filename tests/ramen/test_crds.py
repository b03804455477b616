"""The generated CRDs accept and keep everything that Ramen's do.

Every path of Ramen's schemas is compared with ours: type, enum, default, pattern, format, bounds, required fields, CEL
rules and list and map types. Deep parts that Ramen embeds from Kubernetes (label selectors, object references, a
mover's security context, quantities) are written out in our models, so they are compared like the rest. A part that
was left free-form (`x-kubernetes-preserve-unknown-fields`) would count as accepted and kept as a whole; there is one
such part, `status.hubless` of a DRPC, which is ours and has no counterpart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from ramen.crds import dump_yaml, generate
from ramen.objects import OBJECTS
from starter.commands.crds import crds

Schema = dict[str, Any]

RAMEN_KINDS = ("DRPlacementControl", "DRPolicy", "DRCluster", "VolumeReplicationGroup")
KEYWORDS = (
    "type",
    "enum",
    "default",
    "pattern",
    "format",
    "minimum",
    "minLength",
    "maxLength",
    "nullable",
    "anyOf",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
)
FREE = "x-kubernetes-preserve-unknown-fields"
GENERATED = {definition["spec"]["names"]["kind"]: definition for definition in generate()}


def ramen_directory() -> Path:
    """Where Ramen's CRDs are: named by the environment, or beside this repository."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "crds" / "ramen"
    return Path(os.environ.get("HUBLESS_RAMEN_CRDS", beside))


@pytest.fixture(scope="module")
def ramens() -> dict[str, Schema]:
    """Ramen's CRDs by kind."""
    directory = ramen_directory()
    files = sorted(directory.glob("*.yaml"))
    if not files:
        pytest.skip(f"Ramen's CRDs are not in {directory}; set HUBLESS_RAMEN_CRDS to their directory")
    definitions = [yaml.safe_load(file.read_text()) for file in files]
    return {definition["spec"]["names"]["kind"]: definition for definition in definitions}


def version(definition: Schema) -> Schema:
    """The only version of a CRD."""
    (only,) = definition["spec"]["versions"]
    assert isinstance(only, dict)
    return only


def root(definition: Schema) -> Schema:
    """The schema of a CRD."""
    schema = version(definition)["schema"]["openAPIV3Schema"]
    assert isinstance(schema, dict)
    return schema


def differences(theirs: Schema, ours: Schema | None, at: str = "") -> Iterator[str]:
    """What Ramen's schema says and ours does not, or says otherwise; silent below what we leave free-form."""
    if ours is None:
        yield f"{at}: missing"
        return
    if ours.get(FREE):
        return
    for keyword in KEYWORDS:
        if theirs.get(keyword) != ours.get(keyword):
            yield f"{at}: {keyword} is {ours.get(keyword)!r}, Ramen's {theirs.get(keyword)!r}"
    if sorted(theirs.get("required", [])) != sorted(ours.get("required", [])):
        yield f"{at}: required is {ours.get('required')}, Ramen's {theirs.get('required')}"
    if cel(theirs) != cel(ours):
        yield f"{at}: CEL rules are {cel(ours)}, Ramen's {cel(theirs)}"
    for name, schema in theirs.get("properties", {}).items():
        yield from differences(schema, ours.get("properties", {}).get(name), f"{at}.{name}")
    for part in ("items", "additionalProperties"):
        if part in theirs:
            yield from differences(theirs[part], ours.get(part), f"{at}[{part}]")


def cel(schema: Schema) -> list[tuple[str, str]]:
    """Rules and messages, whatever their order."""
    return sorted((rule["rule"], rule["message"]) for rule in schema.get("x-kubernetes-validations", []))


def paths(schema: Schema, at: str = "") -> Iterator[str]:
    """Every property of a schema."""
    for name, part in schema.get("properties", {}).items():
        yield f"{at}.{name}"
        yield from paths(part, f"{at}.{name}")
    for part in ("items", "additionalProperties"):
        if isinstance(schema.get(part), dict):
            yield from paths(schema[part], at)


@pytest.mark.parametrize("kind", RAMEN_KINDS)
def test_schema_accepts_and_keeps_what_ramens_does(ramens: dict[str, Schema], kind: str) -> None:
    assert list(differences(root(ramens[kind]), root(GENERATED[kind]))) == []


@pytest.mark.parametrize("kind", RAMEN_KINDS)
def test_we_add_nothing_but_our_own_status(ramens: dict[str, Schema], kind: str) -> None:
    added = set(paths(root(GENERATED[kind]))) - set(paths(root(ramens[kind])))
    assert {path for path in added if not path.startswith(".status.hubless")} == set()
    assert bool(added) is (kind == "DRPlacementControl")


@pytest.mark.parametrize("kind", RAMEN_KINDS)
def test_names_scope_columns_and_subresources_are_ramens(ramens: dict[str, Schema], kind: str) -> None:
    theirs, ours = ramens[kind], GENERATED[kind]
    assert ours["metadata"]["name"] == theirs["metadata"]["name"]
    for part in ("group", "names", "scope"):
        assert ours["spec"][part] == theirs["spec"][part]
    for part in ("name", "served", "storage", "subresources", "additionalPrinterColumns"):
        assert version(ours).get(part) == version(theirs).get(part)


def test_the_comparison_sees_a_difference(ramens: dict[str, Schema]) -> None:
    """Guards the test itself: a lost field, a lost check and a lost rule are all found."""
    ours = json.loads(json.dumps(root(GENERATED["DRPlacementControl"])))
    spec = ours["properties"]["spec"]
    del spec["properties"]["dryRun"]
    del spec["properties"]["action"]["enum"]
    del spec["properties"]["pvcSelector"]["x-kubernetes-validations"]
    spec["required"].remove("placementRef")
    found = list(differences(root(ramens["DRPlacementControl"]), ours))
    assert len(found) == 4
    assert ".spec.dryRun: missing" in found


def free_form(schema: Schema, at: str = "") -> Iterator[str]:
    """Every part that keeps what it does not name."""
    if schema.get(FREE):
        yield at
    for name, part in schema.get("properties", {}).items():
        yield from free_form(part, f"{at}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from free_form(schema[name], f"{at}[]")


def test_only_our_own_status_is_free_form() -> None:
    found = {kind: list(free_form(root(definition))) for kind, definition in GENERATED.items()}
    assert {kind: parts for kind, parts in found.items() if parts} == {"DRPlacementControl": [".status.hubless"]}


def test_the_registry() -> None:
    definition = GENERATED["ClusterRegistry"]
    assert definition["metadata"]["name"] == "clusterregistries.ramendr.openshift.io"
    assert definition["spec"]["scope"] == "Cluster"
    assert definition["spec"]["names"]["shortNames"] == ["clreg"]
    properties = root(definition)["properties"]
    wanted = properties["spec"]["properties"]["clusters"]["items"]["properties"]
    assert set(wanted) == {"name", "region", "kubeconfigSecret", "endpoint", "clusterUID"}
    health = properties["status"]["properties"]["clusters"]["items"]["properties"]
    assert set(health) == {"name", "state", "since", "version", "workers", "lastError", "flaps"}
    assert health["state"]["enum"] == ["Available", "Unavailable", "Unknown"]
    columns = [column["name"] for column in version(definition)["additionalPrinterColumns"]]
    assert columns[:2] == ["cluster 1", "state 1"]


def test_descriptions_name_no_document_of_ours() -> None:
    text = dump_yaml(generate())
    assert "vrg.md" not in text
    assert "drpc.md" not in text
    assert "(design" not in text


def test_yaml_reads_back_as_what_was_generated() -> None:
    assert list(yaml.safe_load_all(dump_yaml(generate()))) == generate()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("true", id="a word that YAML takes for a boolean"),
        pytest.param("1", id="digits"),
        pytest.param("a: b", id="a colon"),
        pytest.param("é\n\t\"'", id="letters, line ends and quotes"),
        pytest.param("", id="nothing"),
        pytest.param([], id="an empty list"),
        pytest.param({}, id="an empty object"),
        pytest.param([[1, 2], [{"a": [None, False]}]], id="lists in lists"),
    ],
)
def test_yaml_of_an_awkward_value(value: object) -> None:
    assert list(yaml.safe_load_all(dump_yaml([{"a": value}]))) == [{"a": value}]


APP = typer.Typer()
APP.command()(crds)


def test_the_command_prints_all_kinds() -> None:
    result = CliRunner().invoke(APP, [])
    assert result.exit_code == 0
    printed = [definition["spec"]["names"]["kind"] for definition in yaml.safe_load_all(result.stdout)]
    assert printed == [model.KIND.kind for model in OBJECTS]


def test_the_command_prints_one_kind_however_it_is_spelled() -> None:
    result = CliRunner().invoke(APP, ["--only", "drpolicy"])
    assert [definition["spec"]["names"]["kind"] for definition in yaml.safe_load_all(result.stdout)] == ["DRPolicy"]


def test_the_command_refuses_a_kind_that_it_does_not_know() -> None:
    result = CliRunner().invoke(APP, ["--only", "Pod"])
    assert result.exit_code == 2
    assert "There is no CRD of kind Pod. There are: ClusterRegistry, DRPlacementControl" in result.stderr
