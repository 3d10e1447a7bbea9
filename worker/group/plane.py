"""The step plane: one plan to every rank, and the tokens back."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..plan import StepPlan, StepResult
from .followers import Followers


class Steps(Protocol):
    """The leader's own rank."""

    def step(self, plan: StepPlan) -> StepResult | None: ...


class StepPlane:
    """Runs plans on the whole group, the leader's own rank included. Raises what that raises, or TimeoutError."""

    def __init__(self, own: Steps, followers: Followers, timeout_s: float) -> None:
        self._own = own
        self._followers = followers
        self._timeout_s = timeout_s
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(StepResult)

    def run(self, plan: StepPlan) -> StepResult:
        """One step."""
        followers = self._followers
        followers.sent = plan.step
        if followers.plans is not None:
            followers.plans.write(self._encoder.encode(plan), self._timeout_s)
        result = self._own.step(plan)
        if followers.results is not None and plan.work:
            result = self._decoder.decode(followers.results.read())
        followers.leader_mark = plan.step
        return result or StepResult(plan.step, [])

    def shut_down(self) -> None:
        """The last plan: every follower leaves its loop."""
        if self._followers.plans is not None:
            plan = StepPlan(self._followers.sent + 1, [], [], [], [], shutdown=True)
            self._followers.plans.write(self._encoder.encode(plan), self._timeout_s)
