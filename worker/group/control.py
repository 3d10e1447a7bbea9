"""The control link between the leader and its ranks: how a rank's start goes, the memory they share, and adapters.

On a node it is a Unix socket in the abstract namespace (nothing on disk), one datagram a message. When either side dies
the other sees the end of its connection. Between nodes the same messages go by nodes/door.py and nodes/line.py.
"""

from __future__ import annotations

import os
import socket
import struct

import msgspec

from ..execution.info import ModelInfo
from ..tiers.counts import PageCounts

MAX_MESSAGE = 64 * 1024


class Attach(msgspec.Struct, frozen=True, tag=True):
    """Rank to leader, first: here I am."""

    rank: int
    token: str
    pid: int


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Rank to leader: this share of its weights is loaded."""

    loaded: float


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """Rank to leader: the model is there, as `info` says, and room for this many pages."""

    room: PageCounts
    info: ModelInfo


class Allocate(msgspec.Struct, frozen=True, tag=True):
    """Leader to rank: make this many pages."""

    pages: PageCounts


class Allocated(msgspec.Struct, frozen=True, tag=True):
    """Rank to leader: waiting for plans."""


class Serving(msgspec.Struct, frozen=True, tag=True):
    """Leader to rank: from here on there are plans all the time, empty ones when there is nothing to do."""


class ReadAdapter(msgspec.Struct, frozen=True, tag=True):
    """Leader to rank, while it runs plans: read your part of this adapter into host memory, under this number."""

    number: int
    path: str


class AdapterRead(msgspec.Struct, frozen=True, tag=True):
    """Rank to leader: it is read, or why it is not."""

    number: int
    revision: str = ""
    highest_rank: int = 0
    error: str = ""


class Beat(msgspec.Struct, frozen=True, tag=True):
    """Between nodes only, both ways: I am there. A rank says how far it is, and its latest note, too."""

    mark: int = 0
    note: int = 0


class Stacks(msgspec.Struct, frozen=True, tag=True):
    """Leader to a rank on another node, where no signal reaches: write your stacks to your log."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Rank to leader, last: why it cannot go on. `config`: a person has to change the configuration or checkpoint."""

    message: str
    config: bool


Message = (
    Attach | Progress | Loaded | Allocate | Allocated | Serving | ReadAdapter | AdapterRead | Beat | Stacks | Failed
)
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    return _ENCODER.encode(message)


def decode(data: bytes) -> Message:
    """Raises msgspec.DecodeError for what is no message."""
    return _DECODER.decode(data)


def listen(name: str) -> socket.socket:
    """The leader's end, under `name` in the abstract namespace."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind("\0" + name)
    server.listen(128)
    return server


def connect(name: str) -> socket.socket:
    """A rank's end. Raises OSError when the leader is gone."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect("\0" + name)
    return client


def same_user(peer: socket.socket) -> bool:
    """Whether the peer runs under our user: the abstract namespace has no file permissions."""
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(uid == os.geteuid())


def send(peer: socket.socket, message: Message) -> None:
    peer.send(_ENCODER.encode(message))


def receive(peer: socket.socket) -> Message | None:
    """The next message; None at the end of the connection. Raises msgspec.ValidationError for what is none."""
    try:
        data = peer.recv(MAX_MESSAGE)
    except ConnectionResetError:
        return None
    return _DECODER.decode(data) if data else None


def send_fds(peer: socket.socket, reader: int, fds: list[int]) -> None:
    """Hands file descriptors over, of which the peer gets its own copies, and which reader of the ring it is."""
    socket.send_fds(peer, [bytes([reader])], fds)


def receive_fds(peer: socket.socket) -> tuple[int, list[int]]:
    """What `send_fds` sent; the descriptors are this process's own now. Raises EOFError when the peer is gone."""
    data, fds, _, _ = socket.recv_fds(peer, 16, 8)
    if not data:
        raise EOFError("the leader closed the control socket")
    return data[0], fds
