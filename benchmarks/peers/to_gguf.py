"""A Llama or Qwen3 checkpoint as a GGUF file. Runs in the peer's own environment: to_gguf.py MODEL FILE DTYPE.

DTYPE is float32 or bfloat16: that of the matrices, since llama.cpp wants norms in float32.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.torch import load_file
from tokenizers import Tokenizer

NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def turned(weight: np.ndarray, heads: int) -> np.ndarray:
    """Llama's rows of a head in the order of GGUF: pairs side by side instead of halves."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def name_of(tensor: str) -> str:
    base = tensor.removesuffix(".weight")
    if base in TOP:
        return f"{TOP[base]}.weight"
    _, _, index, rest = base.split(".", 3)
    return f"blk.{index}.{NAMES[rest]}.weight"


def main() -> None:
    model, target, dtype = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    config = json.loads((model / "config.json").read_text())
    llama = config["model_type"] == "llama"
    writer = gguf.GGUFWriter(target, "llama" if llama else "qwen3")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    rope = config.get("rope_parameters") or config
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _tokenizer(writer, model, config)
    for tensor, value in load_file(model / "model.safetensors").items():
        array = value.float().numpy()
        if llama and tensor.endswith("q_proj.weight"):
            array = turned(array, config["num_attention_heads"])
        if llama and tensor.endswith("k_proj.weight"):
            array = turned(array, config["num_key_value_heads"])
        array = np.ascontiguousarray(array)
        if dtype == "bfloat16" and array.ndim == 2:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(name_of(tensor), gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name_of(tensor), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tokenizer(writer: gguf.GGUFWriter, model: Path, config: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    rules = json.loads((model / "tokenizer.json").read_text())["model"]
    known = {index: token for token, index in tokenizer.get_vocab().items()}
    special = set(tokenizer.get_added_tokens_decoder())
    size = config["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([known.get(index, f"<unused{index}>") for index in range(size)])
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL, gguf.TokenType.UNUSED)
    writer.add_token_types([kinds[2 if index not in known else index in special] for index in range(size)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in rules["merges"]])
    eos = config["eos_token_id"]
    writer.add_eos_token_id(eos[0] if isinstance(eos, list) else eos)


if __name__ == "__main__":
    main()
