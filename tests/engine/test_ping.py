"""The engine's loop keeps asking its ranks for a sign of life."""

import time

from headway.core.errors import Unavailable
from headway.worker.engine import Engine
from headway.worker.engine.commands import Refuse, Stop
from headway.worker.engine.reports import StepReport
from headway.worker.pages import PagePool
from headway.worker.plan import StepPlan, StepResult
from headway.worker.scheduler import Limits, Scheduler

LIMITS = Limits(
    page_size=4, total_pages=4, max_context_tokens=16, max_sequences=1, token_budget=4, max_waiting=1, vocab_size=8
)


def test_commands_that_make_no_step_put_no_ping_off() -> None:
    give_up_at = time.monotonic() + 10
    plans: list[StepPlan] = []

    class Plane:
        def send(self, plan: StepPlan) -> None:
            plans.append(plan)
            engine.inbox.put(Stop())

        def receive(self) -> StepResult:
            return StepResult(plans[-1].step, [])

    def publish(report: StepReport) -> None:
        """The next refusal is there before the loop can be idle."""
        late = time.monotonic() > give_up_at
        engine.inbox.put(Stop() if late else Refuse(session=0, id=1, error=Unavailable("no")))

    engine = Engine(Scheduler(LIMITS, PagePool(4, 4)), Plane(), publish, ping_interval_s=0.05)
    engine.inbox.put(Refuse(session=0, id=1, error=Unavailable("no")))
    engine.run()
    assert [(plan.added, plan.work) for plan in plans] == [([], [])]
