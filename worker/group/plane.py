"""The step plane: one plan to every rank, and the tokens back."""

from __future__ import annotations

from collections import deque

import msgspec

from ..plan import StepPlan, StepResult
from .followers import Followers


class StepPlane:
    """Plans to the ranks of a group, and results back."""

    def __init__(self, followers: Followers, timeout_s: float) -> None:
        self._followers = followers
        self._timeout_s = timeout_s
        self._out: deque[StepPlan] = deque()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(StepResult)

    def send(self, plan: StepPlan) -> None:
        """Raises TimeoutError when a rank takes no more plans."""
        followers = self._followers
        if plan.moves or plan.adapters or not plan.idle:
            followers.worked = plan.step
        followers.sent = plan.step
        followers.plans.write(self._encoder.encode(plan), self._timeout_s)
        self._out.append(plan)

    def receive(self) -> StepResult:
        """The result of the oldest plan that is out. Blocks until it is there; whoever watches the ranks ends the
        process when they do not come to it."""
        plan = self._out.popleft()
        if plan.idle:
            return StepResult(plan.step, [])
        return self._decoder.decode(self._followers.results.read())

    def shut_down(self) -> None:
        """The last plan: every follower leaves its loop."""
        plan = StepPlan(self._followers.sent + 1, [], [], [], [], shutdown=True)
        self._followers.plans.write(self._encoder.encode(plan), self._timeout_s)
