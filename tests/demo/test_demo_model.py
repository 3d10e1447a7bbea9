"""The shipped models load by their standard layout, split over two ranks, and have learned Python."""

from __future__ import annotations

import ast
import inspect
import json
import venv
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors import safe_open
from tokenizers import Tokenizer

from headway.demo import DEMO_DIR, DRAFT_DIR

FOLDERS = (DEMO_DIR, DRAFT_DIR)
MEGABYTE = 1_000_000
each_model = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def read_json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@cache
def shipped_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEMO_DIR / "tokenizer.json"))


@pytest.fixture
def tokenizer() -> Tokenizer:
    return shipped_tokenizer()


@cache
def load(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


def complete(model: Any, tokenizer: Tokenizer, prompt: str, tokens: int) -> list[int]:
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    new: list[int] = out[0, ids.shape[1] :].tolist()
    return new


@each_model
def test_the_folder_has_the_standard_layout(folder: Path) -> None:
    expected = {
        "MODEL_CARD.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == expected


def test_sizes_stay_in_bounds() -> None:
    assert folder_bytes(DEMO_DIR) <= 12 * MEGABYTE
    assert folder_bytes(DEMO_DIR) + folder_bytes(DRAFT_DIR) <= 14 * MEGABYTE
    assert folder_bytes(DRAFT_DIR) < folder_bytes(DEMO_DIR) / 4


@each_model
def test_every_weight_is_finite_bfloat16_and_has_its_place(folder: Path) -> None:
    config = read_json(folder / "config.json")
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert all(weight.isfinite().all() for weight in weights.values())
    assert len(weights) == 2 + 9 * config["num_hidden_layers"]
    assert weights["model.embed_tokens.weight"].shape == (config["vocab_size"], config["hidden_size"])


@each_model
def test_two_ranks_can_share_the_heads(folder: Path) -> None:
    config = read_json(folder / "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["head_dim"] == 64
    assert config["num_key_value_heads"] >= 2
    assert all(config[name] % 2 == 0 for name in ("num_key_value_heads", "num_attention_heads", "intermediate_size"))


def test_the_main_model_groups_its_queries() -> None:
    config = read_json(DEMO_DIR / "config.json")
    assert config["num_attention_heads"] > config["num_key_value_heads"]


def test_the_draft_speaks_the_same_tokens() -> None:
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (DEMO_DIR / name).read_bytes() == (DRAFT_DIR / name).read_bytes()
    assert read_json(DEMO_DIR / "config.json")["vocab_size"] == read_json(DRAFT_DIR / "config.json")["vocab_size"]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_is_written_and_read_back(text: str) -> None:
    tokenizer = shipped_tokenizer()
    ids = tokenizer.encode(text).ids
    assert all(0 <= index < 4096 for index in ids)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("text", ["", " ", "\t\n\r\n", "日本語", "e\u0301", "👩‍👩‍👧", "\x00\x7f", "\u202eabc", "ﷺ" * 3])
def test_odd_text_is_written_and_read_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_vocabulary_is_full(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == read_json(DEMO_DIR / "config.json")["vocab_size"] == 4096


def test_end_tokens_have_the_ids_that_the_configuration_names(tokenizer: Tokenizer) -> None:
    eos = read_json(DEMO_DIR / "generation_config.json")["eos_token_id"]
    assert [tokenizer.id_to_token(index) for index in eos] == ["<|endoftext|>", "<|end|>"]
    assert tokenizer.decode([5 + 32, *eos], skip_special_tokens=True) == tokenizer.decode([5 + 32])


class TestChatTemplate:
    MESSAGES = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " hello\n"},
        {"role": "assistant", "content": "pass"},
        {"role": "user", "content": "again"},
    )
    EXPECTED = (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nhello<|end|>\n<|assistant|>\npass<|end|>\n"
        "<|user|>\nagain<|end|>\n<|assistant|>\n"
    )

    @staticmethod
    def render(messages: Any, **variables: Any) -> str:
        def refuse(message: str) -> None:
            raise ValueError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string((DEMO_DIR / "chat_template.jinja").read_text())
        return template.render(messages=messages, raise_exception=refuse, **variables)

    def test_it_renders_in_a_sandbox(self) -> None:
        assert self.render(self.MESSAGES, add_generation_prompt=True) == self.EXPECTED
        assert self.render(self.MESSAGES) == self.EXPECTED.removesuffix("<|assistant|>\n")

    def test_an_unknown_role_is_refused(self) -> None:
        with pytest.raises(ValueError, match="Unknown role: tool"):
            self.render([{"role": "tool", "content": "x"}])

    def test_markers_become_single_tokens(self, tokenizer: Tokenizer) -> None:
        tokens = tokenizer.encode(self.EXPECTED).tokens
        assert tokens.count("<|end|>") == 4
        assert tokens.count("<|assistant|>") == 2

    def test_transformers_renders_the_same(self) -> None:
        transformers = pytest.importorskip("transformers")
        loaded = transformers.AutoTokenizer.from_pretrained(DEMO_DIR)
        text = loaded.apply_chat_template(list(self.MESSAGES), tokenize=False, add_generation_prompt=True)
        assert text == self.EXPECTED

    def test_both_places_hold_the_same_template(self) -> None:
        config = read_json(DEMO_DIR / "tokenizer_config.json")
        assert config["chat_template"] == (DEMO_DIR / "chat_template.jinja").read_text()


def test_transformers_tokenizes_alike(tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(DEMO_DIR)
    text = "class A(B):\n    def __init__(self, x=3000):\n        self.x = x  # é\n"
    assert loaded(text)["input_ids"] == tokenizer.encode(text).ids
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert (loaded.eos_token_id, loaded.convert_tokens_to_ids("<|end|>")) == (0, 4)


def test_greedy_completion_reads_like_python(tokenizer: Tokenizer) -> None:
    text = tokenizer.decode(complete(load(DEMO_DIR), tokenizer, "def __init__(self, ", 60))
    signature, _, body = text.partition("):\n")
    assert signature.isprintable()
    assert "self." in body
    assert "=" in body


def test_a_request_is_answered_with_code_that_ends(tokenizer: Tokenizer) -> None:
    prompt = "<|user|>\nWrite a function that returns the name of the file.<|end|>\n<|assistant|>\n"
    ids = complete(load(DEMO_DIR), tokenizer, prompt, 250)
    assert tokenizer.decode(ids).startswith(("def ", "@", "async def "))
    assert ids[-1] == tokenizer.token_to_id("<|end|>")


def test_the_draft_often_foresees_the_main_model(tokenizer: Tokenizer) -> None:
    agreements = []
    for module in (ast, venv):  # files that neither was trained on; the shipped weights agree on 0.44 of their tokens
        ids = torch.tensor([tokenizer.encode(inspect.getsource(module)).ids[:1500]])
        with torch.no_grad():
            main, draft = (load(folder)(ids).logits.argmax(-1) for folder in FOLDERS)
        agreements.append((main == draft).float().mean().item())
    assert sum(agreements) / len(agreements) > 0.35


@each_model
def test_the_card_has_the_numbers_of_a_run(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    assert all(heading in card for heading in ("## Data and licence", "## Training", "## Held-out loss", "## Limits"))
    assert "{" not in card.split("```")[0]
