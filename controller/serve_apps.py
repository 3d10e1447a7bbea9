"""Worker groups as Ray Serve applications: one application a group, one Serve replica each, no proxies.

Serve is the supervisor only: it places the group, sees its leader die and starts it again. No request passes it.
"""

from __future__ import annotations

import asyncio

import msgspec

from ..core.specs import GroupSpec
from .devices import actor_options, device_resource, resources

APP_PREFIX = "headway-group-"
DEPLOYMENT = "group"
POLL_S = 0.1
HEALTH_PERIOD_S = 1.0
HEALTH_TIMEOUT_S = 10.0
SHUTDOWN_S = 10.0


class ServeSupervisor:
    """Meets GroupSupervisor on the Ray that this process is connected to. Calls run in threads: Ray's block."""

    def __init__(self) -> None:
        # Serve's way of describing a deployment does not bear two threads.
        self._deploying = asyncio.Lock()

    async def start(self, spec: GroupSpec) -> None:
        async with self._deploying:
            await asyncio.to_thread(_deploy, spec)

    async def stop(self, replica_id: str) -> None:
        if await asyncio.to_thread(_delete, replica_id):
            # Serve tells nobody when an application is gone.
            while replica_id in await self.held():  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)

    async def held(self) -> set[str]:
        return await asyncio.to_thread(_held)

    async def shortage(self, spec: GroupSpec) -> str:
        return await asyncio.to_thread(_shortage, spec)


def _deploy(spec: GroupSpec) -> None:
    from ray import serve
    from ray.serve.api import RunTarget

    from .served_group import ServedGroup

    resource = device_resource(spec.device)
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=1,
        # One bundle a stage: a stage's ranks are on one node, and stages on as few nodes as have room for them. The
        # first rank runs beside the leader, in the Serve replica's own bundle.
        placement_group_bundles=[{resource: float(spec.tp)} for _ in range(spec.pp)],
        placement_group_strategy="PACK",
        ray_actor_options=actor_options(resource, 1.0),
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=SHUTDOWN_S,
        graceful_shutdown_wait_loop_s=POLL_S,
    )(ServedGroup)
    target = RunTarget(
        target=deployment.bind(msgspec.json.encode(spec), resource),
        name=APP_PREFIX + spec.replica_id,
        route_prefix=None,
    )
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def _delete(replica_id: str) -> bool:
    from ray import serve

    if replica_id not in _held():
        return False
    serve.delete(APP_PREFIX + replica_id, _blocking=False)
    return True


def _held() -> set[str]:
    from ray import serve

    names = serve.status().applications
    return {name.removeprefix(APP_PREFIX) for name in names if name.startswith(APP_PREFIX)}


def _shortage(spec: GroupSpec) -> str:
    """Reads the placement group that Serve made for the replica: while Ray cannot place it, devices are missing."""
    from ray.util import placement_group_table

    mark = f"#{APP_PREFIX}{spec.replica_id}#"
    waiting = [
        group
        for group in placement_group_table().values()
        if mark in f"#{group['name'].replace('::', '#')}#" and group["state"] in ("PENDING", "INFEASIBLE")
    ]
    if not waiting:
        return ""
    resource = device_resource(spec.device)
    total, free = (each.get(resource, 0) for each in resources())
    kind = "GPUs" if resource == "GPU" else "devices"
    nodes = "on one node" if spec.pp == 1 else f"{spec.tp} of them on one node for each stage"
    return f"waits for {spec.world_size} {kind} (tp {spec.tp} x pp {spec.pp}), {nodes}; {free:g} of {total:g} are free"
