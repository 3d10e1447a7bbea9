"""Answers with the log probabilities that were asked for."""

from __future__ import annotations

from typing import Any

from headway.proto.headway.v1 import sampling_pb2
from headway.router.types import EngineRequest, TokenChunk
from headway.tests.fronts.support.scripted_replicas import chunk, place

LENGTH = sampling_pb2.FINISH_REASON_LENGTH


def with_logprobs(
    request: EngineRequest, ids: list[int], finish: sampling_pb2.FinishReason = LENGTH
) -> list[TokenChunk]:
    """A chunk a token, each with the log probabilities that were asked for: -0.5 its own, -1, -2... of ids 300 on."""

    def places(ids: list[int], top: int | None) -> dict[str, Any]:
        others = [(300 + rank, -1.0 - rank) for rank in range(top or 0)]
        return {} if top is None else [place((token_id, -0.5), *others) for token_id in ids]  # type: ignore[return-value]

    chunks = []
    for position, token_id in enumerate(ids):
        more: dict[str, Any] = {"logprobs": places([token_id], request.logprobs) or []}
        if position == 0:
            more["prompt_logprobs"] = places(request.token_ids[1:], request.prompt_logprobs) or []
        last = position == len(ids) - 1
        chunks.append(chunk(token_id, finish=finish if last else 0, **more))  # type: ignore[arg-type]
    return chunks
