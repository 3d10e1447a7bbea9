"""The message that puts a request, as far as it got, on a replica."""

from __future__ import annotations

import asyncio
from typing import cast

from google.protobuf.duration_pb2 import Duration

from ...core.wire import grammar_to_proto, sampling_to_proto
from ...proto.headway.v1 import engine_pb2, pooling_pb2
from .live import LiveRequest


def submit_message(live: LiveRequest, submit_id: int, cache_root: bytes) -> engine_pb2.Submit:
    """`Submit` with the prompt, the output so far, and everything that shapes the rest."""
    request = live.request
    rules = request.rules
    message = engine_pb2.Submit(
        id=submit_id,
        token_ids=live.known_tokens,
        delivered=len(live.received),
        sampling=sampling_to_proto(request.sampling),
        max_new_tokens=request.max_new_tokens,
        eos_token_ids=request.eos_token_ids,
        stop_token_ids=request.stop_token_ids,
        cache_root=cache_root,
        cache_bypass=request.cache_bypass,
        request_id=request.request_id,
        sequence=request.sequence,
        min_new_tokens=rules.min_new_tokens,
        logit_bias=dict(rules.logit_bias),
        allowed_token_ids=rules.allowed,
        bad_words=[engine_pb2.TokenSequence(ids=ids) for ids in rules.bad_words],
        grammar=None if request.grammar is None else grammar_to_proto(request.grammar),
        logprobs=request.logprobs,
        priority=request.priority,
        time_left=_time_left(request.deadline),
        pooling=cast("pooling_pb2.Pooling", request.pooling),
    )
    # The prompt's are told with the first output; a request that moved afterwards has them.
    if request.prompt_logprobs is not None and not live.received:
        message.prompt_logprobs = request.prompt_logprobs
    return message


def _time_left(deadline: float | None) -> Duration | None:
    if deadline is None:
        return None
    left = Duration()
    left.FromNanoseconds(max(0, int((deadline - asyncio.get_running_loop().time()) * 1e9)))
    return left
