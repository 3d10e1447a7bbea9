"""The one who starts worker groups, restarts those that die, and stops them: an interface, met by `serve_apps`."""

from __future__ import annotations

from typing import Protocol

from ..core.specs import GroupSpec


class GroupSupervisor(Protocol):
    """Holds worker groups by replica id. A group that dies is started again until it is stopped."""

    async def start(self, spec: GroupSpec) -> None:
        """Takes the group on and returns; the group itself reports when it has come up. Idempotent."""
        ...

    async def stop(self, replica_id: str) -> None:
        """Stops the group and returns when no process of it is left. Idempotent."""
        ...

    async def held(self) -> set[str]:
        """Ids of the groups in hand, those of an earlier controller too."""
        ...

    async def shortage(self, spec: GroupSpec) -> str:
        """Which devices the group is waiting for, for a person; empty when there are enough."""
        ...
