"""A CUDA device that is not there: every tensor knows where it would lie, and nothing is computed.

What would go wrong on a device goes wrong here: tensors of two places in one operation, a look from the host at what
only the device knows, and copies for which either side would wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.jit import JITFunction

from headway.kernels.attention_rows import host_rows
from headway.worker.execution import batch, decode_buffers, runner, transfer
from headway.worker.execution.replay import PlainReplayer
from headway.worker.model.checkpoint import Checkpoint

LOOKS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default)
BY_PLACES = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)


class Waited(AssertionError):
    """One side would have waited for the other."""


class NobodyWaits(TorchDispatchMode):
    """Raises Waited."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and "device" in kwargs:
            _expect_no_wait(args[0].device, torch.device(kwargs["device"]), kwargs.get("non_blocking"))
        if func in LOOKS and args[0].device.type == "cuda":
            raise Waited(f"{func} of what lies on the device")
        if func in BY_PLACES and any(at is not None and at.dtype == torch.bool for at in args[1]):
            raise Waited(f"{func} by a mask")
        return func(*args, **kwargs)


def _expect_no_wait(source: torch.device, target: torch.device, unhurried: Any) -> None:
    if source.type != target.type and not unhurried:
        raise Waited(f"a copy from {source} to {target}")


class WithoutDriver(TorchFunctionMode):
    """Square brackets and copies, of which torch's own ask the driver for its current device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__getitem__":
            return _part(*args)
        if name == "__setitem__":
            return _copied(_part(*args[:2]), args[2])
        return _copied(*args, **kwargs) if name == "copy_" else func(*args, **kwargs)


def _copied(into: Tensor, x: Tensor, non_blocking: bool = False) -> Tensor:
    assert into.shape == torch.broadcast_shapes(into.shape, x.shape)
    _expect_no_wait(x.device, into.device, non_blocking)
    return into


def _part(x: Tensor, at: Any) -> Tensor:
    asked, dim = at if isinstance(at, tuple) else (at,), 0
    for number, one in enumerate(asked):
        if one is Ellipsis:
            dim = x.dim() - sum(later is not None for later in asked[number + 1 :])
            continue
        if one is None:
            x = x.unsqueeze(dim)
        elif isinstance(one, slice):
            x = torch.ops.aten.slice(x, dim, one.start, one.stop, one.step or 1)
        elif isinstance(one, Tensor):
            x = torch.ops.aten.index(x, [None] * dim + [one])
        else:
            x = x.select(dim, int(one))
            continue
        dim += 1
    return x


class Event:
    """One of torch.cuda's."""

    def __init__(self, enable_timing: bool = False) -> None: ...
    def record(self, stream: Any = None) -> None: ...


@contextmanager
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Gives the names of the Triton kernels that are launched, as they are."""
    launched: list[str] = []

    def launch(self: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        wrong = [x.device for x in args if isinstance(x, Tensor) and x.device.type != "cuda"]
        assert not wrong, f"{self.__name__} is launched on tensors of {wrong}"
        assert all(size > 0 for size in grid), f"{self.__name__} is launched on {grid}"
        launched.append(self.__name__)

    def packed(arrays: Any, *, pinned: bool) -> Tensor:
        assert pinned, "memory from which a copy waits for nobody"
        with unset_fake_temporarily():
            return as_it_is(arrays, pinned=False)

    def on_the_host(*args: Any) -> Any:
        with unset_fake_temporarily():
            return host_rows(*args)

    def moved(host: Tensor, device: torch.device) -> Tensor:
        return host.to(device, non_blocking=True)

    def empty(*shape: Any, pin_memory: bool = False, **how: Any) -> Tensor:
        return real_empty(*shape, **how)

    as_it_is, real_empty = transfer.packed, torch.empty
    monkeypatch.setattr(JITFunction, "run", launch)
    monkeypatch.setattr(torch, "empty", empty)
    for module in (transfer, decode_buffers):
        monkeypatch.setattr(module, "packed", packed)
    monkeypatch.setattr(torch, "inference_mode", lambda mode=True: torch.no_grad())  # there nothing is intercepted
    monkeypatch.setattr(batch, "host_rows", on_the_host)
    for name in ("grouped_lora_tiles", "penalties"):
        monkeypatch.setattr(f"headway.kernels.{name}.moved", moved)
    for name in ("sampling.masks", "sampling.rules", "sampling.penalties", "execution.scoring"):
        monkeypatch.setattr(f"headway.worker.{name}.moved", moved)
    monkeypatch.setattr(Tensor, "data_ptr", lambda self: 0)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(Checkpoint, "read", lambda self, name, shape, out, **part: self.check(name, shape, out.dtype))
    monkeypatch.setattr(runner, "CudaReplayer", lambda device: PlainReplayer())
    monkeypatch.setattr(runner, "choose", lambda shape, device: {})
    with FakeTensorMode(allow_non_fake_inputs=True), WithoutDriver():
        yield launched
