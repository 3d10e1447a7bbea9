"""What a worker group is asked to be. Plain values: they travel to other processes as msgspec or as command lines."""

from __future__ import annotations

import msgspec

from .blocks import DEFAULT_PAGE_SIZE
from .errors import ConfigError

KV_DTYPES = ("auto", "bf16", "fp8", "int8")


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one replica's engine. Zero means: choose from the model and the memory at hand.

    `max_adapters` LoRA adapters of rank `max_lora_rank` at most lie in device memory at once, more of them in the
    host's; with 0 of them there are none. `host_pages` pages of KV that give way on the device are kept in host memory;
    -1 is none on CPU, and on CUDA what memory allows (worker/tiers/sizes.py). With a directory `kv_disk` a further
    `disk_pages` are kept in a file there, one a rank. `kv_dtype` is what keys and values are kept as: "auto" is the
    model's own type; "int8" and "fp8" come with a scale for each token and KV head. While requests run, newcomers leave
    `watermark_pages` free; -1 is one in a hundred. With `admission_forecast` they also wait when pages would probably
    not last for the outputs. With `batch_invariant` ("on", "off", "auto": where it costs nothing) tokens and log
    probabilities of a request are the same bits whoever shares its steps, and however its prompt is cut, cached or
    preempted.

    On CUDA, of the memory that is free once the weights are loaded, `memory_fraction` is for the largest step, for
    captured decode steps (up to `graph_mib` MiB of them; 0 turns them off) and, all the rest, for pages.
    """

    page_size: int = DEFAULT_PAGE_SIZE
    total_pages: int = 0
    max_sequences: int = 64
    token_budget: int = 512
    max_context_tokens: int = 0
    max_waiting: int = 1024
    step_timeout_s: float = 30.0
    max_adapters: int = 8
    max_lora_rank: int = 16
    host_pages: int = -1
    disk_pages: int = 0
    kv_disk: str = ""
    kv_dtype: str = "auto"
    watermark_pages: int = -1
    admission_forecast: bool = True
    memory_fraction: float = 0.9
    graph_mib: int = 2048
    batch_invariant: str = "auto"


def engine_defaults(device: str) -> EngineSpec:
    """What an engine on "cpu" or "cuda" is unless told otherwise. A GPU reads its weights once for all of a step's
    tokens, so that many cost little more than few; the largest step is run at the start, and its memory kept free."""
    return EngineSpec(max_sequences=256, token_budget=8192) if device == "cuda" else EngineSpec()


class GroupSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One worker group: a model on tp x pp ranks. Raises ConfigError from `check` when it cannot be.

    `load_format`: "auto" reads the weights in `model_path`; "dummy" draws random ones of the shape in its config.json.
    `ignore_remote_code` serves a checkpoint that names Python code of its own, without that code. `symmetric_memory`
    sums small tensors of tensor-parallel ranks in one shot, where their devices read each other's memory.
    """

    replica_id: str
    model_name: str
    model_path: str
    tp: int = 1
    pp: int = 1
    device: str = "cpu"
    dtype: str = "auto"
    load_format: str = "auto"
    ignore_remote_code: bool = False
    symmetric_memory: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    controller_address: str = ""
    engine: EngineSpec = EngineSpec()

    @property
    def world_size(self) -> int:
        return self.tp * self.pp

    def check(self) -> None:
        """Refuses numbers that no model could satisfy; the model's own limits are checked where it is read."""
        for name in ("tp", "pp"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"device must be cpu or cuda, got {self.device!r}")
        if self.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigError(f"dtype must be auto, float32, bfloat16 or float16, got {self.dtype!r}")
        if self.load_format not in ("auto", "dummy"):
            raise ConfigError(f"load_format must be auto or dummy, got {self.load_format!r}")
        engine = self.engine
        if engine.page_size < 1 or engine.page_size & (engine.page_size - 1):
            raise ConfigError(f"page_size must be a power of two, got {engine.page_size}")
        for name in ("max_sequences", "token_budget", "max_waiting", "max_lora_rank"):
            if getattr(engine, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(engine, name)}")
        if not 0 < engine.step_timeout_s < float("inf"):
            raise ConfigError(f"step_timeout must be above 0 seconds, got {engine.step_timeout_s:g}")
        for name in ("total_pages", "max_context_tokens", "max_adapters", "disk_pages", "graph_mib"):
            if getattr(engine, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(engine, name)}")
        if not 0 < engine.memory_fraction <= 1:
            raise ConfigError(f"memory_fraction must be above 0 and at most 1, got {engine.memory_fraction:g}")
        if engine.kv_dtype not in KV_DTYPES:
            raise ConfigError(f"kv_dtype must be one of {', '.join(KV_DTYPES)}, got {engine.kv_dtype!r}")
        if engine.batch_invariant not in ("auto", "on", "off"):
            raise ConfigError(f"batch_invariant must be auto, on or off, got {engine.batch_invariant!r}")
        if engine.host_pages < -1:
            raise ConfigError(f"host_pages must be at least 0, or -1 to choose, got {engine.host_pages}")
        if engine.watermark_pages < -1:
            raise ConfigError(f"watermark_pages must be at least 0, or -1 to choose, got {engine.watermark_pages}")
        if engine.disk_pages and not engine.kv_disk:
            raise ConfigError(f"disk_pages = {engine.disk_pages} needs kv_disk, the directory to keep them in")
        if engine.kv_disk and (engine.host_pages == 0 or (engine.host_pages < 0 and self.device == "cpu")):
            raise ConfigError("kv_disk needs host_pages above 0: pages reach the disk by way of host memory")
        if engine.token_budget < engine.max_sequences:
            raise ConfigError(
                f"token_budget ({engine.token_budget}) must be at least max_sequences ({engine.max_sequences}): "
                "each running sequence needs one token a step"
            )
