"""Steps that were launched, and what is to be had of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from ..plan import StepResult
from .scoring import RowLogprobs
from .transfer import Outgoing, Stopwatch


class Launched(Protocol):
    """A step under way."""

    @property
    def done(self) -> bool:
        """Whether `collect` does not have to wait."""
        ...

    def collect(self) -> StepResult | None:
        """Waits for the step; its result on the sampling rank, None on others. Call it once, in the order of steps.
        Raises RuntimeError for what went wrong on the device."""
        ...


class Finished(NamedTuple):
    """A step that was over when `launch` returned, as every one is on CPU."""

    result: StepResult | None

    @property
    def done(self) -> bool:
        return True

    def collect(self) -> StepResult | None:
        return self.result


class Underway(NamedTuple):
    """A step that the device works on. `known` is what of its result the host knew at launch; None on a rank that has
    no result. `tokens` is their number in `outgoing`, None without a sampled row."""

    outgoing: Outgoing
    stopwatch: Stopwatch
    known: StepResult | None
    tokens: int | None
    logprobs: Callable[[list[int]], RowLogprobs] | None

    @property
    def done(self) -> bool:
        return self.outgoing.arrived

    def collect(self) -> StepResult | None:
        self.outgoing.wait()
        if self.known is None:
            return None
        tokens: list[int] = [] if self.tokens is None else self.outgoing.taken(self.tokens).tolist()
        return msgspec.structs.replace(
            self.known,
            token_ids=tokens,
            model_seconds=self.stopwatch.seconds(),
            logprobs=[] if self.logprobs is None else self.logprobs(tokens),
        )
