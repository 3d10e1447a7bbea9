"""How soon the two ends of a connection between nodes learn that the other is gone, stopped, or cut off."""

from __future__ import annotations

import zmq

LONGEST_S = 86_400.0
"""ZeroMQ takes no timeout whatever."""


def beat(socket: zmq.Socket[bytes], timeout_s: float) -> None:
    """Heartbeats on a control socket: whoever hears nothing for `timeout_s` ends the connection.

    ZeroMQ's own thread sends and answers them, which a busy interpreter does not hold up; a process that is stopped, or
    on a node that is cut off, does not answer. A process that ends is known at once, without them.
    """
    timeout_s = min(timeout_s, LONGEST_S)
    interval = min(1.0, timeout_s / 4)
    socket.heartbeat_ivl = max(1, int(interval * 1000))
    socket.heartbeat_timeout = max(1, int((timeout_s - interval) * 1000))
    socket.handshake_ivl = max(1000, int(timeout_s * 1000))
