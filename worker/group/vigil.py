"""A rank's watch over its leader: one that is idle sends an empty plan each second, one that is stopped sends none."""

from __future__ import annotations

FIRST_PLANS = 2  # the leader prepares for a while after the first, and serves after the second
LOOKS = 8
PING_S = 1.0
LONGEST_S = 86_400.0  # the system's timers take no number whatever


class Vigil:
    """`look` every `tick_s`, from another thread than the one that calls `read` around its reads.

    Time is counted in looks, so that a machine that was suspended does not seem a leader that was silent.
    """

    def __init__(self, timeout_s: float) -> None:
        self.patience_s = min(timeout_s, LONGEST_S) + PING_S
        self.tick_s = self.patience_s / LOOKS
        self._plans = 0
        self._reading = False
        self._seen = 0
        self._looks = 0

    def waits(self) -> None:
        """A read begins."""
        self._reading = True

    def read(self) -> None:
        """A plan has come."""
        self._reading = False
        self._plans += 1

    def look(self) -> bool:
        """Whether nothing has come for `patience_s` to who was waiting for it."""
        if not self._reading or self._plans < FIRST_PLANS or self._plans != self._seen:
            self._seen, self._looks = self._plans, 0
            return False
        self._looks += 1
        return self._looks > LOOKS
