"""The controller's figures for Prometheus, read from the cluster's view when asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..proto.headway.v1 import admin_pb2, engine_pb2
from .view import ClusterView

STATES = [name.removeprefix("REPLICA_STATE_").lower() for name, number in admin_pb2.ReplicaState.items() if number]
# What a replica last said of its load: name, text, where it lies in Load.
LOADS: tuple[tuple[str, str, Callable[[engine_pb2.Load], float]], ...] = (
    ("headway_replica_running_requests", "Requests that run.", lambda load: load.running),
    ("headway_replica_waiting_requests", "Requests that wait.", lambda load: load.waiting),
    ("headway_replica_used_pages", "KV pages that running requests hold.", lambda load: load.used_pages),
    ("headway_replica_cached_pages", "KV pages that hold only cached prefixes.", lambda load: load.cached_pages),
    ("headway_replica_total_pages", "KV pages.", lambda load: load.total_pages),
    ("headway_replica_host_used_pages", "KV pages in host memory.", lambda load: load.host_used_pages),
    ("headway_replica_host_total_pages", "Room for them.", lambda load: load.host_total_pages),
    ("headway_replica_disk_used_pages", "KV pages on disk.", lambda load: load.disk_used_pages),
    ("headway_replica_disk_total_pages", "Room for them.", lambda load: load.disk_total_pages),
    (
        "headway_replica_silence_seconds",
        "Without progress at work.",
        lambda load: load.engine_silence_ms / 1e3,
    ),
    ("headway_replica_prefill_tokens_per_second", "Measured prefill rate.", lambda load: load.prefill_rate),
    ("headway_replica_decode_step_seconds", "Measured time of a decode step.", lambda load: load.decode_step_ms / 1e3),
)
TOTALS: tuple[tuple[str, str, Callable[[engine_pb2.LoadTotals], float]], ...] = (
    ("headway_replica_steps", "Engine steps.", lambda totals: totals.steps),
    ("headway_replica_step_seconds", "Time in engine steps.", lambda totals: totals.step_seconds),
    ("headway_replica_model_seconds", "Of these, in the model.", lambda totals: totals.model_seconds),
    ("headway_replica_output_tokens", "Output tokens.", lambda totals: totals.output_tokens),
    ("headway_replica_preemptions", "Requests preempted.", lambda totals: totals.preemptions),
    ("headway_replica_cached_tokens", "Prompt tokens found in any cache.", lambda totals: totals.cached_tokens),
    (
        "headway_replica_host_cached_tokens",
        "Tokens whose KV came back from host memory.",
        lambda totals: totals.host_cached_tokens,
    ),
    (
        "headway_replica_disk_cached_tokens",
        "Tokens whose KV came back from disk.",
        lambda totals: totals.disk_cached_tokens,
    ),
    ("headway_replica_spilled_pages", "KV pages copied to host memory.", lambda totals: totals.spilled_pages),
    ("headway_replica_fetched_pages", "KV pages copied back to the device.", lambda totals: totals.fetched_pages),
    ("headway_replica_disk_written_pages", "KV pages written to disk.", lambda totals: totals.disk_written_pages),
    ("headway_replica_disk_read_pages", "KV pages read from disk.", lambda totals: totals.disk_read_pages),
)


class _ViewCollector(Collector):
    def __init__(self, view: ClusterView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        desired = GaugeMetricFamily("headway_desired_replicas", "Replicas wanted.", labels=["model"])
        present = GaugeMetricFamily("headway_replicas", "Replicas by state.", labels=["model", "state"])
        restarts = CounterMetricFamily(
            "headway_replica_restarts", "Restarts of a worker group.", labels=["model", "replica"]
        )
        loaded = GaugeMetricFamily(
            "headway_replica_loaded_ratio", "Share of weights loaded.", labels=["model", "replica"]
        )
        routers = GaugeMetricFamily("headway_routers", "Routers that report.")
        counts: Counter[tuple[str, str]] = Counter()
        for replica in self._view.replicas():
            state = admin_pb2.ReplicaState.Name(replica.state).removeprefix("REPLICA_STATE_").lower()
            counts[replica.model, state] += 1
            restarts.add_metric([replica.model, replica.id], replica.restarts)
            loaded.add_metric([replica.model, replica.id], replica.loaded)
        for model in self._view.models():
            desired.add_metric([model.name], model.desired_replicas)
            # Every state of every model, so that a panel shows 0 and never "no data".
            for state in STATES:
                present.add_metric([model.name, state], counts[model.name, state])
        routers.add_metric([], len(self._view.routers()))
        yield from (desired, present, restarts, loaded, routers)
        yield from self._loads()

    def _loads(self) -> Iterator[Metric]:
        replicas = self._view.replicas()
        for name, text, pick in LOADS:
            gauge = GaugeMetricFamily(name, text, labels=["model", "replica"])
            for replica in replicas:
                gauge.add_metric([replica.model, replica.id], pick(replica.load))
            yield gauge
        for name, text, count in TOTALS:
            counter = CounterMetricFamily(name, text + " Since the group's start.", labels=["model", "replica"])
            for replica in replicas:
                counter.add_metric([replica.model, replica.id], count(replica.load.totals))
            yield counter


def render(view: ClusterView) -> bytes:
    """The text exposition."""
    registry = CollectorRegistry()
    registry.register(_ViewCollector(view))
    return generate_latest(registry)
