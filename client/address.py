"""Where the cluster's gRPC front is."""

from __future__ import annotations

SCHEMES = ("grpc://", "dns:///")


def check_address(address: str) -> str:
    """The gRPC target of `host:port`. Raises ValueError with what to write instead."""
    if address.startswith(("http://", "https://")):
        raise ValueError(
            f"{address!r} is a URL of the HTTP front; the client speaks gRPC: give HOST:PORT of the gRPC one"
        )
    for scheme in SCHEMES:
        address = address.removeprefix(scheme)
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"address must be HOST:PORT with a port from 1 to 65535, got {address!r}")
    return address
