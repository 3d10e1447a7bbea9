"""The tokens that are not text, and the chat template built from them."""

from __future__ import annotations

END_OF_TEXT = "<|endoftext|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END = "<|end|>"

# Their ids are their positions here: end-of-text is 0.
SPECIAL_TOKENS = (END_OF_TEXT, SYSTEM, USER, ASSISTANT, END)
END_OF_TEXT_ID = 0
END_ID = SPECIAL_TOKENS.index(END)

# Only the three known roles have a marker. A message with another role is an error that the caller sees, rather than
# text that pretends to be somebody.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('Unknown role: ' ~ message['role']) -}}
{%- endif -%}
{{- '<|' ~ message['role'] ~ '|>\\n' ~ (message['content'] | trim) ~ '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>\\n' -}}
{%- endif -%}
"""


def render(messages: list[tuple[str, str]]) -> str:
    """A conversation of (role, content) as the template writes it: what the model is trained on."""
    return "".join(f"<|{role}|>\n{content.strip()}{END}\n" for role, content in messages)
