"""A rank's watch over its leader: one that is idle sends an empty plan each second, one that is stopped sends none."""

from __future__ import annotations

LOOKS = 8
LEAST_OUT = 2  # plans that are out at once, and one for each stage where there are more of those
PING_S = 1.0
LONGEST_S = 86_400.0  # the system's timers take no number whatever


class Vigil:
    """`look` every `tick_s`, from another thread than the one that calls `read` around its reads.

    Time is counted in looks, so that a machine that was suspended does not seem a leader that was silent.
    """

    def __init__(self, timeout_s: float, stages: int = 1) -> None:
        # The leader gives every plan that is out its time before it sends another.
        self.patience_s = min(timeout_s * max(LEAST_OUT, stages), LONGEST_S) + PING_S
        self.tick_s = self.patience_s / LOOKS
        self._begun = False
        self._plans = 0
        self._reading = False
        self._seen = 0
        self._looks = 0

    def begin(self) -> None:
        """The leader serves: before, it may prepare for as long as it likes."""
        self._begun = True

    def waits(self) -> None:
        """A read begins."""
        self._reading = True

    def read(self) -> None:
        """A plan has come."""
        self._reading = False
        self._plans += 1

    def look(self) -> bool:
        """Whether nothing has come for `patience_s` to who was waiting for it."""
        if not self._begun or not self._reading or self._plans != self._seen:
            self._seen, self._looks = self._plans, 0
            return False
        self._looks += 1
        return self._looks > LOOKS
