"""The crew: a guide that takes long is left alone, the others go on, and one that takes too long is given up."""

import threading

import pytest

from headway.core.errors import HeadwayError
from headway.worker.structured import crew as crew_module
from headway.worker.structured import guide as guide_module
from headway.worker.structured.crew import Crew
from headway.worker.structured.guide import Guide


class Held(Guide):
    """A guide whose matcher does not come back before `let_go`."""

    def __init__(self, held: bool) -> None:
        self.ready, self.over, self.error, self.started = False, False, None, None  # type: ignore[assignment]
        self.let_go = threading.Event()
        self.field, self._output_tokens = "grammar.regex", 3
        if not held:
            self.let_go.set()

    def advance(self) -> None:
        self.started = 0.0
        self.let_go.wait(20)
        self.started = None
        self.ready = True


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide_module, "MASK_S", -1.0)


def test_whoever_is_stuck_is_given_up_and_those_behind_it_go_on() -> None:
    crew = Crew(threads=1)
    stuck, *others = guides = [Held(True), *(Held(False) for _ in range(5))]
    crew.advance(guides)
    for _ in range(200):
        crew.wait(others, 0.05)
        if all(guide.ready for guide in others):
            break
    assert all(guide.ready for guide in others) and not stuck.ready
    assert isinstance(stuck.error, HeadwayError) and "grammar.regex" in stuck.error.message
    assert not crew.overwhelmed
    second = Held(True)
    crew.advance([second])
    for _ in range(200):
        crew.wait([second], 0.01)
        if second.error:
            break
    assert crew.overwhelmed
    stuck.let_go.set()
    second.let_go.set()
    for _ in range(200):
        crew.wait([stuck, second], 0.05)
        if not crew.overwhelmed:
            break
    assert not crew.overwhelmed and crew_module.MAX_STUCK == 2


def test_all_are_advanced_whatever_the_threads() -> None:
    for threads in (1, 3):
        crew = Crew(threads)
        for count in (1, 2, 7, 64):
            guides = [Held(False) for _ in range(count)]
            crew.advance(guides)
            crew.wait(guides, 20)
            assert all(guide.ready for guide in guides)
