"""Whose attention runs here: Headway's own kernels, unless another way that is installed was measured to be faster.

Measured once for a device, its software and the model's heads, over a few shapes, each way held to the result of
Headway's kernels first; kept in a file in the user's cache directory, which `headway doctor` reads, too.
"""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .attention_ways import AttentionShape, Way, installed
from .kv_pages import KvPages

log = logging.getLogger(__name__)

OWN = "headway"
DECODES = ((8, 4096), (64, 1024))  # rows, context
PREFILLS = ((1, 2048, 2048), (2, 512, 4096))  # rows, queries, context
REPEATS = 10
TOLERANCE = 2e-2  # of the norm of the difference to that of the result: what bf16 explains
PACKAGES = ("torch", "triton", "flashinfer-python", "flash-attn", "flash-attn-3")


class Chosen:
    """What runs in this process; None for Headway's own kernels."""

    def __init__(self) -> None:
        self.decode: Way | None = None
        self.prefill: Way | None = None


chosen = Chosen()


class Verdict(NamedTuple):
    """Of one kind of step: who does it, milliseconds over the shapes (geometric mean) by way, and why others do not."""

    winner: str
    milliseconds: dict[str, float]
    refused: dict[str, str]


def choose(
    shape: AttentionShape,
    device: torch.device,
    ways: Sequence[Way] | None = None,
    time_of: Callable[[Callable[[], Tensor]], float] | None = None,
) -> dict[str, Verdict]:
    """Sets `chosen` for this process, by measurement or by what was measured before. Returns the verdicts on "decode"
    and "prefill"."""
    found = installed() if ways is None else ways
    file, key = cache_file(), _key(shape, device)
    known = {} if ways is not None or not found else _read(file).get(key, {})
    verdicts = {}
    for kind in ("decode", "prefill"):
        verdict = Verdict(**known[kind]) if kind in known else _measure(kind, shape, device, found, time_of or _timed)
        verdicts[kind] = verdict
        setattr(chosen, kind, next((way for way in found if way.name == verdict.winner), None))
        log.info("%s attention by %s: %s", kind, verdict.winner, told(verdict))
    if found and ways is None and not known:
        _write(file, key, verdicts)
    return verdicts


def keep_own() -> None:
    """Sets `chosen` for this process to Headway's own kernels, whatever was chosen before."""
    chosen.decode = chosen.prefill = None


def told(verdict: Verdict) -> str:
    """The reasons, for a person."""
    parts = [f"{name} {spent:.3f} ms" for name, spent in verdict.milliseconds.items()]
    parts += [f"not {name}: {why}" for name, why in verdict.refused.items()]
    return "; ".join(parts) or "no other way is installed"


def known_verdicts() -> dict[str, dict[str, Verdict]]:
    """What was measured on this machine, by device, software and shape, as a person can read it."""
    return {key: {kind: Verdict(**part) for kind, part in found.items()} for key, found in _read(cache_file()).items()}


def cache_file() -> Path:
    """Where verdicts are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "headway" / "attention.json"


def _measure(
    kind: str, shape: AttentionShape, device: torch.device, ways: Sequence[Way], time_of: Callable[..., float]
) -> Verdict:
    refused: dict[str, str] = {}
    able = []
    for way in ways:
        why = way.refuses_decode(shape) if kind == "decode" else way.refuses_prefill(shape)
        if why:
            refused[way.name] = why
        else:
            able.append(way)
    if not able:
        return Verdict(OWN, {}, refused)
    logs: dict[str, list[float]] = {OWN: [], **{way.name: [] for way in able}}
    for case in _cases(kind, shape, device):
        expected = case(None)
        logs[OWN].append(math.log(time_of(lambda: case(None))))  # noqa: B023
        for way in able:
            if way.name in refused:
                continue
            try:
                difference = (case(way).float() - expected.float()).norm() / expected.float().norm()
                if not difference < TOLERANCE:
                    raise RuntimeError(f"its result is off by {difference:.1%}")
                logs[way.name].append(math.log(time_of(lambda: case(way))))  # noqa: B023
            except Exception as error:
                refused[way.name] = f"{type(error).__name__}: {str(error)[:120]}"
    means = {name: math.exp(statistics.mean(found)) * 1e3 for name, found in logs.items() if name not in refused}
    return Verdict(min(means, key=lambda name: means[name]), means, refused)


Case = Callable[[Way | None], Tensor]


def _cases(kind: str, shape: AttentionShape, device: torch.device) -> list[Case]:
    """Functions that run one of the shapes by a way, None for Headway's own."""
    if kind == "decode":
        return [_case(shape, device, rows, 1, context) for rows, context in DECODES]
    return [_case(shape, device, rows, queries, context) for rows, queries, context in PREFILLS]


def _case(shape: AttentionShape, device: torch.device, rows: int, queries: int, context: int) -> Case:
    from .attention_prefill import tile_queries
    from .paged_attention import paged_attention, plan_attention

    width = -(-context // shape.page_size)
    tables = torch.randperm(rows * width, dtype=torch.int32).view(rows, width)
    cache = (rows * width, shape.page_size, shape.kv_heads, shape.head_dim)
    pages = KvPages(*(torch.randn(cache, device=device).to(shape.kv_dtype) for _ in range(2)))
    query = torch.randn((rows * queries, shape.heads, shape.head_dim), device=device).to(shape.dtype)
    batch = plan_attention(
        np.full(rows, queries), np.full(rows, context), tables, shape.page_size, device=device, dtype=shape.dtype,
        queries_a_tile=tile_queries(shape.heads, shape.kv_heads, shape.head_dim),
    )  # fmt: skip
    scale = shape.head_dim**-0.5

    def run(way: Way | None) -> Tensor:
        if way is None:
            before = chosen.decode, chosen.prefill
            chosen.decode = chosen.prefill = None
            try:
                return paged_attention(query, pages, batch, scale)
            finally:
                chosen.decode, chosen.prefill = before
        assert batch.paged is not None, "measured where the kernels run"
        attend = way.decode if queries == 1 else way.prefill
        return attend(query, pages, batch.paged, scale, 0.0)

    return run


def _timed(run: Callable[[], Tensor]) -> float:
    """Seconds, the median of some runs after two that warm up."""
    found = []
    for turn in range(REPEATS + 2):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if turn >= 2:
            found.append(time.perf_counter() - begun)
    return statistics.median(found)


def _key(shape: AttentionShape, device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    asked = ", ".join(f"{key} {value}" for key, value in shape._asdict().items())
    return " | ".join([name, ", ".join(versions), asked])


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path, key: str, verdicts: dict[str, Verdict]) -> None:
    """Replaces the file whole; a cache that cannot be written is done without."""
    document = _read(file) | {key: {kind: verdict._asdict() for kind, verdict in verdicts.items()}}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(document, indent=1))
        fresh.replace(file)
    except OSError as error:
        log.warning("what was measured of attention is not kept: %s", error)
