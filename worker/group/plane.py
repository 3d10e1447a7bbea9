"""The step plane: one plan to every rank, and the tokens back."""

from __future__ import annotations

import msgspec

from ..plan import StepPlan, StepResult
from .followers import Followers


class StepPlane:
    """Runs plans on the ranks of a group."""

    def __init__(self, followers: Followers, timeout_s: float) -> None:
        self._followers = followers
        self._timeout_s = timeout_s
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(StepResult)

    def run(self, plan: StepPlan) -> StepResult:
        """One step. Raises TimeoutError when a rank takes no more plans."""
        followers = self._followers
        followers.sent = plan.step
        followers.plans.write(self._encoder.encode(plan), self._timeout_s)
        if not plan.work:
            return StepResult(plan.step, [])
        return self._decoder.decode(followers.results.read())

    def shut_down(self) -> None:
        """The last plan: every follower leaves its loop."""
        plan = StepPlan(self._followers.sent + 1, [], [], [], [], shutdown=True)
        self._followers.plans.write(self._encoder.encode(plan), self._timeout_s)
