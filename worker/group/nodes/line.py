"""A rank's end of the control link to a leader on another node."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from .. import control
from ..errors import EXIT_LEADER_GONE
from ..process import dump_stacks

CONNECT_S = 10.0
LINGER_MS = 1000
_ENDED = (
    zmq.EVENT_DISCONNECTED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_CLOSED,
    zmq.EVENT_CLOSE_FAILED,
)


class Line:
    """A thread owns the socket, a DEALER that does not reconnect. It ends this process when the leader is gone, cut off
    or no longer answers heartbeats, and tells the leader now and then how far the rank is."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str, tick_s: float) -> None:
        """Connects. Raises OSError when the leader cannot be reached or does not accept our keys."""
        self._socket = socket
        self._tick_ms = max(1, int(tick_s * 1000))
        self._monitor: Any = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | sum(_ENDED))
        socket.connect(endpoint)
        self._wait_connected(endpoint)
        self._inbox: SimpleQueue[control.Message] = SimpleQueue()
        self._outbox: deque[control.Message] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._mark = self._note = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="headway-control", daemon=True)
        self._thread.start()

    def send(self, message: control.Message) -> None:
        """Any thread."""
        self._outbox.append(message)
        os.eventfd_write(self._wake, 1)

    def receive(self) -> control.Message:
        """The next message. Blocks until there is one."""
        return self._inbox.get()

    def mark(self, number: int) -> None:
        """How far the rank's own work is. The leader learns of it a little later, and maybe not of each number."""
        self._mark = number

    def note(self, number: int) -> None:
        """Something else to tell the leader soon, from any thread."""
        self._note = number
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Sends what is left, for a second at most."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=LINGER_MS)
        os.close(self._wake)

    def _wait_connected(self, endpoint: str) -> None:
        while self._monitor.poll(int(CONNECT_S * 1000)):
            if recv_monitor_message(self._monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return
            raise ConnectionError(f"the leader at {endpoint} cannot be reached, or refuses us")
        raise TimeoutError(f"the leader at {endpoint} does not answer")

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._socket, self._monitor, self._wake):
            poller.register(source, zmq.POLLIN)
        said = (0, 0)
        while not self._closing or self._outbox:
            events = dict(poller.poll(self._tick_ms))
            if self._monitor in events:
                os._exit(EXIT_LEADER_GONE)
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            while self._socket.poll(0):
                self._heard(control.decode(self._socket.recv()))
            while self._outbox and self._sent(self._outbox[0]):
                self._outbox.popleft()
            if (now := (self._mark, self._note)) != said and self._sent(control.Beat(*now)):
                said = now

    def _sent(self, message: control.Message) -> bool:
        """Without waiting: a connection that has just ended makes no room again, and the poll tells of it."""
        try:
            self._socket.send(control.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _heard(self, message: control.Message) -> None:
        match message:
            case control.Beat():  # the connection itself tells when the leader is gone
                pass
            case control.Stacks():
                dump_stacks()
            case _:
                self._inbox.put(message)
