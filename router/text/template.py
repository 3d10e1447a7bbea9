"""A model's chat template: from messages to the text that its tokenizer gets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jinja2

from ...core.errors import InvalidRequest
from ..validation.request import Message
from .sandbox import TemplateSandbox, start_budget

MAX_OUTPUT = 32 * 1024 * 1024  # characters; a request's text is at most a quarter of it
RESERVED = ("messages", "tools", "documents", "add_generation_prompt")


class ChatTemplate:
    """A compiled template with the model's special tokens as its variables. Raises jinja2.TemplateError."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._template = TemplateSandbox().from_string(source)
        self._special_tokens = dict(special_tokens)

    def render(self, messages: list[Message], args: Mapping[str, Any], args_field: str, messages_field: str) -> str:
        """The conversation as text, ending where the assistant begins to speak.

        Raises InvalidRequest naming the caller's fields: an argument that would replace what the server sets, or
        messages that the template refuses (an unknown role, an order of roles it cannot write).
        """
        for name in args:
            if name in RESERVED:
                raise InvalidRequest(f"{args_field}.{name} is set by the server", field=f"{args_field}.{name}")
        variables = {
            **self._special_tokens,
            **args,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
        }
        start_budget()
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(variables):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_OUTPUT:
                    raise jinja2.TemplateError(f"the text is longer than {MAX_OUTPUT} characters")
        except jinja2.TemplateError as error:
            raise InvalidRequest(
                f"{messages_field}: the model's chat template refuses: {error.message}", field=messages_field
            ) from None
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError, LookupError) as error:
            # A template can fail in any of Python's ways on messages or arguments that it did not expect.
            raise InvalidRequest(
                f"{messages_field}: the model's chat template fails: {type(error).__name__}: {error}"[:500],
                field=messages_field,
            ) from None
        return "".join(pieces)


def load_template(assets: Mapping[str, bytes]) -> ChatTemplate | None:
    """The model's default template, from chat_template.jinja or tokenizer_config.json; None where it has none.

    Raises ValueError (also jinja2.TemplateSyntaxError and UnicodeDecodeError) when there is one that cannot be read.
    """
    config = json.loads(assets.get("tokenizer_config.json") or b"{}")
    if "chat_template.jinja" in assets:
        source: str | None = assets["chat_template.jinja"].decode()
    else:
        source = _default_of(config.get("chat_template"))
    return ChatTemplate(source, _special_tokens(config)) if source else None


def _default_of(template: object) -> str | None:
    """tokenizer_config.json holds one template, or a list of named ones of which "default" is meant."""
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        return named.get("default")
    if template is not None and not isinstance(template, str):
        raise ValueError("chat_template in tokenizer_config.json is neither text nor a list of named templates")
    return template


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and the others: text, or in older files an object with its text as `content`."""
    tokens = {}
    for name, value in config.items():
        if name.endswith("_token"):
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                tokens[name] = text
    return tokens
