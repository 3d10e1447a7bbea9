"""One tier's slots: what lies where, and in which order it gives way.

A slot is in exactly one of three places:

    blank    it holds nothing
    taken    whoever called `take` has it, until `store` or `give_back`
    stored   its page is indexed; the longest unused gives way first, a pinned one never
"""

from __future__ import annotations

from collections import OrderedDict

from ...core.blocks import BlockKey
from ..pages.entry import Entry
from ..pages.events import KvEvents, Medium


class Shelf:
    """Slots 0 to `slots` - 1 on one medium, which `events` tell of."""

    def __init__(self, slots: int, medium: Medium, events: KvEvents) -> None:
        self.slots = slots
        self.medium = medium
        self._events = events
        self._blank = list(range(slots - 1, -1, -1))
        self._entries: dict[int, Entry] = {}
        self._index: dict[BlockKey, int] = {}
        self._unpinned: OrderedDict[int, None] = OrderedDict()
        self._pins: dict[int, int] = {}

    @property
    def blank(self) -> int:
        """Slots that hold nothing."""
        return len(self._blank)

    @property
    def stored(self) -> int:
        """Pages that can be hit."""
        return len(self._index)

    def keys(self) -> list[BlockKey]:
        """Of all pages that can be hit."""
        return list(self._index)

    def entry(self, slot: int) -> Entry:
        """What a stored slot holds."""
        return self._entries[slot]

    def slot(self, key: BlockKey) -> int | None:
        """The slot of the page with this key, whatever its tokens."""
        return self._index.get(key)

    def find(self, entry: Entry) -> int | None:
        """The slot of this very page."""
        slot = self._index.get(entry.key)
        return slot if slot is not None and self._entries[slot] == entry else None

    def contradicts(self, entry: Entry) -> bool:
        """Whether the key stands for another page here."""
        slot = self._index.get(entry.key)
        return slot is not None and self._entries[slot] != entry

    def take(self) -> int | None:
        """A blank slot, or that of the longest unused page, which is then gone; None when all others are in use."""
        if self._blank:
            return self._blank.pop()
        if not self._unpinned:
            return None
        slot, _ = self._unpinned.popitem(last=False)
        self._forget(slot)
        return slot

    def store(self, slot: int, entry: Entry) -> None:
        """The taken slot holds this page, which no other slot does."""
        assert entry.key not in self._index and slot not in self._entries
        self._entries[slot] = entry
        self._index[entry.key] = slot
        self._unpinned[slot] = None
        self._events.stored(entry.key, self.medium)

    def give_back(self, slot: int) -> None:
        """The taken slot holds nothing."""
        assert slot not in self._entries
        self._blank.append(slot)

    def drop(self, slot: int) -> None:
        """The stored page, which is not pinned, is of no use: its slot is blank from here on."""
        del self._unpinned[slot]
        self._forget(slot)
        self._blank.append(slot)

    def touch(self, slot: int) -> None:
        """The page was of use."""
        if slot in self._unpinned:
            self._unpinned.move_to_end(slot)

    def pin(self, slot: int) -> None:
        """The stored page stays, and its slot unchanged, until `unpin`. Pins add up."""
        assert slot in self._entries
        self._pins[slot] = self._pins.get(slot, 0) + 1
        self._unpinned.pop(slot, None)

    def unpin(self, slot: int) -> None:
        """One pin fewer. The last one counts as a use; a page that was cleared meanwhile leaves its slot blank."""
        self._pins[slot] -= 1
        if not self._pins[slot]:
            del self._pins[slot]
            if slot in self._entries:
                self._unpinned[slot] = None
            else:
                self._blank.append(slot)

    def clear(self) -> list[BlockKey]:
        """Forgets every page; their keys. Events say nothing of it: that is up to the caller."""
        keys = self.keys()
        self._blank.extend(slot for slot in self._entries if slot not in self._pins)
        self._entries.clear()
        self._index.clear()
        self._unpinned.clear()
        return keys

    def _forget(self, slot: int) -> None:
        key = self._entries.pop(slot).key
        del self._index[key]
        self._events.removed(key, self.medium)
