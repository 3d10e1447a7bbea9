"""Tokens of many requests that have not been sent yet, as columns: nothing here is done for each of them alone."""

from __future__ import annotations

import numpy as np

from ..engine import Decoded

JOIN_AT = 64  # a few rows in arrays of their own take many times the memory that they do in long ones


class Columns:
    """Rows of successive reports, oldest first. An id may be in several."""

    def __init__(self) -> None:
        self._parts: list[Decoded] = []
        self._ids: set[int] = set()  # those in the first `_seen` parts
        self._seen = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def ids(self) -> set[int]:
        """All that are in here. Only what came since the last time is looked through."""
        for part in self._parts[self._seen :]:
            self._ids.update(part.ids.tolist())
        self._seen = len(self._parts)
        return self._ids

    def add(self, decoded: Decoded) -> None:
        """Rows of one report, at least one."""
        self._parts.append(decoded)
        if len(self._parts) >= JOIN_AT:
            self._hold(self._joined())

    def take(self, most: int) -> Decoded:
        """The oldest rows, so many at most. The rest stays."""
        rows = self._joined()
        self._hold(Decoded(rows.ids[most:], rows.tokens[most:]))
        return Decoded(rows.ids[:most], rows.tokens[:most])

    def _joined(self) -> Decoded:
        if len(self._parts) == 1:
            return self._parts[0]
        return Decoded(
            np.concatenate([part.ids for part in self._parts]), np.concatenate([part.tokens for part in self._parts])
        )

    def _hold(self, rows: Decoded) -> None:
        self._parts = [rows] if len(rows.ids) else []
        self._ids, self._seen = set(), 0
