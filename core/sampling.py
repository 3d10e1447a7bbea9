"""How one request's tokens are chosen, every default resolved, with the bounds that both fronts enforce."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Bound(NamedTuple):
    """A closed range; `open_low` leaves the lower end out."""

    low: float
    high: float
    open_low: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is inside. NaN never is."""
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"{'above' if self.open_low else 'at least'} {_exact(self.low)} and at most {_exact(self.high)}"


def _exact(value: float) -> str:
    """Whole bounds to the last digit: 2**64 - 1 must not read as 1.84467e+19, which is refused."""
    return str(value) if isinstance(value, int) else f"{value:g}"


BOUNDS: dict[str, Bound] = {
    "temperature": Bound(0.0, 100.0),
    "top_p": Bound(0.0, 1.0, open_low=True),
    "top_k": Bound(0, 2**31 - 1),
    "min_p": Bound(0.0, 1.0),
    "seed": Bound(0, 2**64 - 1),
    "presence_penalty": Bound(-2.0, 2.0),
    "frequency_penalty": Bound(-2.0, 2.0),
    "repetition_penalty": Bound(0.0, 100.0, open_low=True),
}


class SamplingParams(msgspec.Struct, frozen=True, array_like=True):
    """Sampling of one request. Temperature 0 is greedy, and then every filter below it is without effect.

    `seed` is always set: the router draws one when the caller gave none, so that a continuation on another replica
    samples the tokens that would have come.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def penalized(self) -> bool:
        return self.presence_penalty != 0.0 or self.frequency_penalty != 0.0 or self.repetition_penalty != 1.0
