"""Submit messages into requests. Off the engine's thread, because checking and hashing a long prompt takes a while."""

from __future__ import annotations

from array import array

from ...core.blocks import KEY_BYTES, BlockKey
from ...core.errors import ContextTooLong, InvalidRequest
from ...core.sampling import BOUNDS, SamplingParams
from ...core.wire import sampling_from_proto
from ...proto.headway.v1 import engine_pb2
from ...proto.headway.v1.pooling_pb2 import POOLING_LAST, POOLING_MEAN
from ..scheduler import BASE, Limits, Request
from .constraints import check_ids, deadline_from, logprobs_from, priority_from, rules_from, sequence_from

NOTHING_SAMPLED = SamplingParams(temperature=0.0)
OPTIONAL = ("logprobs", "prompt_logprobs", "grammar")
NOT_OF_EMBEDDINGS = (
    *OPTIONAL,
    "min_new_tokens",
    "logit_bias",
    "allowed_token_ids",
    "bad_words",
    "eos_token_ids",
    "stop_token_ids",
)


def request_from(message: engine_pb2.Submit, session: int, limits: Limits, adapter: int = BASE) -> Request:
    """The request; `adapter` is the number by which the engine knows the one that it names.

    Raises InvalidRequest, ContextTooLong for what this engine could not run at any time.
    """
    prompt_tokens = len(message.token_ids) - message.delivered
    if prompt_tokens < 1:
        raise InvalidRequest(
            f"token_ids: {len(message.token_ids)} tokens, {message.delivered} of them delivered, leave no prompt",
            field="token_ids",
        )
    if message.pooling:
        _check_embedding(message, limits)
    else:
        _check_generation(message, prompt_tokens, limits)
    limits.check_fits(prompt_tokens, message.max_new_tokens)
    if len(message.cache_root) != KEY_BYTES:
        raise InvalidRequest(f"cache_root must be {KEY_BYTES} bytes, got {len(message.cache_root)}", field="cache_root")
    check_ids("token_ids", message.token_ids, limits.vocab_size)
    tokens = array("I", message.token_ids)
    logprobs, prompt_logprobs = logprobs_from(message)
    return Request(
        session=session,
        id=message.id,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        max_new_tokens=message.max_new_tokens,
        sampling=NOTHING_SAMPLED if message.pooling else _sampling(message),
        root=BlockKey(message.cache_root),
        page_size=limits.page_size,
        eos_token_ids=message.eos_token_ids,
        stop_token_ids=message.stop_token_ids,
        cache_bypass=message.cache_bypass or message.pooling == POOLING_MEAN,
        # An input to embed is numbered, too, and draws nothing: there may be more of them.
        sequence=0 if message.pooling else sequence_from(message),
        rules=rules_from(message, limits.vocab_size),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        priority=priority_from(message),
        deadline=deadline_from(message),
        pooling=message.pooling,
        adapter=adapter,
    )


def _check_generation(message: engine_pb2.Submit, prompt_tokens: int, limits: Limits) -> None:
    if message.max_new_tokens <= message.delivered:
        raise InvalidRequest(
            f"max_new_tokens must be above the {message.delivered} tokens delivered, got {message.max_new_tokens}",
            field="max_new_tokens",
        )
    if prompt_tokens >= limits.max_context_tokens:
        raise ContextTooLong(
            f"token_ids: {prompt_tokens} prompt tokens, and {limits.max_context_tokens} fit with the first new one",
            field="token_ids",
        )


def _check_embedding(message: engine_pb2.Submit, limits: Limits) -> None:
    if message.pooling not in (POOLING_LAST, POOLING_MEAN):
        raise InvalidRequest(f"pooling must be LAST or MEAN, got {message.pooling}", field="pooling")
    if message.delivered or message.max_new_tokens:
        raise InvalidRequest(
            f"max_new_tokens and delivered must be 0 for an embedding, got {message.max_new_tokens} and "
            f"{message.delivered}",
            field="max_new_tokens",
        )
    for name in NOT_OF_EMBEDDINGS:
        if message.HasField(name) if name in OPTIONAL else getattr(message, name):
            raise InvalidRequest(f"{name}: an embedding has none", field=name)
    if len(message.token_ids) > limits.max_context_tokens:
        raise ContextTooLong(
            f"token_ids: {len(message.token_ids)} tokens, and {limits.max_context_tokens} fit", field="token_ids"
        )


def _sampling(message: engine_pb2.Submit) -> SamplingParams:
    """Its sampling, every scalar set and inside the bounds: a NaN must not reach the ranks."""
    for name in BOUNDS:
        if not message.sampling.HasField(name):
            raise InvalidRequest(f"sampling.{name} must be set", field=f"sampling.{name}")
    params = sampling_from_proto(message.sampling, SamplingParams())
    for name, bound in BOUNDS.items():
        if not bound.holds(getattr(params, name)):
            raise InvalidRequest(
                f"sampling.{name} must be {bound}, got {getattr(params, name)}", field=f"sampling.{name}"
            )
    return params
