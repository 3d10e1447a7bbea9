"""The page pool: reference counts, the index of prefixes that can be reused, and the order in which they give way.

A page is in exactly one of three places:

    blank    nobody holds it and it holds nothing of use
    held     one or more sequences hold it (its reference count)
    cached   nobody holds it, but its KV is indexed and can be hit; the longest unused is taken first

What gives way goes to the tiers below, if there are any, and comes back from there (worker/tiers).

A held page may be indexed too: others may share it as soon as its KV is computed, which is when `store` is called.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...core.blocks import BlockKey
from .entry import Entry, Place, Prefix
from .events import KvEvents, Medium

if TYPE_CHECKING:
    from ..tiers import Tiers


class PagePool:
    """Pages 0 to total_pages - 1 of `page_size` tokens each. Not thread-safe: the engine's loop owns it."""

    def __init__(self, total_pages: int, page_size: int, tiers: Tiers | None = None) -> None:
        """`tiers` get what gives way here."""
        self.total_pages = total_pages
        self.page_size = page_size
        self.tiers = tiers
        self.events = KvEvents() if tiers is None else tiers.events
        self._references = [0] * total_pages
        self._blank = list(range(total_pages - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._entries: list[Entry | None] = [None] * total_pages
        self._index: dict[BlockKey, int] = {}

    @property
    def free_pages(self) -> int:
        """Pages that `take` can give: blank ones and cached ones."""
        return len(self._blank) + len(self._cached)

    @property
    def cached_pages(self) -> int:
        return len(self._cached)

    @property
    def used_pages(self) -> int:
        return self.total_pages - self.free_pages

    def pages_for(self, tokens: int) -> int:
        """Pages that `tokens` tokens fill, the last perhaps in part."""
        return -(-tokens // self.page_size)

    def match(self, root: BlockKey, keys: Sequence[BlockKey], tokens: bytes, limit: int) -> list[int]:
        """Pages that hold the longest indexed prefix, at most `limit` of them. They are not held yet: see `share`.

        `keys` are the chained keys of the full pages of `tokens` (little-endian u32).
        """
        width = self.page_size * 4
        pages: list[int] = []
        parent = root
        for position, key in enumerate(keys[:limit]):
            page = self._index.get(key)
            if page is None:
                break
            entry = self._entries[page]
            assert entry is not None
            if entry.parent != parent or entry.tokens != tokens[position * width : (position + 1) * width]:
                break
            pages.append(page)
            parent = key
        return pages

    def find(self, root: BlockKey, keys: Sequence[BlockKey], tokens: bytes, limit: int) -> Prefix:
        """As `match`, and on through the tiers."""
        pages = self.match(root, keys, tokens, limit)
        rest: list[Place] = []
        if self.tiers is not None:
            width = self.page_size * 4
            parent = keys[len(pages) - 1] if pages else root
            for at in range(len(pages), min(limit, len(keys))):
                place = self._place(Entry(keys[at], parent, tokens[at * width : (at + 1) * width]))
                if place is None:
                    break
                rest.append(place)
                parent = keys[at]
        return Prefix(pages, rest)

    def gather(self, prefix: Prefix) -> list[int]:
        """The pages of a prefix that is not on disk, in order. What lies in host memory gets pages of its own, which
        hold it from the next plan on; the others the caller has shared. Raises MemoryError."""
        if not prefix.rest:
            return list(prefix.pages)
        assert self.tiers is not None
        self.tiers.keep(prefix.rest)  # before pages that give way take the slots
        return [*prefix.pages, *(self._bring(self.tiers, place) for place in prefix.rest)]

    def take(self, count: int) -> list[int]:
        """`count` pages for one holder, blank ones first, then the longest unused cached ones. Raises MemoryError."""
        if count > self.free_pages:
            raise MemoryError(f"{count} pages asked for, {self.free_pages} free")
        pages = [self._blank.pop() if self._blank else self._evict() for _ in range(count)]
        for page in pages:
            self._references[page] = 1
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """One more holder for each page; cached ones become held."""
        for page in pages:
            if self._references[page] == 0:
                del self._cached[page]
            self._references[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """One holder fewer for each page. Give a sequence's pages in order: its tail then gives way before its head."""
        for page in reversed(pages):
            assert self._references[page] > 0, f"page {page} released more often than held"
            self._references[page] -= 1
            if self._references[page] == 0:
                if self._entries[page] is None:
                    self._blank.append(page)
                else:
                    self._cached[page] = None

    def freed_by(self, holders: Iterable[Sequence[int]]) -> int:
        """How many pages would be free if all these holders released theirs."""
        counts = Counter(page for pages in holders for page in pages)
        return sum(self._references[page] == count for page, count in counts.items())

    def unshared(self, pages: Sequence[int]) -> int:
        """How many of a sequence's pages nobody else holds: those after the prefix that it shares."""
        references = self._references
        return len(pages) - bisect_left(pages, 1, key=lambda page: references[page] == 1)

    def store(self, page: int, key: BlockKey, parent: BlockKey, tokens: bytes) -> bool:
        """Indexes a held page whose KV is computed. A second page with the same key stays out: the first one counts.

        False when the key stands for other content, by a collision. Then nothing may be stored that is chained to it:
        it would be taken for what is chained to the other one.
        """
        assert self._references[page] > 0 and self._entries[page] is None
        entry = Entry(key, parent, tokens)
        if self.tiers is not None and self.tiers.contradicts(entry):
            return False
        if (first := self._index.get(key)) is not None:
            return self._entries[first] == entry
        self._put(page, entry)
        return True

    def clear(self) -> None:
        """Forgets every prefix. Held pages stay with their holders, unindexed."""
        for page in self._index.values():
            self._entries[page] = None
        self._index.clear()
        self._blank.extend(self._cached)
        self._cached.clear()
        if self.tiers is not None:
            self.tiers.clear()
        self.events.cleared()

    def has(self, key: BlockKey) -> bool:
        """Whether a page with this key is indexed, here or in a tier."""
        return key in self._index or (self.tiers is not None and self.tiers.has(key))

    def keys(self) -> list[BlockKey]:
        """Keys of all pages that can be hit on the device."""
        return list(self._index)

    def _evict(self) -> int:
        page, _ = self._cached.popitem(last=False)
        entry = self._entries[page]
        assert entry is not None
        del self._index[entry.key]
        self._entries[page] = None
        self.events.removed(entry.key)
        if self.tiers is not None:
            self.tiers.spill(page, entry)
        return page

    def _put(self, page: int, entry: Entry) -> None:
        self._index[entry.key] = page
        self._entries[page] = entry
        self.events.stored(entry.key)

    def _place(self, entry: Entry) -> Place | None:
        assert self.tiers is not None
        page = self._index.get(entry.key)
        if page is None:
            return self.tiers.find(entry)
        return Place(Medium.DEVICE, page) if self._entries[page] == entry else None

    def _bring(self, tiers: Tiers, place: Place) -> int:
        if place.medium is Medium.DEVICE:
            return place.at
        (page,) = self.take(1)
        self._put(page, tiers.fetch(place.at, page))
        return page
