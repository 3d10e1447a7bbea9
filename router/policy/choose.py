"""Takes the replica with the lowest predicted cost, and reserves it in the same call."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import msgspec

from ...core.errors import Overloaded, Unavailable
from .figures import Figures
from .ledger import Ledger
from .predict import Prediction, predict
from .rates import believed_rate, common_rate

# Costs closer than this are one: the prediction is not that good, and the emptier replica decodes faster.
TIE_S = 0.001
TIE_SHARE = 0.05
# An engine that was silent for longer has likely hung; its own watchdog will end it.
STALL_S = 5.0


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that could take the request. `silent_s`: how long ago its last report came."""

    replica_id: str
    figures: Figures
    hit_tokens: int = 0
    silent_s: float = 0.0

    @property
    def stalled(self) -> bool:
        return self.figures.silence_s > STALL_S or self.silent_s > STALL_S


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Where the request goes, with the prediction that spoke for it."""

    replica_id: str
    submit_id: int
    hit_tokens: int
    prediction: Prediction


class Policy:
    """Chooses among candidates. Nothing in here asks a clock or draws a random number."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._submit_ids = count(1)
        self._last_turn: dict[str, int] = {}

    def choose(self, candidates: Sequence[Candidate], prompt_tokens: int) -> Choice:
        """The best candidate, reserved under a new submission id.

        Raises Unavailable when there is no candidate that accepts requests, Overloaded when all have full queues.
        """
        accepting = [candidate for candidate in candidates if candidate.figures.accepting]
        if not accepting:
            raise Unavailable("no replica of the model takes requests now", retry_after_s=1.0)
        # A stalled replica may recover, or its death moves the request on: better than nothing, but only than nothing.
        awake = [candidate for candidate in accepting if not candidate.stalled] or accepting
        common = common_rate([candidate.figures for candidate in awake])
        predicted = [(self._predict(candidate, prompt_tokens, common), candidate) for candidate in awake]
        open_ = [(prediction, candidate) for prediction, candidate in predicted if not self._full(candidate)]
        if not open_:
            soonest = min(prediction.ttft_s for prediction, _ in predicted)
            raise Overloaded("the queues of all replicas are full", retry_after_s=min(30.0, max(1.0, soonest)))
        prediction, best = self._best(open_)
        return self._reserve(best, prediction, prompt_tokens)

    def _best(self, predicted: Sequence[tuple[Prediction, Candidate]]) -> tuple[Prediction, Candidate]:
        """Lowest cost; among equals the one with the fewest requests, then the longest hit, then whose turn it is."""
        lowest = min(prediction.cost_s for prediction, _ in predicted)
        limit = lowest + max(TIE_S, TIE_SHARE * lowest)
        equals = [pair for pair in predicted if pair[0].cost_s <= limit]

        def order(pair: tuple[Prediction, Candidate]) -> tuple[int, int, int]:
            candidate = pair[1]
            figures = candidate.figures
            requests = figures.running + figures.waiting + self.ledger.pending(candidate.replica_id).requests
            return requests, -candidate.hit_tokens, self._last_turn.get(candidate.replica_id, 0)

        return min(equals, key=order)

    def _reserve(self, best: Candidate, prediction: Prediction, prompt_tokens: int) -> Choice:
        submit_id = next(self._submit_ids)
        own = max(1, prompt_tokens - best.hit_tokens)
        self.ledger.reserve(best.replica_id, submit_id, own, -(-own // best.figures.page_size))
        self._last_turn[best.replica_id] = submit_id
        return Choice(
            replica_id=best.replica_id, submit_id=submit_id, hit_tokens=best.hit_tokens, prediction=prediction
        )

    def _predict(self, candidate: Candidate, prompt_tokens: int, common: float) -> Prediction:
        figures = candidate.figures
        pending = self.ledger.pending(candidate.replica_id)
        return predict(figures, prompt_tokens, candidate.hit_tokens, pending, believed_rate(figures, common))

    def _full(self, candidate: Candidate) -> bool:
        figures = candidate.figures
        ahead = figures.waiting + self.ledger.pending(candidate.replica_id).requests
        free_rows = max(0, figures.max_sequences - figures.running)
        return ahead >= figures.max_waiting + free_rows
