"""Random LoRA adapters, written by peft, which is also what they are compared with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_llamas import Oracle
from transformers import AutoModelForCausalLM

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# Eight that differ in whatever an adapter may choose.
KINDS: list[dict[str, Any]] = [
    {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    {"r": 1, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj"]},
    {"r": 8, "lora_alpha": 16, "target_modules": ["gate_proj", "up_proj", "down_proj"], "use_rslora": True},
    {"r": 3, "lora_alpha": 1, "target_modules": ATTENTION, "layers_to_transform": [1, 2]},
    {"r": 16, "lora_alpha": 16, "target_modules": r".*\.(k_proj|o_proj|up_proj)$"},
    {"r": 4, "lora_alpha": 4, "target_modules": ["o_proj"], "rank_pattern": {"o_proj": 7}},
    {"r": 2, "lora_alpha": 9, "target_modules": ["down_proj", "q_proj"], "alpha_pattern": {"down_proj": 3.5}},
    {"r": 5, "lora_alpha": 10, "target_modules": ["model.layers.0.self_attn.k_proj", "gate_proj"]},
]


def write_adapter(directory: Path, base: Path, seed: int, **config: Any) -> Path:
    """An adapter of the model in `base` with every matrix random; `config` are fields of LoraConfig."""
    torch.manual_seed(seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **config))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.2)
    model.save_pretrained(directory)
    return directory


def edit_adapter(directory: Path, *drop: str, **changes: Any) -> None:
    """Changes adapter_config.json."""
    path = directory / "adapter_config.json"
    values = {name: value for name, value in json.loads(path.read_text()).items() if name not in drop}
    path.write_text(json.dumps(values | changes))


class PeftOracle(Oracle):
    """The model with all adapters of a list beside it, in peft; `using` picks one."""

    def __init__(self, base: Path, adapters: list[Path]) -> None:
        super().__init__(base)
        self.peft = PeftModel.from_pretrained(self.model, adapters[0], adapter_name="0")
        for index, path in enumerate(adapters[1:], start=1):
            self.peft.load_adapter(path, adapter_name=str(index))
        self.peft.eval()

    @contextmanager
    def using(self, index: int) -> Iterator[PeftOracle]:
        """With the adapter of this index; below 0 with none."""
        if index < 0:
            with self.peft.disable_adapter():
                yield self
        else:
            self.peft.set_adapter(str(index))
            yield self
