"""Grammars into guides, off the event loop and off the engine's thread."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from ...core.constraints import MAX_GRAMMAR_BYTES, Grammar
from ...core.errors import InvalidRequest, Overloaded
from ..scheduler import Request
from .crew import Crew
from .guide import BITS, Guide, Words, first_line
from .limits import COMPILE_S, MASK_S, parser_limits
from .pool import SandboxPool
from .sandbox import Setup, make_tokenizer

KEPT = 64
MAX_WAITING = 256

P = ParamSpec("P")
T = TypeVar("T")


class Compiled(NamedTuple):
    """A grammar at its start: never moved on, only copied. `mask` is what may come first.

    `model_eos` are the ids by which the matcher knows the end.
    """

    matcher: LLMatcher
    mask: Words
    model_eos: tuple[int, ...]


class Refusal(NamedTuple):
    """Why there is no guide, for an InvalidRequest."""

    message: str
    field: str


class GrammarCompiler:
    """Compiles for one model. Nothing is read or started before the first grammar comes. For one event loop."""

    def __init__(self, model_path: Path, vocab_size: int, eos_token_ids: Sequence[int], crew: Crew) -> None:
        self._path = model_path / "tokenizer.json"
        self._vocab_size = vocab_size
        self._eos = tuple(eos_token_ids)
        self._crew = crew
        self._threads = ThreadPoolExecutor(1, "headway-compile")
        self._tokenizer: asyncio.Task[LLTokenizer | Refusal] | None = None
        self._sandboxes: SandboxPool | None = None
        self._known: OrderedDict[Grammar, asyncio.Task[Compiled | Refusal]] = OrderedDict()
        self._compiling = 0

    async def guide(self, grammar: Grammar, request: Request) -> Guide:
        """The guide of a request that is still to be submitted. Raises InvalidRequest, Overloaded."""
        field = f"grammar.{grammar.kind}"
        check_size(grammar)
        if self._crew.overwhelmed:
            raise Overloaded(f"{field}: the grammars of other requests are too costly to follow", retry_after_s=MASK_S)
        compiled = await self._compiled(grammar)
        delivered = request.tokens[request.prompt_tokens :].tolist()
        if isinstance(compiled, Compiled) and delivered:
            compiled = await self._in_thread(_moved, compiled, delivered, field)
        if isinstance(compiled, Refusal):
            raise InvalidRequest(compiled.message, field=compiled.field)
        guide = Guide(
            compiled.matcher.deep_copy(),
            compiled.mask,
            field=field,
            model_eos=compiled.model_eos,
            eos=request.eos_token_ids,
            rules=request.rules,
            output_tokens=len(delivered),
        )
        if guide.error is not None:
            raise guide.error
        if guide.over:
            raise InvalidRequest(f"{field}: nothing can follow the {len(delivered)} tokens delivered", field=field)
        return guide

    async def close(self) -> None:
        """Ends the sandboxes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._sandboxes is not None:
            await self._sandboxes.close()

    async def _compiled(self, grammar: Grammar) -> Compiled | Refusal:
        """From the cache, or compiled once for all who wait for it. What is refused is remembered, too.

        Raises Overloaded when too many others wait, also for the tokenizer before the first."""
        task = self._known.get(grammar)
        if task is None:
            if self._compiling >= MAX_WAITING:
                raise Overloaded(f"grammar: {self._compiling} wait to be compiled already", retry_after_s=COMPILE_S)
            self._compiling += 1
            task = self._known[grammar] = asyncio.create_task(self._compile(grammar))
            task.add_done_callback(lambda done: self._end(grammar, done))
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(grammar)
        return await asyncio.shield(task)

    def _end(self, grammar: Grammar, task: asyncio.Task[Compiled | Refusal]) -> None:
        """It is compiled, or not. Only a verdict on the grammar itself holds for the next request with it."""
        self._compiling -= 1
        if (task.cancelled() or task.exception() is not None) and self._known.get(grammar) is task:
            del self._known[grammar]

    async def _compile(self, grammar: Grammar) -> Compiled | Refusal:
        field = f"grammar.{grammar.kind}"
        tokenizer = await self._ready()
        if isinstance(tokenizer, Refusal):
            return tokenizer
        assert self._sandboxes is not None
        verdict = await self._sandboxes.try_grammar(grammar)
        if verdict.error:
            return Refusal(f"{field}: {verdict.error}", field)
        return await self._in_thread(_build, tokenizer, verdict.source, field)

    async def _ready(self) -> LLTokenizer | Refusal:
        if self._tokenizer is None:
            self._tokenizer = asyncio.create_task(self._prepare())
        return await asyncio.shield(self._tokenizer)

    async def _prepare(self) -> LLTokenizer | Refusal:
        try:
            text = await asyncio.to_thread(self._path.read_text, "utf-8")
            if not text.lstrip().startswith("{"):
                raise ValueError("it is not JSON")
            setup = Setup(text, self._vocab_size, self._eos)
            tokenizer = await self._in_thread(make_tokenizer, setup)
        except (OSError, ValueError) as error:
            return Refusal(
                f"grammar: this model cannot be held to one, its tokenizer.json does not tell the bytes of its tokens: "
                f"{error}",
                "grammar",
            )
        self._sandboxes = SandboxPool(setup)
        return tokenizer

    async def _in_thread(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *arguments, **named))


def check_size(grammar: Grammar) -> None:
    """Raises InvalidRequest for a grammar whose text alone is too much, or is none."""
    field = f"grammar.{grammar.kind}"
    try:
        size = len(grammar.text.encode()) + sum(len(choice.encode()) for choice in grammar.choices)
    except UnicodeEncodeError:
        raise InvalidRequest(f"{field} must be valid Unicode", field=field) from None
    if size > MAX_GRAMMAR_BYTES:
        raise InvalidRequest(f"{field} must be at most {MAX_GRAMMAR_BYTES} bytes, got {size}", field=field)
    if grammar.kind == "choice" and not grammar.choices:
        raise InvalidRequest(f"{field} must hold one text at least", field=field)


def _build(tokenizer: LLTokenizer, source: str, field: str) -> Compiled | Refusal:
    matcher = LLMatcher(tokenizer, source, log_level=0, limits=parser_limits())
    mask = np.zeros(-(-tokenizer.vocab_size // BITS), "<u4")
    return _masked(Compiled(matcher, mask, tuple(tokenizer.eos_tokens)), field)


def _moved(compiled: Compiled, delivered: list[int], field: str) -> Compiled | Refusal:
    """The grammar after tokens that another replica gave out."""
    matcher = compiled.matcher.deep_copy()
    if not matcher.consume_tokens(delivered):
        return Refusal(f"token_ids: the {len(delivered)} delivered tokens are not of the grammar", "token_ids")
    return _masked(compiled._replace(matcher=matcher, mask=compiled.mask.copy()), field)


def _masked(compiled: Compiled, field: str) -> Compiled | Refusal:
    """With the mask of where its matcher stands."""
    matcher, mask = compiled.matcher, compiled.mask
    if not matcher.is_error():
        matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
    return Refusal(f"{field}: {first_line(matcher)}", field) if matcher.is_error() else compiled
