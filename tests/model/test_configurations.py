"""What a config.json is taken for: both generations of files, absent fields, and refusals by name. No weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import LONGROPE, YARN

from headway.core.errors import ConfigError
from headway.worker.model.config import Shape
from headway.worker.model.registry import read_config
from headway.worker.model.rope import LinearRope, LongRope, Rope, YarnRope
from headway.worker.model.split import split_model
from headway.worker.parallel.topology import Topology

BASE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
OLD_YARN = {("type" if name == "rope_type" else name): YARN[name] for name in YARN if name != "rope_theta"}
OLD_LONGROPE = {name: LONGROPE[name] for name in ("short_factor", "long_factor")} | {"type": "su"}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Any]:
    """The configuration that a file with these fields, and BASE, is taken for."""

    def config(architecture: str, **changes: Any) -> Any:
        (tmp_path / "config.json").write_text(json.dumps({**BASE, "architectures": [architecture], **changes}))
        return read_config(tmp_path)

    return config


def windows(config: Any) -> list[int | None]:
    return [layer.window for layer in config.attention]


def test_windows_of_layers(read: Callable[..., Any]) -> None:
    assert windows(read("MistralForCausalLM", sliding_window=100)) == [100] * 8
    assert windows(read("MistralForCausalLM", sliding_window=None)) == [None] * 8
    assert windows(read("MistralForCausalLM")) == [4096] * 8
    assert windows(read("Phi3ForCausalLM", sliding_window=None)) == [None] * 8
    for qwen in ("Qwen2ForCausalLM", "Qwen3ForCausalLM"):
        assert windows(read(qwen, sliding_window=50, use_sliding_window=False)) == [None] * 8
        late = read(qwen, sliding_window=50, use_sliding_window=True, max_window_layers=6)
        assert windows(late) == [None] * 6 + [50] * 2
    assert windows(read("Gemma2ForCausalLM", sliding_window=50)) == [50, None] * 4
    assert windows(read("Gemma3ForCausalLM", sliding_window=50)) == [50] * 5 + [None] + [50] * 2
    assert windows(read("Gemma3ForCausalLM", sliding_window=50, sliding_window_pattern=2)) == [50, None] * 4
    named = ["full_attention"] * 3 + ["sliding_attention"] * 5
    for gemma in ("Gemma2ForCausalLM", "Gemma3ForCausalLM"):
        assert windows(read(gemma, sliding_window=50, layer_types=named)) == [None] * 3 + [50] * 5


def test_gemmas_absent_fields(read: Callable[..., Any]) -> None:
    second, third = read("Gemma2ForCausalLM"), read("Gemma3ForCausalLM")
    assert second.tied_embeddings and third.tied_embeddings
    assert (second.head_dim, second.score_scalar, second.scores_cap, second.logits_cap) == (256, 256, 50, 30)
    assert (third.head_dim, third.score_scalar, third.logits_cap) == (256, 256, 0)
    assert read("Gemma2ForCausalLM", final_logit_softcapping=None, attn_logit_softcapping=None).scores_cap == 0


def test_ropes_of_both_generations(read: Callable[..., Any]) -> None:
    def ropes(architecture: str, **changes: Any) -> set[Rope]:
        return {layer.rope for layer in read(architecture, **changes).attention}

    new = ropes("Qwen2ForCausalLM", rope_parameters=YARN)
    assert new == ropes("Qwen2ForCausalLM", rope_theta=10000.0, rope_scaling=OLD_YARN)
    assert all(isinstance(rope, YarnRope) for rope in new)
    new = ropes("Phi3ForCausalLM", rope_parameters=LONGROPE)
    old = {"rope_scaling": OLD_LONGROPE, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 32}
    assert new == ropes("Phi3ForCausalLM", **old)
    assert all(isinstance(rope, LongRope) and rope.dims == 12 for rope in new)
    sections = {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    new = ropes("Gemma3ForCausalLM", rope_parameters=sections)
    scaling = {"rope_type": "linear", "factor": 8.0}
    assert new == ropes("Gemma3ForCausalLM", rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling=scaling)
    assert new == ropes("Gemma3ForCausalLM", rope_scaling=scaling)
    assert sum(isinstance(rope, LinearRope) for rope in new) == 1 and len(new) == 2


def test_yarn_goes_as_far_as_it_stretches(read: Callable[..., Any]) -> None:
    far = {**YARN, "factor": 32.0}
    assert read("Qwen3ForCausalLM", rope_parameters=far).max_context == 32 * 64
    assert read("Qwen3ForCausalLM", rope_parameters=YARN).max_context == 256


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("LlamaForCausalLM", {"attn_logit_softcapping": 5.0}, r"attn_logit_softcapping = 5\.0 is not supported"),
        ("LlamaForCausalLM", {"layer_types": ["sliding_attention"] * 8}, "layer_types = .* is not supported"),
        ("LlamaForCausalLM", {"use_sliding_window": True}, "use_sliding_window = True is not supported"),
        ("MistralForCausalLM", {"attention_bias": True}, "attention_bias = True is not supported"),
        ("MistralForCausalLM", {"sliding_window": 0}, "sliding_window must be a whole number above 0, got 0"),
        ("MistralForCausalLM", {"layer_types": ["full_attention"] * 8}, "layer_types = .* is not supported"),
        ("Qwen2ForCausalLM", {"mlp_bias": True}, "mlp_bias = True is not supported"),
        ("Qwen2ForCausalLM", {"use_sliding_window": 1}, "use_sliding_window must be true or false"),
        ("Qwen2ForCausalLM", {"max_window_layers": -1}, "max_window_layers must be a whole number of 0 or more"),
        ("Qwen3ForCausalLM", {"partial_rotary_factor": 0.5}, r"partial_rotary_factor = 0\.5 is not supported"),
        ("Qwen3ForCausalLM", {"num_experts": 8}, "num_experts = 8 is not supported"),
        ("Gemma2ForCausalLM", {"layer_types": ["full_attention"]}, "layer_types must name one of .* 8 layers"),
        ("Gemma2ForCausalLM", {"hidden_activation": "gelu"}, "hidden_activation = 'gelu' is not supported"),
        ("Gemma2ForCausalLM", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar must be a number above 0"),
        (
            "Gemma2ForCausalLM",
            {"sliding_window": None, "layer_types": ["sliding_attention"] * 8},
            "sliding_window must be .* layer_types has sliding_attention",
        ),
        ("Gemma3ForCausalLM", {"attn_logit_softcapping": 5.0}, r"attn_logit_softcapping = 5\.0 is not supported"),
        ("Gemma3ForCausalLM", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True is not"),
        ("Gemma3ForCausalLM", {"sliding_window_pattern": 0}, "sliding_window_pattern must be a whole number above 0"),
        (
            "Gemma3ForCausalLM",
            {"rope_parameters": {"full_attention": {}, "chunked_attention": {"rope_theta": 5}}},
            "rope_parameters.chunked_attention = .* is not supported",
        ),
        ("Phi3ForCausalLM", {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
        (
            "Phi3ForCausalLM",
            {"rope_scaling": {**OLD_LONGROPE, "long_factor": [1.0]}, "partial_rotary_factor": 0.75},
            r"rope_scaling\.long_factor must be a list of 6 numbers above 0, got \[1\.0\]",
        ),
        ("Phi3ForCausalLM", {"partial_rotary_factor": 0.7}, "partial_rotary_factor must .* even number .* got 11"),
        ("Phi3ForCausalLM", {"rope_scaling": {"type": "yarn", "short_factor": [1]}}, "rope_scaling.short_factor = "),
        (
            "LlamaForCausalLM",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0, "mrope_section": [1, 2]}},
            r"rope_parameters\.mrope_section = \[1, 2\] is not supported",
        ),
        ("LlamaForCausalLM", {"rope_scaling": {"type": "yarn", "factor": 0}}, "rope_scaling.factor must be a number"),
        ("LlamaForCausalLM", {"rope_scaling": "linear"}, "rope_scaling must be an object, got 'linear'"),
    ],
)
def test_refusals(read: Callable[..., Any], architecture: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        read(architecture, **changes)
    assert "config.json" in str(refused.value)


SHAPE = Shape(
    architecture="",
    vocab_size=240,
    hidden_size=48,
    intermediate_size=240,
    layers=6,
    heads=24,
    kv_heads=4,
    head_dim=2,
    norm_eps=1e-6,
    max_context=16,
    tied_embeddings=False,
    dtype="float32",
    eos_token_ids=(),
)


def test_ranks_that_share_a_kv_head() -> None:
    """Each rank's query heads are among those that share its KV head."""
    for tp in (1, 2, 4, 8, 12, 24):
        for rank in range(tp):
            split = split_model(SHAPE, Topology(rank, tp, 1))
            assert split.heads.size * tp == 24 and split.kv_heads.size == max(1, 4 // tp)
            assert split.heads.start // 6 == split.kv_heads.start
            assert (split.heads.stop - 1) // 6 == split.kv_heads.stop - 1


@pytest.mark.parametrize(
    ("tp", "message"),
    [
        (6, "tp = 6 neither divides num_key_value_heads = 4 nor is a multiple of it; tp can be 1, 2, 4, 8, 12, 24"),
        (5, "tp = 5 does not divide num_attention_heads = 24; tp can be 1, 2, 4, 8, 12, 24"),
    ],
)
def test_splits_that_cannot_be(tp: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_model(SHAPE, Topology(0, tp, 1))
