"""Finds stop strings in a stream of text pieces, and holds back only what could still become one."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence


class StopStrings:
    """The stop strings of one request as an Aho-Corasick automaton: one step a character, however many there are.

    A node is a prefix of a stop string. `depth[node]` is its length, `found[node]` the longest stop string that ends
    there.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = list(strings)
        self.next: list[dict[str, int]] = [{}]
        self.fail = [0]
        self.depth = [0]
        self.found: list[str | None] = [None]
        for text in self.strings:
            self._insert(text)
        self._link()
        # Text without any of these characters cannot begin a stop string: skipped at C speed.
        self.first = re.compile("[" + re.escape("".join(sorted({text[0] for text in strings}))) + "]")

    def _insert(self, text: str) -> None:
        node = 0
        for character in text:
            if character not in self.next[node]:
                self.next[node][character] = len(self.next)
                self.next.append({})
                self.fail.append(0)
                self.depth.append(self.depth[node] + 1)
                self.found.append(None)
            node = self.next[node][character]
        self.found[node] = text

    def _link(self) -> None:
        """Failure links, breadth first: the longest proper suffix of a node that is a node too."""
        waiting = deque(self.next[0].values())
        while waiting:
            node = waiting.popleft()
            for character, child in self.next[node].items():
                self.fail[child] = self.step(self.fail[node], character)
                self.found[child] = self.found[child] or self.found[self.fail[child]]
                waiting.append(child)

    def step(self, node: int, character: str) -> int:
        """The longest prefix of a stop string that ends with `character`."""
        while character not in self.next[node]:
            if node == 0:
                return 0
            node = self.fail[node]
        return self.next[node][character]


class StopMatcher:
    """One request's text on its way out.

    The first position at which any stop string ends is the match, and of those that end there the longest; so the
    verdict does not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: StopStrings, include: bool) -> None:
        self._stops = stops
        self._include = include
        self._node = 0
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Takes a piece, returns what can be shown. After a match (`matched` is set) nothing more is to be fed."""
        stops = self._stops
        if self._node == 0 and not stops.first.search(text):
            return text
        for index, character in enumerate(text):
            self._node = stops.step(self._node, character)
            self.matched = stops.found[self._node]
            if self.matched is not None:
                shown = self._held + text[: index + 1]
                self._held = ""
                return shown if self._include else shown[: len(shown) - len(self.matched)]
        shown = self._held + text
        keep = len(shown) - stops.depth[self._node]
        self._held = shown[keep:]
        return shown[:keep]

    def flush(self) -> str:
        """What was held back, once no more text will come."""
        held, self._held, self._node = self._held, "", 0
        return held
