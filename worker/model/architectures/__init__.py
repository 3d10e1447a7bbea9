"""One module an architecture. The table says which one runs what a checkpoint names in `architectures`."""

from __future__ import annotations

from typing import Any

from ..decoder import Decoder
from .gemma2 import Gemma2
from .gemma3 import Gemma3
from .llama import Llama
from .mistral import Mistral
from .mixtral import Mixtral
from .phi3 import Phi3
from .qwen2 import Qwen2
from .qwen3 import Qwen3
from .qwen3_moe import Qwen3Moe

ARCHITECTURES: dict[str, type[Decoder[Any]]] = {
    "Gemma2ForCausalLM": Gemma2,
    "Gemma3ForCausalLM": Gemma3,
    "LlamaForCausalLM": Llama,
    "MistralForCausalLM": Mistral,
    "MixtralForCausalLM": Mixtral,
    "Phi3ForCausalLM": Phi3,
    "Qwen2ForCausalLM": Qwen2,
    "Qwen3ForCausalLM": Qwen3,
    "Qwen3MoeForCausalLM": Qwen3Moe,
}
