"""The ports of a cluster, and the health of the one that runs."""

from __future__ import annotations

import socket

from ...core.errors import HeadwayError
from .. import target
from .finding import Finding, fail, ok, warn

# http, grpc, admin, admin grpc: the ports that `headway up` takes by itself.
PORTS = (8000, 8001, 8002, 8003)


def ports() -> Finding:
    """Whether the usual ports are free, or held by the cluster that runs here."""
    taken = [port for port in PORTS if not _free(port)]
    if not taken:
        return ok("ports", f"{PORTS[0]} to {PORTS[-1]} are free")
    names = ", ".join(map(str, taken))
    if set(taken) <= _ports_of_the_cluster():
        return ok("ports", f"{names} are held by the cluster that runs here")
    return warn("ports", f"{names} taken by another program", "Start with other ports: headway up --port 9000")


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _ports_of_the_cluster() -> set[int]:
    try:
        cluster = target.local_cluster()
    except ValueError:
        return set()
    addresses = [cluster.grpc, cluster.http, cluster.admin, cluster.admin_grpc] if cluster else []
    found = (address.rstrip("/").rpartition(":")[2] for address in addresses)
    return {int(port) for port in found if port.isdecimal()}


def running() -> Finding:
    """Whether the cluster that runs here answers, and has replicas that take requests."""
    from ...client import Headway, Retry

    try:
        cluster = target.local_cluster()
        if cluster is None:
            return ok("cluster", "none runs here; `headway up` starts one")
        with Headway(cluster.grpc, timeout=5, retry=Retry(attempts=1)) as headway:
            models = headway.models()
    except (HeadwayError, ValueError) as error:
        return fail("cluster", str(error), "Clean up with `headway down`, then start again with `headway up`.")
    served = ", ".join(f"{model.name} ({model.ready_replicas} ready)" for model in models)
    if not any(model.ready_replicas for model in models):
        return fail("cluster", served or "serves no model", "See `headway status`, and the logs that it names.")
    return ok("cluster", f"{cluster.grpc} serves {served}")
