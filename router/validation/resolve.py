"""From a checked request and its prompt's token ids to what an engine is sent, with every default resolved."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence

import msgspec

from ...core.constraints import TokenRules
from ...core.errors import ContextTooLong, InvalidRequest
from ..types import EngineRequest, ServedModel
from .constraints import check_prompt_values, refusal
from .request import UserRequest

SEED_BITS = 63  # of a seed that the server draws: fits the signed integers of every client language


def resolve(
    request: UserRequest,
    model: ServedModel,
    token_ids: list[int],
    *,
    bad_words: Sequence[Sequence[int]] = (),
    deadline: float | None = None,
) -> EngineRequest:
    """Checks what depends on the model, then resolves. `bad_words` are those of the request in token ids.

    Raises InvalidRequest for ids outside the vocabulary and for limits outside the context, ContextTooLong when the
    prompt leaves no room for a token.
    """
    names = request.names
    check_token_ids(token_ids, model.vocab_size, names["prompt"])
    check_token_ids(request.stop_token_ids, model.vocab_size, names["stop_token_ids"])
    check_token_ids(request.allowed_token_ids or (), model.vocab_size, names["allowed_token_ids"])
    check_bias_ids(request, model.vocab_size)
    check_prompt_values(request, len(token_ids))
    room = model.max_context_tokens - len(token_ids)
    if room < 1:
        raise context_too_long(request, model, str(len(token_ids)))
    if request.max_new_tokens is not None and request.max_new_tokens > room:
        field = names["max_new_tokens"]
        raise InvalidRequest(
            f"{field} must be at most {room}, got {request.max_new_tokens}: the prompt has {len(token_ids)} tokens "
            f"and the model's context {model.max_context_tokens}",
            field=field,
        )
    most = request.max_new_tokens or min(room, request.usual_new_tokens or room)
    if request.min_new_tokens > most:
        what = f"must be at most {most}, the limit on new tokens, got {request.min_new_tokens}"
        raise refusal(request, "min_new_tokens", what)
    sampling = msgspec.structs.replace(model.default_sampling, seed=random.getrandbits(SEED_BITS))
    if request.sampling:
        sampling = msgspec.structs.replace(sampling, **request.sampling)
    return EngineRequest(
        request_id=request.request_id or uuid.uuid4().hex,
        model=model.name,
        token_ids=token_ids,
        sampling=sampling,
        max_new_tokens=most,
        eos_token_ids=() if request.ignore_eos else model.eos_token_ids,
        stop_token_ids=tuple(request.stop_token_ids),
        cache_salt=request.cache_salt,
        cache_bypass=request.cache_bypass,
        rules=_rules(request, bad_words),
        grammar=request.grammar,
        logprobs=request.logprobs,
        prompt_logprobs=request.prompt_logprobs,
        priority=request.priority,
        deadline=deadline,
    )


def _rules(request: UserRequest, bad_words: Sequence[Sequence[int]]) -> TokenRules:
    return TokenRules(
        logit_bias=tuple(sorted(request.logit_bias.items())),
        allowed=tuple(sorted(set(request.allowed_token_ids or ()))),
        bad_words=tuple(map(tuple, bad_words)),
        min_new_tokens=request.min_new_tokens,
    )


def check_bias_ids(request: UserRequest, vocab_size: int) -> None:
    """Raises InvalidRequest naming the first id of logit_bias outside the vocabulary."""
    for token_id in request.logit_bias:
        if not 0 <= token_id < vocab_size:
            what = f"is no token id: at least 0 and below {vocab_size} (the vocabulary)"
            raise refusal(request, f"logit_bias[{token_id}]", what)


def check_token_ids(token_ids: Sequence[int], vocab_size: int, field: str, first: int = 0) -> None:
    """Raises InvalidRequest naming the first id outside the vocabulary; `first` is the index of the first one given."""
    # max and min run in C; the search for the culprit only when there is one.
    if token_ids and (max(token_ids) >= vocab_size or min(token_ids) < 0):
        index, bad = next((i, t) for i, t in enumerate(token_ids, first) if not 0 <= t < vocab_size)
        raise InvalidRequest(
            f"{field}[{index}] must be at least 0 and below {vocab_size} (the vocabulary), got {bad}",
            field=f"{field}[{index}]",
        )


def context_too_long(request: UserRequest, model: ServedModel, tokens: str) -> ContextTooLong:
    """The refusal of a prompt of `tokens` tokens (a number, or words for one)."""
    field = request.names["messages" if request.chat else "prompt"]
    return ContextTooLong(
        f"{field} has {tokens} tokens; the model's context of {model.max_context_tokens} leaves room for at most "
        f"{model.max_context_tokens - 1} and one new token",
        field=field,
    )
