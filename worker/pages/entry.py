"""What a page holds, on whatever medium, and where a prefix is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...core.blocks import BlockKey
from .events import Medium


class Entry(NamedTuple):
    """What an indexed page holds. Parent and token ids are compared on a hit: a key alone proves nothing.

    `tokens` are little-endian u32.
    """

    key: BlockKey
    parent: BlockKey
    tokens: bytes


class Place(NamedTuple):
    """Where a page lies: its number on the device, its slot in the host's or the disk's tier."""

    medium: Medium
    at: int


class Prefix(NamedTuple):
    """A cached prefix: the pages that lie on the device from its start on, then wherever the rest lies."""

    pages: Sequence[int] = ()
    rest: Sequence[Place] = ()

    @property
    def depth(self) -> int:
        """Pages in all."""
        return len(self.pages) + len(self.rest)

    @property
    def held(self) -> list[int]:
        """Those on the device."""
        return [*self.pages, *(place.at for place in self.rest if place.medium is Medium.DEVICE)]

    @property
    def on_disk(self) -> bool:
        """Whether a part of it has to be read first."""
        return any(place.medium is Medium.DISK for place in self.rest)

    def before_disk(self) -> Prefix:
        """As far as it can be used now."""
        for number, place in enumerate(self.rest):
            if place.medium is Medium.DISK:
                return Prefix(self.pages, self.rest[:number])
        return self
