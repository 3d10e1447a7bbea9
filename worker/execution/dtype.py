"""Which type a group computes in. Settled once for all ranks, by the leader, which has no torch."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from ...core.specs import GroupSpec
from ...kernels.native.speed import product_speeds
from ..model.config import read_dtype

log = logging.getLogger(__name__)


def settle_dtype(spec: GroupSpec) -> GroupSpec:
    """The spec with a type in place of "auto", for every rank to take alike: processors that measure differently must
    not compute differently. Raises ConfigError."""
    if spec.dtype != "auto":
        return spec
    return msgspec.structs.replace(spec, dtype=dtype_name(read_dtype(Path(spec.model_path)), spec.device, spec.dtype))


def dtype_name(stored: str, device: str, wanted: str) -> str:
    """The name of the type to compute in, for a checkpoint of type `stored`.

    "auto" on a GPU is the checkpoint's own half type, or bfloat16. On CPU it is float32, or bfloat16 where the
    checkpoint is of that type, so that nothing is rounded that was not, and its products are measured to be faster.
    """
    if wanted != "auto":
        return wanted
    if device != "cpu":
        return "bfloat16" if stored == "float32" else stored
    speeds = product_speeds() if stored == "bfloat16" else None
    if speeds is None:
        return "float32"
    name = "bfloat16" if speeds.prefer_bfloat16 else "float32"
    log.info("computing in %s: %s", name, speeds)
    return name
