"""The flags of `headway up`: what a cluster is, and what each of its engines is (core/specs.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[str, typer.Option("--model", "-m", help="Directory of a checkpoint, or demo.")]
ModelName = Annotated[str, typer.Option(help="Name that requests use. Default: the directory's.", show_default=False)]
Replicas = Annotated[
    int | None, typer.Option(help="Replicas. Default: two on CPU, as many as fit on GPUs.", show_default=False)
]
Tp = Annotated[int, typer.Option("--tp", help="Tensor-parallel size: devices that share each layer.")]
Pp = Annotated[int, typer.Option("--pp", help="Pipeline stages.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Port = Annotated[int, typer.Option(help="HTTP; the next three are gRPC, admin HTTP and admin gRPC. 0: any free ones.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return when the cluster is ready; it goes on.")]

Dtype = Annotated[str, typer.Option(help="Type to compute in: auto, float32, bfloat16 or float16.")]
LoadFormat = Annotated[
    str, typer.Option(help="auto, or dummy: random weights of the shape in config.json, to measure speed.")
]
IgnoreRemoteCode = Annotated[
    bool, typer.Option("--ignore-remote-code", help="Serve a checkpoint with auto_map, without that code.")
]
PageSize = Annotated[
    int | None, typer.Option(help="Tokens in a page of KV, a power of two. Default: 16.", show_default=False)
]
Pages = Annotated[int | None, typer.Option(help="Pages of KV. Default: what memory allows.", show_default=False)]
MemoryFraction = Annotated[
    float | None,
    typer.Option(
        help="Share of the memory free once weights are loaded that pages may take. Default: 0.9 of a GPU's; on CPU a "
        "tenth, at most 1 GiB a rank.",
        show_default=False,
    ),
]
MaxSequences = Annotated[
    int | None, typer.Option(help="Requests that run at once. Default: 64 on CPU, 256 on GPUs.", show_default=False)
]
TokenBudget = Annotated[
    int | None,
    typer.Option(help="Tokens computed in a step at most. Default: 512 on CPU, 8192 on GPUs.", show_default=False),
]
MaxContextTokens = Annotated[
    int | None, typer.Option(help="Prompt and output of a request. Default: the model's own.", show_default=False)
]
MaxWaiting = Annotated[
    int | None, typer.Option(help="Requests that may wait; more are refused. Default: 1024.", show_default=False)
]
WatermarkPages = Annotated[
    int | None,
    typer.Option(help="Pages that newcomers leave free. Default: one in a hundred.", show_default=False),
]
AdmissionForecast = Annotated[
    bool, typer.Option(help="Have requests wait when pages would probably not last for the outputs.")
]
BatchInvariant = Annotated[
    str | None,
    typer.Option(
        help="auto, on or off: the same bits for a request in any batch. auto: where it costs nothing.",
        show_default=False,
    ),
]
MaxAdapters = Annotated[
    int | None, typer.Option(help="LoRA adapters in device memory at once. Default: 8.", show_default=False)
]
MaxLoraRank = Annotated[int | None, typer.Option(help="Highest rank of an adapter. Default: 16.", show_default=False)]
HostPages = Annotated[
    int | None,
    typer.Option(
        help="Pages of KV in host memory. Default: none on CPU, what memory allows on GPUs.", show_default=False
    ),
]
KvDisk = Annotated[
    Path | None, typer.Option(help="Directory in which KV that gives way is kept, too.", show_default=False)
]
DiskPages = Annotated[
    int | None, typer.Option(help="Pages of KV there. Default: half of the free space.", show_default=False)
]
KvDtype = Annotated[
    str | None, typer.Option(help="What KV is kept as: auto (the model's type), bf16, fp8, int8.", show_default=False)
]
WeightDtype = Annotated[
    str | None,
    typer.Option(help="What weights are kept as, on CPU: auto (as the checkpoint has them), int8.", show_default=False),
]
GraphMib = Annotated[
    int | None, typer.Option(help="GPU memory for captured steps in MiB; 0: none. Default: 2048.", show_default=False)
]
SymmetricMemory = Annotated[
    bool, typer.Option("--symmetric-memory", help="Sum small tensors of tensor-parallel GPUs in one shot.")
]
StepTimeout = Annotated[
    float | None,
    typer.Option(help="Seconds without progress after which a group is restarted. Default: 30.", show_default=False),
]


OF_THE_CLUSTER = {"model", "model_name", "replicas", "tp", "pp", "device", "port", "detach", "as_json"}


def flags(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What was given beside what the cluster is, as the controller takes it on its command line."""
    return tuple(flag for name, value in values.items() if name not in OF_THE_CLUSTER for flag in _flag(name, value))


def _flag(name: str, value: Any) -> Iterator[str]:
    """None was not given; a switch is told of where it is not what it is anyway."""
    flag = name.replace("_", "-")
    if name == "admission_forecast":
        yield from () if value else [f"--no-{flag}"]
    elif value is True:
        yield f"--{flag}"
    elif value is not None and value is not False:
        yield f"--{flag}={value.resolve() if isinstance(value, Path) else value}"
