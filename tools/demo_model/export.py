"""From a checkpoint to a folder in the Hugging Face layout, in bfloat16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .card import write_cards
from .model import Llama, Shape
from .special import CHAT_TEMPLATE, END_ID, END_OF_TEXT, END_OF_TEXT_ID, SPECIAL_TOKENS
from .train import load_model

FOLDERS = {"main": "headway-demo", "draft": "headway-demo-draft"}


def export(work: Path, out: Path) -> None:
    """Write both model folders under `out` with the numbers of their own run on their cards."""
    models = {}
    for name, folder in FOLDERS.items():
        models[name] = rounded(load_model(work / f"{name}.pt"))  # what is measured is what is shipped
        write_model(models[name], work, out / folder)
    write_cards(models, work, {name: out / folder for name, folder in FOLDERS.items()})


def rounded(model: Llama) -> Llama:
    """The same model with every weight as bfloat16 will hold it; the tables of positions stay exact."""
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()
    return model


def write_model(model: Llama, work: Path, folder: Path) -> None:
    """Weights, configuration and tokenizer of one model."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.to(torch.bfloat16).contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # save_file leaves it to its owner alone
    shutil.copyfile(work / "tokenizer.json", folder / "tokenizer.json")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    documents = {
        "config": config(model.shape),
        "generation_config": generation_config(),
        "tokenizer_config": tokenizer_config(model.shape),
        "special_tokens_map": dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT),
    }
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")


def config(shape: Shape) -> dict[str, Any]:
    """`config.json`, with the older and the newer names of what was renamed in transformers 5."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **shape.as_config(),
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "bos_token_id": END_OF_TEXT_ID,
        "eos_token_id": END_OF_TEXT_ID,
        "pad_token_id": END_OF_TEXT_ID,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def generation_config() -> dict[str, Any]:
    """`generation_config.json`: greedy, and an answer ends at `<|end|>` as a file ends at end-of-text."""
    return {
        "bos_token_id": END_OF_TEXT_ID,
        "eos_token_id": [END_OF_TEXT_ID, END_ID],
        "pad_token_id": END_OF_TEXT_ID,
        "do_sample": False,
    }


def tokenizer_config(shape: Shape) -> dict[str, Any]:
    """`tokenizer_config.json`; nothing is put before or after a text."""
    added = {
        str(index): {"content": token, "lstrip": False, "normalized": False, "rstrip": False,
                     "single_word": False, "special": True}
        for index, token in enumerate(SPECIAL_TOKENS)
    }  # fmt: skip
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "added_tokens_decoder": added,
        "model_max_length": shape.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
