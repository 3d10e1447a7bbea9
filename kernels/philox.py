"""Philox4x32-10: random numbers that are a function of a key and a counter, and of nothing else.

Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC11). 32-bit words travel in int64
tensors, because torch has no high half of a 32-bit product.
"""

from __future__ import annotations

from torch import Tensor

ROUNDS = 10
_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_LOW = 0xFFFFFFFF


Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Four random words for each counter.

    counter: four words, key: two words, each an int64 tensor of values in [0, 2^32) that broadcasts with the others.
    Returns four int64 tensors of values in [0, 2^32), of the broadcast shape.

    Words that do not vary along a dimension stay narrow for the first rounds, which is why no operand is expanded
    beforehand.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product_0 = c0 * _MULTIPLIER_0
        product_1 = c2 * _MULTIPLIER_1
        c0 = _mixed(product_1, c1, k0)
        c2 = _mixed(product_0, c3, k1)
        c1 = product_1.bitwise_and_(_LOW)
        c3 = product_0.bitwise_and_(_LOW)
        k0 = (k0 + _WEYL_0) & _LOW
        k1 = (k1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3


def _mixed(product: Tensor, word: Tensor, key: Tensor) -> Tensor:
    """High word of the product, xor the other two. The product has wrapped in int64, and its words are right all the
    same once the shift's sign bits are cut off."""
    high = (product >> 32).bitwise_and_(_LOW)
    if word.shape == high.shape:
        return high.bitwise_xor_(word).bitwise_xor_(key)
    return high ^ (word ^ key)
