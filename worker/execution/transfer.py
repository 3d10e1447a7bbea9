"""Between host and device: one copy a step each way, through pinned memory, and no waiting on either side.

The pinned memory comes from torch's caching allocator, which gives a block out again only when the copies that were
begun from it or into it are done: a step may be packed while the last one's copy is still under way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ALIGNMENT = 16  # bytes: what Triton's wide loads may count on

Array = npt.NDArray[Any]


def packed(arrays: Sequence[Array], *, pinned: bool) -> Tensor:
    """The arrays one after the other, each aligned: [bytes] uint8 on the host."""
    offsets, total = _layout(arrays)
    buffer = torch.empty(total, dtype=torch.uint8, pin_memory=pinned)
    into = buffer.numpy()
    for array, offset in zip(arrays, offsets, strict=True):
        into[offset : offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return buffer


def unpacked(buffer: Tensor, arrays: Sequence[Array]) -> list[Tensor]:
    """Views of what `packed` made, wherever it lies now, with the shapes and types of `arrays`."""
    offsets, _ = _layout(arrays)
    return [
        buffer[offset : offset + array.nbytes].view(_torch_type(array)).view(array.shape)
        for array, offset in zip(arrays, offsets, strict=True)
    ]


def to_device(arrays: Sequence[Array], device: torch.device) -> list[Tensor]:
    """The arrays as tensors on `device`, by one copy; on CPU they share the arrays' memory."""
    if device.type == "cpu":
        return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    return unpacked(packed(arrays, pinned=True).to(device, non_blocking=True), arrays)


def _layout(arrays: Sequence[Array]) -> tuple[list[int], int]:
    sizes = [-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in arrays]
    ends = np.cumsum([0, *sizes]).tolist()
    return ends[:-1], ends[-1]


def _torch_type(array: Array) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


class Outgoing:
    """Small results on their way to the host, all in one copy behind what the device has still to do."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._parts: list[Tensor] = []
        self._ends: list[int] = [0]
        self._host: Tensor | None = None
        self._done: torch.cuda.Event | None = None

    def add(self, part: Tensor) -> int:
        """A number under which `part` (float32, or integers below 2^31) can be had later."""
        words = part if part.dtype == torch.float32 else part.to(torch.int32)
        self._parts.append(words)
        self._ends.append(self._ends[-1] + words.numel())
        return len(self._parts) - 1

    def send(self) -> None:
        """Begins the copy, after the last part was added."""
        on_device = self._device.type == "cuda"
        if self._parts:
            words = torch.cat([part.reshape(-1).view(torch.int32) for part in self._parts])
            self._host = torch.empty(words.shape, dtype=torch.int32, pin_memory=on_device)
            self._host.copy_(words, non_blocking=True)
        if on_device:
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record(torch.cuda.current_stream(self._device))

    @property
    def arrived(self) -> bool:
        """Whether `wait` would return at once."""
        return self._done is None or bool(self._done.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Returns when everything that was launched up to `send` is done. Raises RuntimeError for what went wrong."""
        if self._done is not None:
            self._done.synchronize()

    def taken(self, number: int) -> Array:
        """Part `number`, in its shape: float32, or int32. After `wait`."""
        assert self._host is not None, "sent with at least this part"
        part = self._parts[number]
        words = self._host.numpy()[self._ends[number] : self._ends[number + 1]].reshape(part.shape)
        return words.view(np.float32) if part.dtype == torch.float32 else words


class Stopwatch:
    """Seconds between `start` and `stop` as the device lives through them; on CUDA known only when both are past."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def mark(self) -> None:
        """The beginning, then the end."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def seconds(self) -> float:
        begun, ended = self._marks
        if self._device.type == "cuda":
            return float(begun.elapsed_time(ended)) / 1e3
        return float(ended - begun)
