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
