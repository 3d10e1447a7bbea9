"""`headway up`: a cluster on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .. import console, options
from .. import up_options as given

if TYPE_CHECKING:
    from ..cluster.events import Event
    from ..cluster.options import UpOptions


def register(app: typer.Typer) -> None:
    app.command("up", help="Bring a cluster up on this machine.")(up)


def up(
    context: typer.Context,
    model: given.Model = "demo",
    model_name: given.ModelName = "",
    replicas: given.Replicas = None,
    tp: given.Tp = 1,
    pp: given.Pp = 1,
    device: given.Device = "auto",
    port: given.Port = 8000,
    detach: given.Detach = False,
    as_json: options.AsJson = False,
    dtype: given.Dtype = "auto",
    load_format: given.LoadFormat = "auto",
    ignore_remote_code: given.IgnoreRemoteCode = False,
    page_size: given.PageSize = None,
    pages: given.Pages = None,
    memory_fraction: given.MemoryFraction = None,
    max_sequences: given.MaxSequences = None,
    token_budget: given.TokenBudget = None,
    max_context_tokens: given.MaxContextTokens = None,
    max_waiting: given.MaxWaiting = None,
    watermark_pages: given.WatermarkPages = None,
    admission_forecast: given.AdmissionForecast = True,
    batch_invariant: given.BatchInvariant = None,
    max_adapters: given.MaxAdapters = None,
    max_lora_rank: given.MaxLoraRank = None,
    host_pages: given.HostPages = None,
    kv_disk: given.KvDisk = None,
    disk_pages: given.DiskPages = None,
    kv_dtype: given.KvDtype = None,
    weight_dtype: given.WeightDtype = None,
    graph_mib: given.GraphMib = None,
    symmetric_memory: given.SymmetricMemory = False,
    step_timeout: given.StepTimeout = None,
) -> None:
    """Stays until Ctrl-C, which stops everything; or returns when the cluster is ready, with `--detach`."""
    from ..cluster.options import resolve

    wanted = resolve(
        model=model,
        model_name=model_name,
        replicas=replicas,
        tp=tp,
        pp=pp,
        device=device,
        port=port,
        engine=given.flags(context.params),
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
