"""What this router has sent and no report counts yet.

Reports lag behind by a step and a network's way. Without the ledger a burst sees the same idle replica again and again
and lands on it as a herd. An entry lives from the choice until the replica's report covers it (`confirm`), or the
request shows by its first output, its refusal or its end that the replica has it no more among the unseen (`release`).
"""

from __future__ import annotations

from typing import NamedTuple


class Pending(NamedTuple):
    """Sent and not yet reported: requests, uncached prompt tokens, and pages for them."""

    requests: int = 0
    tokens: int = 0
    pages: int = 0


NOTHING = Pending()


class Ledger:
    """Reservations by replica and submission id; ids grow with time."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[int, Pending]] = {}
        self._sums: dict[str, Pending] = {}

    def pending(self, replica_id: str) -> Pending:
        """The sum for one replica."""
        return self._sums.get(replica_id, NOTHING)

    def reserve(self, replica_id: str, submit_id: int, tokens: int, pages: int) -> None:
        """Counts a request that is about to be sent."""
        entry = Pending(1, tokens, pages)
        self._entries.setdefault(replica_id, {})[submit_id] = entry
        self._add(replica_id, entry, 1)

    def confirm(self, replica_id: str, last_submit_id: int) -> None:
        """The replica's report counts all submissions up to this one."""
        entries = self._entries.get(replica_id)
        if not entries:
            return
        # Ids grow, and a dict keeps its order: the confirmed ones are in front.
        covered = []
        for submit_id in entries:
            if submit_id > last_submit_id:
                break
            covered.append(submit_id)
        for submit_id in covered:
            self._add(replica_id, entries.pop(submit_id), -1)

    def release(self, replica_id: str, submit_id: int) -> None:
        """Takes one reservation back; without effect when it is gone already."""
        entry = self._entries.get(replica_id, {}).pop(submit_id, None)
        if entry is not None:
            self._add(replica_id, entry, -1)

    def forget(self, replica_id: str) -> None:
        """The replica, or its session, is gone."""
        self._entries.pop(replica_id, None)
        self._sums.pop(replica_id, None)

    def _add(self, replica_id: str, entry: Pending, sign: int) -> None:
        old = self._sums.get(replica_id, NOTHING)
        self._sums[replica_id] = Pending(*(a + sign * b for a, b in zip(old, entry, strict=True)))
