"""What machines read: the DRPC in Ramen's shape with one more key, in an order of keys that never changes."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any

import yaml

from ramen.app import PodCount
from starter.durations import moment_of, rfc3339
from workflows.inputs import StatusView, StepsView, Waiting

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

DRPC_KEYS = ("apiVersion", "kind", "metadata", "spec", "status")
ACTION_KEYS = (
    "kind",
    "workflowId",
    "requestedAt",
    "servingAt",
    "cleanedAt",
    "reprotectedAt",
    "dataAsOf",
    "waiting",
    "pointOfNoReturnPassed",
)


class Format(StrEnum):
    """`-o` of commands that print results."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def document(view: StatusView, steps: StepsView | None, pods: PodCount, obstacle: str = "") -> dict[str, Any]:
    """The DRPC object with `hubless` beside its status.

    `steps` is the answer of the action that runs, None without one; `pods` come from a live look at the serving
    cluster; `obstacle` is what holds the present wait up.
    """
    ours = view.hubless
    given = ours.get("action")
    action: dict[str, Any] | None = None
    if given:
        action = {key: given.get(key) for key in ACTION_KEYS}
        if steps is not None:
            action["waiting"] = _waiting(steps.waiting, obstacle)
        action["pointOfNoReturnPassed"] = bool(
            given.get("pointOfNoReturnPassed") or (steps and steps.point_of_no_return_passed)
        )
    decision = ours.get("decision") or {}
    drpc = {key: view.drpc.get(key, {}) for key in DRPC_KEYS}
    drpc["hubless"] = {
        "epoch": ours.get("epoch"),
        "decision": {"cluster": decision.get("cluster"), "retained": decision.get("retained") or []},
        "action": action,
        "pods": {"ready": pods.ready, "total": pods.total},
        "debts": [{key: debt.get(key) for key in ("cluster", "wants", "since")} for debt in ours.get("debts") or []],
    }
    plain: dict[str, Any] = normal(drpc)
    return plain


def _waiting(waiting: Waiting | None, obstacle: str) -> dict[str, Any] | None:
    if waiting is None:
        return None
    said = {"for": waiting.reason, "cluster": waiting.cluster, "since": waiting.since}
    return said | {"heldUp": obstacle or None}


def normal(value: Any) -> Any:
    """The value with every time as RFC 3339 in UTC with `Z`, whoever wrote it."""
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, str) and not TIME.fullmatch(value):
        return value
    moment = moment_of(value)
    return rfc3339(moment) if moment else value


def as_list(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Several objects as kubectl prints them."""
    return {"apiVersion": "v1", "kind": "List", "items": items}


def text(value: Any, form: Format) -> str:
    """JSON with two blanks, or YAML; both keep the order of keys."""
    if form is Format.YAML:
        return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).rstrip("\n")
    return json.dumps(value, indent=2, ensure_ascii=False)
