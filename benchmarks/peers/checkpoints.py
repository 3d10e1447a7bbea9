"""Checkpoints of known shapes with random weights, in Hugging Face layout, with the demo model's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

DEMO = Path(__file__).parents[2] / "demo" / "headway-demo"

LLAMA_79M = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 768, "intermediate_size": 2048,
    "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12, "head_dim": 64,
    "vocab_size": 4096, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "hidden_act": "silu", "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3_600M = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 151936, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "bfloat16",
}  # fmt: skip
SHAPES = {"79m": LLAMA_79M, "qwen3-0.6b": QWEN3_600M}


def checkpoint(name: str, folder: Path) -> Path:
    """The directory of model `name`: the demo model's own, or one written into `folder` when it is not there yet."""
    if name == "demo":
        return DEMO
    path = folder / name
    if not (path / "model.safetensors").exists():
        _write(path, SHAPES[name])
    return path


def _write(path: Path, config: dict[str, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for file in DEMO.iterdir():
        if file.name.startswith(("tokenizer", "chat_template", "special_tokens")):
            shutil.copy(file, path / file.name)
    demo = json.loads((DEMO / "config.json").read_text())
    eos, known = demo["eos_token_id"], demo["vocab_size"]
    (path / "config.json").write_text(json.dumps({**config, "eos_token_id": eos, "bos_token_id": None}, indent=1))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    generator = torch.Generator().manual_seed(0)
    tensors = {
        key: torch.ones(shape, dtype=torch.bfloat16)
        if len(shape) == 1
        else (torch.randn(shape, generator=generator) * 0.02).to(torch.bfloat16)
        for key, shape in _tensors(config).items()
    }
    # Every token that is chosen has a text: some servers tell of no other.
    for key in {"model.embed_tokens.weight", "lm_head.weight"} & tensors.keys():
        tensors[key][known:] = 0
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def _tensors(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, width, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}."
        found |= {
            f"{at}input_layernorm.weight": (hidden,),
            f"{at}post_attention_layernorm.weight": (hidden,),
            f"{at}self_attn.q_proj.weight": (queries, hidden),
            f"{at}self_attn.k_proj.weight": (keys, hidden),
            f"{at}self_attn.v_proj.weight": (keys, hidden),
            f"{at}self_attn.o_proj.weight": (hidden, queries),
            f"{at}mlp.gate_proj.weight": (width, hidden),
            f"{at}mlp.up_proj.weight": (width, hidden),
            f"{at}mlp.down_proj.weight": (hidden, width),
        }
        if config["model_type"] == "qwen3":
            found |= {f"{at}self_attn.q_norm.weight": (dim,), f"{at}self_attn.k_norm.weight": (dim,)}
    return found
