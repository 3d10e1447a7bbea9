"""The request as a caller may ask it, before any default or bound; both fronts translate to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...core.constraints import Grammar


class Message(msgspec.Struct, frozen=True):
    """One chat message. None stands for a role or content that the caller left out."""

    role: str | None
    content: str | None


class UserRequest(msgspec.Struct, kw_only=True):
    """None means unset. Exactly one of `prompt` and `messages` is the input; which one, `chat` says.

    `usual_new_tokens` is what a front takes for an unset `max_new_tokens`: no more than fits; None for all that fits.
    `logprobs` and `prompt_logprobs` are how many of the likeliest tokens are wanted beside each token's own; `echo`
    asks for the prompt's text back. `sampling` holds the scalars that the caller set, by their names in SamplingParams.
    `names` maps this struct's fields (and sampling's) to the paths under which the caller knows them; see `FieldNames`.
    """

    chat: bool = False
    names: FieldNames
    request_id: str = ""
    model: str = ""
    prompt: str | list[int] | None = None
    messages: list[Message] = []
    template_args: Mapping[str, Any] = {}
    sampling: Mapping[str, float] = {}
    max_new_tokens: int | None = None
    usual_new_tokens: int | None = None
    stop_strings: list[str] = []
    stop_token_ids: list[int] = []
    include_stop_string: bool = False
    ignore_eos: bool = False
    want_text: bool = True
    want_token_ids: bool = False
    skip_special_tokens: bool = True
    cache_salt: str = ""
    cache_bypass: bool = False
    n: int = 1
    priority: int = 0
    min_new_tokens: int = 0
    logit_bias: Mapping[int, float] = {}
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] = []
    grammar: Grammar | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    echo: bool = False


class FieldNames:
    """How one front calls the fields of UserRequest, so that an error names what its caller wrote."""

    def __init__(self, names: Mapping[str, str], prefix: str = "") -> None:
        self._names = names
        self._prefix = prefix

    def __getitem__(self, field: str) -> str:
        """The caller's path of `field`; of "stop_strings[3]", the path of "stop_strings" with the same tail."""
        name, bracket, tail = field.partition("[")
        return f"{self._prefix}{self._names.get(name, name)}{bracket}{tail}"

    def replaced(self, **names: str) -> FieldNames:
        """The same names with some of them others, for a field that has two spellings."""
        return FieldNames({**self._names, **names}, self._prefix)
