"""What the asyncio side says to the engine's loop, through its inbox. It knows sessions by number only."""

from __future__ import annotations

from typing import NamedTuple

from ...core.errors import HeadwayError
from ..scheduler import Request


class Submit(NamedTuple):
    """A new request, checked against the limits that do not depend on what else runs.

    While its grammar is `compiling` it is live, but does not run: Compiled says how that went.
    """

    request: Request
    compiling: bool = False


class Compiled(NamedTuple):
    """A request that was compiling has its guide, or cannot have it. Without effect when it has ended since."""

    request: Request
    error: HeadwayError | None = None


class Refuse(NamedTuple):
    """A request that was refused before it got here. It travels through the loop so that verdicts keep their order."""

    session: int
    id: int
    error: HeadwayError


class Abort(NamedTuple):
    """Stop a request; without effect when it has ended."""

    session: int
    id: int


class Fail(NamedTuple):
    """End a request with an error, whether it waits or runs; without effect when it has ended."""

    session: int
    id: int
    error: HeadwayError


class Leave(NamedTuple):
    """The session has ended: stop its requests and say no more of them."""

    session: int


class Accept(NamedTuple):
    """Take new requests, or refuse them (drain)."""

    accepting: bool


class Forget(NamedTuple):
    """No new request will name this adapter: drop it when the last that does has ended."""

    adapter: int


class Stop(NamedTuple):
    """Stop what is left and end the loop."""


Command = Submit | Compiled | Refuse | Abort | Fail | Leave | Accept | Forget | Stop
