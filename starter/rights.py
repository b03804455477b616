"""What a kubeconfig must be allowed to do on a cluster: what deploy/rbac.yaml grants, asked of the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ramen.kinds import SELF_SUBJECT_ACCESS_REVIEW
from starter.installation import Access

RULES = Path(__file__).parent.parent / "deploy" / "rbac.yaml"

AT_ONCE = 10
"""Questions to the API server at a time; each takes milliseconds."""


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource, in a namespace or everywhere."""

    group: str
    resource: str
    subresource: str
    verb: str
    namespace: str = ""

    def __str__(self) -> str:
        what = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {what}{f'.{self.group}' if self.group else ''}"


def needed() -> list[Right]:
    """Everything that deploy/rbac.yaml grants a worker, sorted."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(RULES.read_text()))
    rules = {body["metadata"]["name"]: body["rules"] for body in documents if body["kind"] == "ClusterRole"}
    found: set[Right] = set()
    for body in documents:
        if body["kind"] in ("ClusterRoleBinding", "RoleBinding"):
            namespace = body["metadata"].get("namespace", "") if body["kind"] == "RoleBinding" else ""
            found |= set(_rights(rules[body["roleRef"]["name"]], namespace))
    return sorted(found)


def _rights(rules: list[dict[str, Any]], namespace: str) -> Iterator[Right]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for path in rule["resources"]:
                resource, _, subresource = path.partition("/")
                for verb in rule["verbs"]:
                    yield Right(group, resource, subresource, verb, namespace)


async def missing(access: Access, rights: list[Right]) -> list[Right]:
    """Those that the API server would refuse to whoever `access` signs in as. Raises what the calls raise."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def refused(right: Right) -> bool:
        attributes = {
            "group": right.group,
            "resource": right.resource,
            "subresource": right.subresource,
            "verb": right.verb,
            "namespace": right.namespace,
        }
        body = {
            "metadata": {},
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        async with slots:
            answer = await access.create(SELF_SUBJECT_ACCESS_REVIEW, body)
        return not answer["status"].get("allowed")

    answers = await asyncio.gather(*map(refused, rights))
    return [right for right, is_refused in zip(rights, answers, strict=True) if is_refused]
