"""The network interface by which this process reaches another: the one that gloo and NCCL have to use for tensors."""

from __future__ import annotations

import os
import socket

import psutil


def interface_to(host: str) -> str | None:
    """Name of the interface on the kernel's route to the IP address `host`; None when there is no telling."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # UDP: nothing is sent, but the kernel chooses
            own = probe.getsockname()[0]
        except OSError:
            return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.family == family and address.address.partition("%")[0] == own for address in addresses):
            return name
    return None


def use_route_to(host: str) -> None:
    """Has gloo and NCCL take that interface, unless GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME name one.

    By themselves they take an interface that may be another one than the nodes have in common.
    """
    name = interface_to(host)
    if name is None:
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    if name != "lo":
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # "=": this one, none that begins so
