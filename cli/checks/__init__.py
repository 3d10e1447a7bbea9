"""What `headway doctor` looks at, a function each; `ALL` in the order of the report."""

from __future__ import annotations

from collections.abc import Callable

from . import cluster, machine, software
from .finding import Finding, Verdict

ALL: tuple[Callable[[], Finding], ...] = (
    software.python,
    software.packages,
    software.torch_devices,
    software.cpu_operations,
    software.attention,
    machine.cores,
    machine.memory,
    machine.shared_memory,
    machine.disk,
    machine.open_files,
    machine.proxies,
    cluster.ports,
    cluster.running,
    software.redis_server,
    software.browser,
)

__all__ = ["ALL", "Finding", "Verdict"]
