"""Random tiny checkpoints of every architecture. Windows are shorter than prompts, caps low enough to bend scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_llamas import VOCAB

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 4.0,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 32,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [1.0, 2.0, 3.0, 5.0, 7.0, 9.0],
}
WINDOW = 11

# How they are compared with transformers in test_architectures.py. Both compute in float32, in different orders of
# summation; logits are of order 1 to 10.
LOGITS_TOLERANCE = 1e-4
NEW_TOKENS = 8
PROMPTS = (1, 5, 17, 40)  # tokens; windows are 11 and pages 8 tokens
CHUNKS = (1000, 13, 3)  # the most tokens of a prompt in one step, on one rank; 13 on several
FOUR_RANKS = ("gemma2", "gemma3", "phi3")  # on tp 2 x pp 2, too

# Name: transformers' class, its configuration's, and what differs from a model of 4 layers with 4 heads and 2 KV heads.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama-yarn": ("LlamaForCausalLM", "LlamaConfig", {"rope_parameters": YARN}),
    "llama-dynamic": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "llama-one-kv-head": ("LlamaForCausalLM", "LlamaConfig", {"num_key_value_heads": 1, "attention_bias": True}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {"sliding_window": WINDOW}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2-windows": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {"head_dim": 32}),
    "gemma2": (
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "attn_implementation": "eager",
        },
    ),
    "gemma3": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 24,
            "num_hidden_layers": 8,
            "final_logit_softcapping": 5.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 50000.0, "factor": 4.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
            },
        },
    ),
    "mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW, "intermediate_size": 48},
    ),
    "qwen3-moe": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
        },
    ),
    "qwen3-moe-sparse": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 32, "decoder_sparse_step": 2},
    ),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {"sliding_window": WINDOW}),
    "phi3-long": (
        "Phi3ForCausalLM",
        "Phi3Config",
        {"original_max_position_embeddings": 32, "rope_parameters": LONGROPE, "tie_word_embeddings": True},
    ),
}


def write_model(directory: Path, name: str, **more: Any) -> Path:
    """A checkpoint of a name in MODELS, with `more` fields. Norms and biases are drawn, too, so that none of them goes
    unread."""
    kind, config, changes = MODELS[name]
    torch.manual_seed(len(name))
    fields: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "initializer_range": 0.15,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
        **changes,
        **more,
    }
    model = getattr(transformers, kind)(getattr(transformers, config)(**fields)).eval()
    with torch.no_grad():
        for parameter, weight in model.named_parameters():
            if parameter.endswith("bias"):
                weight.normal_(0, 0.3)
            if "norm" in parameter:
                weight.add_(torch.empty_like(weight).uniform_(-0.5, 0.5))
            if "embed_tokens" in parameter and name.startswith("gemma"):
                weight.mul_(0.05)  # a scaled and tied embedding would say its own token again, whatever came before
    model.save_pretrained(directory)
    return directory


def write_stacked(checkpoint: Path, directory: Path) -> Path:
    """The same model, written as transformers 5 holds it: the experts of a layer in one tensor."""
    (kind,) = transformers.AutoConfig.from_pretrained(checkpoint).architectures
    model = getattr(transformers, kind).from_pretrained(checkpoint, dtype=torch.float32)
    model.save_pretrained(directory, save_original_format=False)
    return directory
