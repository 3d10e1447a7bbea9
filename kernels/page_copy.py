"""Whole pages of every layer at once: into one contiguous buffer on their way out, and back.

A tier or another replica wants all layers of a page together, with the scales of narrow ones; on the device they lie in
as many tensors. One launch goes over them all by their addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from .launch import jit, takes, tl, triton

BLOCK = 2048  # words of 4 bytes


class PageTensors:
    """The tensors, [pages, ...] each, contiguous, that together hold the pages. `words` is a page's size in all of
    them, in words of 4 bytes.

    Raises ValueError when a page is no whole number of words in one of them.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        if any(not tensor.is_contiguous() for tensor in tensors):
            raise ValueError("pages must be contiguous")
        sizes = [tensor[0].numel() * tensor.element_size() for tensor in tensors]
        if wrong := [size for size in sizes if size % 4]:
            raise ValueError(f"a page must be a whole number of 4-byte words, got {wrong[0]} bytes")
        widths = [size // 4 for size in sizes]
        starts = [0, *accumulate(widths)]
        self.words, self.widest = starts[-1], max(widths)
        self.parts = [slice(first, last) for first, last in pairwise(starts)]
        self.flat = [tensor.view(torch.uint8).view(len(tensor), -1).view(torch.int32) for tensor in tensors]
        places = [(tensor.data_ptr(), part.start, part.stop) for tensor, part in zip(tensors, self.parts, strict=True)]
        self.places = torch.tensor(places, device=tensors[0].device)  # [tensors, 3]: address, first word, last


def gather_pages(tensors: PageTensors, pages: Tensor) -> Tensor:
    """Copies of `pages` ([n] int64), [n, words] int32: what each tensor holds of a page, one after the other."""
    out = torch.empty((len(pages), tensors.words), dtype=torch.int32, device=tensors.flat[0].device)
    if takes(out):
        _launch(tensors, pages, out, write=False)
    else:
        torch.cat([flat.index_select(0, pages) for flat in tensors.flat], 1, out=out)
    return out


def scatter_pages(tensors: PageTensors, pages: Tensor, copies: Tensor) -> None:
    """Puts `copies`, as `gather_pages` made them, into `pages` ([n] int64, all different)."""
    if takes(copies):
        _launch(tensors, pages, copies, write=True)
    else:
        for flat, part in zip(tensors.flat, tensors.parts, strict=True):
            flat.index_copy_(0, pages, copies[:, part])


def _launch(tensors: PageTensors, pages: Tensor, copies: Tensor, *, write: bool) -> None:
    if len(pages):
        grid = (len(pages), len(tensors.flat), triton.cdiv(tensors.widest, BLOCK))
        page_copy_kernel[grid](tensors.places, pages, copies, WORDS=tensors.words, WRITE=write, BLOCK=BLOCK)


@jit
def page_copy_kernel(
    places: tl.tensor, pages: tl.tensor, copies: tl.tensor, WORDS: tl.constexpr, WRITE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """One block of one page in one tensor."""
    item = tl.program_id(0).to(tl.int64)
    place = places + tl.program_id(1) * 3
    first, last = tl.load(place + 1), tl.load(place + 2)
    at = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = at < last - first
    page = tl.load(pages + item)
    here = tl.load(place).to(tl.pointer_type(tl.int32)) + page * (last - first) + at
    there = copies + item * WORDS + first + at
    if WRITE:
        tl.store(here, tl.load(there, mask=inside), mask=inside)
    else:
        tl.store(there, tl.load(here, mask=inside), mask=inside)
