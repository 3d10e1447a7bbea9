"""What a body may hold. Every other field is refused by its name.

A field that OpenAI or vLLM knows and this server does not offer is in a table of neutral values: those with which it
changes nothing (null always among them) pass, and any other value is refused rather than ignored.
"""

from __future__ import annotations

from typing import Any

import msgspec

Neutral = dict[str, tuple[Any, ...]]

_COMMON_NEUTRAL: Neutral = {
    "metadata": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "spaces_between_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "guided_decoding_backend": (),
    "guided_whitespace_pattern": (),
    "structural_tag": (),
}
CHAT_NEUTRAL: Neutral = _COMMON_NEUTRAL | {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
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
    "suffix": ("",),
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


STRUCTURED_NEUTRAL: Neutral = {
    "disable_fallback": (False,),
    "disable_any_whitespace": (False,),
    "disable_additional_properties": (False,),
    "whitespace_pattern": (),
    "structural_tag": (),
}
NOTHING = msgspec.Raw(b"null")


class JsonSchemaFormat(msgspec.Struct, forbid_unknown_fields=True):
    """OpenAI's. `name` and `description` say what the schema is for and change nothing; the output always keeps to the
    schema, as `strict` asks for."""

    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw = NOTHING
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    type: str | None = None
    json_schema: JsonSchemaFormat | None = None


class StructuredFields(msgspec.Struct, kw_only=True):
    """vLLM's; a schema is JSON, or text that holds it."""

    json: msgspec.Raw = NOTHING
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


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
    n: int | None = None
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None
    min_tokens: int | None = None
    priority: int | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    prompt_logprobs: int | None = None
    # Of this type: StructuredOutputs, which is made below.
    structured_outputs: Any = None
    guided_json: msgspec.Raw = NOTHING
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    # Headway's
    cache_bypass: bool | None = None


class ContentPart(msgspec.Struct, forbid_unknown_fields=True):
    type: str | None = None
    text: str | None = None


class MessageFields(msgspec.Struct, kw_only=True):
    role: str | None = None
    content: str | list[ContentPart] | None = None


def _with_neutral(name: str, base: type[msgspec.Struct], neutral: Neutral, **types: Any) -> Any:
    fields = [*((field, kind, None) for field, kind in types.items()), *((field, Any, None) for field in neutral)]
    return msgspec.defstruct(name, fields, bases=(base,), kw_only=True, forbid_unknown_fields=True)


StructuredOutputs: Any = _with_neutral("StructuredOutputs", StructuredFields, STRUCTURED_NEUTRAL)
ChatMessage: Any = _with_neutral("ChatMessage", MessageFields, MESSAGE_NEUTRAL)


class ChatFields(CommonFields, kw_only=True):
    max_completion_tokens: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class CompletionFields(CommonFields, kw_only=True):
    # Text, ids, or a list of one of them: read by hand, because the lists cannot be told apart by type.
    prompt: msgspec.Raw = NOTHING
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None


_structured: dict[str, Any] = {"structured_outputs": StructuredOutputs | None}
ChatBody: Any = _with_neutral("ChatBody", ChatFields, CHAT_NEUTRAL, messages=list[ChatMessage] | None, **_structured)
CompletionBody: Any = _with_neutral("CompletionBody", CompletionFields, COMPLETION_NEUTRAL, **_structured)
