"""Log probabilities of tokens, as the client's values."""

from __future__ import annotations

import msgspec

from ..proto.headway.v1 import inference_pb2 as pb


class Logprob(msgspec.Struct, frozen=True):
    """A token and the natural logarithm of its probability by the model: before penalties, constraints, temperature.

    `utf8` are the token's bytes by themselves. They need not be whole characters; `text` has U+FFFD for what is none.
    """

    token_id: int
    logprob: float
    text: str
    utf8: bytes


class TokenLogprob(Logprob, frozen=True):
    """The token that came, and in `top` the likeliest ones at its place, best first, as many as asked for."""

    top: list[Logprob] = []


def read_logprob(message: pb.TokenLogprob) -> TokenLogprob:
    token, top = message.token, message.top
    return TokenLogprob(*_fields(token), [Logprob(*_fields(entry)) for entry in top])


def _fields(entry: pb.LogprobEntry) -> tuple[int, float, str, bytes]:
    return entry.token_id, entry.logprob, entry.text.decode(errors="replace"), entry.text
