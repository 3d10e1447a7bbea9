"""torch's FlexAttention, compiled, over keys and values that lie side by side: what torch has for chunks that see a
cached prefix, for windows and for capped scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Chunks(NamedTuple):
    """`rows` of `queries` each, the newest of `context` tokens. A query sees `window` newest (0: all); scores are
    capped to `softcap` by tanh (0: not)."""

    rows: int
    queries: int
    context: int
    window: int = 0
    softcap: float = 0.0

    @property
    def pairs(self) -> int:
        """Queries times the keys that each of them sees."""
        first = self.context - self.queries + 1
        seen = range(first, self.context + 1)
        return self.rows * sum(min(keys, self.window or keys) for keys in seen)


def flex_attention(chunks: Chunks, query: Tensor, key: Tensor, value: Tensor) -> Callable[[], Tensor]:
    """query: [rows, heads, queries, head_dim]; key, value: [rows, kv_heads, context, head_dim]. Compiled when it is
    first called."""
    from torch.nn.attention import flex_attention as flex

    offset, window, softcap = chunks.context - chunks.queries, chunks.window, chunks.softcap

    def seen(batch: Tensor, head: Tensor, at: Tensor, token: Tensor) -> Tensor:
        causal = token <= at + offset
        return causal & (at + offset - token < window) if window else causal

    def capped(score: Tensor, batch: Tensor, head: Tensor, at: Tensor, token: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    mask = flex.create_block_mask(seen, None, None, chunks.queries, chunks.context, device=str(query.device))
    compiled: Any = torch.compile(flex.flex_attention, dynamic=False)
    how = {"score_mod": capped} if softcap else {}

    def run() -> Tensor:
        out: Tensor = compiled(query, key, value, block_mask=mask, enable_gqa=True, **how)
        return out

    return run
