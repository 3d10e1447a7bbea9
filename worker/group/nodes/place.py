"""Where a process is: which others share its memory and process ids, and how those that do not reach it."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

from ....core.errors import ConfigError

NODE_ADDRESS = "HEADWAY_NODE_ADDRESS"
"""The environment variable that names the address by which other nodes reach this one, where there are several."""


def this_node() -> str:
    """Two processes are on one node when this is the same in both: then sockets of Unix, memory and pids are shared.

    So two containers on one machine are two nodes, and a machine with two addresses, one for each group of its
    processes, may play two.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    spaces = [os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("net", "pid")]  # noqa: PTH116
    return "/".join([boot, *map(str, spaces), os.environ.get(NODE_ADDRESS, "")])


def address_of_node(found: str) -> str:
    """The address to listen on for other nodes: HEADWAY_NODE_ADDRESS, or `found`. Raises ConfigError for none."""
    address = os.environ.get(NODE_ADDRESS, found)
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise ConfigError(f"{NODE_ADDRESS} must be an IP address, got {address!r}") from None
    if parsed.is_unspecified:
        raise ConfigError(f"{NODE_ADDRESS} must be one address of this node, got {address!r}, which stands for all")
    return address


def free_port(address: str) -> int:
    """A port of this node's `address` that was free a moment ago. Raises ConfigError when the address is not ours."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise ConfigError(f"cannot listen on {address}, the address for ranks on other nodes: {error}") from None
        port: int = probe.getsockname()[1]
        return port


def in_url(address: str) -> str:
    """The address as a URL has it: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address
