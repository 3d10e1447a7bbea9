"""What the scheduler asks of a grammar (worker/structured/guide.py)."""

from __future__ import annotations

from typing import Protocol

from ...core.errors import HeadwayError


class Guide(Protocol):
    """One request's place in its grammar. Between `push` and the crew's work on it, it is not `ready`."""

    @property
    def ready(self) -> bool:
        """Whether the mask is that of the next token."""
        ...

    @property
    def mask(self) -> bytes:
        """Packed bits, as in StepPlan. Only when ready."""
        ...

    @property
    def over(self) -> bool:
        """The output is complete, and no end token may come to say so."""
        ...

    @property
    def error(self) -> HeadwayError | None:
        """Why the request cannot go on."""
        ...

    def push(self, token: int) -> None:
        """The request goes on with a token that the mask had."""
        ...
