"""Figures of requests, over seconds and for ever."""

from __future__ import annotations

import pytest

from headway.core.sampling import SamplingParams
from headway.proto.headway.v1 import sampling_pb2
from headway.router.metrics import RouterMetrics
from headway.router.observer import RequestRecord
from headway.router.recent import RecentFigures, quantile
from headway.router.types import ServedModel

MODEL = ServedModel(
    name="m",
    revision="r",
    page_size=16,
    max_context_tokens=64,
    vocab_size=10,
    eos_token_ids=(),
    default_sampling=SamplingParams(),
    text_assets={},
    ready_replicas=2,
)


def lines(metrics: RouterMetrics) -> list[str]:
    return metrics.exposition().decode().splitlines()


def served(metrics: RouterMetrics, *, tokens: int = 5) -> None:
    """One request of the given length, 0.2 s to its first token, 0.1 s for each one after."""
    record = RequestRecord(front="grpc", method="Generate", arrived_at=100.0)
    metrics.arrived(record)
    record.model, record.prompt_tokens, record.cached_tokens = "m", 10, 4
    record.completion_tokens, record.first_token_at, record.last_token_at = 1, 100.2, 100.2
    metrics.first_token(record)
    for _ in range(tokens - 1):
        record.completion_tokens += 1
        metrics.tokens(record, 1, 0.1)
        record.last_token_at += 0.1
    record.ended_at = record.last_token_at
    record.finish_reason = sampling_pb2.FINISH_REASON_EOS
    metrics.ended(record)


def test_a_served_request_is_in_every_figure() -> None:
    metrics = RouterMetrics(lambda: [MODEL])
    served(metrics)
    text = lines(metrics)
    assert 'headway_requests_total{front="grpc",model="m",outcome="eos"} 1.0' in text
    assert 'headway_output_tokens_total{model="m"} 5.0' in text
    assert 'headway_ttft_seconds_bucket{le="0.1",model="m"} 0.0' in text
    assert 'headway_ttft_seconds_bucket{le="0.5",model="m"} 1.0' in text
    assert 'headway_tpot_seconds_bucket{le="0.075",model="m"} 0.0' in text
    assert 'headway_tpot_seconds_bucket{le="0.2",model="m"} 1.0' in text
    assert (metrics.requests, metrics.errors, metrics.inflight) == (1, 0, 0)
    recent = metrics.recent.summary(101.0)
    assert recent.ttft_p50 == pytest.approx(0.2)
    assert recent.tpot_p99 == pytest.approx(0.1)
    assert recent.prefix_hit_ratio == pytest.approx(0.4)


def test_errors_count_and_a_caller_who_left_is_none() -> None:
    metrics = RouterMetrics(lambda: [MODEL])
    for error in ("INVALID_REQUEST", "CANCELLED"):
        record = RequestRecord(front="http", method="chat", arrived_at=1.0, model="m", error=error)
        metrics.arrived(record)
        metrics.ended(record)
    assert (metrics.requests, metrics.errors) == (2, 1)
    assert 'headway_requests_total{front="http",model="m",outcome="invalid_request"} 1.0' in lines(metrics)


def test_model_names_that_callers_make_up_are_no_label_values() -> None:
    metrics = RouterMetrics(lambda: [MODEL])
    for number in range(5):
        record = RequestRecord(front="http", method="chat", arrived_at=1.0, model=f"x{number}", error="NOT_FOUND")
        metrics.arrived(record)
        metrics.ended(record)
    assert 'headway_requests_total{front="http",model="unknown",outcome="not_found"} 5.0' in lines(metrics)


def test_decisions_are_counted_by_replica() -> None:
    metrics = RouterMetrics(lambda: [MODEL])
    metrics.placed("m", "a", 100, 64)
    metrics.placed("m", "a", 100, 32)
    metrics.refused("b", "OVERLOADED")
    metrics.migrated("m")
    text = lines(metrics)
    assert 'headway_replica_requests_total{model="m",replica="a"} 2.0' in text
    assert 'headway_prefix_hit_tokens_total{model="m",replica="a"} 96.0' in text
    assert 'headway_replica_refusals_total{reason="overloaded",replica="b"} 1.0' in text
    assert 'headway_migrations_total{model="m"} 1.0' in text
    assert 'headway_ready_replicas{model="m"} 2.0' in text
    assert metrics.migrations == 1


def test_the_window_forgets_after_ten_seconds() -> None:
    recent = RecentFigures(now=0.0)
    for second in range(20):
        recent.tokens(float(second), 50, 0.02)
        recent.finished(float(second))
    busy = recent.summary(19.9)
    assert (busy.output_tokens_per_second, busy.requests_per_second) == (50.0, 1.0)
    late = recent.summary(26.0)
    assert late.output_tokens_per_second == pytest.approx(15.0)
    assert recent.summary(60.0) == recent.summary(70.0)
    assert recent.summary(60.0).output_tokens_per_second == 0.0


def test_a_young_router_divides_by_its_age() -> None:
    recent = RecentFigures(now=0.0)
    recent.tokens(1.0, 100, None)
    assert recent.summary(2.0).output_tokens_per_second == 50.0


@pytest.mark.parametrize(
    ("samples", "share", "expected"),
    [([], 0.5, 0.0), ([1.0], 0.99, 1.0), ([1.0, 2.0, 3.0], 0.5, 2.0), ([float(n) for n in range(100)], 0.99, 99.0)],
)
def test_quantiles(samples: list[float], share: float, expected: float) -> None:
    assert quantile(samples, share) == expected
