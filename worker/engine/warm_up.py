"""Steps like those to come, before anybody waits for one: on a device each kernel is compiled when it is first used,
which takes seconds that would be the first caller's, and could be taken for a step that hangs."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import cycle

from ...core.blocks import KEY_BYTES, BlockKey
from ...core.sampling import SamplingParams
from ..plan import StepPlan, StepResult
from ..scheduler import Request, Scheduler

WAYS = (
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=1.0, seed=1),
    SamplingParams(temperature=1.0, seed=2, top_k=20, top_p=0.9, min_p=0.01, repetition_penalty=1.1),
)
NEW_TOKENS = 2
# Prompts that go together. Tokens of a step decide which kernels run: quantized products come for up to 16, 32 and 64
# of them, and for more (`row_block` in kernels/linear_w8a8.py).
TOGETHER = ((1, 2, 3, 4), (17,), (33,))


def warm_up(scheduler: Scheduler, send: Callable[[StepPlan], None], receive: Callable[[], StepResult]) -> None:
    """Prompts and single tokens, greedy, drawn and filtered, alone and together, few and many. Leaves an idle scheduler
    with an empty cache, and no event of it. For a scheduler that nobody else uses yet. Raises what `send` and `receive`
    do."""
    limits = scheduler.limits
    length = min(limits.token_budget, limits.max_context_tokens - NEW_TOKENS)
    if length < 1:
        return
    for sizes in ((length,), *TOGETHER):
        for number, (size, sampling) in enumerate(zip(sizes, cycle(WAYS))):
            request = Request(
                session=0,
                id=number,
                tokens=array("I", [0]) * size,
                prompt_tokens=size,
                max_new_tokens=NEW_TOKENS,
                sampling=sampling,
                root=BlockKey(bytes(KEY_BYTES)),
                page_size=limits.page_size,
                cache_bypass=True,
            )
            if size <= length and number < limits.max_sequences:
                scheduler.submit(request)
        while scheduler.busy:
            while scheduler.may_plan:
                send(scheduler.schedule())
            scheduler.update(receive())
    scheduler.pool.clear()
    scheduler.pool.events.drain()
