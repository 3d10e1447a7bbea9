"""What a step meant for a request, and when a request has ended."""

from __future__ import annotations

from typing import NamedTuple

from ...proto.headway.v1.sampling_pb2 import (
    FINISH_REASON_CONTEXT,
    FINISH_REASON_EOS,
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    FinishReason,
)
from .request import Request


class Outcome(NamedTuple):
    """New tokens of one request; `finish` is FINISH_REASON_UNSPECIFIED while it goes on."""

    request: Request
    token_ids: list[int]
    finish: FinishReason
    stop_token_id: int | None = None


def take_token(request: Request, token: int, max_context_tokens: int) -> Outcome:
    """Appends a sampled token and says whether it ends the request."""
    request.tokens.append(token)
    if token in request.eos_token_ids:
        return Outcome(request, [token], FINISH_REASON_EOS, token)
    if token in request.stop_token_ids:
        return Outcome(request, [token], FINISH_REASON_STOP, token)
    if len(request.tokens) >= max_context_tokens:
        return Outcome(request, [token], FINISH_REASON_CONTEXT)
    if request.output_tokens >= request.max_new_tokens:
        return Outcome(request, [token], FINISH_REASON_LENGTH)
    return Outcome(request, [token], FINISH_REASON_UNSPECIFIED)
