"""CURVE keys of one start of a group: who has none can neither read its plans nor send it any.

The leader makes them and hands a rank its part on the way by which it starts it. They are never written anywhere.
"""

from __future__ import annotations

from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from .endpoints import RankKeys

DOMAIN = "headway"


class LeaderKeys:
    """The leader's own pair, and the one that all of its ranks use."""

    def __init__(self) -> None:
        self._public, self._secret = zmq.curve_keypair()
        rank_public, rank_secret = (key.decode() for key in zmq.curve_keypair())
        self.rank = RankKeys(leader=self._public.decode(), public=rank_public, secret=rank_secret)

    def guard(self, context: zmq.Context[Any]) -> ThreadAuthenticator:
        """Starts to admit only our ranks to the context's sockets that are set to `serve`. The caller stops it."""
        guard = ThreadAuthenticator(context)
        guard.configure_curve_callback(DOMAIN, self)
        guard.start()
        return guard

    def callback(self, domain: str, key: bytes) -> bool:
        """Asked by ZeroMQ for everybody who connects."""
        return domain == DOMAIN and key.decode() == self.rank.public

    def serve(self, socket: zmq.Socket[bytes]) -> None:
        """Before it is bound."""
        socket.curve_server = True
        socket.curve_secretkey = self._secret
        socket.curve_publickey = self._public
        socket.zap_domain = DOMAIN.encode()


def prove(socket: zmq.Socket[bytes], keys: RankKeys) -> None:
    """On a rank's socket, before it is connected."""
    socket.curve_serverkey = keys.leader.encode()
    socket.curve_publickey = keys.public.encode()
    socket.curve_secretkey = keys.secret.encode()
