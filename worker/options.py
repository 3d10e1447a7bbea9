"""The command line of one worker group."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..core.errors import ConfigError
from ..core.specs import KV_DTYPES, EngineSpec, GroupSpec, engine_defaults

DEMO = Path(__file__).parent.parent / "demo" / "headway-demo"


def parse(argv: list[str] | None = None) -> GroupSpec:
    """The group that the arguments ask for. Raises ConfigError when there is no such model directory."""
    engine = EngineSpec()
    parser = argparse.ArgumentParser(
        prog="python -m headway.worker", description="Serve one replica of a model on this machine, without Ray."
    )
    parser.add_argument("--model", default="demo", help="directory of the checkpoint, or demo")
    parser.add_argument("--name", default="", help="name of the model; the directory's by default")
    parser.add_argument("--replica-id", default="replica-0")
    parser.add_argument("--tp", type=int, default=1, help="tensor-parallel size")
    parser.add_argument("--pp", type=int, default=1, help="pipeline stages")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument(
        "--load-format",
        default="auto",
        choices=("auto", "dummy"),
        help="dummy: random weights of the shape in config.json, to measure speed",
    )
    parser.add_argument(
        "--ignore-remote-code", action="store_true", help="serve a checkpoint with auto_map, without that code"
    )
    parser.add_argument(
        "--symmetric-memory", action="store_true", help="sum small tensors of CUDA ranks in one shot, where they can"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="port of EngineService; 0 takes any free one")
    parser.add_argument("--controller", default="", help="HOST:PORT of a controller to report to")
    parser.add_argument("--page-size", type=int, default=engine.page_size, help="tokens in a page of KV")
    parser.add_argument("--pages", type=int, default=engine.total_pages, help="pages of KV; 0: what memory allows")
    parser.add_argument("--token-budget", type=int, help="tokens computed in a step; 512 on CPU, 8192 on CUDA")
    parser.add_argument("--max-sequences", type=int, help="requests that run at once; 64 on CPU, 256 on CUDA")
    parser.add_argument("--max-waiting", type=int, default=engine.max_waiting, help="requests that may wait")
    parser.add_argument("--max-context-tokens", type=int, default=engine.max_context_tokens, help="0: the model's own")
    parser.add_argument("--step-timeout", type=float, default=engine.step_timeout_s, metavar="SECONDS")
    parser.add_argument("--max-adapters", type=int, default=engine.max_adapters, help="LoRA adapters on the device")
    parser.add_argument("--max-lora-rank", type=int, default=engine.max_lora_rank, help="highest rank of an adapter")
    parser.add_argument("--host-pages", type=int, default=engine.host_pages, help="pages in host memory; -1: chosen")
    parser.add_argument(
        "--disk-pages", type=int, default=engine.disk_pages, help="pages on disk; 0: what it has room for"
    )
    parser.add_argument("--kv-disk", default=engine.kv_disk, metavar="DIR", help="keep pages in a file there, too")
    parser.add_argument("--kv-dtype", default=engine.kv_dtype, choices=KV_DTYPES, help="what KV is kept as")
    parser.add_argument(
        "--watermark-pages", type=int, default=engine.watermark_pages, help="pages newcomers leave free; -1: chosen"
    )
    parser.add_argument(
        "--admission-forecast",
        action=argparse.BooleanOptionalAction,
        default=engine.admission_forecast,
        help="newcomers wait when pages would probably not last for the outputs",
    )
    parser.add_argument(
        "--memory-fraction", type=float, default=engine.memory_fraction, help="of free device memory that is taken"
    )
    parser.add_argument(
        "--graph-mib", type=int, default=engine.graph_mib, help="device memory for captured steps; 0: capture none"
    )
    parser.add_argument(
        "--batch-invariant",
        default=engine.batch_invariant,
        choices=("auto", "on", "off"),
        help="the same bits in any batch; auto: where it costs nothing",
    )
    args = parser.parse_args(argv)
    path = DEMO if args.model == "demo" else Path(args.model)
    if not path.is_dir():
        raise ConfigError(f"--model {args.model}: there is no such directory")
    defaults = engine_defaults(args.device)
    return GroupSpec(
        replica_id=args.replica_id,
        model_name=args.name or path.resolve().name,
        model_path=str(path.resolve()),
        tp=args.tp,
        pp=args.pp,
        device=args.device,
        dtype=args.dtype,
        load_format=args.load_format,
        ignore_remote_code=args.ignore_remote_code,
        symmetric_memory=args.symmetric_memory,
        host=args.host,
        port=args.port,
        controller_address=args.controller,
        engine=EngineSpec(
            page_size=args.page_size,
            total_pages=args.pages,
            max_sequences=defaults.max_sequences if args.max_sequences is None else args.max_sequences,
            token_budget=defaults.token_budget if args.token_budget is None else args.token_budget,
            max_context_tokens=args.max_context_tokens,
            max_waiting=args.max_waiting,
            step_timeout_s=args.step_timeout,
            max_adapters=args.max_adapters,
            max_lora_rank=args.max_lora_rank,
            host_pages=args.host_pages,
            disk_pages=args.disk_pages,
            kv_disk=args.kv_disk,
            kv_dtype=args.kv_dtype,
            watermark_pages=args.watermark_pages,
            admission_forecast=args.admission_forecast,
            memory_fraction=args.memory_fraction,
            batch_invariant=args.batch_invariant,
            graph_mib=args.graph_mib,
        ),
    )
