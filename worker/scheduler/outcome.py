"""What a step meant for a request, and when a request has ended."""

from __future__ import annotations

from typing import NamedTuple

from ...core.errors import HeadwayError, Internal, InvalidRequest
from ...proto.headway.v1.sampling_pb2 import (
    FINISH_REASON_CONTEXT,
    FINISH_REASON_EOS,
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    FinishReason,
)
from ..plan import NONE_ALLOWED, NOT_A_NUMBER, PlaceLogprobs
from .request import Request


class Outcome(NamedTuple):
    """New tokens of one request; `finish` is FINISH_REASON_UNSPECIFIED while it goes on.

    With `error` it ends so, and not with a finish reason. `embedding` is little-endian float32.
    `logprobs` are of the new tokens, `prompt_logprobs` come with the first one.
    """

    request: Request
    token_ids: list[int]
    finish: FinishReason
    stop_token_id: int | None = None
    error: HeadwayError | None = None
    embedding: bytes = b""
    logprobs: PlaceLogprobs | None = None
    prompt_logprobs: PlaceLogprobs | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes for this request."""
        return self.error is not None or self.finish != FINISH_REASON_UNSPECIFIED


def take_sample(request: Request, token: int, max_context_tokens: int) -> Outcome:
    """What a sampled token means, or the reason why there is none (worker/plan.py)."""
    if token == NOT_A_NUMBER:
        return _failed(request, Internal("the model's logits were not finite"))
    if token == NONE_ALLOWED:
        message = f"constraints: after {request.output_tokens} tokens of output they leave none to go on with"
        return _failed(request, InvalidRequest(message, field="constraints"))
    return take_token(request, token, max_context_tokens)


def _failed(request: Request, error: HeadwayError) -> Outcome:
    return Outcome(request, [], FINISH_REASON_UNSPECIFIED, error=error)


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
