"""How a step over fixed memory is repeated: as a CUDA graph, or, where there are none, by running it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Step = Callable[[], Tensor]


class Replayer(Protocol):
    """Makes a step repeatable. The step reads and writes the same memory each time; what it returns is overwritten by
    the next replay of any of a replayer's steps."""

    def capture(self, step: Step) -> Step:
        """Runs `step`, and gives what does the same again. Raises RuntimeError."""
        ...

    @property
    def bytes(self) -> int:
        """Device memory that what was captured keeps."""
        ...


class PlainReplayer:
    """Runs the step again: what a graph would do, on any device."""

    def capture(self, step: Step) -> Step:
        step()
        return step

    @property
    def bytes(self) -> int:
        return 0


class CudaReplayer:
    """CUDA graphs that share one pool of memory: each is replayed alone, so that they may lie over each other, and the
    biggest captured first leaves room for all."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = None  # torch's handle of a pool
        self._bytes = 0

    @property
    def bytes(self) -> int:
        return self._bytes

    def capture(self, step: Step) -> Step:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            step()  # kernels are compiled and libraries set up when they are first used, which no graph can hold
        current.wait_stream(self._stream)
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(self._device)
        graph = torch.cuda.CUDAGraph()
        # Other threads' calls (the tiers' copies, NCCL's watchdog) must not spoil the capture.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            out = step()
        self._pool = graph.pool()
        torch.cuda.synchronize(self._device)
        self._bytes += max(0, free - torch.cuda.mem_get_info(self._device)[0])

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay
