"""How many pages the batch will need at the worst moment to come, as far as recent outputs tell.

After the "past-future" scheduler (arXiv 2507.10150): what a request has still to give is estimated from the lengths of
outputs that ended lately, those that are longer than what it has given already. Every request grows by a token a step
until it ends, so the need is highest just before one of the ends, and there it is summed up. That paper draws the
estimates at random, several times, and believes the worst. Here each request keeps its quantiles for its whole life,
spread evenly over requests that arrive one after the other: a batch is a fair sample of the lengths each time, and
every plan follows from what was submitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..pages import PagePool
from .lengths import Numbers, OutputLengths
from .request import Request

GOLDEN = 0.6180339887498949  # its multiples, modulo 1, lie most evenly
SAMPLES = 4

_EACH = np.arange(SAMPLES)[:, None]


class Forecast:
    """The peak of page use, by the `lengths` of outputs that ended."""

    def __init__(self, pool: PagePool, lengths: OutputLengths) -> None:
        self._pool = pool
        self._lengths = lengths

    def peak(self, running: Sequence[Request], used: int) -> float:
        """Pages in use at the worst moment of `running`, one at least, who use `used` now.

        Pages that several of them share count once, and as if they were never given back.
        """
        return self._peak(running, [request.pages for request in running], used, 0)

    def peak_with(self, running: Sequence[Request], newcomer: Request, hits: Sequence[int], used: int) -> float:
        """The same if `newcomer`, who holds the cached pages `hits`, joined them."""
        pages = [*(request.pages for request in running), hits]
        return self._peak([*running, newcomer], pages, used, self._pool.unshared(hits))

    def _peak(self, requests: Sequence[Request], pages: Sequence[Sequence[int]], used: int, found: int) -> float:
        pool = self._pool
        held = own = [len(each) for each in pages]
        if sum(held) > used + found:
            own = [pool.unshared(each) for each in pages]
        known, prompts, most, arrivals, held_pages, own_pages = np.array(
            [
                [len(request.tokens) for request in requests],
                [request.prompt_tokens for request in requests],
                [request.max_new_tokens for request in requests],
                [request.urgency[1] for request in requests],
                held,
                own,
            ],
            np.int64,
        )
        given = known - prompts
        totals = np.minimum(self._lengths.totals(given, (arrivals * GOLDEN + _EACH / SAMPLES) % 1.0), most)
        growth = _peak_growth(known, np.maximum(totals - given, 0), held_pages, own_pages, pool.page_size)
        return used + found + growth


def _peak_growth(known: Numbers, left: Numbers, held: Numbers, own: Numbers, page_size: int) -> float:
    """By how many pages use grows at most. Of each request: tokens that are known and (in each sample) still to come,
    pages that it holds, and how many of them its end gives back."""
    order = np.argsort(-left, axis=1)
    # What the first 1, 2, ... in this order need when the last of them ends, and all others have ended.
    longest_first = left[_EACH, order]
    now = np.cumsum((known / page_size + (own - held))[order], axis=1)
    later = (longest_first + (page_size - 1) / 2) * (np.arange(1, len(known) + 1) / page_size)
    return float((now + later).max()) - int(own.sum())
