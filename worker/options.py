"""The command line of one worker group."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from ..core.errors import ConfigError
from ..core.specs import KV_DTYPES, WEIGHT_DTYPES, EngineSpec, GroupSpec, engine_defaults

DEMO = Path(__file__).parent.parent / "demo" / "headway-demo"


def parse(argv: list[str] | None = None) -> GroupSpec:
    """The group that the arguments ask for. Raises ConfigError when there is no such model directory."""
    parser = argparse.ArgumentParser(
        prog="python -m headway.worker", description="Serve one replica of a model on this machine, without Ray."
    )
    _add_group(parser)
    _add_limits(parser)
    _add_kv(parser)
    args = vars(parser.parse_args(argv))
    model, name = args.pop("model"), args.pop("name")
    path = DEMO if model == "demo" else Path(model)
    if not path.is_dir():
        raise ConfigError(f"--model {model}: there is no such directory")
    told = {field: args.pop(field) for field in EngineSpec.__struct_fields__}
    engine = {field: value for field, value in told.items() if value is not None}
    return GroupSpec(
        model_name=name or path.resolve().name,
        model_path=str(path.resolve()),
        engine=msgspec.structs.replace(engine_defaults(args["device"]), **engine),
        **args,
    )


def _add_group(parser: argparse.ArgumentParser) -> None:
    """What a replica is; but for the model, options go by the fields of GroupSpec."""
    add = parser.add_argument
    add("--model", default="demo", help="directory of the checkpoint, or demo")
    add("--name", default="", help="name of the model; the directory's by default")
    add("--replica-id", default="replica-0")
    add("--tp", type=int, default=1, help="tensor-parallel size")
    add("--pp", type=int, default=1, help="pipeline stages")
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    add(
        "--load-format",
        default="auto",
        choices=("auto", "dummy"),
        help="dummy: random weights of the shape in config.json, to measure speed",
    )
    add("--ignore-remote-code", action="store_true", help="serve a checkpoint with auto_map, without that code")
    add("--symmetric-memory", action="store_true", help="sum small tensors of CUDA ranks in one shot, where they can")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="port of EngineService; 0 takes any free one")
    add(
        "--controller",
        default="",
        dest="controller_address",
        metavar="HOST:PORT",
        help="of a controller to report to",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """What an engine takes on: fields of EngineSpec, whose defaults hold where an option is not given."""
    add = parser.add_argument
    add("--token-budget", type=int, help="tokens computed in a step; 512 on CPU, 8192 on CUDA")
    add("--max-sequences", type=int, help="requests that run at once; 64 on CPU, 256 on CUDA")
    add("--max-waiting", type=int, help="requests that may wait")
    add("--max-context-tokens", type=int, help="0: the model's own")
    add("--step-timeout", type=float, dest="step_timeout_s", metavar="SECONDS")
    add("--max-adapters", type=int, help="LoRA adapters on the device")
    add("--max-lora-rank", type=int, help="highest rank of an adapter")
    add("--watermark-pages", type=int, help="pages newcomers leave free; -1: chosen")
    add(
        "--admission-forecast",
        action=argparse.BooleanOptionalAction,
        help="newcomers wait when pages would probably not last for the outputs",
    )
    add(
        "--batch-invariant",
        choices=("auto", "on", "off"),
        help="the same bits in any batch; auto: where it costs nothing",
    )


def _add_kv(parser: argparse.ArgumentParser) -> None:
    """Memory: as above."""
    add = parser.add_argument
    add("--page-size", type=int, help="tokens in a page of KV")
    add("--pages", type=int, dest="total_pages", metavar="PAGES", help="pages of KV; 0: what memory allows")
    add("--host-pages", type=int, help="pages in host memory; -1: chosen")
    add("--disk-pages", type=int, help="pages on disk; 0: what it has room for")
    add("--kv-disk", metavar="DIR", help="keep pages in a file there, too")
    add("--kv-dtype", choices=KV_DTYPES, help="what KV is kept as")
    add("--weight-dtype", choices=WEIGHT_DTYPES, help="what the weights of products are kept as, on CPU")
    add("--memory-fraction", type=float, help="of the memory free once weights are loaded, for pages; 0: chosen")
    add("--graph-mib", type=int, help="device memory for captured steps; 0: capture none")
