"""Whether ports are free, found out before anything is started."""

from __future__ import annotations

import socket

from ...core.errors import ConfigError


def check_free(ports: dict[str, int], host: str = "127.0.0.1") -> None:
    """Raises ConfigError that names the port which somebody else listens on."""
    for name, port in ports.items():
        if port == 0:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ConfigError(
                    f"port {port} of {host} ({name.replace('_', ' ')}) is taken ({error.strerror}): choose others with "
                    "--port, or any free ones with --port 0"
                ) from None
