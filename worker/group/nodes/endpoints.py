"""Where a rank on another node meets its leader, and by what both know each other."""

from __future__ import annotations

import msgspec


class RankKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank needs to prove that it belongs, and to know its leader. Z85 text, as ZeroMQ writes keys."""

    leader: str
    public: str
    secret: str

    def __repr__(self) -> str:
        return "RankKeys(...)"  # the secret must not get into a log


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Three addresses of the leader's, tcp://HOST:PORT."""

    control: str
    plans: str
    results: str
    keys: RankKeys
