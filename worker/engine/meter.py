"""How fast this engine is, as measured: what routers predict the time to the first token from."""

from __future__ import annotations

from ..plan import StepPlan

SMOOTHING = 0.1
MIN_PREFILL_TOKENS = 16  # below that, a step's fixed cost hides what a token costs, unless no step has many more


class Meter:
    """Exponentially smoothed rates, and the totals since the start."""

    def __init__(self, token_budget: int) -> None:
        self._least_prefill = min(MIN_PREFILL_TOKENS, max(1, token_budget // 2))
        self.steps = 0
        self.step_seconds = 0.0
        self.model_seconds = 0.0
        self.prefill_rate = 0.0
        self.decode_step_s = 0.0
        self._decode_plan_s = 0.0

    def step(self, plan: StepPlan, seconds: float, model_seconds: float, turns: int = 1) -> None:
        """Counts one step that took `seconds` from planning to report; one in which all sat out is none.

        `turns` plans are out for different rows each: a row's next token comes after as many steps.
        """
        if plan.idle:
            return
        self.steps += 1
        self.step_seconds += seconds
        self.model_seconds += model_seconds
        decoding = plan.decoding + sum(item.count == 1 and item.sample for item in plan.work)
        prefill = plan.total_tokens - decoding
        if not prefill:
            self._decode_plan_s = _smooth(self._decode_plan_s, seconds)
            self.decode_step_s = _smooth(self.decode_step_s, seconds * turns)
        elif prefill >= self._least_prefill:
            spent = seconds - (self._decode_plan_s if decoding else 0.0)
            self.prefill_rate = _smooth(self.prefill_rate, prefill / max(spent, seconds / 10))


def _smooth(mean: float, value: float) -> float:
    return value if mean == 0.0 else mean + SMOOTHING * (value - mean)
