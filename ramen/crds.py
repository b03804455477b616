"""CRDs generated from the models, so that what Hubless reads and what the API server accepts cannot drift apart.

The schema is structural (apiextensions v1): types follow from the annotations, everything else from `Rules`. Ramen's
four kinds come out with Ramen's own checks, defaults and columns; the order of fields is alphabetical so that the
output changes only when a model does.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ramen.kinds import Kind
from ramen.model import NO_DEFAULT, Model, Quantity, Rules
from ramen.objects import DRPC, OBJECTS, VRG, APIObject, ClusterRegistry, Metadata

Schema = dict[str, Any]

QUANTITY_PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
"""The form of a Kubernetes quantity, as the API server's own types state it."""

SCALARS: dict[Any, str] = {str: "string", int: "integer", bool: "boolean"}

WIDE = 2
"""Priority of the columns that only `-o wide` shows."""

COLUMN_PAIRS = 2
"""Clusters of the registry that `kubectl get` shows; a policy names two, and `-o wide` shows as many again."""


def _column(name: str, path: str, type: str = "string", priority: int = 0) -> Schema:
    column: Schema = {"jsonPath": path, "name": name, "type": type}
    return column | ({"priority": priority} if priority else {})


AGE = _column("Age", ".metadata.creationTimestamp", "date")

COLUMNS: dict[type[APIObject], Sequence[Schema]] = {
    VRG: (
        _column("desiredState", ".spec.replicationState"),
        _column("currentState", ".status.state"),
    ),
    DRPC: (
        AGE,
        _column("preferredCluster", ".spec.preferredCluster"),
        _column("failoverCluster", ".spec.failoverCluster"),
        _column("desiredState", ".spec.action"),
        _column("currentState", ".status.phase"),
        _column("progression", ".status.progression", priority=WIDE),
        _column("start time", ".status.actionStartTime", priority=WIDE),
        _column("duration", ".status.actionDuration", priority=WIDE),
        _column("peer ready", ".status.conditions[1].status", priority=WIDE),
    ),
    ClusterRegistry: (
        # A column shows one value, so clusters get columns of their own.
        *(
            _column(name, f".status.clusters[{index}].{field}", priority=0 if index < COLUMN_PAIRS else WIDE)
            for index in range(2 * COLUMN_PAIRS)
            for name, field in ((f"cluster {index + 1}", "name"), (f"state {index + 1}", "state"))
        ),
        _column("synced", '.status.conditions[?(@.type=="Synced")].status'),
        *(_column(f"since {index + 1}", f".status.clusters[{index}].since", "date", WIDE) for index in range(2)),
        AGE,
    ),
}
"""What `kubectl get` shows; the other kinds show name and age."""

SHORT_NAMES: dict[type[APIObject], list[str]] = {VRG: ["vrg"], DRPC: ["drpc"], ClusterRegistry: ["clreg"]}


def generate() -> list[Schema]:
    """One CustomResourceDefinition object per kind of `ramen.objects.OBJECTS`, ready to be applied."""
    return [_definition(model) for model in OBJECTS]


def _definition(model: type[APIObject]) -> Schema:
    kind: Kind = model.KIND
    names: Schema = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.kind.lower(),
    }
    if model in SHORT_NAMES:
        names["shortNames"] = SHORT_NAMES[model]
    version: Schema = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _object_schema(model)},
        "subresources": {"status": {}},
    }
    if model in COLUMNS:
        version["additionalPrinterColumns"] = list(COLUMNS[model])
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _object_schema(model: type[Model]) -> Schema:
    """Schema of a model; `metadata` stays bare because the API server has its own."""
    if model is Metadata:
        return {"type": "object"}
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for name, info in model.model_fields.items():
        json_name = info.alias or name
        rules = _rules(info)
        properties[json_name] = _typed(info.annotation, rules) | _checks(json_name, rules)
        if any(rule.required for rule in rules):
            required.append(json_name)
    schema: Schema = {
        "type": "object",
        "description": _description(model),
        "properties": dict(sorted(properties.items())),
    }
    if required:
        schema["required"] = sorted(required)
    if model.ATOMIC:
        schema["x-kubernetes-map-type"] = "atomic"
    if model.OPEN:
        schema["x-kubernetes-preserve-unknown-fields"] = True
    if model.CEL:
        schema["x-kubernetes-validations"] = [_cel(rule, message) for rule, message in model.CEL]
    return schema


