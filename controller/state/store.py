"""The one interface of the stores. tests/controller/test_state_contract.py holds every store to it."""

from __future__ import annotations

from typing import Protocol

from .values import DesiredState


class StateStore(Protocol):
    """Keeps the desired state. Two controllers on one store never overwrite each other: a commit names what it follows.

    Raises Unavailable when the store cannot be reached; then nothing was changed, or the next `load` shows the change.
    """

    async def load(self) -> DesiredState:
        """The state as last committed; an empty one of revision 0 when there is none."""
        ...

    async def commit(self, state: DesiredState) -> None:
        """Replaces the stored state, whose revision must be `state.revision - 1`.

        Raises Stale when it is another one: somebody else committed since the caller loaded.
        """
        ...

    async def close(self) -> None:
        """Lets go of files and connections. Idempotent."""
        ...
