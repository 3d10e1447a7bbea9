"""How soon the two ends of a connection between nodes learn that the other is gone, stopped, or cut off."""

from __future__ import annotations

import zmq

LONGEST_S = 86_400.0
"""ZeroMQ takes no timeout whatever."""
LONGEST_PROBES_S = 120.0
PROBES = 3


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


def keep_alive(socket: zmq.Socket[bytes], timeout_s: float) -> None:
    """TCP's own probes on a connection for plans or results, which may be idle for long: nothing on the way forgets it,
    and one that is broken without a word is found in about `timeout_s`, in whole seconds.

    Not ZeroMQ's heartbeats: a socket whose queue is full hears none, and would end a connection that is only busy.
    """
    interval_s = max(1, int(min(timeout_s, LONGEST_PROBES_S) / (PROBES + 1)))
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = interval_s
    socket.tcp_keepalive_intvl = interval_s
    socket.tcp_keepalive_cnt = PROBES
