"""What passes between the fronts, which know text, and the dispatcher, which knows replicas: token ids only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec

from ..core.constraints import Grammar, TokenRules
from ..core.sampling import SamplingParams
from ..proto.headway.v1 import sampling_pb2


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model as its replicas describe it, with the files that turn text into tokens and back.

    A LoRA adapter is one, too: `base` is then the model that it adapts, and `revision` names both.
    """

    name: str
    revision: str
    page_size: int
    max_context_tokens: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    default_sampling: SamplingParams
    text_assets: Mapping[str, bytes]
    ready_replicas: int
    embedding_size: int = 0
    base: str = ""
    base_revision: str = ""


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A validated sequence in token ids, every default resolved (the seed too).

    A public request with n > 1 is n of them that differ in `sequence`. `logprobs` and `prompt_logprobs` are how many of
    the likeliest tokens are wanted beside each token's own, None for nothing. `deadline` is on the clock of the event
    loop. `pooling` is a Pooling of pooling.proto: unless 0, it asks for an embedding and has `max_new_tokens` 0.
    `revision` is that of the model which has to run it; any when empty.
    """

    request_id: str
    model: str
    token_ids: list[int]
    sampling: SamplingParams
    max_new_tokens: int
    eos_token_ids: tuple[int, ...]
    stop_token_ids: tuple[int, ...] = ()
    cache_salt: str = ""
    cache_bypass: bool = False
    sequence: int = 0
    rules: TokenRules = TokenRules()
    grammar: Grammar | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    priority: int = 0
    deadline: float | None = None
    pooling: int = 0
    revision: str = ""


class PlaceLogprobs(msgspec.Struct, frozen=True):
    """Log probabilities at one place: (token id, natural logarithm) of its own token first, then of the likeliest."""

    entries: tuple[tuple[int, float], ...]


class TokenChunk(msgspec.Struct, frozen=True, kw_only=True):
    """New tokens of one request. The last chunk of a stream, and only it, has a finish reason.

    `logprobs` has a place for each token, when asked for; `prompt_logprobs` one for each prompt token from the second
    on, in the first chunk. `embedding` is the model's, little-endian float32, when one was asked for: with
    FINISH_REASON_EMBEDDED, in the only chunk.
    """

    token_ids: list[int]
    replica_id: str
    cached_tokens: int = 0
    finish_reason: sampling_pb2.FinishReason = sampling_pb2.FINISH_REASON_UNSPECIFIED
    stop_token_id: int | None = None
    migrations: int = 0
    preemptions: int = 0
    logprobs: list[PlaceLogprobs] = []
    prompt_logprobs: list[PlaceLogprobs] = []
    embedding: bytes = b""


class Catalogue(Protocol):
    """The models that can be served now."""

    def models(self) -> list[ServedModel]:
        """All models, sorted by name."""
        ...

    def get(self, name: str) -> ServedModel:
        """The model of that name; with an empty name, the only one there is. Raises NotFound, Unavailable."""
        ...


class Dispatcher(Protocol):
    """Runs requests on replicas."""

    def stream(self, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        """Tokens of the request as they come, moved to another replica when its own dies.

        The sequences of one public request, which share its id, go to one replica as long as it takes them, except
        those that embed. Closing the iterator aborts the sequence on its replica. Raises Unavailable when nobody can
        take it, Overloaded when queues are full, AlreadyExists for a live request with the same id and sequence.
        """
        ...

    def abort(self, request_id: str) -> bool:
        """Ends all live sequences of a request with FINISH_REASON_ABORTED; False when there is none."""
        ...
