"""Both ends of all that a group needs between nodes, made at once: `Exchange` by the leader, `Outpost` by a rank."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from .channels import DEPTH, PlanSender, Receiver, ResultSender, identity
from .curve import LeaderKeys, prove
from .door import Door
from .endpoints import Endpoints
from .line import Line
from .liveness import beat, keep_alive
from .place import in_url


class Exchange:
    """The leader's: three ports of `address`, chosen by the kernel. Raises OSError when it cannot listen there."""

    def __init__(self, address: str, token: str, timeout_s: float) -> None:
        keys = LeaderKeys()
        self._context = zmq.Context()
        self._guard = keys.guard(self._context)
        try:
            door = self._bind(zmq.ROUTER, address, keys, timeout_s)
            self._plans = self._bind(zmq.ROUTER, address, keys, timeout_s, beats=False)
            results = self._bind(zmq.PULL, address, keys, timeout_s, beats=False)
        except zmq.ZMQError as error:
            self._guard.stop()
            self._context.destroy(linger=0)
            raise OSError(f"cannot listen on {address}: {error}") from None
        self.endpoints = Endpoints(
            control=_endpoint(door), plans=_endpoint(self._plans), results=_endpoint(results), keys=keys.rank
        )
        self.door = Door(door, token)
        self.results = Receiver(results)

    def plans(self, ranks: Sequence[int]) -> PlanSender:
        """To the ranks that turned out to be on other nodes. Once."""
        return PlanSender(self._plans, ranks)

    def close(self) -> None:
        """After the threads that use its parts have ended. Waits a second at most for what is not sent yet."""
        self._plans.close(linger=1000)
        self.results.close()
        self.door.close()
        self._guard.stop()
        self._context.term()

    def _bind(
        self, kind: zmq.SocketType, address: str, keys: LeaderKeys, timeout_s: float, *, beats: bool = True
    ) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        keys.serve(socket)
        socket.ipv6 = ":" in address
        if kind == zmq.ROUTER:
            socket.router_mandatory = True
        if beats:
            beat(socket, timeout_s)
        else:
            socket.set_hwm(DEPTH)
            keep_alive(socket, timeout_s)
        socket.bind(f"tcp://{in_url(address)}:*")
        return socket


class Outpost:
    """A rank's: meets Attachment. Raises OSError when the leader cannot be reached or does not know us."""

    def __init__(self, ends: Endpoints, rank: int, timeout_s: float, *, samples: bool) -> None:
        self._context = zmq.Context()
        self._rank = rank
        self._keys = ends.keys
        self._timeout_s = timeout_s
        line = self._socket(zmq.DEALER)
        beat(line, timeout_s)
        self._line = Line(line, ends.control, min(0.25, timeout_s / 8))
        self._plans = Receiver(self._connect(zmq.DEALER, ends.plans))
        self._results = ResultSender(self._connect(zmq.PUSH, ends.results)) if samples else None
        self.send, self.receive = self._line.send, self._line.receive
        self.mark, self.note = self._line.mark, self._line.note
        self.read_plan, self.plan_waiting = self._plans.read, self._plans.waiting

    def write_result(self, message: bytes, timeout_s: float) -> None:
        assert self._results is not None
        self._results.write(message, timeout_s)

    def close(self) -> None:
        """Sends what is left, for a second at most."""
        self._plans.close()
        if self._results is not None:
            self._results.close()
        self._line.close()
        self._context.term()

    def _connect(self, kind: zmq.SocketType, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._socket(kind)
        socket.set_hwm(DEPTH)
        keep_alive(socket, self._timeout_s)
        socket.connect(endpoint)
        return socket

    def _socket(self, kind: zmq.SocketType) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        prove(socket, self._keys)
        socket.ipv6 = True
        socket.routing_id = identity(self._rank)
        socket.reconnect_ivl = -1  # what was under way is lost: the group ends, and starts again as a whole
        return socket


def _endpoint(socket: zmq.Socket[bytes]) -> str:
    endpoint = socket.last_endpoint
    assert isinstance(endpoint, bytes)
    return endpoint.decode()
