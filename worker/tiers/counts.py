"""How many pages there are, tier by tier."""

from __future__ import annotations

import msgspec


class PageCounts(msgspec.Struct, frozen=True):
    """Pages on the device, in host memory and on disk."""

    device: int
    host: int = 0
    disk: int = 0

    def least(self, other: PageCounts) -> PageCounts:
        """What both have."""
        return PageCounts(min(self.device, other.device), min(self.host, other.host), min(self.disk, other.disk))
