"""What a grammar may cost. Compiling is bounded by the sandbox's clock, each step by the matcher's own counters."""

from __future__ import annotations

from llguidance import LLParserLimits

MAX_DEPTH = 64
"""Arrays and objects inside each other in a JSON schema."""

COMPILE_S = 2.0
"""Wall clock that one grammar may take in a sandbox. Past that the sandbox is killed."""

TRIAL_TOKENS = 32
"""How far a sandbox follows a grammar at random, to meet its costly places."""

MASK_CPU_S = 0.1
"""Processor time of any one mask on the way."""

MASK_S = 1.0
"""Wall clock that a mask may take in a live request."""

SANDBOX_BYTES = 4 << 30
"""Address space of a sandbox."""


def parser_limits() -> LLParserLimits:
    """The matcher's counters, well above what real schemas need, and low enough for a step of a few milliseconds."""
    return LLParserLimits(
        step_lexer_fuel=100_000,
        step_max_items=20_000,
        max_lexer_states=25_000,
        max_grammar_size=200_000,
        verbose_errors=False,  # else errors carry the parser's state and the grammar
    )
