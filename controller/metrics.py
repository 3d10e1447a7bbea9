"""The controller's figures for Prometheus, read from the cluster's view when asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..proto.headway.v1 import admin_pb2
from .view import ClusterView

STATES = [name.removeprefix("REPLICA_STATE_").lower() for name, number in admin_pb2.ReplicaState.items() if number]


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


def render(view: ClusterView) -> bytes:
    """The text exposition."""
    registry = CollectorRegistry()
    registry.register(_ViewCollector(view))
    return generate_latest(registry)
