"""Operations in C for float32 and bfloat16 on CPU, where torch's own cost more in calls and copies than in arithmetic.

The extension is built when the package is installed and there is a C compiler; without it, or with
HEADWAY_NATIVE_KERNELS=0, every operation goes by its torch reference. So it does with an extension of another version,
as is left behind where sources are newer than the install or could not be compiled: its functions take other arguments.
The functions of `_native` take addresses: their callers, beside each operation's public function, see to types, shapes
and contiguity; pages, slots and positions are checked in C. This module needs no torch: `tensors` says which tensors go
through the operations.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

log = logging.getLogger(__name__)

INTERFACE = 3  # as in module.c: one more whenever what a function takes, or what it means, changes

if TYPE_CHECKING:
    from . import _native as native

    BUILT, OF_OTHER_VERSION = True, False
else:
    try:
        from . import _native as native
    except ImportError:
        native = None
    OF_OTHER_VERSION = native is not None and getattr(native, "INTERFACE", None) != INTERFACE
    if OF_OTHER_VERSION:
        log.warning("the C extension is of another version, and all goes by torch: install Headway again")
        native = None
    BUILT = native is not None

# Where Triton's interpreter runs, CPU tensors go through the Triton kernels.
AVAILABLE = BUILT and os.environ.get("HEADWAY_NATIVE_KERNELS") != "0" and os.environ.get("TRITON_INTERPRET") != "1"
LANES = 16
FLOAT32, BFLOAT16 = 0, 1

__all__ = ["AVAILABLE", "BFLOAT16", "BUILT", "FLOAT32", "LANES", "OF_OTHER_VERSION", "instruction_set", "native"]


def instruction_set() -> str | None:
    """The best that this processor has of those that the operations are compiled for; None where they do not run."""
    return native.instruction_sets()[0] if AVAILABLE else None
