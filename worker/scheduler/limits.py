"""What this engine can hold at all, and the refusal of what it never could."""

from __future__ import annotations

import msgspec

from ...core.errors import ContextTooLong


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one engine. `max_context_tokens` never exceeds what all pages together hold; `stages` are those of its
    pipeline."""

    page_size: int
    total_pages: int
    max_context_tokens: int
    max_sequences: int
    token_budget: int
    max_waiting: int
    vocab_size: int
    max_adapters: int = 0
    stages: int = 1
    aging_steps: int = 1000  # steps of waiting that outweigh one level of priority
    watermark_pages: int = -1  # -1: one in a hundred
    admission_forecast: bool = True

    @property
    def plans_out(self) -> int:
        """Plans that may be out at once: one for each stage to work on, and with a single stage one that it works on
        and the next."""
        return max(2, self.stages)

    @property
    def watermark(self) -> int:
        """Pages that admission leaves free while others run, so that a newcomer does not force a preemption at once."""
        return max(1, self.total_pages // 100) if self.watermark_pages < 0 else self.watermark_pages

    def check_fits(self, prompt_tokens: int, max_new_tokens: int) -> None:
        """Raises ContextTooLong for a request that could never finish here."""
        wanted = prompt_tokens + max_new_tokens
        if wanted > self.max_context_tokens:
            raise ContextTooLong(
                f"max_new_tokens: {prompt_tokens} prompt tokens and {max_new_tokens} new ones are {wanted}, more than "
                f"the {self.max_context_tokens} that fit ({self.total_pages} pages of {self.page_size} tokens)",
                field="max_new_tokens",
            )
