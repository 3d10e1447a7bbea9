"""What the messages of inference.proto say, as the client's values."""

from __future__ import annotations

from ..core.sampling import SamplingParams
from ..core.wire import sampling_from_proto
from ..proto.headway.v1 import inference_pb2 as pb
from ..proto.headway.v1 import sampling_pb2
from .values import DefaultSampling, Delta, Finish, FinishReason, Generation, Model, Started, Tokens, Usage


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


class Transcript:
    """What a stream has said so far. `take` gives the delta of a message, None for the messages around them."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.finish: Finish | None = None
        self.usage: Usage | None = None
        self.request_id = ""

    def take(self, response: pb.GenerateResponse) -> Delta | None:
        self.request_id = response.request_id
        event = response.WhichOneof("event")
        if event == "delta":
            delta = response.delta
            return Delta(text=delta.text, token_ids=list(delta.token_ids), offset=delta.offset)
        if event == "started":
            self.started = read_started(response.request_id, response.started)
        elif event == "finished":
            self.finish = read_finish(response.finished)
        elif event == "usage":
            self.usage = read_usage(response.usage)
        return None

    @property
    def complete(self) -> bool:
        """Whether the last messages came. A request that was aborted before its first token never started."""
        return self.finish is not None and self.usage is not None

    def whole(self, deltas: list[Delta]) -> Generation:
        """The answer that `deltas` add up to; the stream must be complete."""
        assert self.finish is not None and self.usage is not None
        return Generation(
            request_id=self.request_id,
            text="".join(delta.text for delta in deltas),
            token_ids=[token_id for delta in deltas for token_id in delta.token_ids],
            finish=self.finish,
            started=self.started,
            usage=self.usage,
        )
