"""Greedy completion without a cache: slow, and enough for the samples on the model card."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer

from .model import Llama
from .special import END_ID, END_OF_TEXT_ID


@torch.no_grad()
def complete(model: Llama, tokenizer: Tokenizer, prompt: str, max_tokens: int) -> str:
    """The text that follows the prompt, up to an end token or `max_tokens`."""
    ids: list[int] = tokenizer.encode(prompt).ids
    start = len(ids)
    while len(ids) - start < max_tokens:
        chosen = int(model(torch.tensor([ids]))[0, -1].argmax())
        if chosen in (END_ID, END_OF_TEXT_ID):
            break
        ids.append(chosen)
    text: str = tokenizer.decode(ids[start:], skip_special_tokens=False)
    return text
