"""Masks of grammars: packed bits that say which tokens may come, laid over the logits of all masked rows at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...kernels.launch import moved

BITS = 32

Packed = npt.NDArray[np.uint8]


def mask_bytes(vocab_size: int) -> int:
    """Length of a mask: whole little-endian u32 words, the last one's bits beyond the vocabulary without meaning."""
    return -(-vocab_size // BITS) * 4


def apply_masks(logits: Tensor, rows: Sequence[int], masks: Sequence[bytes]) -> None:
    """Sets the logits of tokens whose bit is 0 to minus infinity, in place.

    logits: [samples, vocabulary] float32; rows: indices into its first dimension; masks: one of `mask_bytes` for each
    of them, bit i % 32 of the little-endian u32 number i // 32 for token i. Raises ValueError for another length.
    """
    vocab_size = logits.shape[-1]
    wrong = next((len(mask) for mask in masks if len(mask) != mask_bytes(vocab_size)), None)
    if wrong is not None:
        raise ValueError(f"a mask over {vocab_size} tokens has {mask_bytes(vocab_size)} bytes, got {wrong}")
    packed = np.frombuffer(b"".join(masks), np.uint8).reshape(len(masks), -1)
    unpacked = _banned if logits.device.type == "cpu" else _banned_on_device
    banned = unpacked(packed, vocab_size, logits.device)
    if list(rows) == list(range(len(logits))):
        logits.masked_fill_(banned, -torch.inf)
    else:
        index = moved(torch.tensor(rows), logits.device)
        logits.index_copy_(0, index, logits.index_select(0, index).masked_fill_(banned, -torch.inf))


def _banned(packed: Packed, vocab_size: int, device: torch.device) -> Tensor:
    """[masks, vocabulary] bool, of masks [masks, bytes]."""
    return torch.from_numpy(np.unpackbits(packed, axis=-1, count=vocab_size, bitorder="little") == 0)


def _banned_on_device(packed: Packed, vocab_size: int, device: torch.device) -> Tensor:
    """The same; the packed form is what crosses to the device."""
    words = moved(torch.from_numpy(packed.copy()), device)
    lanes = torch.arange(8, device=device, dtype=torch.uint8)
    return ((words.unsqueeze(-1) >> lanes) & 1).flatten(1)[:, :vocab_size] == 0
