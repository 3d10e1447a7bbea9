"""Counts what requests and replicas do: for Prometheus, and as the figures of the last ten seconds."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator

import prometheus_client as prom
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..proto.headway.v1 import sampling_pb2
from .observer import RequestRecord
from .recent import RecentFigures
from .types import ServedModel

TTFT_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
TPOT_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
E2E_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
# What callers write there is not ours to make label values of.
UNKNOWN_MODEL = "unknown"


class RouterMetrics:
    """Implements `RequestObserver` and `DispatchMeter`. `models` gives the served models, to bound label values."""

    def __init__(self, models: Callable[[], list[ServedModel]]) -> None:
        prom.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, of no use to us
        self.registry = prom.CollectorRegistry()
        self.inflight = 0
        self.requests = 0
        self.errors = 0
        self.migrations = 0
        self.recent = RecentFigures(time.perf_counter())
        self.output_tokens: Tally[str] = Tally()
        self._models = models
        model = ["model"]

        def counter(name: str, text: str, labels: list[str]) -> prom.Counter:
            return prom.Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> prom.Histogram:
            return prom.Histogram(name, text, model, buckets=buckets, registry=self.registry)

        self._requests = counter(
            "headway_requests", "Requests ended, by finish reason or error", ["model", "front", "outcome"]
        )
        self._prompt = counter(
            "headway_prompt_tokens", "Prompt tokens of requests that got a token or embeddings", model
        )
        self._cached = counter("headway_cached_tokens", "Of these, found in a replica's cache", model)
        self._migrations = counter("headway_migrations", "Requests moved to another replica", model)
        self._placed = counter("headway_replica_requests", "Requests sent to a replica", ["model", "replica"])
        self._hits = counter(
            "headway_prefix_hit_tokens", "Tokens the index promised on the chosen replica", ["model", "replica"]
        )
        self._refusals = counter("headway_replica_refusals", "Requests a replica did not take", ["replica", "reason"])
        self._ttft = histogram("headway_ttft_seconds", "Arrival to first token", TTFT_BUCKETS)
        self._tpot = histogram("headway_tpot_seconds", "Mean time per token after the first, by request", TPOT_BUCKETS)
        self._e2e = histogram("headway_request_seconds", "Arrival to end, of requests that finished", E2E_BUCKETS)
        self.registry.register(_LiveFigures(self, models))

    def arrived(self, record: RequestRecord) -> None:
        self.inflight += 1
        self.requests += 1

    def first_token(self, record: RequestRecord) -> None:
        ttft_s = record.first_token_at - record.arrived_at
        self._ttft.labels(record.model).observe(ttft_s)
        self._prompt.labels(record.model).inc(record.prompt_tokens)
        self._cached.labels(record.model).inc(record.cached_tokens)
        self.output_tokens[record.model] += record.completion_tokens
        now = record.first_token_at
        self.recent.first_token(now, ttft_s, record.prompt_tokens, record.cached_tokens)
        self.recent.tokens(now, record.completion_tokens, None)

    def tokens(self, record: RequestRecord, count: int, seconds: float) -> None:
        # Called for every chunk: plain numbers, which the collector turns into a counter when asked.
        self.output_tokens[record.model] += count
        self.recent.tokens(record.last_token_at + seconds, count, seconds / count)

    def ended(self, record: RequestRecord) -> None:
        self.inflight -= 1
        model = record.model if any(known.name == record.model for known in self._models()) else UNKNOWN_MODEL
        outcome = record.error or sampling_pb2.FinishReason.Name(record.finish_reason).removeprefix("FINISH_REASON_")
        self._requests.labels(model, record.front, outcome.lower()).inc()
        if record.error:
            self.errors += record.error != "CANCELLED"
            return
        if record.finish_reason == sampling_pb2.FINISH_REASON_EMBEDDED:
            self._prompt.labels(model).inc(record.prompt_tokens)
            self._cached.labels(model).inc(record.cached_tokens)
        self.recent.finished(record.ended_at)
        self._e2e.labels(model).observe(record.ended_at - record.arrived_at)
        tokens_after_first = record.completion_tokens / record.sequences - 1
        if tokens_after_first > 0:
            self._tpot.labels(model).observe((record.last_token_at - record.first_token_at) / tokens_after_first)

    def placed(self, model: str, replica_id: str, prompt_tokens: int, hit_tokens: int) -> None:
        self._placed.labels(model, replica_id).inc()
        self._hits.labels(model, replica_id).inc(hit_tokens)

    def refused(self, replica_id: str, reason: str) -> None:
        self._refusals.labels(replica_id, reason.lower()).inc()

    def migrated(self, model: str) -> None:
        self.migrations += 1
        self._migrations.labels(model).inc()

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return prom.generate_latest(self.registry)


class _LiveFigures(Collector):
    """What is counted elsewhere, read when Prometheus asks."""

    def __init__(self, metrics: RouterMetrics, models: Callable[[], list[ServedModel]]) -> None:
        self._metrics = metrics
        self._models = models

    def collect(self) -> Iterator[Metric]:
        output = CounterMetricFamily("headway_output_tokens", "Output tokens", labels=["model"])
        ready = GaugeMetricFamily("headway_ready_replicas", "Replicas that take requests", labels=["model"])
        for model in self._models():
            output.add_metric([model.name], self._metrics.output_tokens[model.name])
            ready.add_metric([model.name], model.ready_replicas)
        yield output
        yield ready
        yield GaugeMetricFamily("headway_inflight_requests", "Requests in flight", value=self._metrics.inflight)
