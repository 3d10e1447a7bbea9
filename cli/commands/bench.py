"""`headway bench`: how fast the cluster answers, under which load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from .. import console, options, target

if TYPE_CHECKING:
    from ..bench.runner import BenchReport, Plan
    from ..bench.workload import Workload

Number = TypeVar("Number", int, float)

Concurrency = Annotated[
    str | None,
    typer.Option(help="Closed loop: requests at once, a run each. Default without --rate: 1,8,32", show_default=False),
]
Rate = Annotated[
    str | None, typer.Option(help="Open loop: arrivals a second (Poisson), a run each, e.g. 2,8", show_default=False)
]
Requests = Annotated[int, typer.Option(min=1, help="Requests in each run.")]
InputTokens = Annotated[str, typer.Option(help="Prompt tokens: a number, or a range to draw from: 64-256")]
OutputTokens = Annotated[str, typer.Option(help="New tokens, a number or a range; the end token does not end them.")]
SharedPrefix = Annotated[
    int, typer.Option(min=0, help="Tokens at the begin of a prompt that all prompts of a run share.")
]
Warmup = Annotated[int, typer.Option(min=0, help="Requests before the first run, not measured.")]
BenchSeed = Annotated[int, typer.Option("--seed", min=0, help="Seed of prompts, lengths and arrivals.")]


def register(app: typer.Typer) -> None:
    app.command("bench", help="Load the cluster and measure it.")(bench)


def bench(
    concurrency: Concurrency = None,
    rate: Rate = None,
    requests: Requests = 64,
    input_tokens: InputTokens = "128",
    output_tokens: OutputTokens = "64",
    shared_prefix: SharedPrefix = 0,
    warmup: Warmup = 8,
    seed: BenchSeed = 0,
    model: options.Model = None,
    timeout: options.Timeout = 120.0,
    as_json: options.AsJson = False,
    address: options.Address = None,
) -> None:
    """Progress goes to stderr, the table or the document to stdout."""
    where = target.grpc_address(address)

    from rich.console import Console

    from ...client import Headway
    from ..bench import show
    from ..bench.runner import Plan
    from ..bench.runner import bench as run_bench

    plan = Plan(
        concurrency=_numbers("--concurrency", concurrency or ("" if rate else "1,8,32"), int),
        rates=_numbers("--rate", rate or "", float),
        requests=requests,
        warmup=warmup,
        timeout_s=timeout,
    )
    with console.told(where):
        with Headway(where, timeout=30) as headway:
            served = headway.model(model or "")
        workload = _workload(input_tokens, output_tokens, shared_prefix, seed, served.vocab_size)
        try:
            workload.check(served.max_context_tokens)
        except ValueError as error:
            console.fail(str(error), "Change --input-tokens, --output-tokens or --shared-prefix.", code=2)
        with show.progress(Console(stderr=True)) as progress:
            report = asyncio.run(run_bench(where, served, workload, plan, progress))
    if as_json:
        console.print_json(report)
    else:
        _print(report, plan, workload)
    if not any(run.completed for run in report.runs):
        console.fail("no request completed", "See `headway status`, and the reasons above.")


def _numbers(flag: str, text: str, kind: type[Number]) -> list[Number]:
    try:
        numbers = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = [kind(0)]
    if any(not 0 < number < 1e6 for number in numbers):
        console.fail(f"{flag} must be numbers above 0 and below 1e6, separated by commas, got {text!r}", code=2)
    return numbers


def _workload(input_tokens: str, output_tokens: str, shared_prefix: int, seed: int, vocab_size: int) -> Workload:
    from ..bench.workload import Lengths, Workload

    lengths = {}
    for flag, text in (("--input-tokens", input_tokens), ("--output-tokens", output_tokens)):
        try:
            lengths[flag] = Lengths.parse(text)
        except ValueError as error:
            console.fail(f"{flag} {error}", code=2)
    return Workload(
        vocab_size=vocab_size,
        input_tokens=lengths["--input-tokens"],
        output_tokens=lengths["--output-tokens"],
        shared_prefix=shared_prefix,
        seed=seed,
    )


def _print(report: BenchReport, plan: Plan, workload: Workload) -> None:
    from rich.console import Console

    from ..bench import show

    out = Console()
    shared = f", {workload.shared_prefix} of them shared" if workload.shared_prefix else ""
    asked = f"{plan.requests} requests a run, {workload.input_tokens} tokens in{shared}, {workload.output_tokens} out"
    out.print(f"[bold]{report.model.name}[/] at {report.address}: {asked}", highlight=False, soft_wrap=True)
    out.print()
    out.print(show.table(report), highlight=False)
    for remark in show.remarks(report):
        out.print(f"[yellow]{remark}[/]", highlight=False, soft_wrap=True)
