"""Every bound at its edge: the last value that passes and the first that does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headway.core.constraints import MAX_PROMPT_VALUES
from headway.core.errors import ContextTooLong, InvalidRequest
from headway.core.sampling import SamplingParams
from headway.router.types import ServedModel
from headway.router.validation.fields import check_fields
from headway.router.validation.request import FieldNames, Message, UserRequest
from headway.router.validation.resolve import resolve

NAMES = FieldNames({"stop_strings": "my.stops", "max_new_tokens": "limit"}, prefix="at.")
MODEL = ServedModel(
    name="m", revision="r", page_size=16, max_context_tokens=32, vocab_size=100, eos_token_ids=(0, 1),
    default_sampling=SamplingParams(temperature=0.25, seed=5), text_assets={}, ready_replicas=1,
)  # fmt: skip


def request(**fields: Any) -> UserRequest:
    return UserRequest(names=NAMES, **fields)


@pytest.mark.parametrize(
    ("good", "bad", "field"),
    [
        ({"request_id": "a" * 128}, {"request_id": "a" * 129}, "at.request_id"),
        ({"request_id": "a b~"}, {"request_id": "a\n"}, "at.request_id"),
        ({"request_id": "a"}, {"request_id": "é"}, "at.request_id"),
        ({"cache_salt": "a" * 256}, {"cache_salt": "a" * 257}, "at.cache_salt"),
        ({"stop_strings": ["a"] * 16}, {"stop_strings": ["a"] * 17}, "at.my.stops"),
        ({"stop_strings": ["a" * 256]}, {"stop_strings": ["a", "a" * 257]}, "at.my.stops[1]"),
        ({"stop_strings": ["\n"]}, {"stop_strings": [""]}, "at.my.stops[0]"),
        ({"stop_token_ids": [1] * 64}, {"stop_token_ids": [1] * 65}, "at.stop_token_ids"),
        ({"max_new_tokens": 1}, {"max_new_tokens": 0}, "at.limit"),
        ({"sampling": {"temperature": 100.0}}, {"sampling": {"temperature": 100.1}}, "at.temperature"),
        ({"sampling": {"temperature": 0.0}}, {"sampling": {"temperature": float("nan")}}, "at.temperature"),
        ({"sampling": {"top_p": 1.0}}, {"sampling": {"top_p": 0.0}}, "at.top_p"),
        ({"sampling": {"top_k": 0}}, {"sampling": {"top_k": -1}}, "at.top_k"),
        ({"sampling": {"min_p": 1.0}}, {"sampling": {"min_p": 1.01}}, "at.min_p"),
        ({"sampling": {"seed": 2**64 - 1}}, {"sampling": {"seed": 2**64}}, "at.seed"),
        ({"sampling": {"presence_penalty": -2.0}}, {"sampling": {"presence_penalty": -2.01}}, "at.presence_penalty"),
        ({"sampling": {"frequency_penalty": 2.0}}, {"sampling": {"frequency_penalty": 2.01}}, "at.frequency_penalty"),
        (
            {"sampling": {"repetition_penalty": 0.01}},
            {"sampling": {"repetition_penalty": 0.0}},
            "at.repetition_penalty",
        ),
        ({"want_token_ids": True, "want_text": False}, {"want_text": False}, "at.want_text"),
        (
            {"chat": True, "messages": [Message("user", "")] * 1024},
            {"chat": True, "messages": [Message("user", "")] * 1025},
            "at.messages",
        ),
        ({"chat": True, "messages": [Message("user", "")]}, {"chat": True}, "at.messages"),
        (
            {"chat": True, "messages": [Message("assistant", "")]},
            {"chat": True, "messages": [Message("system", ""), Message("tool", "")]},
            "at.messages[1].role",
        ),
        (
            {"chat": True, "messages": [Message("user", "")]},
            {"chat": True, "messages": [Message("user", None)]},
            "at.messages[0].content",
        ),
    ],
)
def test_without_a_model(good: dict[str, Any], bad: dict[str, Any], field: str) -> None:
    check_fields(request(**good))
    with pytest.raises(InvalidRequest) as caught:
        check_fields(request(**bad))
    assert caught.value.field == field
    assert caught.value.message.startswith(field)


@pytest.mark.parametrize(
    ("good", "bad", "kind", "field"),
    [
        (([99] * 31, {}), ([99] * 32, {}), ContextTooLong, "at.prompt"),
        (([99], {}), ([1, 100], {}), InvalidRequest, "at.prompt[1]"),
        (([0], {}), ([-1], {}), InvalidRequest, "at.prompt[0]"),
        (([1] * 30, {"max_new_tokens": 2}), ([1] * 30, {"max_new_tokens": 3}), InvalidRequest, "at.limit"),
        (([1], {"stop_token_ids": [99]}), ([1], {"stop_token_ids": [3, 100]}), InvalidRequest, "at.stop_token_ids[1]"),
    ],
)
def test_with_a_model(good: Any, bad: Any, kind: type[InvalidRequest], field: str) -> None:
    resolve(request(**good[1]), MODEL, good[0])
    with pytest.raises(InvalidRequest) as caught:
        resolve(request(**bad[1]), MODEL, bad[0])
    assert type(caught.value) is kind
    assert caught.value.field == field


def test_the_refusal_of_a_long_prompt_tells_the_numbers() -> None:
    with pytest.raises(ContextTooLong, match=r"at\.prompt has 40 tokens; .* 32 .* at most 31"):
        resolve(request(), MODEL, [1] * 40)


def test_every_default_is_resolved() -> None:
    resolved = resolve(request(sampling={"top_k": 3}), MODEL, [1, 2])
    assert resolved.max_new_tokens == 30
    assert resolved.eos_token_ids == (0, 1)
    assert (resolved.sampling.temperature, resolved.sampling.top_k) == (0.25, 3)
    assert resolved.request_id
    # The model's file cannot fix the seed of every request: one is drawn.
    assert len({resolve(request(), MODEL, [1]).sampling.seed for _ in range(8)}) == 8
    assert resolve(request(sampling={"seed": 0}), MODEL, [1]).sampling.seed == 0
    assert resolve(request(ignore_eos=True), MODEL, [1]).eos_token_ids == ()
    assert resolve(request(usual_new_tokens=16), MODEL, [1]).max_new_tokens == 16
    assert resolve(request(usual_new_tokens=16), MODEL, [1] * 30).max_new_tokens == 2
    assert resolve(request(usual_new_tokens=16, max_new_tokens=20), MODEL, [1]).max_new_tokens == 20


@pytest.mark.parametrize(("name", "most"), [("seed", 2**64 - 1), ("top_k", 2**31 - 1)])
def test_a_bound_in_a_message_is_the_bound(name: str, most: int) -> None:
    """To the last digit: 1.84467e+19 itself would be refused."""
    with pytest.raises(InvalidRequest, match=f"at least 0 and at most {most}, got {most + 1}$"):
        check_fields(request(sampling={name: most + 1}))


def test_log_probabilities_of_a_prompt_fit_one_message() -> None:
    model = msgspec.structs.replace(MODEL, max_context_tokens=1 << 21)
    resolve(request(prompt_logprobs=0), model, [1] * MAX_PROMPT_VALUES)
    for top, tokens in ((0, MAX_PROMPT_VALUES + 1), (20, MAX_PROMPT_VALUES // 21 + 1)):
        with pytest.raises(InvalidRequest, match=f"at most {MAX_PROMPT_VALUES}") as refused:
            resolve(request(prompt_logprobs=top), model, [1] * tokens)
        assert "prompt_logprobs" in refused.value.field
        resolve(request(logprobs=20), model, [1] * tokens)
