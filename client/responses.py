"""What the messages of inference.proto say, as the client's values."""

from __future__ import annotations

from ..core.sampling import SamplingParams
from ..core.wire import sampling_from_proto
from ..proto.headway.v1 import inference_pb2 as pb
from ..proto.headway.v1 import sampling_pb2
from .logprobs import read_logprob
from .values import DefaultSampling, Delta, Finish, FinishReason, Model, Started, Tokens, Usage


def finish_reason(value: int) -> FinishReason:
    """FINISH_REASON_EOS is "eos", and so on."""
    return FinishReason(sampling_pb2.FinishReason.Name(value).removeprefix("FINISH_REASON_").lower())


def read_started(request_id: str, message: pb.Started) -> Started:
    return Started(
        request_id=request_id,
        model=message.model,
        model_revision=message.model_revision,
        prompt_tokens=message.prompt_tokens,
        cached_tokens=message.cached_tokens,
        seed=message.seed,
        replica_id=message.replica_id,
        prompt_logprobs=[read_logprob(place) for place in message.prompt_logprobs],
    )


def read_delta(message: pb.Delta) -> Delta:
    return Delta(
        text=message.text,
        token_ids=list(message.token_ids),
        offset=message.offset,
        index=message.index,
        logprobs=[read_logprob(place) for place in message.logprobs],
    )


def read_finish(message: pb.Finished) -> Finish:
    return Finish(
        reason=finish_reason(message.reason),
        stop_string=message.stop_string if message.HasField("stop_string") else None,
        stop_token_id=message.stop_token_id if message.HasField("stop_token_id") else None,
    )


def read_usage(message: pb.Usage) -> Usage:
    return Usage(
        prompt_tokens=message.prompt_tokens,
        cached_tokens=message.cached_tokens,
        completion_tokens=message.completion_tokens,
        time_to_first_token_s=message.timing.time_to_first_token.ToNanoseconds() / 1e9,
        total_s=message.timing.total.ToNanoseconds() / 1e9,
        migrations=message.timing.migrations,
        preemptions=message.timing.preemptions,
    )


def read_model(message: pb.Model) -> Model:
    defaults = sampling_from_proto(message.default_sampling, SamplingParams())
    return Model(
        name=message.name,
        revision=message.revision,
        max_context_tokens=message.max_context_tokens,
        max_stop_strings=message.max_stop_strings,
        vocab_size=message.vocab_size,
        default_sampling=DefaultSampling(
            **{name: getattr(defaults, name) for name in DefaultSampling.__struct_fields__}
        ),
        features=list(message.features),
        ready_replicas=message.ready_replicas,
        embedding_size=message.embedding_size,
        base=message.base,
    )


def read_tokens(message: pb.TokenizeResponse) -> Tokens:
    return Tokens(token_ids=list(message.token_ids), max_context_tokens=message.max_context_tokens)
