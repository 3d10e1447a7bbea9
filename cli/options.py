"""Flags that several verbs share, and the request options that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..client.options import GenerateOptions

Address = Annotated[
    str | None,
    typer.Option(help="gRPC front, HOST:PORT. Default: $HEADWAY_ADDRESS, else the local cluster.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Timeout = Annotated[float, typer.Option(help="Deadline of a request, in seconds.")]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Model name. Default: the only one.", show_default=False)
]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", "-n", help="Most new tokens.")]
Temperature = Annotated[
    float | None, typer.Option("--temperature", "-t", help="0 is greedy. Default: the model's.", show_default=False)
]
TopP = Annotated[float | None, typer.Option(help="Nucleus mass, above 0, at most 1.", show_default=False)]
TopK = Annotated[int | None, typer.Option(help="Keep this many of the likeliest tokens.", show_default=False)]
MinP = Annotated[float | None, typer.Option(help="Least probability beside the likeliest.", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same tokens.", show_default=False)]
Stop = Annotated[list[str] | None, typer.Option(help="Stop string; may be repeated.", show_default=False)]


def request_options(
    model: str | None,
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    min_p: float | None,
    seed: int | None,
    stop: list[str] | None,
) -> GenerateOptions:
    """The client's options; what was not given stays unset, so that the model's defaults hold."""
    return {
        "model": model,
        "max_new_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "seed": seed,
        "stop": stop or None,
    }
