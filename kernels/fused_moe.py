"""A mixture of gated experts: each token goes through the few that its router chose, and gets their weighted sum.

Tokens are sorted by expert, so that each expert's two products see all of its tokens at once (MegaBlocks: Gale et al.,
2022). On a device the sorted tokens are cut into blocks of one expert each and all experts go through one launch a
product; nothing is asked of the host.

A token's result has the same bits whatever the other tokens are: products are of that kind (linear_packed.py,
linear_invariant.py), and experts are summed in the router's order. On a device that holds where it is asked for: else
many tokens go in larger blocks, whose products another instruction takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused_moe_blocks import BlockExperts, block_experts
from .launch import half_type, jit, takes, tl, triton
from .linear_blocks import rounded, spread_scales
from .linear_invariant import tiled_product
from .linear_packed import PackedWeight
from .native.tensors import native_type
from .swiglu import swiglu

FEW_ROWS, MANY_ROWS = 16, 64  # of one expert in a block: a decode batch gives each expert a handful
BLOCK_OUT = 64
BLOCK_IN = 64


class PackedExperts(NamedTuple):
    """Weights of each expert for the products in C."""

    gate_up: Sequence[PackedWeight]
    down: Sequence[PackedWeight]


class Experts(NamedTuple):
    """Weights of all experts, of one dtype, the inputs first on CPU and last on a device (see `pack_experts`).

    gate_up: [experts, hidden, 2 * width] or [experts, 2 * width, hidden], the gate first; down: [experts, width,
    hidden] or [experts, hidden, width].
    """

    gate_up: Tensor
    down: Tensor


class RoundedExperts(NamedTuple):
    """Experts whose inputs are rounded to fp8 by groups, as BlockExperts' are, where there is no product for these."""

    wide: Experts | PackedExperts


AnyExperts = Experts | PackedExperts | BlockExperts | RoundedExperts


def pack_experts(gate_up: Tensor, down: Tensor, *, int8: bool = False) -> Experts | PackedExperts:
    """From [experts, 2 * width, hidden] and [experts, hidden, width], as checkpoints have each expert. `int8` is
    PackedWeight's, where experts are packed."""
    if takes(gate_up):
        return Experts(gate_up.contiguous(), down.contiguous())
    if native_type(gate_up.device, gate_up.dtype):
        return PackedExperts(
            *([PackedWeight(weight.contiguous(), int8=int8) for weight in whole] for whole in (gate_up, down))
        )
    return Experts(gate_up.transpose(1, 2).contiguous(), down.transpose(1, 2).contiguous())


def pack_block_experts(experts: BlockExperts, dtype: torch.dtype) -> BlockExperts | RoundedExperts:
    """What `fused_moe` takes: where no kernels run, the weights widened to `dtype` once and for all."""
    if takes(experts.gate_up):
        return experts
    wide = (spread_scales(experts.gate_up, experts.gate_up_scales), spread_scales(experts.down, experts.down_scales))
    return RoundedExperts(pack_experts(wide[0].to(dtype), wide[1].to(dtype)))


