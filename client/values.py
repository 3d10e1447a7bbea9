"""What the client hands back: plain frozen values, ready for `msgspec.json.encode`."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .logprobs import TokenLogprob


class FinishReason(StrEnum):
    """Why a sequence ended."""

    EOS = "eos"
    STOP = "stop"
    LENGTH = "length"
    CONTEXT = "context"
    ABORTED = "aborted"


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


class Started(msgspec.Struct, frozen=True):
    """Facts known when the first token is there. `seed` is set also when the server drew it.

    `prompt_logprobs` begins with the prompt's second token and is empty unless the option was set.
    """

    request_id: str
    model: str
    model_revision: str
    prompt_tokens: int
    cached_tokens: int
    seed: int
    replica_id: str
    prompt_logprobs: list[TokenLogprob] = []


class Delta(msgspec.Struct, frozen=True):
    """New tokens of sequence `index`. `text` may be empty while a character or a possible stop string is incomplete.

    `token_ids` is empty unless `return_token_ids` was set, `logprobs` unless `logprobs` was; `offset` is the output
    position of the first token.
    """

    text: str
    token_ids: list[int]
    offset: int
    index: int = 0
    logprobs: list[TokenLogprob] = []


class Finish(msgspec.Struct, frozen=True):
    """The end of a sequence, and the stop string or id that matched, if one did."""

    reason: FinishReason
    stop_string: str | None = None
    stop_token_id: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """Token counts, and where the time went as the router saw it, in seconds from the request's arrival."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    time_to_first_token_s: float
    total_s: float
    migrations: int
    preemptions: int

    def __str__(self) -> str:
        cached = f" ({self.cached_tokens} from cache)" if self.cached_tokens else ""
        moved = f", moved {self.migrations}x" if self.migrations else ""
        return (
            f"{self.prompt_tokens} prompt tokens{cached}, {self.completion_tokens} new in {self.total_s:.2f} s, "
            f"the first after {self.time_to_first_token_s * 1000:.0f} ms{moved}"
        )


class GeneratedSequence(msgspec.Struct, frozen=True):
    """One of an answer's sequences, whole. What was not asked for is empty."""

    index: int
    text: str
    token_ids: list[int]
    finish: Finish
    logprobs: list[TokenLogprob] = []

    def __str__(self) -> str:
        return self.text


class Generation(msgspec.Struct, frozen=True):
    """One whole answer. `text`, `token_ids`, `finish` and `logprobs` are those of the first of its `sequences`; `usage`
    counts all of them. `token_ids` is empty unless `return_token_ids` was set.

    `started` is None when the request was aborted before its first token.
    """

    request_id: str
    text: str
    token_ids: list[int]
    finish: Finish
    usage: Usage
    started: Started | None = None
    sequences: list[GeneratedSequence] = []

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return self.sequences[0].logprobs

    @property
    def prompt_logprobs(self) -> list[TokenLogprob]:
        return self.started.prompt_logprobs if self.started is not None else []

    def __str__(self) -> str:
        return self.text


class Tokens(msgspec.Struct, frozen=True):
    """Token ids of a text, and the context length that they and the output must fit."""

    token_ids: list[int]
    max_context_tokens: int

    def __len__(self) -> int:
        return len(self.token_ids)


class DefaultSampling(msgspec.Struct, frozen=True):
    """What unset sampling options become; see `GenerateOptions`."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float


class Model(msgspec.Struct, frozen=True):
    """A model that can be asked for. `max_context_tokens` covers prompt and output together; `embedding_size` is 0 for
    one that gives no embeddings; `base` is the model that it adapts, for a LoRA adapter."""

    name: str
    revision: str
    max_context_tokens: int
    max_stop_strings: int
    vocab_size: int
    default_sampling: DefaultSampling
    features: list[str]
    ready_replicas: int
    embedding_size: int = 0
    base: str = ""
