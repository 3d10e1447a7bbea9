"""One request's output: tokens in, text that can be shown out, with stop strings found on the way."""

from __future__ import annotations

from collections.abc import Sequence

from .detokenize import Detokenizer
from .stops import StopMatcher


class OutputText:
    """Detokenizer and stop matcher in a row; without stop strings tokens are taken many at a time.

    In the text of the first `unmatched` tokens no stop string is looked for.
    """

    def __init__(self, detokenizer: Detokenizer, matcher: StopMatcher | None, unmatched: int = 0) -> None:
        self._detokenizer = detokenizer
        self._matcher = matcher
        self._unmatched = unmatched

    @property
    def stop_string(self) -> str | None:
        """The stop string that was found; nothing is to be fed after it."""
        return self._matcher.matched if self._matcher else None

    def feed(self, token_ids: Sequence[int]) -> tuple[str, int]:
        """Returns the text to show and how many of the tokens count: those up to the one that completes a match."""
        if self._matcher is None:
            return self._detokenizer.feed(token_ids), len(token_ids)
        shown = []
        for count, token_id in enumerate(token_ids, 1):
            text = self._detokenizer.feed((token_id,))
            if self._unmatched:
                self._unmatched -= 1
                shown.append(text)
            elif text:
                shown.append(self._matcher.feed(text))
                if self._matcher.matched is not None:
                    return "".join(shown), count
        return "".join(shown), len(token_ids)

    def flush(self) -> str:
        """What was held back, at the end of the sequence. A stop string may still come true in it."""
        rest = self._detokenizer.flush()
        if self._matcher is None:
            return rest
        shown = self._matcher.feed(rest) if rest else ""
        return shown if self._matcher.matched is not None else shown + self._matcher.flush()
