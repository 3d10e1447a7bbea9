"""A leader is silent when who waits for its plans looks a whole timeout long in vain; nothing else is silence."""

from headway.worker.group.vigil import LOOKS, Vigil


def begun() -> Vigil:
    vigil = Vigil(3.0)
    vigil.waits()
    vigil.read()
    vigil.begin()
    return vigil


def test_silence():
    vigil = begun()
    vigil.waits()
    assert [vigil.look() for _ in range(LOOKS + 2)] == [False] * (LOOKS + 1) + [True]
    assert vigil.tick_s * LOOKS == vigil.patience_s > 2 * 3.0


def test_before_the_leader_serves_it_may_take_its_time():
    vigil = Vigil(3.0)
    for _ in range(5):  # its warm-up
        vigil.waits()
        vigil.read()
    vigil.waits()
    assert not any(vigil.look() for _ in range(LOOKS * 3))


def test_a_rank_that_is_at_work_waits_for_nobody():
    vigil = begun()
    assert not any(vigil.look() for _ in range(LOOKS * 3))


def test_every_plan_that_is_out_has_its_time():
    assert Vigil(3.0, 1).patience_s == Vigil(3.0, 2).patience_s > 2 * 3.0
    assert Vigil(3.0, 4).patience_s > 4 * 3.0


def test_a_plan_now_and_then_is_enough():
    vigil = begun()
    for _ in range(5):
        vigil.waits()
        assert not any(vigil.look() for _ in range(LOOKS))
        vigil.read()


def test_a_timeout_may_be_any_number():
    assert Vigil(1e9).tick_s * 1000 < 2**31
