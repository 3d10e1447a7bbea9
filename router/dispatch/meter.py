"""What the dispatcher tells of its decisions."""

from __future__ import annotations

from typing import Protocol


class DispatchMeter(Protocol):
    """Called in the event loop."""

    def placed(self, model: str, replica_id: str, prompt_tokens: int, hit_tokens: int) -> None:
        """A request was sent to a replica that was expected to have its first `hit_tokens`."""
        ...

    def refused(self, replica_id: str, reason: str) -> None:
        """A replica did not take a request."""
        ...

    def migrated(self, model: str) -> None:
        """A request that lost its replica goes on."""
        ...


class SilentMeter:
    """Measures nothing."""

    def placed(self, model: str, replica_id: str, prompt_tokens: int, hit_tokens: int) -> None:
        pass

    def refused(self, replica_id: str, reason: str) -> None:
        pass

    def migrated(self, model: str) -> None:
        pass
