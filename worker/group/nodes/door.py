"""The leader's end of the control links to ranks on other nodes: one socket for all of them."""

from __future__ import annotations

import hmac
import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import zmq

from .. import control
from .channels import identity

log = logging.getLogger(__name__)


class Door:
    """Only the watching thread uses the socket, a bound ROUTER; `send` is for any thread.

    A rank is lost when its connection has ended, be it that its process did, that its node is cut off or that it no
    longer answers heartbeats: what is sent to it then has no way to go.
    """

    def __init__(self, socket: zmq.Socket[bytes], token: str) -> None:
        self._socket = socket
        self._token = token
        self._outbox: deque[tuple[int, control.Message]] = deque()
        self._ranks: dict[bytes, int] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def fds(self) -> tuple[int, int]:
        """Readable when there may be something for `receive` to do. Call it now and then all the same: ZeroMQ's
        descriptor tells of changes only."""
        return int(self._socket.fd), self._wake

    def send(self, rank: int, message: control.Message) -> None:
        """Any thread: has the message sent at the next `receive`."""
        self._outbox.append((rank, message))
        os.eventfd_write(self._wake, 1)

    def flush(self) -> None:
        """Sends what is to be sent."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._outbox:
            self._sent(*self._outbox.popleft())

    def receive(self) -> Iterator[tuple[int, control.Message]]:
        """Sends what is to be sent, and gives what has come from ranks that proved themselves, Attach first."""
        self.flush()
        while True:
            try:
                name, data = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except ValueError:
                log.warning("a message of the wrong number of parts came over the control link")
                continue
            yield from self._heard(name, data)

    def lost(self) -> list[int]:
        """The attached ranks whose connection has ended."""
        return [rank for rank in self._ranks.values() if not self._sent(rank, control.Beat())]

    def close(self) -> None:
        self._socket.close(linger=0)
        os.close(self._wake)

    def _heard(self, name: bytes, data: bytes) -> Iterator[tuple[int, control.Message]]:
        try:
            message = control.decode(data)
        except msgspec.DecodeError as error:
            log.warning("what %r sent over the control link is no message: %s", name, error)
            return
        rank = self._ranks.get(name)
        if rank is None:
            proven = isinstance(message, control.Attach) and hmac.compare_digest(message.token, self._token)
            if not proven or name != identity(message.rank):  # type: ignore[union-attr]
                log.warning("a stranger connected to the control link")
                return
            rank = self._ranks[name] = message.rank  # type: ignore[union-attr]
        yield rank, message

    def _sent(self, rank: int, message: control.Message) -> bool:
        try:
            self._socket.send_multipart([identity(rank), control.encode(message)], zmq.NOBLOCK)
        except zmq.Again:
            return True  # it reads too slowly, which whoever waits for its answer will notice
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True
