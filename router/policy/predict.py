"""Predicted time to first token of one request on one replica. Pure arithmetic."""

from __future__ import annotations

from typing import NamedTuple

from .figures import DEFAULT_PREFILL_RATE, Figures
from .ledger import NOTHING, Pending

# Share of its life that a request loses to the others in a full batch. Small batches cost next to nothing, so the share
# goes with the square of the occupancy.
CONTENTION = 0.5


class Prediction(NamedTuple):
    """`ttft_s` is what this request will wait; `work_s` is the prefill it adds to the queue of everyone after it;
    `contention_s` is what decoding beside the others will cost."""

    ttft_s: float
    work_s: float
    contention_s: float = 0.0

    @property
    def cost_s(self) -> float:
        """What is minimized.

        Counting the added work too keeps prefixes from being computed twice for a small gain; counting contention keeps
        requests with one prefix from filling one replica's batch while others idle.
        """
        return self.ttft_s + self.work_s + self.contention_s


def predict(
    figures: Figures, prompt_tokens: int, hit_tokens: int, pending: Pending = NOTHING, rate: float = 0.0
) -> Prediction:
    """Prediction for a prompt of which the replica's cache has the first `hit_tokens`.

    `rate` is the prefill rate to believe; the replica's own when 0. The last prompt token is always computed, hit or
    not: its output is the first new token.
    """
    rate = rate or figures.prefill_rate or DEFAULT_PREFILL_RATE
    own = max(1, prompt_tokens - hit_tokens)
    queued = figures.waiting_uncached_tokens + pending.tokens
    # A busy engine is in the middle of a step which the request has to sit out.
    join_s = figures.decode_step_s if figures.running or figures.waiting else 0.0
    blocked_s = max(_wait_for_row(figures, pending), _wait_for_pages(figures, pending, own))
    return Prediction(join_s + blocked_s + (queued + own) / rate, own / rate, _contention(figures, pending))


def _contention(figures: Figures, pending: Pending) -> float:
    if not figures.max_sequences:
        return 0.0
    rows = figures.running + figures.waiting + pending.requests
    return CONTENTION * _lifetime_s(figures) * min(1.0, rows / figures.max_sequences) ** 2


def _lifetime_s(figures: Figures) -> float:
    """How long a running request keeps its row and its pages."""
    return figures.mean_output * figures.decode_step_s


def _wait_for_row(figures: Figures, pending: Pending) -> float:
    """Seconds until the engine has a row for one more, when more want one than it has."""
    if not figures.max_sequences:
        return 0.0
    turn = figures.running + figures.waiting + pending.requests + 1 - figures.max_sequences
    return max(0, turn) * _lifetime_s(figures) / figures.max_sequences


def _wait_for_pages(figures: Figures, pending: Pending, own: int) -> float:
    """Seconds until running requests have given back the pages that are missing; cached pages can be taken at once."""
    if not figures.total_pages:
        return 0.0
    needed = -(-own // figures.page_size) + 1
    missing = needed - (figures.total_pages - figures.used_pages - pending.pages)
    return max(0, missing) * _lifetime_s(figures) / max(1, figures.used_pages)
