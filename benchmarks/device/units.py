"""One process of a run: measures unit after unit, and writes each row to a file as soon as there is one.

What a broken kernel does to a device lasts as long as the process. So a process whose device is broken, or whose engine
stopped in the middle, ends, and the next one (processes.py) goes on after the unit that did it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .bed import Bed
from .ceilings import Ceilings, measure
from .report import Row, told

BROKEN = 3  # exit code: the units that are left want another process
ENGINE_NEEDS = {
    "msgspec": "msgspec", "xxhash": "xxhash", "google.protobuf": "protobuf", "google.rpc": "googleapis-common-protos",
    "grpc": "grpcio", "psutil": "psutil", "safetensors": "safetensors",
}  # fmt: skip


def run(units: Sequence[str], log: Path, ceilings: Sequence[float], tiny: bool, until: float) -> int:
    """Measures them, in order; `ceilings` as an earlier process measured them. Returns the exit code."""
    with log.open("a") as file:

        def say(*words: Any) -> None:
            file.write(json.dumps(words) + "\n")
            file.flush()

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if not ceilings:
            say("begin", "ceilings")
            say("device", _described(device))
            ceilings = measure(device, tiny=tiny)
            say("ceilings", *ceilings)
            say("end", "ceilings")
        bed = Bed(device, Ceilings(*ceilings), tiny, until)
        for unit in units:
            say("begin", unit)
            table, what = unit.split("/", 1)
            fine = True
            try:
                for row in _measurement(table, what)(bed):
                    say("row", row.table, list(row.cells))
            except Exception as error:
                say("row", table, [what, told(error)])
                fine = table == "kernels"
            say("end", unit)
            if not fine or not _healthy(device):
                return BROKEN
            if table == "kernels":
                bed.tidy()
    return 0


def _measurement(table: str, what: str) -> Callable[[Bed], Iterator[Row]]:
    if table == "kernels":
        from .kernels import rows

        return partial(rows, what)
    if missing := [package for module, package in ENGINE_NEEDS.items() if not _importable(module)]:
        raise RuntimeError(f"left out for want of packages: {', '.join(missing)}")
    from . import end_to_end

    return partial({"served": end_to_end.served, "decoded": end_to_end.decoded, "where": end_to_end.where}[table], what)


def _importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _healthy(device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
        torch.zeros(1, device=device).add_(1)
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def _described(device: torch.device) -> str:
    from ...kernels.launch import AVAILABLE, triton

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: figures mean nothing"
    kernels = f"triton {triton.__version__}" if AVAILABLE else "no triton: all goes by torch"
    return f"{name}, torch {torch.__version__}, {kernels}"
