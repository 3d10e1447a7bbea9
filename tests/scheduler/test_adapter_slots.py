"""Slots of LoRA adapters: the least recently used goes, one in use never, and nobody waits for ever."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.blocks import root_key
from headway.core.sampling import SamplingParams
from headway.worker.pages import PagePool
from headway.worker.plan import FORGET, NO_ADAPTER, StepPlan, StepResult
from headway.worker.scheduler import BASE, Limits, Request, Scheduler
from headway.worker.scheduler.adapters import AdapterSlots

LIMITS = Limits(
    page_size=4,
    total_pages=200,
    max_context_tokens=64,
    max_sequences=6,
    token_budget=12,
    max_waiting=100,
    vocab_size=100,
    max_adapters=2,
)


def test_the_least_recently_used_goes():
    slots = AdapterSlots(2)
    first, second = slots.enter(1), slots.enter(2)
    slots.leave(2)
    slots.leave(1)  # used last
    assert slots.enter(3) == second
    assert slots.drain() == [(first, 1), (second, 2), (second, 3)]
    assert slots.enter(1) == first and not slots.drain()
    assert not slots.available(2) and slots.available(3) and slots.available(BASE)
    slots.leave(3)
    slots.forget(3)
    assert slots.enter(2) == second
    assert slots.drain() == [(FORGET, 3), (second, 2)]
    assert slots.enter(BASE) == NO_ADAPTER


class Ranks:
    """Holds every plan to what the ranks rely on."""

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}
        self.rows: dict[int, tuple[int, int]] = {}

    def run(self, plan: StepPlan, owner: dict[int, Request]) -> StepResult:
        for slot, adapter in plan.adapters:
            if slot != FORGET:
                assert 0 <= slot < LIMITS.max_adapters
                self.slots[slot] = adapter
        for row in plan.freed:
            self.rows.pop(row, None)
        for added in plan.added:
            self.rows[added.row] = (added.adapter, owner[added.tokens[0]].adapter)
        for work in plan.work:
            slot, adapter = self.rows[work.row]
            assert (slot == NO_ADAPTER) if adapter == BASE else self.slots[slot] == adapter
        return StepResult(plan.step, [7 for work in plan.work if work.sample])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 12), st.integers(1, 6)), max_size=30))
def test_everybody_is_served_in_order_and_rows_keep_their_adapter(script):
    """(steps to wait, adapter, prompt tokens, new tokens) each."""
    scheduler, ranks, owner = Scheduler(LIMITS, PagePool(200, 4)), Ranks(), {}
    entered: list[Request] = []

    def step() -> None:
        plan = scheduler.schedule()
        entered.extend(owner[added.tokens[0]] for added in plan.added)
        scheduler.update(ranks.run(plan, owner))

    for index, (steps, adapter, prompt, new) in enumerate(script):
        request = Request(
            session=1,
            id=index,
            tokens=array("I", [index] * prompt),
            prompt_tokens=prompt,
            max_new_tokens=new,
            sampling=SamplingParams(),
            root=root_key(str(index)),
            page_size=4,
            adapter=adapter,
        )
        owner[index] = request
        scheduler.submit(request)
        for _ in range(steps):
            step()
    for _ in range(400):
        if not scheduler.busy:
            break
        step()
    assert not scheduler.busy and len(entered) == len(script)
    for kind in (lambda request: request.adapter == BASE, lambda request: request.adapter != BASE):
        ids = [request.id for request in entered if kind(request)]
        assert ids == sorted(ids), "neither those with an adapter nor those without overtake each other"
