"""Logs as one JSON object per line on standard error, and the Temporal runtime that reports like the rest of us.

Credentials are kept out where errors are made; the formatter is the second line of defence and blanks whatever
still looks like one.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
from datetime import UTC, datetime
from typing import Any

from temporalio import activity, workflow
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

BLANK = "[removed]"

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|$)", re.DOTALL), BLANK),
    # Keys of kubeconfigs and of S3 Secrets, as YAML, JSON or Python repr, with the value that follows.
    (
        re.compile(
            r"(?i)\b((?:client-key-data|client-certificate-data|certificate-authority-data|token|id-token|password"
            r"|passwd|secret|secret_key|api[-_]?key|aws_access_key_id|aws_secret_access_key|aws_session_token|kubeconfig)"
            r"\\?[\"']?\s*[:=]\s*)(\\?[\"'][^\"'\\]*\\?[\"']|[^\s,;}\"'\\]+)"
        ),
        rf"\1{BLANK}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {BLANK}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]+){0,2}"), BLANK),
    # A long unbroken run of base64 is key material far more often than a word that somebody needs to read.
    (re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{120,}={0,2}"), BLANK),
)

_CONTEXT: tuple[str, ...] = ("cluster", "app", "queue")
"""Names that our own log calls give in `extra`."""


def redact(text: str) -> str:
    """The text with everything that looks like a credential blanked."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, message, and what it is about."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": redact(record.getMessage()),
            "logger": record.name,
            "worker": self._worker,
        }
        for name in _CONTEXT:
            if value := getattr(record, name, None):
                line[name] = redact(str(value))
        running = getattr(record, "temporal_activity", None) or getattr(record, "temporal_workflow", None) or {}
        for name, key in (("workflow", "workflow_id"), ("activity", "activity_type"), ("attempt", "attempt")):
            if key in running:
                line[name] = running[key]
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(worker: str, level: str) -> None:
    """Sends all logs of the process to standard error as JSON; `worker` is the identity on every line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(worker))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    # The access log of our own probes would be most of the output.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    # Their facts are fields of the line; as a suffix of the message they would stand there twice.
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False


def make_runtime(cluster: str) -> tuple[Runtime, str]:
    """A Temporal runtime whose logs join ours, and the loopback URL of its own metrics.

    The SDK insists on serving its metrics itself; it does so on a loopback port that `worker.health` reads, so that
    people scrape one address only.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    logs = LoggingConfig(
        filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
        forwarding=LogForwardingConfig(logger=logging.getLogger("temporal.core")),
    )
    # With these three, names and units are those of Temporal's own dashboards (temporal.md 7.3).
    metrics = PrometheusConfig(
        bind_address=address, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
    )
    telemetry = TelemetryConfig(logging=logs, metrics=metrics, global_tags={"cluster": cluster})
    return Runtime(telemetry=telemetry), f"http://{address}/metrics"