SOURCE = re.compile(r"\s*\((?:design|vrg\.md|drpc\.md)[^)]*\)")
"""Where a docstring names the source of a rule; of no use to a reader of `kubectl explain`."""


def _description(model: type[Model]) -> str:
    """The first sentence of the model's docstring."""
    text = SOURCE.sub("", " ".join((model.__doc__ or "").split()))
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def _rules(info: FieldInfo) -> list[Rules]:
    return [rule for rule in info.metadata if isinstance(rule, Rules)]


def _typed(annotation: Any, rules: Sequence[Rules] = ()) -> Schema:
    """Schema of a Python type; the `Rules` inside it apply to it, those passed in only where they shape a list."""
    origin = get_origin(annotation)
    if annotation == Quantity:
        return {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "x-kubernetes-int-or-string": True,
        }
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        return _typed(inner) | _checks("", [rule for rule in extra if isinstance(rule, Rules)])
    if origin in (Union, types.UnionType):
        (inner,) = [argument for argument in get_args(annotation) if argument is not type(None)]
        return _typed(inner, rules)
    if origin is list:
        return {"type": "array", "items": _typed(*get_args(annotation))} | _list_type(rules)
    if origin is dict:
        return {"type": "object", "additionalProperties": _typed(get_args(annotation)[1])}
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return _object_schema(annotation)
    return {"type": SCALARS[annotation]}


def _list_type(rules: Sequence[Rules]) -> Schema:
    for rule in rules:
        if rule.atomic:
            return {"x-kubernetes-list-type": "atomic"}
        if rule.list_keys:
            return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(rule.list_keys)}
    return {}


KEYWORDS: dict[str, Callable[[Rules], Any]] = {
    "enum": lambda rule: list(rule.enum) or None,
    "pattern": lambda rule: rule.pattern or None,
    "format": lambda rule: rule.format or None,
    "minimum": lambda rule: rule.minimum,
    "minLength": lambda rule: rule.min_length,
    "maxLength": lambda rule: rule.max_length,
    "nullable": lambda rule: rule.nullable or None,
}
"""OpenAPI keywords and where they come from; None means that a rule does not set one."""


def _checks(json_name: str, rules: Sequence[Rules]) -> Schema:
    """Keywords that these rules add to a field's schema."""
    checks: Schema = {}
    validations: list[Schema] = []
    for rule in rules:
        for keyword, value_of in KEYWORDS.items():
            if (value := value_of(rule)) is not None:
                checks[keyword] = value
        if rule.default is not NO_DEFAULT:
            checks["default"] = rule.default
        validations += [_cel(*pair) for pair in rule.cel]
        if rule.immutable:
            validations.append(_cel("self == oldSelf", f"{json_name} is immutable"))
    return checks | ({"x-kubernetes-validations": validations} if validations else {})


def _cel(rule: str, message: str) -> Schema:
    return {"rule": rule, "message": message}


# --- YAML -----------------------------------------------------------------------------------------------------------

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
"""Strings that need no quotes."""
RESERVED = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
"""Words that YAML 1.1 readers take for something else than a string."""


def dump_yaml(documents: Sequence[Schema]) -> str:
    """The documents as YAML, each opened by `---`; written here because this package has no YAML library."""
    return "".join("---\n" + "".join(f"{line}\n" for line in _lines(document)) for document in documents)


def _lines(value: Any) -> Iterator[str]:
    """Block style for what has content, JSON for the rest, which is YAML too."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _entry(f"{_scalar(key)}:", item, indent="  ")
    elif isinstance(value, list) and value:
        for item in value:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from (indent + line for line in _lines(value))
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)
