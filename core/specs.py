"""What a worker group is asked to be. Plain values: they travel to other processes as msgspec or as command lines."""

from __future__ import annotations

import msgspec

from .blocks import DEFAULT_PAGE_SIZE
from .errors import ConfigError
from .sampling import Bound

KV_DTYPES = ("auto", "bf16", "fp8", "int8")
WEIGHT_DTYPES = ("auto", "int8")
MOST_PAGE_SIZE = 1024
COUNTS = {
    "max_sequences": Bound(1, 1 << 14),
    "token_budget": Bound(1, 1 << 20),
    "max_waiting": Bound(1, 1 << 20),
    "max_adapters": Bound(0, 256),
    "max_lora_rank": Bound(1, 1024),
}
"""What each replica keeps lists and tables of: the upper bounds are far from any use, and keep a slip of the finger
from taking the machine's memory."""


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one replica's engine. Zero means: choose from the model and the memory at hand.

    `max_adapters` LoRA adapters of rank `max_lora_rank` at most lie in device memory at once, more of them in the
    host's; with 0 of them there are none. `host_pages` pages of KV that give way on the device are kept in host memory;
    -1 is none on CPU, and on CUDA what memory allows (worker/tiers/sizes.py). With a directory `kv_disk` a further
    `disk_pages` are kept in a file there, one a rank. `kv_dtype` is what keys and values are kept as: "auto" is the
    model's own type; "int8" and "fp8" come with a scale for each token and KV head. `weight_dtype` "int8" keeps the
    weights of products in 8 bits, with a scale for each output, on CPU; "auto" is as the checkpoint has them. While
    requests run, newcomers leave `watermark_pages` free; -1 is one in a hundred. With `admission_forecast` they also
    wait when pages would probably not last for the outputs. With `batch_invariant` ("on", "off", "auto": where it costs
    nothing) tokens and log probabilities of a request are the same bits whoever shares its steps, and however its
    prompt is cut, cached or preempted.

    Of the memory that is free once the weights are loaded, `memory_fraction` is for pages; 0 is 0.9 on CUDA, and on CPU
    a tenth, but 1 GiB a rank at most. On CUDA the largest step comes out of it first, and captured decode steps: up to
    `graph_mib` MiB of them; 0 turns them off.
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
    weight_dtype: str = "auto"
    watermark_pages: int = -1
    admission_forecast: bool = True
    memory_fraction: float = 0.0
    graph_mib: int = 2048
    batch_invariant: str = "auto"

    def check(self, device: str) -> None:
        """Refuses what no engine on `device` could be. Raises ConfigError with field and bound."""
        self._check_numbers()
        self._check_pages(device)
        if self.kv_dtype not in KV_DTYPES:
            raise ConfigError(f"kv_dtype must be one of {', '.join(KV_DTYPES)}, got {self.kv_dtype!r}")
        if self.weight_dtype not in WEIGHT_DTYPES:
            raise ConfigError(f"weight_dtype must be one of {', '.join(WEIGHT_DTYPES)}, got {self.weight_dtype!r}")
        if self.weight_dtype == "int8" and device != "cpu":
            raise ConfigError("weight_dtype = int8 is for device cpu: on a GPU, serve a quantized checkpoint")
        if self.batch_invariant not in ("auto", "on", "off"):
            raise ConfigError(f"batch_invariant must be auto, on or off, got {self.batch_invariant!r}")
        if self.token_budget < self.max_sequences:
            raise ConfigError(
                f"token_budget ({self.token_budget}) must be at least max_sequences ({self.max_sequences}): "
                "each running sequence needs one token a step"
            )

    def _check_numbers(self) -> None:
        for name, bound in COUNTS.items():
            if not bound.holds(getattr(self, name)):
                raise ConfigError(f"{name} must be {bound}, got {getattr(self, name)}")
        for name in ("total_pages", "max_context_tokens", "disk_pages", "graph_mib"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("host_pages", "watermark_pages"):
            if getattr(self, name) < -1:
                raise ConfigError(f"{name} must be at least 0, or -1 to choose, got {getattr(self, name)}")
        if not 0 < self.step_timeout_s < float("inf"):
            raise ConfigError(f"step_timeout must be above 0 seconds, got {self.step_timeout_s:g}")
        if not 0 <= self.memory_fraction <= 1:
            raise ConfigError(
                f"memory_fraction must be above 0 and at most 1, or 0 to choose, got {self.memory_fraction:g}"
            )

    def _check_pages(self, device: str) -> None:
        size, pages = self.page_size, self.total_pages
        if not 1 <= size <= MOST_PAGE_SIZE or size & (size - 1):
            raise ConfigError(f"page_size must be a power of two and at most {MOST_PAGE_SIZE}, got {size}")
        if pages and self.max_context_tokens > pages * size:
            needed = -(-self.max_context_tokens // size)
            raise ConfigError(
                f"max_context_tokens = {self.max_context_tokens} needs {needed} pages of {size} tokens, and "
                f"total_pages = {pages}"
            )
        if pages and self.watermark_pages >= pages:
            raise ConfigError(
                f"watermark_pages = {self.watermark_pages} leaves newcomers nothing: it must be below the {pages} pages"
            )
        if self.disk_pages and not self.kv_disk:
            raise ConfigError(f"disk_pages = {self.disk_pages} needs kv_disk, the directory to keep them in")
        if self.kv_disk and (self.host_pages == 0 or (self.host_pages < 0 and device == "cpu")):
            raise ConfigError("kv_disk needs host_pages above 0: pages reach the disk by way of host memory")


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
        self.engine.check(self.device)
