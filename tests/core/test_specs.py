"""A group that cannot be is refused by the field, before any process starts."""

from typing import Any

import pytest

from headway.controller import settings
from headway.core.errors import ConfigError
from headway.core.specs import EngineSpec, GroupSpec, engine_defaults
from headway.worker import options


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ({"page_size": 1}, {"page_size": 0}, "page_size must be a power of two and at most 1024, got 0"),
        ({"max_sequences": 1}, {"max_sequences": 0}, "max_sequences must be at least 1 and at most 16384, got 0"),
        ({"token_budget": 64}, {"token_budget": 63}, "token_budget"),
        ({"max_waiting": 1}, {"max_waiting": -1}, "max_waiting must be at least 1 and at most 1048576, got -1"),
        ({"total_pages": 0}, {"total_pages": -1}, "total_pages must be at least 0, got -1"),
        ({"max_context_tokens": 0}, {"max_context_tokens": -1}, "max_context_tokens must be at least 0, got -1"),
        (
            {"watermark_pages": 0},
            {"watermark_pages": -2},
            "watermark_pages must be at least 0, or -1 to choose, got -2",
        ),
        ({"page_size": 1024}, {"page_size": 2048}, "page_size must be a power of two and at most 1024, got 2048"),
        (
            {"max_sequences": 2**14, "token_budget": 2**20},
            {"max_sequences": 2**14 + 1, "token_budget": 2**20},
            "max_sequences must be at least 1 and at most 16384, got 16385",
        ),
        ({"token_budget": 2**20}, {"token_budget": 2**20 + 1}, "token_budget must be .* at most 1048576, got 1048577"),
        ({"max_waiting": 2**20}, {"max_waiting": 2**21}, "max_waiting must be .* at most 1048576, got 2097152"),
        ({"max_adapters": 256}, {"max_adapters": 257}, "max_adapters must be at least 0 and at most 256, got 257"),
        ({"max_lora_rank": 1024}, {"max_lora_rank": 0}, "max_lora_rank must be at least 1 and at most 1024, got 0"),
        (
            {"total_pages": 4, "max_context_tokens": 64},
            {"total_pages": 4, "max_context_tokens": 65},
            "max_context_tokens = 65 needs 5 pages of 16 tokens, and total_pages = 4",
        ),
        ({"total_pages": 5, "watermark_pages": 4}, {"total_pages": 5, "watermark_pages": 5}, "watermark_pages = 5"),
        (
            {"memory_fraction": 1.0},
            {"memory_fraction": 1.01},
            "memory_fraction must be above 0 and at most 1, or 0 to choose, got 1.01",
        ),
        ({"memory_fraction": 0.1}, {"memory_fraction": -0.1}, "memory_fraction"),
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


@pytest.mark.parametrize("parse", ["worker", "controller"])
def test_what_is_not_given_is_chosen_for_the_device(parse: str) -> None:
    def engine(*arguments: str) -> EngineSpec:
        if parse == "worker":
            return options.parse([*arguments]).engine
        return settings.parse(arguments).model.engine

    assert engine() == EngineSpec() == engine_defaults("cpu")
    assert engine("--device", "cuda") == engine_defaults("cuda") != EngineSpec()
    given = engine("--device=cuda", "--token-budget=1024", "--no-admission-forecast", "--batch-invariant=on")
    assert (given.token_budget, given.max_sequences) == (1024, engine_defaults("cuda").max_sequences)
    assert (given.admission_forecast, given.batch_invariant) == (False, "on")
