"""`headway up`: a cluster on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options

if TYPE_CHECKING:
    from ..cluster.events import Event
    from ..cluster.options import UpOptions

Model = Annotated[str, typer.Option("--model", "-m", help="Directory of a checkpoint, or demo.")]
ModelName = Annotated[str, typer.Option(help="Name that requests use. Default: the directory's.", show_default=False)]
Replicas = Annotated[
    int | None, typer.Option(help="Replicas. Default: two on CPU, as many as fit on GPUs.", show_default=False)
]
Tp = Annotated[int, typer.Option("--tp", help="Tensor-parallel size: devices that share each layer.")]
Pp = Annotated[int, typer.Option("--pp", help="Pipeline stages.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Dtype = Annotated[str, typer.Option(help="Type to compute in: auto, float32, bfloat16 or float16.")]
LoadFormat = Annotated[
    str, typer.Option(help="auto, or dummy: random weights of the shape in config.json, to measure speed.")
]
IgnoreRemoteCode = Annotated[
    bool, typer.Option("--ignore-remote-code", help="Serve a checkpoint with auto_map, without that code.")
]
Port = Annotated[int, typer.Option(help="HTTP; the next three are gRPC, admin HTTP and admin gRPC. 0: any free ones.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return when the cluster is ready; it goes on.")]
Limit = Annotated[int | None, typer.Option(help="Engine limit. Default: chosen for the model.", show_default=False)]
KvDisk = Annotated[
    Path | None, typer.Option(help="Directory in which KV that gives way is kept, too.", show_default=False)
]
KvDtype = Annotated[
    str | None, typer.Option(help="What KV is kept as: auto (the model's type), bf16, fp8, int8.", show_default=False)
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
MemoryFraction = Annotated[
    float | None, typer.Option(help="Share of a GPU's free memory that is taken.", show_default=False)
]
SymmetricMemory = Annotated[
    bool, typer.Option("--symmetric-memory", help="Sum small tensors of tensor-parallel GPUs in one shot.")
]
StepTimeout = Annotated[
    float | None, typer.Option(help="Seconds without progress after which a group is restarted.", show_default=False)
]


def register(app: typer.Typer) -> None:
    app.command("up", help="Bring a cluster up on this machine.")(up)


def up(
    model: Model = "demo",
    model_name: ModelName = "",
    replicas: Replicas = None,
    tp: Tp = 1,
    pp: Pp = 1,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load_format: LoadFormat = "auto",
    ignore_remote_code: IgnoreRemoteCode = False,
    port: Port = 8000,
    detach: Detach = False,
    as_json: options.AsJson = False,
    page_size: Limit = None,
    pages: Limit = None,
    max_sequences: Limit = None,
    token_budget: Limit = None,
    max_context_tokens: Limit = None,
    max_waiting: Limit = None,
    max_adapters: Limit = None,
    max_lora_rank: Limit = None,
    host_pages: Limit = None,
    disk_pages: Limit = None,
    kv_disk: KvDisk = None,
    kv_dtype: KvDtype = None,
    watermark_pages: Limit = None,
    admission_forecast: AdmissionForecast = True,
    batch_invariant: BatchInvariant = None,
    memory_fraction: MemoryFraction = None,
    graph_mib: Limit = None,
    symmetric_memory: SymmetricMemory = False,
    step_timeout: StepTimeout = None,
) -> None:
    """Stays until Ctrl-C, which stops everything; or returns when the cluster is ready, with `--detach`."""
    from ..cluster.options import resolve

    flags = {
        "--dtype": dtype,
        "--load-format": load_format,
        "--page-size": page_size,
        "--pages": pages,
        "--max-sequences": max_sequences,
        "--token-budget": token_budget,
        "--max-context-tokens": max_context_tokens,
        "--max-waiting": max_waiting,
        "--max-adapters": max_adapters,
        "--max-lora-rank": max_lora_rank,
        "--host-pages": host_pages,
        "--disk-pages": disk_pages,
        "--kv-disk": None if kv_disk is None else kv_disk.resolve(),
        "--kv-dtype": kv_dtype,
        "--watermark-pages": watermark_pages,
        "--batch-invariant": batch_invariant,
        "--memory-fraction": memory_fraction,
        "--graph-mib": graph_mib,
        "--step-timeout": step_timeout,
    }
    wanted = resolve(
        model=model,
        model_name=model_name,
        replicas=replicas,
        tp=tp,
        pp=pp,
        device=device,
        port=port,
        engine=(
            *(f"{flag}={value}" for flag, value in flags.items() if value is not None),
            *(["--ignore-remote-code"] if ignore_remote_code else []),
            *(["--symmetric-memory"] if symmetric_memory else []),
            *([] if admission_forecast else ["--no-admission-forecast"]),
        ),
    )
    if detach:
        _detached(wanted, as_json)
    else:
        _in_the_foreground(wanted, as_json)


def _detached(wanted: UpOptions, as_json: bool) -> None:
    from ..cluster import detached
    from ..cluster.display import Display, command, print_summary
    from ..cluster.events import Failed, Ready

    with Display() as display:
        last = detached.start(wanted, display.show)
        display.show(last)
    if isinstance(last, Failed):
        console.fail(last.message, last.next_step)
    assert isinstance(last, Ready)
    if as_json:
        console.print_json(last.document)
    else:
        print_summary(last.document, f"Stop it:  {command()} down")


def _in_the_foreground(wanted: UpOptions, as_json: bool) -> None:
    from ..cluster.display import Display, print_summary
    from ..cluster.events import Failed, Ready
    from ..cluster.supervisor import Supervisor

    failures: list[Failed] = []

    with Display() as display:

        def tell(event: Event) -> None:
            display.show(event)
            if isinstance(event, Failed):
                failures.append(event)
            elif isinstance(event, Ready):
                if as_json:
                    console.print_json(event.document)
                else:
                    print_summary(event.document, "Ctrl-C stops it.")

        code = Supervisor(wanted, tell).run()
    for failure in failures:
        console.fail(failure.message, failure.next_step)
    raise typer.Exit(code)
