"""Whole pages of every layer at once: into one contiguous buffer on their way out, and back.

A tier or another replica wants all layers of a page together; on the device they lie in as many tensors as there are
layers. One launch goes over them all by their addresses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .launch import jit, takes, tl, triton

BLOCK = 2048  # words of 4 bytes


class PageTensors:
    """The tensors, [pages, ...] each, contiguous and of one page size in bytes, that together hold the pages.

    Raises ValueError when a page is no whole number of 4-byte words, or the tensors differ.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        sizes = {tensor[0].numel() * tensor.element_size() for tensor in tensors}
        if len(sizes) != 1 or any(not tensor.is_contiguous() for tensor in tensors):
            raise ValueError("pages must be contiguous and of one size in all tensors")
        size = sizes.pop()
        if size % 4:
            raise ValueError(f"a page must be a whole number of 4-byte words, got {size} bytes")
        self.words = size // 4
        self.flat = [tensor.view(torch.uint8).view(len(tensor), -1).view(torch.int32) for tensor in tensors]
        self.addresses = torch.tensor([tensor.data_ptr() for tensor in tensors], device=tensors[0].device)


def gather_pages(tensors: PageTensors, pages: Tensor) -> Tensor:
    """Copies of `pages` ([n] int64), [n, tensors, words] int32."""
    out = torch.empty((len(pages), len(tensors.flat), tensors.words), dtype=torch.int32, device=tensors.flat[0].device)
    if takes(out):
        _launch(tensors, pages, out, write=False)
    else:
        torch.stack([flat.index_select(0, pages) for flat in tensors.flat], 1, out=out)
    return out


def scatter_pages(tensors: PageTensors, pages: Tensor, copies: Tensor) -> None:
    """Puts `copies`, as `gather_pages` made them, into `pages` ([n] int64, all different)."""
    if takes(copies):
        _launch(tensors, pages, copies, write=True)
    else:
        for index, flat in enumerate(tensors.flat):
            flat.index_copy_(0, pages, copies[:, index])


def _launch(tensors: PageTensors, pages: Tensor, copies: Tensor, *, write: bool) -> None:
    if len(pages):
        grid = (len(pages), len(tensors.flat), triton.cdiv(tensors.words, BLOCK))
        page_copy_kernel[grid](tensors.addresses, pages, copies, WORDS=tensors.words, WRITE=write, BLOCK=BLOCK)


@jit
def page_copy_kernel(
    addresses: tl.tensor, pages: tl.tensor, copies: tl.tensor, WORDS: tl.constexpr, WRITE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """One block of one page in one tensor."""
    item = tl.program_id(0).to(tl.int64)
    which = tl.program_id(1)
    at = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = at < WORDS
    page = tl.load(pages + item)
    here = tl.load(addresses + which).to(tl.pointer_type(tl.int32)) + page * WORDS + at
    there = copies + (item * tl.num_programs(1) + which) * WORDS + at
    if WRITE:
        tl.store(here, tl.load(there, mask=inside), mask=inside)
    else:
        tl.store(there, tl.load(here, mask=inside), mask=inside)
