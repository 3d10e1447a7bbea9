"""The Python client for internal services.

    from headway.client import Headway

    with Headway("127.0.0.1:8001") as headway:
        answer = headway.generate("def area(radius):", max_new_tokens=64, temperature=0)
        print(answer.text, answer.usage)
        for delta in headway.chat_stream("Say hello", max_new_tokens=32):
            print(delta.text, end="")

        verdict = headway.generate("Is it so? ", choice=["yes", "no"], logprobs=2)
        print(verdict.text, verdict.logprobs[0].logprob)
        for sequence in headway.generate("It was a", n=3, temperature=1).sequences:
            print(sequence.index, sequence.text, sequence.finish.reason)

`AsyncHeadway` is the same with `await` and `async for`. Failures are the tree of `headway.core.errors`.
"""

from ..core.errors import (
    AlreadyExists,
    Cancelled,
    ContextTooLong,
    DeadlineExceeded,
    HeadwayError,
    Internal,
    InvalidRequest,
    NotFound,
    Overloaded,
    Unavailable,
)
from .aio import AsyncHeadway
from .aio_stream import AsyncGenerationStream
from .embeddings import Embeddings, EmbedOptions
from .grammars import Choice, Ebnf, Grammar, JsonObject, JsonSchema, Regex
from .logprobs import Logprob, TokenLogprob
from .options import GenerateOptions, Retry
from .sync import Headway
from .sync_stream import GenerationStream
from .values import (
    ChatMessage,
    Delta,
    Finish,
    FinishReason,
    GeneratedSequence,
    Generation,
    Model,
    Started,
    Tokens,
    Usage,
)

__all__ = [
    "AlreadyExists",
    "AsyncGenerationStream",
    "AsyncHeadway",
    "Cancelled",
    "ChatMessage",
    "Choice",
    "ContextTooLong",
    "DeadlineExceeded",
    "Delta",
    "Ebnf",
    "EmbedOptions",
    "Embeddings",
    "Finish",
    "FinishReason",
    "GenerateOptions",
    "GeneratedSequence",
    "Generation",
    "GenerationStream",
    "Grammar",
    "Headway",
    "HeadwayError",
    "Internal",
    "InvalidRequest",
    "JsonObject",
    "JsonSchema",
    "Logprob",
    "Model",
    "NotFound",
    "Overloaded",
    "Regex",
    "Retry",
    "Started",
    "TokenLogprob",
    "Tokens",
    "Unavailable",
    "Usage",
]
