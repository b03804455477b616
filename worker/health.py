"""The worker's own HTTP endpoint: `/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from activities.contracts import ClusterHealth

log = logging.getLogger(__name__)

SCRAPE_SECONDS = 2.0
"""Time that the SDK's own metrics may take; they come from the same process."""


@dataclass(frozen=True)
class Figures:
    """What the process knows of itself when it is asked; `Process.figures` makes it."""

    temporal_connected: bool
    own_gate_known: bool
    health: list[ClusterHealth]
    slots_used: dict[str, int]
    """By task queue."""
    api_calls: dict[tuple[str, str, str], int]
    """By (cluster, verb, resource)."""
    s3_requests: dict[tuple[str, str], int]
    """By (profile, verb)."""
    hints_sent: int
    attention: dict[str, str]
    """By application: why its entity is being told."""

    @property
    def is_ready(self) -> bool:
        """Takes work from Temporal, and knows whether its own cluster answers."""
        return self.temporal_connected and self.own_gate_known


class WorkerCollector(Collector):
    """Turns figures into metrics at the moment of the scrape."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def describe(self) -> Iterable[Metric]:
        """Nothing: figures are first asked for by a scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        now = self._figures()
        gates = GaugeMetricFamily("hubless_gate_open", "1 while the cluster answers", labels=["cluster"])
        since = GaugeMetricFamily(
            "hubless_gate_since_seconds", "Unix time of the gate's last move, 0 before any", labels=["cluster"]
        )
        for health in now.health:
            gates.add_metric([health.cluster], float(health.reachable))
            since.add_metric([health.cluster], health.since.timestamp() if health.since else 0.0)
        slots = GaugeMetricFamily("hubless_slots_used", "Activities at work; on a waits queue: waits", labels=["queue"])
        for queue, used in now.slots_used.items():
            slots.add_metric([queue], used)
        calls = CounterMetricFamily(
            "hubless_api_calls", "Requests to API servers, probes aside", labels=["cluster", "verb", "resource"]
        )
        for key, count in now.api_calls.items():
            calls.add_metric(list(key), count)
        requests = CounterMetricFamily("hubless_s3_requests", "Requests to S3 stores", labels=["profile", "verb"])
        for profile_verb, count in now.s3_requests.items():
            requests.add_metric(list(profile_verb), count)
        yield from (gates, since, slots, calls, requests)
        yield CounterMetricFamily("hubless_hints", "Signals to entities whose VRGs disagree", value=now.hints_sent)
        yield GaugeMetricFamily("hubless_attention", "Applications whose VRGs disagree", value=len(now.attention))
        yield GaugeMetricFamily(
            "hubless_temporal_connected", "1 while workers run", value=float(now.temporal_connected)
        )


class HealthServer:
    """Serves the three paths from `start` to `close`."""

    def __init__(self, host: str, port: int, figures: Callable[[], Figures], sdk_metrics: str = "") -> None:
        self._host, self._port = host, port
        self._figures = figures
        self._sdk_metrics = sdk_metrics
        self._registry = CollectorRegistry()
        self._registry.register(WorkerCollector(figures))
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> int:
        """Listens; returns the port. Raises OSError when the address is taken."""
        app = web.Application()
        app.add_routes(
            [web.get("/healthz", self._healthz), web.get("/readyz", self._readyz), web.get("/metrics", self._metrics)]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SCRAPE_SECONDS))
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stops listening."""
        if self._http is not None:
            await self._http.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        """That this answers at all proves that the loop turns."""
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        now = self._figures()
        body: dict[str, Any] = {
            "ready": now.is_ready,
            "temporal": "connected" if now.temporal_connected else "not connected",
            "clusters": [health.model_dump(mode="json") for health in now.health],
            "attention": now.attention,
        }
        return web.json_response(body, status=200 if now.is_ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        text = generate_latest(self._registry).decode() + await self._of_sdk()
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def _of_sdk(self) -> str:
        if not self._sdk_metrics or self._http is None:
            return ""
        try:
            async with self._http.get(self._sdk_metrics) as answer:
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError) as err:
            log.warning("the Temporal SDK's metrics cannot be read: %s", err)
            return ""
