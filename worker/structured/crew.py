"""The threads that move guides on, so that a slow grammar holds up only its own request."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from queue import SimpleQueue

from .guide import Guide

THREADS = 4
MAX_STUCK = 2


class Crew:
    """Guides are advanced in chunks, one thread each. A thread whose guide is stuck is left to it and replaced."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = threads
        self._started = 0
        self._chunks: SimpleQueue[deque[Guide]] = SimpleQueue()
        self._turned = threading.Condition()
        self._at_work: dict[int, tuple[Guide, deque[Guide]]] = {}
        self._stuck: set[int] = set()

    @property
    def overwhelmed(self) -> bool:
        """Whether so many threads are stuck that no new grammar should be followed."""
        return len(self._stuck) >= MAX_STUCK

    def advance(self, guides: Collection[Guide]) -> None:
        """Begins to advance guides that a token was pushed to."""
        while self._started < min(self._threads, len(guides)):
            self._start()
        share = -(-len(guides) // self._threads)
        queue = list(guides)
        for start in range(0, len(queue), share or 1):
            self._chunks.put(deque(queue[start : start + share]))

    def wait(self, guides: Collection[Guide], timeout_s: float) -> None:
        """Returns when all are ready, or after `timeout_s`. Those that are stuck by then are given up."""
        with self._turned:
            self._turned.wait_for(lambda: all(guide.ready for guide in guides), timeout_s)
            for number, (guide, rest) in self._at_work.items():
                if guide.stuck and number not in self._stuck:
                    guide.give_up()
                    self._stuck.add(number)
                    self._start()
                    self._chunks.put(deque(rest.popleft() for _ in range(len(rest))))

    def _start(self) -> None:
        self._started += 1
        name = f"headway-grammar-{self._started}"
        threading.Thread(target=self._work, args=(self._started,), name=name, daemon=True).start()

    def _work(self, number: int) -> None:
        while True:
            chunk = self._chunks.get()
            while (guide := self._next(number, chunk)) is not None:
                guide.advance()
            with self._turned:
                if number in self._stuck:
                    self._stuck.remove(number)
                    return

    def _next(self, number: int, chunk: deque[Guide]) -> Guide | None:
        """The next of this thread's guides; at the end, whoever waits looks again."""
        with self._turned:
            if chunk:
                guide = chunk.popleft()
                self._at_work[number] = (guide, chunk)
                return guide
            self._at_work.pop(number, None)
            self._turned.notify_all()
            return None
