"""Plans to ranks on other nodes, and the sampling rank's results back.

Both are bounded: who writes waits for room, as in the ring, until a deadline. ZeroMQ drops what is under way when a
connection breaks, so that every message carries its number, and a reader that misses one fails instead of going on.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import zmq

from .liveness import LONGEST_S

DEPTH = 64
"""Messages that may wait on each side of a connection: far more than plans are ever out at once."""
PAUSE_S = 0.0002
NUMBER = 8
"""Bytes before each message: its number, little-endian."""


class MessageLost(RuntimeError):
    """A message between two nodes did not arrive. The rank has to end, and with it its group."""


def identity(rank: int) -> bytes:
    """How a rank's sockets are named to the leader's."""
    return b"rank %d" % rank


class PlanSender:
    """The leader's end: every plan to every one of `ranks`. One thread uses it. The socket is a bound ROUTER."""

    def __init__(self, socket: zmq.Socket[bytes], ranks: Sequence[int]) -> None:
        self._socket = socket
        self._names = [identity(rank) for rank in ranks]
        self._numbers = itertools.count()

    def write(self, message: bytes, timeout_s: float) -> None:
        """Sends a message. Raises TimeoutError when a rank is not there, or makes no room, in time."""
        deadline = time.monotonic() + timeout_s
        numbered = _number(next(self._numbers)) + message
        for name in self._names:
            while not self._sent([name, numbered]):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name.decode()}, on another node, takes no plan")
                time.sleep(PAUSE_S)

    def _sent(self, frames: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:  # not connected yet, or no more: the control link tells which
                raise
            return False
        return True

    def close(self) -> None:
        self._socket.close(linger=1000)  # the last plan says to leave


class Receiver:
    """A reading end: a rank's plans, or the leader's results. One thread uses it."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._numbers = itertools.count()

    def read(self) -> bytes:
        """The next message. Blocks until there is one. Raises MessageLost when one is missing before it."""
        data = self._socket.recv()
        due, came = next(self._numbers), int.from_bytes(data[:NUMBER], "little")
        if came != due:
            raise MessageLost(f"message {due} between two nodes is lost: {came} came")
        return data[NUMBER:]

    def waiting(self) -> bool:
        """Whether the next message is there."""
        return bool(self._socket.poll(0))

    def close(self) -> None:
        self._socket.close(linger=0)


class ResultSender:
    """The sampling rank's end. One thread uses it. The socket is a connected PUSH."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._numbers = itertools.count()

    def write(self, message: bytes, timeout_s: float) -> None:
        """Sends a message. Raises TimeoutError when the leader makes no room in time."""
        if not self._socket.poll(int(min(timeout_s, LONGEST_S) * 1000), zmq.POLLOUT):
            raise TimeoutError("the leader, on another node, takes no result")
        self._socket.send(_number(next(self._numbers)) + message)

    def close(self) -> None:
        self._socket.close(linger=1000)


def _number(number: int) -> bytes:
    return number.to_bytes(NUMBER, "little")
