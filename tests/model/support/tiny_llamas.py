"""Random tiny Llama checkpoints, written by transformers, which is also what they are compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

VOCAB = 128
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gqa-tied": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "mha-untied": {"num_key_value_heads": 4},
    "rope-llama3": {"num_key_value_heads": 2, "rope_parameters": LLAMA3},
    "rope-linear": {
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    },
    "biases": {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    "wide-heads": {"num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True},
}


def write_llama(directory: Path, seed: int = 0, shard: str = "1GB", **changes: Any) -> Path:
    """A checkpoint with 4 layers of width 64; `changes` are fields of LlamaConfig."""
    torch.manual_seed(seed)
    fields: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "initializer_range": 0.15,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **changes,
    }
    model = LlamaForCausalLM(LlamaConfig(**fields)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.3)
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    model.save_pretrained(directory, max_shard_size=shard)
    return directory


def edit_config(directory: Path, *drop: str, **changes: Any) -> None:
    """Changes config.json as another writer would have it."""
    path = directory / "config.json"
    values = {name: value for name, value in json.loads(path.read_text()).items() if name not in drop}
    path.write_text(json.dumps(values | changes))


class Oracle:
    """The same checkpoint in transformers, float32 on CPU."""

    def __init__(self, directory: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    @torch.no_grad()
    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """The next `count` tokens, end tokens or not."""
        tokens = list(prompt)
        past = None
        pending = prompt
        for _ in range(count):
            output = self.model(torch.tensor([pending]), past_key_values=past, use_cache=True)
            past = output.past_key_values
            pending = [int(output.logits[0, -1].argmax())]
            tokens += pending
        return tokens[len(prompt) :]

    @torch.no_grad()
    def hidden(self, tokens: list[int]) -> torch.Tensor:
        """Final states after the last norm, [tokens, hidden] float32."""
        states: torch.Tensor = self.model.model(torch.tensor([tokens]), use_cache=False).last_hidden_state[0]
        return states

    @torch.no_grad()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        """[tokens, vocabulary] float32, without a cache."""
        logits: torch.Tensor = self.model(torch.tensor([tokens]), use_cache=False).logits[0]
        return logits
