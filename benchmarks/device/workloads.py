"""What the engine is measured with: shapes of models, and requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

QWEN3_600M: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "bfloat16", "eos_token_id": 0,
}  # fmt: skip
LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": False, "hidden_act": "silu", "torch_dtype": "bfloat16", "eos_token_id": 0,
}  # fmt: skip
TINY = {**QWEN3_600M, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512}

CONTEXT = 16384  # tokens that are served at most


class Ask(NamedTuple):
    """One request: its prompt, and how many tokens to make."""

    prompt: Sequence[int]
    output: int


class Prompts:
    """Random prompts, the same whenever they are drawn."""

    def __init__(self, vocab: int) -> None:
        self._draw = np.random.default_rng(0)
        self._vocab = vocab

    def asks(self, count: int, prompt: int, output: int) -> list[Ask]:
        return [Ask(self._prompt(prompt), output) for _ in range(count)]

    def uneven(self, count: int, least: int, most: int) -> list[Ask]:
        """Prompts and outputs of uniform lengths, as nano-vllm and mini-sglang draw them."""
        sizes = np.random.default_rng(0).integers(least, most + 1, (count, 2)).tolist()
        return [Ask(self._prompt(size), output) for size, output in sizes]

    def _prompt(self, size: int) -> list[int]:
        found: list[int] = self._draw.integers(1, self._vocab, size).tolist()
        return found
