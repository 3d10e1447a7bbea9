"""What a body may hold. Every other field is refused by its name.

A field that OpenAI or vLLM knows and this server does not offer is in a table of neutral values: those with which it
changes nothing (null always among them) pass, and any other value is refused rather than ignored.
"""

from __future__ import annotations

from typing import Any

import msgspec

Neutral = dict[str, tuple[Any, ...]]

_COMMON_NEUTRAL: Neutral = {
    "n": (1,),
    "logit_bias": ({},),
    "metadata": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "min_tokens": (0,),
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "priority": (0,),
    "bad_words": ([],),
    "spaces_between_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "prompt_logprobs": (),
    "allowed_token_ids": (),
    "structured_outputs": (),
}
CHAT_NEUTRAL: Neutral = _COMMON_NEUTRAL | {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "safety_identifier": (),
    "prompt_cache_key": (),
    "echo": (False,),
    "add_special_tokens": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "chat_template": (),
    "documents": ([],),
}
COMPLETION_NEUTRAL: Neutral = _COMMON_NEUTRAL | {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (),
    "response_format": ({"type": "text"},),
    "prompt_embeds": (),
    "add_special_tokens": (True,),
}
MESSAGE_NEUTRAL: Neutral = {
    "name": (),
    "refusal": (),
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "tool_calls": ([],),
    "tool_call_id": (),
    "reasoning": (),
    "reasoning_content": (),
}


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    # Padding against observers of the wire: there is none, so that only "none" can be asked for.
    include_obfuscation: bool | None = None


class CommonFields(msgspec.Struct, kw_only=True):
    """Fields of both endpoints. None means unset."""

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    # vLLM's
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    return_token_ids: bool | None = None
    cache_salt: str | None = None


class ContentPart(msgspec.Struct, forbid_unknown_fields=True):
    type: str | None = None
    text: str | None = None


class MessageFields(msgspec.Struct, kw_only=True):
    role: str | None = None
    content: str | list[ContentPart] | None = None


def _with_neutral(name: str, base: type[msgspec.Struct], neutral: Neutral, **types: Any) -> Any:
    fields = [*((field, kind, None) for field, kind in types.items()), *((field, Any, None) for field in neutral)]
    return msgspec.defstruct(name, fields, bases=(base,), kw_only=True, forbid_unknown_fields=True)


ChatMessage: Any = _with_neutral("ChatMessage", MessageFields, MESSAGE_NEUTRAL)


class ChatFields(CommonFields, kw_only=True):
    max_completion_tokens: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionFields(CommonFields, kw_only=True):
    # Text, ids, or a list of one of them: read by hand, because the lists cannot be told apart by type.
    prompt: msgspec.Raw = msgspec.Raw(b"null")


ChatBody: Any = _with_neutral("ChatBody", ChatFields, CHAT_NEUTRAL, messages=list[ChatMessage] | None)
CompletionBody: Any = _with_neutral("CompletionBody", CompletionFields, COMPLETION_NEUTRAL)