def fused_moe(x: Tensor, experts: AnyExperts, chosen: Tensor, shares: Tensor, *, invariant: bool = False) -> Tensor:
    """The sum over j of `shares[t, j]` times expert `chosen[t, j]`'s `down(silu(gate(x[t])) * up(x[t]))`.

    x: [tokens, hidden]; experts: of `pack_experts` or `pack_block_experts`; chosen: [tokens, k] int64, all different in
    a row; shares: [tokens, k] float32; `invariant`: to the same bits whatever the other tokens are. Returns [tokens,
    hidden] of the dtype of `x`.
    """
    if takes(x) and isinstance(experts, Experts | BlockExperts):
        return _launch(x.contiguous(), experts, chosen, shares, invariant)
    assert not isinstance(experts, BlockExperts), "packed for kernels that do not run here"
    narrow = isinstance(experts, RoundedExperts)
    experts = experts.wide if isinstance(experts, RoundedExperts) else experts
    tokens, k = chosen.shape
    outputs = torch.empty((tokens * k, x.shape[1]), dtype=x.dtype, device=x.device)
    order = chosen.flatten().argsort(stable=True)
    counts = torch.bincount(chosen.flatten(), minlength=len(experts.down)).tolist()
    first = 0
    for expert, count in enumerate(counts):
        if count:
            places = order[first : first + count]
            hidden = swiglu(_product(x.index_select(0, places // k), experts.gate_up[expert], narrow))
            outputs.index_copy_(0, places, _product(hidden, experts.down[expert], narrow))
            first += count
    return _weighted(outputs.view(tokens, k, -1), shares)


def fused_moe_reference(x: Tensor, gate_up: Tensor, down: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """The definition, token by token, of weights as checkpoints have them (see `pack_experts`)."""
    result = torch.zeros_like(x)
    for token, (experts, parts) in enumerate(zip(chosen.tolist(), shares.tolist(), strict=True)):
        for expert, share in zip(experts, parts, strict=True):
            gate, up = (gate_up[expert] @ x[token]).chunk(2)
            result[token] += share * (down[expert] @ (F.silu(gate) * up))
    return result


def _product(x: Tensor, weight: Tensor | PackedWeight, narrow: bool) -> Tensor:
    x = rounded(x).to(x.dtype) if narrow else x
    return weight.multiply(x) if isinstance(weight, PackedWeight) else tiled_product(x, weight)


def _weighted(outputs: Tensor, shares: Tensor) -> Tensor:
    """[tokens, k, hidden] and [tokens, k] to [tokens, hidden], first to last."""
    shares = shares.to(outputs.dtype).unsqueeze(-1)
    total = outputs[:, 0] * shares[:, 0]
    for j in range(1, outputs.shape[1]):
        total.addcmul_(outputs[:, j], shares[:, j])
    return total


def row_block(total: int, experts: int, invariant: bool) -> int:
    """Rows of a block, where `total` places are shared out among so many experts: many where each has half a block
    of them on average, else most of what is computed were for nobody."""
    return MANY_ROWS if total >= MANY_ROWS // 2 * experts and not invariant else FEW_ROWS


def _launch(x: Tensor, experts: Experts | BlockExperts, chosen: Tensor, shares: Tensor, invariant: bool) -> Tensor:
    tokens, hidden = x.shape
    k, (count, two_widths, _) = chosen.shape[1], experts.gate_up.shape
    if not tokens:
        return torch.empty_like(x)
    places, owners = _blocks(chosen, count, row_block(tokens * k, count, invariant))
    if isinstance(experts, BlockExperts):
        said = block_experts(x, experts, places, owners, tokens * k, k)
        return _weighted(said.view(tokens, k, hidden), shares)
    gate_up = torch.empty((tokens * k, two_widths), dtype=x.dtype, device=x.device)
    _grouped(x, experts.gate_up, gate_up, places, owners, tokens * k, k)
    inner = swiglu(gate_up)
    outputs = torch.empty((tokens * k, hidden), dtype=x.dtype, device=x.device)
    _grouped(inner, experts.down, outputs, places, owners, tokens * k, 1)
    return _weighted(outputs.view(tokens, k, hidden), shares)


def _blocks(chosen: Tensor, experts: int, rows: int) -> tuple[Tensor, Tensor]:
    """Blocks of `rows` places in `chosen`, flat, each of one expert: places [blocks * rows] int64, filled up with the
    number of places, and the expert of each block, [blocks] int64, -1 for blocks that are not needed.

    The number of blocks is the most that there could be, so that the host need not know how many there are.
    """
    flat = chosen.flatten()
    total = flat.numel()
    most = min(total, (total + experts * (rows - 1)) // rows)
    counts = torch.zeros(experts, dtype=torch.int64, device=flat.device).scatter_add_(0, flat, torch.ones_like(flat))
    blocks = (counts + rows - 1) // rows
    ends = blocks.cumsum(0)
    number = torch.arange(most, device=flat.device)
    owners = torch.searchsorted(ends, number, right=True)
    owners = torch.where(number < ends[-1], owners, -1)
    order = flat.argsort(stable=True)
    expert = flat[order]
    rank = torch.arange(total, device=flat.device) - (counts.cumsum(0) - counts)[expert]
    into = (ends - blocks)[expert] * rows + rank
    places = torch.full((most * rows,), total, dtype=torch.int64, device=flat.device)
    return places.scatter_(0, into, order), owners


def _grouped(x: Tensor, weight: Tensor, out: Tensor, places: Tensor, owners: Tensor, total: int, share: int) -> None:
    """`out[p] = weight[owner of p] @ x[p // share]` for every place."""
    _, outputs, inputs = weight.shape
    rows = len(places) // len(owners)
    grouped_kernel[(len(owners), triton.cdiv(outputs, BLOCK_OUT))](
        x, weight, out, places, owners, total,
        SHARE=share, INPUTS=inputs, OUTPUTS=outputs, BLOCK_ROWS=rows, BLOCK_OUT=BLOCK_OUT, BLOCK_IN=BLOCK_IN,
        PRECISION="tf32" if half_type(x.dtype) else "ieee", num_warps=4, num_stages=4,
    )  # fmt: skip


@jit
def grouped_kernel(
    x: tl.tensor, weight: tl.tensor, out: tl.tensor, places: tl.tensor, owners: tl.tensor, total: tl.tensor,
    SHARE: tl.constexpr, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One block of rows of one expert, and one block of outputs; taken as weight times rows, which are few."""
    block = tl.program_id(0)
    expert = tl.load(owners + block)
    if expert < 0:
        return
    place = tl.load(places + block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))
    real = place < total
    o = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    i = tl.arange(0, BLOCK_IN)
    w_rows = weight + (expert * OUTPUTS + o).to(tl.int64)[:, None] * INPUTS
    x_rows = x + (place // SHARE)[None, :] * INPUTS
    sums = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    for start in range(0, INPUTS, BLOCK_IN):
        at = start + i
        w = tl.load(w_rows + at[None, :], mask=(o < OUTPUTS)[:, None] & (at < INPUTS)[None, :], other=0.0)
        v = tl.load(x_rows + at[:, None], mask=real[None, :] & (at < INPUTS)[:, None], other=0.0)
        sums = tl.dot(w, v, sums, input_precision=PRECISION)
    asked = (o < OUTPUTS)[:, None] & real[None, :]
    tl.store(out + place[None, :] * OUTPUTS + o[:, None], sums.to(out.dtype.element_ty), mask=asked)
