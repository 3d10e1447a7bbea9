"""The devices that ranks take, as Ray counts them."""

from __future__ import annotations

from typing import Any

from .ray_runtime import CPU_DEVICE


def device_resource(device: str) -> str:
    """The Ray resource that a rank takes one of."""
    if device == "cuda":
        return "GPU"
    # A Ray that others started may not count devices on CPU; its own CPUs stand in.
    return CPU_DEVICE if CPU_DEVICE in resources()[0] else "CPU"


def actor_options(resource: str, count: float) -> dict[str, Any]:
    """Ray's options for an actor that takes `count` of the resource and nothing else."""
    if resource == "GPU":
        return {"num_cpus": 0, "num_gpus": count}
    if resource == "CPU":
        return {"num_cpus": count}
    return {"num_cpus": 0, "resources": {resource: count}}


def resources() -> tuple[dict[str, float], dict[str, float]]:
    """All resources of the cluster, and those that are free."""
    import ray

    ray_state: Any = ray
    return ray_state.cluster_resources(), ray_state.available_resources()
