"""Chat templates: rendered as transformers renders them, from either file, inside a sandbox with an end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import AutoTokenizer

from headway.core.errors import ConfigError, InvalidRequest
from headway.demo import DEMO_DIR
from headway.router.text.model import ModelText
from headway.router.text.template import ChatTemplate, load_template
from headway.router.validation.request import Message

TALK = [
    Message("system", "Be <brief>."),
    Message("user", " What is 'x'?\n"),
    Message("assistant", "y"),
    Message("user", "字"),
]

LLAMA_LIKE = """{{- bos_token }}
{%- set ns = namespace(count=0) %}
{% for message in messages if message.role != 'system' %}
    {%- if loop.first and loop.length > 1 %}[first of {{ loop.length }}]{% endif %}
    {% set ns.count = ns.count + 1 %}
{{ ns.count }}:{{ message['role'] | upper }}: {{ message.content | trim }}{{ eos_token if not loop.last }}
    {% if ns.count == 10 %}{% break %}{% endif %}
{% endfor %}
{%- if tools is not none %}TOOLS{% endif %}
{%- generation %}{{ {"b": "<é>", "a": [1, 2.5]} | tojson(indent=2) }}{% endgeneration %}
{% if add_generation_prompt %}{{ '<|assistant|>' ~ ('think' if thinking else '') }}{% endif %}
{{- ('-' * 3) ~ ('%02d' % 7) }}"""


def render(source: str, messages: list[Message] = TALK, **args: Any) -> str:
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}).render(messages, args, "args", "messages")


def by_transformers(source: str | None, **args: Any) -> str:
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO_DIR)
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    talk = [{"role": message.role, "content": message.content} for message in TALK]
    text: str = tokenizer.apply_chat_template(
        talk, chat_template=source, tokenize=False, add_generation_prompt=True, **args
    )
    return text


@pytest.mark.parametrize("args", [{}, {"thinking": True}])
def test_a_template_with_the_usual_tricks_renders_as_in_transformers(args: dict[str, Any]) -> None:
    assert render(LLAMA_LIKE, **args) == by_transformers(LLAMA_LIKE, **args)


def test_the_demo_models_template_renders_as_in_transformers(demo_assets: dict[str, bytes]) -> None:
    template = load_template(demo_assets)
    assert template is not None
    assert template.render(TALK, {}, "args", "messages") == by_transformers(None)


async def test_chat_token_ids_are_those_of_transformers(demo_assets: dict[str, bytes]) -> None:
    text = ModelText(demo_assets)
    pieces = await text.render(TALK, {}, args_field="args", messages_field="messages")
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO_DIR)
    talk = [{"role": message.role, "content": message.content} for message in TALK]
    expected = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert await text.encode_pieces(pieces) == expected


def assets(config: dict[str, Any], jinja: str | None = None) -> dict[str, bytes]:
    files = {"tokenizer_config.json": json.dumps(config).encode()}
    return files if jinja is None else {**files, "chat_template.jinja": jinja.encode()}


def test_both_files_and_both_forms_are_read() -> None:
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    for config, jinja, expected in (
        ({"chat_template": "C"}, None, "C"),
        ({"chat_template": "C"}, "J", "J"),
        ({"chat_template": named}, None, "D"),
        ({"bos_token": {"content": "<b>"}, "eos_token": "<e>"}, "{{ bos_token }}{{ eos_token }}", "<b><e>"),
    ):
        template = load_template(assets(config, jinja))
        assert template is not None
        assert template.render(TALK, {}, "args", "messages") == expected
    assert load_template(assets({})) is None
    assert load_template(assets({"chat_template": named[:1]})) is None


async def test_a_model_without_a_template_says_so(demo_assets: dict[str, bytes]) -> None:
    text = ModelText({"tokenizer.json": demo_assets["tokenizer.json"]})
    with pytest.raises(InvalidRequest, match="no chat template") as caught:
        await text.render(TALK, {}, args_field="args", messages_field="messages")
    assert caught.value.field == "messages"


def test_a_template_that_cannot_be_parsed_is_an_error_of_the_model(demo_assets: dict[str, bytes]) -> None:
    with pytest.raises(ConfigError, match="chat template"):
        ModelText({**demo_assets, "chat_template.jinja": b"{% for %}"})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content.nothing.at_all }}", "has no attribute"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", "unsafe|__class__"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"),
        ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}", "steps"),
        ("{{ 'a' * 10 ** 9 }}", "power"),
        ("{{ 'a' * 1000000000 }}", "more than"),
        ("{% for a in range(99999) %}{{ 'a' * 9999 }}{% endfor %}", "longer than"),
    ],
)
def test_a_template_that_fails_or_would_not_end_is_refused(source: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        render(source)
    assert caught.value.field == "messages"


def test_arguments_cannot_replace_what_the_server_sets() -> None:
    assert render("{{ style }}", style="terse") == "terse"
    with pytest.raises(InvalidRequest) as caught:
        ChatTemplate("x", {}).render(TALK, {"messages": []}, "args", "messages")
    assert caught.value.field == "args.messages"
