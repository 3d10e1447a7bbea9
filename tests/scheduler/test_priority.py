"""Who goes first, who gives way, and that nobody waits for ever."""

from __future__ import annotations

from test_admission import Engine, expected

from headway.worker.scheduler import Request


def prompt(number: int, length: int = 9) -> list[int]:
    return [100 * number + at for at in range(length)]


def order(engine: Engine) -> list[Request]:
    return list(engine.run())


def test_lower_values_first_and_equals_by_arrival() -> None:
    engine = Engine(pages=32, max_sequences=1)
    engine.submit(prompt(0), 1)
    engine.step()
    waiting = [engine.submit(prompt(1 + at), 1, priority=level) for at, level in enumerate([0, 2, -1, 0, 2, -1])]
    assert [waiting.index(request) for request in order(engine)] == [2, 5, 0, 3, 1, 4]


def test_an_urgent_one_takes_the_row_or_the_pages_of_the_last_that_it_outranks() -> None:
    for pages, rows in ((32, 2), (8, 4)):
        engine = Engine(pages=pages, max_sequences=rows)
        first, last = engine.submit(prompt(0, 11), 8, priority=1), engine.submit(prompt(1, 11), 8, priority=1)
        engine.step()
        engine.step()
        urgent = engine.submit(prompt(2, 12), 3)
        equal = engine.submit(prompt(3, 12), 3, priority=1)
        engine.step()
        assert urgent.pages and first.pages and not last.pages and not equal.pages
        assert order(engine)[0] is urgent and first.preemptions == 0 < last.preemptions
        for request, start, count in ((first, prompt(0, 11), 8), (last, prompt(1, 11), 8), (urgent, prompt(2, 12), 3)):
            assert list(request.tokens) == expected(start, count)


def test_nobody_gives_way_in_vain() -> None:
    """The pages of all that it outranks would not do."""
    engine = Engine(pages=12)
    for at, level in enumerate([0, 1]):
        engine.submit(prompt(at, 15), 8, priority=level)
    engine.step()
    engine.step()
    late = engine.submit(prompt(2, 39), 1, priority=-1)
    middle = engine.submit(prompt(3, 15), 20, priority=0)
    engine.step()
    assert engine.scheduler.preemptions > 0 and late.pages, "this one outranks both"
    assert not middle.pages
    blocked = Engine(pages=12)
    blocked.submit(prompt(0, 31), 8, priority=-5)
    blocked.submit(prompt(1, 7), 8, priority=1)
    for _ in range(4):
        blocked.step()
    waits = blocked.submit(prompt(2, 39), 1, priority=0)
    blocked.step()
    assert not waits.pages and blocked.scheduler.preemptions == 0 and blocked.scheduler.running == 2


def test_an_urgent_prompt_goes_before_the_rest_of_another_and_decoding_goes_on() -> None:
    engine = Engine(pages=64, token_budget=16)
    decoding = engine.submit(prompt(0, 5), 30, priority=1)
    engine.step()
    long = engine.submit(prompt(1, 100), 1, priority=1)
    engine.step()
    urgent = engine.submit(prompt(2, 20), 1)
    before = long.computed
    had = len(decoding.tokens)
    engine.step()
    assert (urgent.computed, long.computed, len(decoding.tokens)) == (15, before, had + 1)
    engine.step()
    assert long.computed == before + 10 and len(decoding.tokens) == had + 2


def test_the_least_urgent_is_not_overtaken_for_ever() -> None:
    engine = Engine(pages=32, max_sequences=1)
    engine.limits = engine.scheduler.limits = type(engine.limits)(
        **{name: getattr(engine.limits, name) for name in engine.limits.__struct_fields__} | {"aging_steps": 10}
    )
    patient = engine.submit(prompt(0), 2, priority=3)
    for step in range(60):
        engine.submit(prompt(1 + step % 8), 1)
        engine.step()
        if patient.output_tokens == 2:
            break
    assert 25 < step < 45 and patient.preemptions <= 1


def test_a_prefix_is_computed_once_by_all_that_come_together() -> None:
    engine = Engine(pages=64, max_sequences=8, token_budget=64)
    together = [engine.submit(prompt(0, 41), 2) for _ in range(5)]
    stranger = engine.submit(prompt(1, 9), 2)
    assert engine.step() == 41 + 9, "one computes, the others wait for its pages, and hold up nobody"
    assert engine.step() == 2 + 4 * 1
    engine.run()
    assert engine.pool.used_pages == 0
    assert [request.cached_tokens for request in (*together, stranger)] == [0, 40, 40, 40, 40, 0]
    assert all(list(request.tokens) == expected(prompt(0, 41), 2) for request in together)


def test_only_the_shared_part_is_waited_for() -> None:
    engine = Engine(pages=64, max_sequences=8, token_budget=16)
    long = engine.submit(prompt(0, 100), 1)
    branch = engine.submit([*prompt(0, 20), *prompt(1, 20)], 1)
    assert engine.step() == 16 and not branch.pages
    assert engine.step() == 16 and long.computed == 32
    engine.run()
    assert branch.cached_tokens == 20


def test_who_waits_for_a_prefix_goes_on_at_once_when_it_will_not_come() -> None:
    for ends in ("abort", "preempt"):
        engine = Engine(pages=16, max_sequences=2, token_budget=8)
        first = engine.submit(prompt(0, 40), 1, priority=1)
        waits = engine.submit(prompt(0, 40), 1, priority=1)
        engine.step()
        assert first.computed == 8 and not waits.pages
        if ends == "abort":
            engine.scheduler.abort(first)
        else:
            engine.submit(prompt(1, 56), 1)
        engine.step()
        if ends == "abort":
            assert waits.cached_tokens == 8 and waits.computed == 16
        engine.run()
        assert list(waits.tokens) == expected(prompt(0, 40), 1)


def test_a_prompt_that_gives_way_halfway_is_scored_again_from_its_start() -> None:
    engine = Engine(pages=16, max_sequences=1, token_budget=8)
    scored = engine.submit(prompt(0, 30), 2, priority=1, scored=True)
    engine.step()
    engine.step()
    assert len(scored.prompt_scores) == 2
    engine.submit(prompt(1, 5), 1)
    engine.step()
    assert scored.preemptions == 1
    scores = []
    while engine.scheduler.busy:
        for outcome in engine.scheduler.update(engine.ranks.step(engine.scheduler.schedule())).outcomes:
            scores += [outcome.prompt_logprobs] if outcome.request is scored else []
    assert [part is not None for part in scores] == [True, False] and scored.cached_tokens == 0
    assert scores[0] is not None and scores[0].ids == scored.tokens[1:30].tobytes()


def test_who_loses_the_least_gives_way_unless_another_is_of_lower_priority() -> None:
    """All pages are in use when the first one needs its fifth. The last in line has computed more than the middle."""
    for last_priority, gives_way in ((0, 1), (1, 2)):
        engine = Engine(pages=14, token_budget=64)
        starts = [prompt(number, length) for number, length in enumerate((12, 6, 22))]
        requests = [
            engine.submit(start, 9, priority=level) for start, level in zip(starts, (0, 0, last_priority), strict=True)
        ]
        while not engine.scheduler.preemptions:
            engine.step()
        assert [request.preemptions for request in requests] == [int(number == gives_way) for number in range(3)]
        assert requests[0].computed == 17 and order(engine)[0] is requests[0]
        for request, start in zip(requests, starts, strict=True):
            assert list(request.tokens) == expected(start, 9)
