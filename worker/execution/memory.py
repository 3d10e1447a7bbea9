"""How many pages fit, from the memory at hand."""

from __future__ import annotations

import psutil
import torch

from ...core.specs import EngineSpec

CUDA_SHARE = 0.9
CPU_SHARE = 0.1  # of free memory, for all ranks of a group: a machine often runs several groups, and other things
CPU_BYTES = 1 << 30  # that a rank takes at most without being told; pages take memory only when they are first written
CONTEXTS = 2  # more than this many times what all sequences can hold at full length serves nothing


def suggested_pages(
    bytes_per_page: int, max_context: int, engine: EngineSpec, ranks: int, device: torch.device, step_bytes: int = 0
) -> int:
    """Pages for one rank of `ranks` on this machine; at least enough for one sequence of `max_context` tokens.

    On CUDA a step takes up to `step_bytes` beside them, and captured steps what the engine grants them.
    """
    per_context = -(-max_context // engine.page_size)
    most = CONTEXTS * engine.max_sequences * per_context
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        room = int(free * (engine.memory_fraction or CUDA_SHARE)) - step_bytes - (engine.graph_mib << 20)
    else:
        share = engine.memory_fraction or CPU_SHARE
        room = int(psutil.virtual_memory().available * share) // ranks
        room = room if engine.memory_fraction else min(room, CPU_BYTES)
    return max(min(room // bytes_per_page, most), per_context)
