"""One module an architecture. The table says which one runs what a checkpoint names in `architectures`."""

from __future__ import annotations

from typing import Any

from ..decoder import Decoder
from .llama import Llama
from .qwen2 import Qwen2
from .qwen3 import Qwen3

ARCHITECTURES: dict[str, type[Decoder[Any]]] = {
    "LlamaForCausalLM": Llama,
    "Qwen2ForCausalLM": Qwen2,
    "Qwen3ForCausalLM": Qwen3,
}
