"""The sandbox in which a model's chat template runs, with the names that Hugging Face gives templates.

A template comes with a checkpoint and the conversation from a caller: neither is trusted. Jinja's immutable sandbox
keeps it from the interpreter, and a budget on loops and calls ends a template that would not. What is not bounded is
the memory of one expression; a template's output is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_STEPS = 200_000  # loop turns and calls of one rendering: a fraction of a second
MAX_PRODUCT = 1_000_000  # length of a sequence made by `*`

_steps: ContextVar[int] = ContextVar("template_steps", default=0)


def start_budget() -> None:
    """Gives the rendering that follows in this context its full budget."""
    _steps.set(0)


def _spend() -> None:
    spent = _steps.get() + 1
    _steps.set(spent)
    if spent > MAX_STEPS:
        raise SecurityError(f"the template took more than {MAX_STEPS} steps")


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _spend()
        yield item


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with a budget."""

    intercepted_binops = frozenset(["*", "**"])

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _to_json
        self.filters["_counted"] = _counted
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["namespace"] = _TemplateNamespace

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        # Every loop goes through `_counted`: the only place where a template can spend time without a call.
        template = super()._parse(source, name, filename)
        for loop in template.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None, lineno=loop.lineno)
        return template

    def call(self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _spend()
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Products of numbers pass; a sequence times a number only while the result is small."""
        if operator == "**":
            raise SecurityError("templates have no power operator")
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(times, int):  # noqa: SIM102 - reads as one rule
                if len(sequence) * times > MAX_PRODUCT:
                    raise SecurityError(f"a sequence of more than {MAX_PRODUCT} items")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here its body is simply written."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _TemplateNamespace(Namespace):
    """Jinja's namespace without names that begin with an underscore, as Hugging Face has it."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # Jinja's own signature: `namespace(self=...)` must work.
        self, args = args[0], args[1:]
        for name in dict(*args, **kwargs):
            _refuse_private(name)
        Namespace.__init__(self, *args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"templates cannot set {name!r}")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
