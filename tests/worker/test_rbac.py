"""deploy/rbac.yaml grants what the code asks for, and no more than named things."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ramen import kinds
from ramen.kinds import SECRET, VOLUME_REPLICATION, VRG, Kind

ROOT = Path(__file__).parents[2]
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy" / "rbac.yaml").read_text()))

VERBS = {
    "read": "get",
    "list": "list",
    "watch": "watch",
    "create": "create",
    "replace": "update",
    "patch": "patch",
    "delete": "delete",
}
"""Methods of `ClusterAccess` and the verbs of RBAC behind them."""

HELPERS = {"_delete": "delete", "_annotate": "patch", "_unmark": "patch"}
"""Functions of `activities.clusters` that are given the kind, and the verb that they use on it."""

CALL = re.compile(rf"\.({'|'.join(VERBS)})\(\s*([A-Z_]+)\b")
STATUS = re.compile(r"\"status\",?\s*\)$")
HELPER = re.compile(rf"\b({'|'.join(HELPERS)})\(access, ([A-Z_]+)\b")


Use = tuple[str, str, str]
"""API group, resource with its subresource, verb."""


def used() -> set[Use]:
    """Every call on a kind that is spelled in the code of activities and worker, and the two watches."""
    found = {(kind.group, kind.plural, verb) for kind in (VRG, VOLUME_REPLICATION) for verb in ("list", "watch")}
    for package in ("activities", "worker"):
        for file in (ROOT / package).rglob("*.py"):
            text = file.read_text()
            calls = [(VERBS[call[1]], call[2], _arguments(text, call.start())) for call in CALL.finditer(text)]
            calls += [(HELPERS[helper], name, "") for helper, name in HELPER.findall(text)]
            for verb, name, arguments in calls:
                if isinstance(kind := getattr(kinds, name, None), Kind):
                    subresource = "/status" if STATUS.search(arguments) else ""
                    found.add((kind.group, kind.plural + subresource, verb))
    return found


def _arguments(text: str, start: int) -> str:
    """A call's text from `start` to the parenthesis that closes it."""
    depth = 0
    for position in range(text.index("(", start), len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if not depth:
            return text[start : position + 1]
    return ""


def granted(role: str) -> set[Use]:
    rules = next(
        body["rules"] for body in DOCUMENTS if body["kind"] == "ClusterRole" and body["metadata"]["name"] == role
    )
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_every_call_in_the_code_is_granted() -> None:
    calls = used()
    assert len(calls) > 10, "the pattern finds the calls"
    rights = granted("hubless-worker") | granted("hubless-worker-secrets")
    assert calls - rights == set()


def test_nothing_is_granted_by_wildcard() -> None:
    assert not {
        right for role in ("hubless-worker", "hubless-worker-secrets") for right in granted(role) if "*" in right
    }


def test_secrets_are_readable_in_one_namespace_only() -> None:
    assert not [right for right in granted("hubless-worker") if right[1] == SECRET.plural]
    bindings = [body for body in DOCUMENTS if "roleRef" in body and body["roleRef"]["name"] == "hubless-worker-secrets"]
    assert [(body["kind"], body["metadata"]["namespace"]) for body in bindings] == [("RoleBinding", "ramen-system")]
