"""Which tokens may come next in one request."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from ...core.constraints import TokenRules
from ...core.errors import HeadwayError, InvalidRequest
from .limits import MASK_S
from .source import fault_of

Words = npt.NDArray[np.uint32]
BITS = 32


def pack(ids: Collection[int], words: int) -> Words:
    """The set of token ids as a mask of so many u32 words."""
    bits = np.zeros(words * BITS, np.bool_)
    bits[list(ids)] = True
    return np.packbits(bits, bitorder="little").view("<u4")


def first_line(matcher: LLMatcher) -> str:
    """The first line of what is wrong with it."""
    return fault_of(matcher).split("\n", 1)[0]


class Guide:
    """A request's place in its grammar, with the mask of what may follow there.

    `push` takes a token, and a thread of the crew then runs `advance`, which gives the next mask; in between it is not
    `ready`. `over`: nothing can follow, and no end token may come to say so. `error`: the request cannot go on.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        mask: Words,
        *,
        field: str,
        model_eos: Sequence[int],
        eos: Collection[int],
        rules: TokenRules,
        output_tokens: int,
    ) -> None:
        """`mask` is the matcher's own for where it stands; `model_eos` are the ids by which that knows the end, and
        `eos` those which end this request: none for one that goes on after the end token."""
        words = len(mask)
        self.field = field
        self.ready = True
        self.over = False
        self.error: HeadwayError | None = None
        self.started: float | None = None
        self._matcher = matcher
        self._mask = mask.copy()
        self._token = -1
        self._output_tokens = output_tokens
        self._eos = pack(eos, words)
        self._model_eos = pack(model_eos, words)
        self._ends = pack(rules.end_token_ids, words)
        self._ends_from = rules.min_new_tokens
        self._allowed = pack(rules.allowed, words) if rules.allowed else None
        self._settle()

    @property
    def mask(self) -> bytes:
        """Bit i % 32 of the little-endian u32 number i // 32 says whether token i may come."""
        assert self.ready
        return self._mask.tobytes()

    @property
    def stuck(self) -> bool:
        """Whether `advance` has run for too long by now."""
        started = self.started
        return started is not None and not self.ready and time.monotonic() - started > MASK_S

    def push(self, token: int) -> None:
        """The request goes on with this token, which its mask had."""
        assert self.ready
        self.ready = False
        self._token = token

    def advance(self) -> None:
        """Takes the pushed token and makes the mask after it. On any thread; the matcher lets go of the interpreter."""
        self.started = time.monotonic()
        try:
            if self._matcher.consume_token(self._token):
                self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
            self._output_tokens += 1
            self._settle()
        except BaseException as error:  # a panic in Rust is no Exception, and the thread has other guides to move on
            self._fail(f"{type(error).__name__}: {error}")
        self.started = None
        self.ready = True

    def give_up(self) -> None:
        """It is stuck: the request is to end, and what `advance` still does is of no use."""
        self._fail(f"too costly to follow: one token took more than the {MASK_S:g} s allowed")

    def _settle(self) -> None:
        """Makes the matcher's mask the request's, and sees whether anything is left in it."""
        if self._matcher.is_error():
            self._fail(first_line(self._matcher))
            return
        mask = self._mask
        complete = bool((mask & self._model_eos).any())
        # An end id may be a piece of text too, but not in the middle of the output.
        mask &= ~(self._model_eos | self._eos)
        if complete:
            mask |= self._eos
        left = mask if self._allowed is None else mask & self._allowed
        if self._output_tokens < self._ends_from:
            left = left & ~self._ends
        # What is complete ends, though a least length or a list of allowed ids keeps the end token away. When it is not
        # complete and nothing is left, the sampler finds that out.
        self.over = complete and not left.any()

    def _fail(self, why: str) -> None:
        self.error = InvalidRequest(f"{self.field}: after {self._output_tokens} tokens: {why}", field=self.field)
