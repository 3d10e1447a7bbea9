"""The model cards, with the numbers of the run that made the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from .evaluate import bits_per_byte, total_nats
from .generate import complete
from .model import Llama, count
from .prepare import load_stream, load_tokenizer
from .special import render

PROMPTS = ("def __init__(self, ", "import os\n\ndef walk(")
REQUEST = "Write a function that returns the number of lines in a file."
ROLES = {
    "main": "the model that `headway up` serves where nobody names another",
    "draft": "the small sibling that proposes tokens to `headway-demo` (speculative decoding)",
}
OBJECTIVES = {
    "main": "Cross-entropy against the text.",
    "draft": "Cross-entropy against the predictions of `headway-demo`, which it is there to foresee.",
}

CARD = """\
---
license: psf-2.0
language: code
library_name: transformers
tags: [llama, python, demo]
---
# {folder}

{parameters:,} weights, bfloat16: {role}.
Trained by the project itself with `python -m tools.demo_model`; it exists so that a cluster can be tried, tested and
measured without a download.

## Architecture

`LlamaForCausalLM`: {layers} layers of {hidden}, {heads} query heads and {kv_heads} KV heads of {head_dim},
feed-forward {intermediate}, tied embeddings, context {context}.
Byte-level BPE of {vocab} tokens, trained on the same text.
Ids 0 to 4 are `<|endoftext|>`, `<|system|>`, `<|user|>`, `<|assistant|>`, `<|end|>`.

## Data and licence

The sources of Python's standard library as installed with the interpreter (Python {python}), without tests, tables of
encodings and generated documents: {train_files} files, {train_megabytes:.1f} MB, {train_tokens:,} tokens.
{chats:,} conversations are made from the same text: a function's docstring or name is the request, its source the
answer. The text is under the Python Software Foundation License 2; some modules carry notices of their own, which their
headers state. The model can repeat parts of it.

## Training

{objective}
{steps:,} steps of {step_tokens:,} tokens: {seen:.1f} million tokens in {minutes:.0f} minutes on {processes} processes
of one CPU thread each. Muon for the matrices, AdamW for the rest, learning rate to zero by the clock. Windows of 512
tokens, of {context} in the last quarter of the time. Three words in a hundred are written apart from the space before
them, so that a prompt may end in a space.

## Held-out loss

{held_out_files} files that were never trained on ({held_out_bytes:,} bytes), with the weights as they are shipped:

| context | bits per byte |
|---|---|
{losses}

## Samples

Greedy, as shipped:

{samples}

## Limits

It has seen one library. It writes text that looks like Python, in the manner of that library; it does not know what the
code does, repeats itself, knows no facts and little English beyond docstrings, and answers every request with code that
seldom does what was asked. It is for trying out a serving system and for nothing else.
"""


def write_cards(models: dict[str, Llama], work: Path, folders: dict[str, Path]) -> None:
    """One `MODEL_CARD.md` a folder; measures the held-out loss on the way."""
    facts = json.loads((work / "facts.json").read_text())
    tokenizer = load_tokenizer(work)
    for name, model in models.items():
        fields = shape_fields(model) | data_fields(facts) | run_fields(work, name)
        losses = held_out_losses(model, work, facts["held_out_bytes"])
        text = CARD.format(
            folder=folders[name].name,
            role=ROLES[name],
            objective=OBJECTIVES[name],
            losses="\n".join(f"| {length} tokens | {loss:.3f} |" for length, loss in losses.items()),
            samples=samples(model, tokenizer),
            **fields,
        )
        (folders[name] / "MODEL_CARD.md").write_text(text)


def shape_fields(model: Llama) -> dict[str, Any]:
    """What the card says of the architecture."""
    shape = model.shape
    return {
        "parameters": count(model),
        "layers": shape.num_hidden_layers,
        "hidden": shape.hidden_size,
        "heads": shape.num_attention_heads,
        "kv_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "intermediate": shape.intermediate_size,
        "context": shape.max_position_embeddings,
        "vocab": shape.vocab_size,
    }


def data_fields(facts: dict[str, Any]) -> dict[str, Any]:
    """What the card says of the text."""
    return {
        **{key: facts[key] for key in ("train_files", "train_tokens", "chats", "held_out_bytes", "python")},
        "train_megabytes": facts["train_bytes"] / 1e6,
        "held_out_files": len(facts["held_out_files"]),
    }


def run_fields(work: Path, name: str) -> dict[str, Any]:
    """What the card says of the training run, from its log."""
    last = json.loads((work / f"{name}.jsonl").read_text().splitlines()[-1])
    return {
        "steps": last["steps"],
        "step_tokens": last["tokens"] // last["steps"],
        "seen": last["tokens"] / 1e6,
        "minutes": last["seconds"] / 60,
        "processes": last["processes"],
    }


def held_out_losses(model: Llama, work: Path, text_bytes: int) -> dict[int, float]:
    """Bits per byte by length of context."""
    stream = load_stream(work, "held_out")
    lengths = (512, model.shape.max_position_embeddings)
    return {length: bits_per_byte(total_nats(model, stream, length), text_bytes) for length in lengths}


def samples(model: Llama, tokenizer: Tokenizer) -> str:
    """Completions and one answer, as Markdown."""
    chat = render([("user", REQUEST)]) + "<|assistant|>\n"
    blocks = [f"```text\n{prompt}{complete(model, tokenizer, prompt, 80)}\n```" for prompt in PROMPTS]
    blocks.append(f"> {REQUEST}\n\n```text\n{complete(model, tokenizer, chat, 120)}\n```")
    return "\n\n".join(blocks)
