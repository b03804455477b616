"""Logs: one JSON object per line, with what the line is about, and never with a credential."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from worker.telemetry import BLANK, JsonFormatter, redact

KEY = "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo" + "A" * 40
KUBECONFIG = f"""apiVersion: v1
kind: Config
clusters: [{{name: dr2, cluster: {{server: "https://10.0.0.2:6443"}}}}]
users:
- name: hubless
  user:
    client-key-data: {KEY}
    token: s3cr3t-token-of-dr2
    password: "hunter2"
"""


def line(message: str, *args: Any, **extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("worker.test", logging.WARNING, "file", 1, message, args, extra.pop("exc_info", None))
    for name, value in extra.items():
        setattr(record, name, value)
    text = JsonFormatter("dr1@host:1").format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_line_says_what_it_is_about() -> None:
    found = line("%s is closed", "dr2", cluster="dr2")
    assert found["message"] == "dr2 is closed"
    assert (found["level"], found["cluster"], found["worker"]) == ("warning", "dr2", "dr1@host:1")
    assert found["time"].endswith("+00:00")


def test_line_of_an_activity_names_workflow_and_activity() -> None:
    found = line("x", temporal_activity={"workflow_id": "drpc/web/shop", "activity_type": "write_vrg", "attempt": 2})
    assert (found["workflow"], found["activity"], found["attempt"]) == ("drpc/web/shop", "write_vrg", 2)


def test_kubeconfig_in_an_error_is_blanked_also_in_its_trace() -> None:
    try:
        try:
            raise ValueError(f"cannot use {KUBECONFIG}")
        except ValueError as cause:
            raise RuntimeError(json.dumps({"kubeconfig": KUBECONFIG})) from cause
    except RuntimeError as err:
        found = line("no client: %s", err, exc_info=sys.exc_info())
    text = json.dumps(found)
    for secret in (KEY, "s3cr3t-token-of-dr2", "hunter2"):
        assert secret not in text
    assert BLANK in text


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abcdef0123456789",
        "{'AWS_SECRET_ACCESS_KEY': 'hunter2'}",
        '{"aws_access_key_id": "hunter2"}',
        "secret_key=hunter2, region=x",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.c2lnbmF0dXJl",
    ],
)
def test_credentials_in_other_shapes(text: str) -> None:
    blanked = redact(text)
    assert BLANK in blanked
    assert "hunter2" not in blanked
    assert "abcdef0123456789" not in blanked
    assert "eyJ" not in blanked


@pytest.mark.parametrize(
    "text",
    [
        "Secret ramen-system/kubeconfig-dr2 is missing on dr1; create it with a kubeconfig for dr2",
        "dr2 refuses the credentials (401); renew Secret ramen-system/kubeconfig-dr2",
        "VRG web/shop on dr1 carries epoch 8 of a newer action; this one is epoch 7. Nothing was written.",
    ],
)
def test_our_own_messages_stay_readable(text: str) -> None:
    assert redact(text) == text
