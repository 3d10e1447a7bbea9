"""A group that cannot be is refused by the field, before any process starts."""

from typing import Any

import pytest

from headway.core.errors import ConfigError
from headway.core.specs import EngineSpec, GroupSpec


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ({"page_size": 1}, {"page_size": 0}, "page_size must be a power of two, got 0"),
        ({"max_sequences": 1}, {"max_sequences": 0}, "max_sequences must be at least 1, got 0"),
        ({"token_budget": 64}, {"token_budget": 63}, "token_budget"),
        ({"max_waiting": 1}, {"max_waiting": -1}, "max_waiting must be at least 1, got -1"),
        ({"total_pages": 0}, {"total_pages": -1}, "total_pages must be at least 0, got -1"),
        ({"max_context_tokens": 0}, {"max_context_tokens": -1}, "max_context_tokens must be at least 0, got -1"),
        (
            {"watermark_pages": 0},
            {"watermark_pages": -2},
            "watermark_pages must be at least 0, or -1 to choose, got -2",
        ),
        ({"step_timeout_s": 0.1}, {"step_timeout_s": 0.0}, "step_timeout must be above 0 seconds, got 0"),
        ({"step_timeout_s": 1e9}, {"step_timeout_s": float("nan")}, "step_timeout must be above 0 seconds, got nan"),
    ],
)
def test_limits_of_an_engine(good: dict[str, Any], bad: dict[str, Any], words: str) -> None:
    def spec(limits: dict[str, Any]) -> GroupSpec:
        return GroupSpec(replica_id="m-0", model_name="m", model_path="m", engine=EngineSpec(**limits))

    spec(good).check()
    with pytest.raises(ConfigError, match=words):
        spec(bad).check()
