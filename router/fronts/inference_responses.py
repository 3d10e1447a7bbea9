"""From what happens to a request to the messages of inference.proto."""

from __future__ import annotations

import asyncio

import numpy as np
from google.protobuf.duration_pb2 import Duration

from ...core.wire import sampling_to_proto
from ...proto.headway.v1 import inference_pb2
from ..embedding import Embedded
from ..events import Delta, Finished, LogprobEntry, Started, TokenLogprob, Usage
from ..types import ServedModel
from ..validation.limits import MAX_STOP_STRINGS


def started_response(event: Started) -> inference_pb2.GenerateResponse:
    return inference_pb2.GenerateResponse(
        request_id=event.request_id,
        started=inference_pb2.Started(
            model=event.model,
            model_revision=event.model_revision,
            prompt_tokens=len(event.prompt_token_ids),
            cached_tokens=event.cached_tokens,
            seed=event.seed,
            replica_id=event.replica_id,
            prompt_logprobs=map(_logprob, event.prompt_logprobs),
        ),
    )


def delta_response(event: Delta, request_id: str, with_ids: bool) -> inference_pb2.GenerateResponse:
    """For every token of every stream: filled in place, since a message given to another one is copied."""
    response = inference_pb2.GenerateResponse(request_id=request_id)
    delta = response.delta
    delta.text = event.text
    delta.offset = event.offset
    if event.index:
        delta.index = event.index
    if with_ids:
        delta.token_ids.extend(event.token_ids)
    if event.logprobs:
        delta.logprobs.extend(map(_logprob, event.logprobs))
    return response


def finished_response(event: Finished, request_id: str) -> inference_pb2.GenerateResponse:
    finished = inference_pb2.Finished(reason=event.reason, index=event.index)
    if event.stop_string is not None:
        finished.stop_string = event.stop_string
    elif event.stop_token_id is not None:
        finished.stop_token_id = event.stop_token_id
    return inference_pb2.GenerateResponse(request_id=request_id, finished=finished)


def usage_response(event: Usage, request_id: str) -> inference_pb2.GenerateResponse:
    usage = inference_pb2.Usage(
        prompt_tokens=event.prompt_tokens,
        cached_tokens=event.cached_tokens,
        completion_tokens=event.completion_tokens,
        timing=inference_pb2.Timing(
            time_to_first_token=_duration(event.first_token_s),
            total=_duration(event.total_s),
            migrations=event.migrations,
            preemptions=event.preemptions,
        ),
    )
    return inference_pb2.GenerateResponse(request_id=request_id, usage=usage)


def _logprob(place: TokenLogprob) -> inference_pb2.TokenLogprob:
    return inference_pb2.TokenLogprob(token=_entry(place.token), top=map(_entry, place.top))


def _entry(entry: LogprobEntry) -> inference_pb2.LogprobEntry:
    return inference_pb2.LogprobEntry(token_id=entry.token_id, logprob=entry.logprob, text=entry.text)


async def embed_response(found: Embedded) -> inference_pb2.EmbedResponse:
    """Gives way to other requests between two vectors: millions of values take a while."""
    response = inference_pb2.EmbedResponse(
        request_id=found.request_id,
        model=found.model,
        model_revision=found.model_revision,
        usage=inference_pb2.Usage(
            prompt_tokens=found.prompt_tokens,
            cached_tokens=found.cached_tokens,
            timing=inference_pb2.Timing(
                time_to_first_token=_duration(found.first_s),
                total=_duration(found.total_s),
                migrations=found.migrations,
                preemptions=found.preemptions,
            ),
        ),
    )
    for vector in found.vectors:
        response.embeddings.add().values.extend(np.frombuffer(vector, "<f4").tolist())
        await asyncio.sleep(0)
    return response


def model_message(model: ServedModel, chat: bool) -> inference_pb2.Model:
    default = sampling_to_proto(model.default_sampling)
    # The seed has no default: the server draws one for each request.
    default.ClearField("seed")
    features = ["generate", *(["chat"] if chat else []), *(["embed"] if model.embedding_size else [])]
    return inference_pb2.Model(
        name=model.name,
        revision=model.revision,
        max_context_tokens=model.max_context_tokens,
        max_stop_strings=MAX_STOP_STRINGS,
        default_sampling=default,
        features=features,
        ready_replicas=model.ready_replicas,
        vocab_size=model.vocab_size,
        embedding_size=model.embedding_size,
        base=model.base,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(max(0, int(seconds * 1e9)))
    return duration
