"""Clusters to look at, as the controller would describe them."""

from __future__ import annotations

from typing import Any

from headway.proto.headway.v1 import admin_pb2, engine_pb2

READY = admin_pb2.REPLICA_STATE_READY
LOADING = admin_pb2.REPLICA_STATE_LOADING
PENDING = admin_pb2.REPLICA_STATE_PENDING
DRAINING = admin_pb2.REPLICA_STATE_DRAINING
UNHEALTHY = admin_pb2.REPLICA_STATE_UNHEALTHY


def load(running: int = 0, waiting: int = 0, used: int = 0, cached: int = 0, **more: object) -> engine_pb2.Load:
    values = {"total_pages": 4096, "prefill_rate": 18_400.0, "decode_step_ms": 4.2, "accepting": True, **more}
    return engine_pb2.Load(running=running, waiting=waiting, used_pages=used, cached_pages=cached, **values)  # type: ignore[arg-type]


def replica(
    id: str, state: admin_pb2.ReplicaState = READY, model: str = "headway-demo", **more: object
) -> admin_pb2.Replica:
    values: dict[str, object] = {
        "incarnation": "8f3a2c1b90de44a1",
        "endpoint": "127.0.0.1:40213",
        "pids": [48213, 48214],
        "nodes": ["node-a", "node-a"],
        "tensor_parallel": 2,
        "pipeline_parallel": 1,
        "loaded": 1.0,
        "load": load(running=12, waiting=3, used=1310, cached=1904),
        **more,
    }
    return admin_pb2.Replica(id=id, model=model, state=state, **values)  # type: ignore[arg-type]


def model(name: str = "headway-demo", wanted: int = 2, tp: int = 2, pp: int = 1) -> admin_pb2.ModelDeployment:
    return admin_pb2.ModelDeployment(
        name=name, path=f"/models/{name}", desired_replicas=wanted, tensor_parallel=tp, pipeline_parallel=pp
    )


def router(id: str = "router-1", **more: object) -> admin_pb2.Router:
    values: dict[str, object] = {
        "grpc_address": "127.0.0.1:50051",
        "http_address": "http://127.0.0.1:8080",
        "pid": 48190,
        "running": 31,
        "requests": 128_402,
        "output_tokens_per_second": 3_412.0,
        "requests_per_second": 41.7,
        "ttft_p50_ms": 38.0,
        "ttft_p99_ms": 212.0,
        "tpot_p50_ms": 4.3,
        "tpot_p99_ms": 9.1,
        "prefix_hit_ratio": 0.63,
        **more,
    }
    return admin_pb2.Router(id=id, **values)  # type: ignore[arg-type]


def small() -> admin_pb2.WatchClusterResponse:
    """One model, two ready replicas, one router."""
    return admin_pb2.WatchClusterResponse(
        version=7, snapshot=True, models=[model()], replicas=[replica("demo-0"), replica("demo-1")], routers=[router()]
    )


def busy() -> admin_pb2.WatchClusterResponse:
    """Every state at once, two models, pipeline stages, two routers."""
    wide: dict[str, Any] = {"model": "code-70b", "tensor_parallel": 4, "pipeline_parallel": 2}
    nodes = ["node-b"] * 4 + ["node-c"] * 4
    return admin_pb2.WatchClusterResponse(
        version=18_231,
        snapshot=True,
        models=[model(wanted=4), model("code-70b", wanted=2, tp=4, pp=2)],
        replicas=[
            replica("demo-0"),
            replica("demo-1", load=load(running=4, used=420, cached=3105, decode_step_ms=3.7), restarts=2),
            replica(
                "demo-2",
                LOADING,
                loaded=0.62,
                load=None,
                incarnation="c0ffee12ab",
                endpoint="",
                reason="reading weights",
            ),
            replica(
                "demo-3",
                UNHEALTHY,
                restarts=3,
                pids=[48301, 0],
                reason="rank 1 (pid 48302) was killed by signal 9; the group starts again",
            ),
            replica("code-0", DRAINING, pids=range(51200, 51208), nodes=nodes, reason="drained by an operator", **wide),
            replica(
                "code-1",
                PENDING,
                pids=[],
                loaded=0.0,
                load=None,
                incarnation="",
                endpoint="",
                reason="waiting for 8 devices",
                **wide,
            ),
        ],
        routers=[
            router(),
            router("router-2", grpc_address="127.0.0.1:50052", errors=14, migrations=3, ttft_p99_ms=431.0, running=18),
        ],
    )
