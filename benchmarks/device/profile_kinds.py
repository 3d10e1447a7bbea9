"""Kinds of kernels, by their names."""

from __future__ import annotations

import re

PATTERNS = (
    ("attention", re.compile(r"decode_kernel|merge_kernel|prefill_kernel|flash|BatchDecode|BatchPrefill|rope_kv")),
    (
        "products",
        re.compile(
            r"gemm|gemv|cutlass|nvjet|xmma|splitk|w4a16|w8a8|blocks_kernel|grouped_kernel|invariant_kernel|add_parts"
            r"|quantize_|shrink_kernel|expand_kernel",
            re.IGNORECASE,
        ),
    ),
    ("sampling", re.compile(r"floor_kernel|draw_kernel|choose_kernel|penalize_kernel")),
    ("copies", re.compile(r"memcpy|memset", re.IGNORECASE)),
)
KINDS = (*(kind for kind, _ in PATTERNS), "rest")


def kind_of(name: str) -> str:
    """Which of KINDS a kernel of this name is."""
    return next((kind for kind, pattern in PATTERNS if pattern.search(name)), "rest")
