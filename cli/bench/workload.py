"""What is asked for: prompts of random token ids and output lengths, the same for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from numpy.random import Generator


class Lengths(msgspec.Struct, frozen=True):
    """A number of tokens: fixed, or uniform over a closed range."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """Reads "128" or "64-256". Raises ValueError."""
        low, _, high = text.partition("-")
        try:
            lengths = cls(int(low), int(high or low))
        except ValueError:
            raise ValueError(f"must be a number or a range such as 64-256, got {text!r}") from None
        if not 1 <= lengths.low <= lengths.high:
            raise ValueError(f"must be at least 1 and in order, got {text!r}")
        return lengths

    def draw(self, rng: Generator) -> int:
        return int(rng.integers(self.low, self.high + 1))

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


class BenchRequest(msgspec.Struct, frozen=True):
    """One request: its prompt, and exactly how many tokens to make."""

    token_ids: list[int]
    max_new_tokens: int


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Request `index` of run `run` follows from these numbers alone: order and concurrency change nothing.

    The first `shared_prefix` tokens of every prompt of a run are the same.
    """

    vocab_size: int
    input_tokens: Lengths
    output_tokens: Lengths
    shared_prefix: int
    seed: int

    def check(self, max_context_tokens: int) -> None:
        """Raises ValueError when some request could not be."""
        longest = self.input_tokens.high + self.output_tokens.high
        if longest > max_context_tokens:
            raise ValueError(
                f"input and output may come to {longest} tokens, and the model's context is {max_context_tokens}"
            )
        if not 0 <= self.shared_prefix < self.input_tokens.low:
            raise ValueError(
                f"the shared prefix must be at least 0 and below the shortest input, {self.input_tokens.low} tokens, "
                f"got {self.shared_prefix}"
            )
        if self.vocab_size < 1:
            raise ValueError("the model does not say how large its vocabulary is, so no prompts can be drawn")

    def request(self, run: int, index: int) -> BenchRequest:
        """Draws one request."""
        rng = self._rng(run, index + 1)
        rest = self.input_tokens.draw(rng) - self.shared_prefix
        output = self.output_tokens.draw(rng)
        return BenchRequest(self._ids(self._rng(run, 0), self.shared_prefix) + self._ids(rng, rest), output)

    def _rng(self, run: int, stream: int) -> Generator:
        import numpy

        return numpy.random.default_rng([self.seed, run, stream])

    def _ids(self, rng: Generator, count: int) -> list[int]:
        ids: list[int] = rng.integers(0, self.vocab_size, count).tolist()
        return ids
