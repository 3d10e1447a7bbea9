"""Conversations made from the library itself: the request is a docstring, the answer is the function that has it."""

from __future__ import annotations

import ast
import random
import textwrap
from collections.abc import Iterator

from .corpus import Source
from .special import render

LONGEST_REPLY = 1600  # characters: longer functions would teach the model to answer without end
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You write Python.",
    "You are Headway's demo model. Answer with Python.",
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def conversations(sources: list[Source], seed: int) -> list[str]:
    """One rendered conversation a documented function, with one or two turns; the same for the same seed."""
    chooser = random.Random(seed)
    rendered = []
    for source in sources:
        turns = [(_request(node, chooser), reply) for node, reply in documented_functions(source.text)]
        while turns:
            count = 2 if len(turns) > 1 and chooser.random() < 0.15 else 1
            rendered.append(_conversation(turns[:count], chooser))
            turns = turns[count:]
    return rendered


def documented_functions(text: str) -> Iterator[tuple[Function, str]]:
    """Each function of a module that has a docstring and is short enough, with its own source, unindented."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if not isinstance(node, Function) or not ast.get_docstring(node):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        reply = textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno])).strip()
        if len(reply) <= LONGEST_REPLY:
            yield node, reply


def _conversation(turns: list[tuple[str, str]], chooser: random.Random) -> str:
    messages = [("system", chooser.choice(SYSTEM_PROMPTS))] if chooser.random() < 0.25 else []
    for request, reply in turns:
        messages += [("user", request), ("assistant", reply)]
    return render(messages)


def _request(node: Function, chooser: random.Random) -> str:
    """One of the ways in which somebody might ask for this function."""
    paragraph = (ast.get_docstring(node) or "").split("\n\n")[0].strip()
    summary = " ".join(paragraph.split())
    lowered = summary[:1].lower() + summary[1:]
    spoken = node.name.strip("_").replace("_", " ")
    signature = f"def {node.name}({ast.unparse(node.args)})"
    return chooser.choice((
        summary,
        f"Write a function that does this: {lowered}",
        f"Write a Python function: {lowered}",
        f"Write `{node.name}`. {summary}",
        f"{signature}: {summary}",
        f"Can you write a function for {spoken}?",
        f"Write a function to {spoken}.",
        f"Implement {node.name}.",
    ))  # fmt: skip
