"""Which tokens may come: what a request rules in and out, whatever its sampling."""

from __future__ import annotations

import msgspec

from .sampling import Bound

BIAS = Bound(-100.0, 100.0)
PRIORITY = Bound(-1000, 1000)
MAX_LOGPROBS = 20
MAX_PROMPT_VALUES = 1 << 20  # log probabilities of one prompt: they come in one message
MAX_SEQUENCES = 64  # of one request
MAX_GRAMMAR_BYTES = 128 * 1024  # of a schema, expression or grammar, or of all choices together, in UTF-8

GRAMMAR_KINDS = ("json_schema", "json_object", "regex", "choice", "ebnf")


class TokenRules(msgspec.Struct, frozen=True, array_like=True):
    """Rules over token ids. Empty, they change nothing.

    `logit_bias` holds (id, value) pairs; `allowed` is empty when all may come; `bad_words` are sequences of ids of
    which the last must not follow the others. None of `end_token_ids` comes before the output has `min_new_tokens`.
    """

    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed: tuple[int, ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    min_new_tokens: int = 0
    end_token_ids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.logit_bias or self.allowed or self.bad_words or self.min_new_tokens)


class Grammar(msgspec.Struct, frozen=True, array_like=True):
    """What the whole output must look like. `kind` is one of GRAMMAR_KINDS.

    `text` is the schema, expression or grammar; empty for a JSON object. `choices` are for "choice" only.
    """

    kind: str
    text: str = ""
    choices: tuple[str, ...] = ()
