"""What the controller process is told on its command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..core.errors import ConfigError
from ..core.specs import EngineSpec, engine_defaults
from ..demo import DEMO_DIR
from ..worker.group import check_group
from .state import ModelSpec

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# Ranks on CPU share cores; the limit only keeps a slip of the finger from swamping the machine.
SPARE_CPU_DEVICES = 8


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One controller. `model` is what the first start serves; a stored state goes before it."""

    model: ModelSpec
    host: str
    advertise: str
    grpc_port: int
    http_port: int
    ray_address: str
    ray_temp_dir: str
    group_host: str
    state: str
    cpu_devices: int
    allowed_hosts: frozenset[str]
    announce: bool


def parse(arguments: Sequence[str]) -> Settings:
    """Raises ConfigError for values that cannot work, and exits for what argparse refuses."""
    options = _parser().parse_args(arguments)
    model = _model(options)
    devices = options.cpu_devices or 2 * max(1, options.replicas) * model.tp * model.pp + SPARE_CPU_DEVICES
    return Settings(
        model=model,
        host=options.host,
        advertise=options.advertise or ("127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host),
        grpc_port=options.grpc_port,
        http_port=options.http_port,
        ray_address=options.ray_address,
        ray_temp_dir=options.ray_temp_dir,
        group_host=options.group_host,
        state=options.state,
        cpu_devices=devices,
        allowed_hosts=frozenset(name.lower() for name in options.allowed_host),
        announce=options.announce,
    )


def _model(options: argparse.Namespace) -> ModelSpec:
    path = DEMO_DIR if options.model == "demo" else Path(options.model).expanduser().absolute()
    name = options.model_name or ("demo" if options.model == "demo" else path.name)
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"model name {name!r} must be letters, digits, '.', '_' and '-': give another by --model-name"
        )
    if not path.is_dir():
        raise ConfigError(f"model directory {path} does not exist")
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path} holds no config.json: a model is a directory in the Hugging Face layout")
    if options.replicas < 0:
        raise ConfigError(f"replicas must be at least 0, got {options.replicas}")
    told = {field: getattr(options, field) for field in EngineSpec.__struct_fields__}
    told = {field: value for field, value in told.items() if value is not None}
    model = ModelSpec(
        name=name,
        path=str(path),
        replicas=options.replicas,
        tp=options.tp,
        pp=options.pp,
        device=options.device,
        dtype=options.dtype,
        load_format=options.load_format,
        ignore_remote_code=options.ignore_remote_code,
        symmetric_memory=options.symmetric_memory,
        engine=msgspec.structs.replace(engine_defaults(options.device), **told),
    )
    check_group(model.group(f"{name}-0", host=options.group_host, controller_address=""))
    return model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m headway.controller", description="The controller of a cluster.")
    add = parser.add_argument
    add("--model", default="demo", help="directory of a checkpoint, or demo")
    add("--model-name", default="", help="name that requests use; the directory's name when not given")
    add("--replicas", type=int, default=1, help="replicas wanted at the first start")
    add("--tp", type=int, default=1, help="tensor-parallel size")
    add("--pp", type=int, default=1, help="pipeline stages")
    add("--device", default="cpu", help="cpu or cuda")
    add("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    add("--load-format", default="auto", help="auto, or dummy: random weights of the shape in config.json")
    add("--ignore-remote-code", action="store_true", help="serve a checkpoint with auto_map, without that code")
    add("--symmetric-memory", action="store_true", help="sum small tensors of tensor-parallel GPUs in one shot")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--advertise", default="", help="host under which workers reach this controller")
    add("--grpc-port", type=int, default=0, help="admin and control port; 0 takes a free one")
    add("--http-port", type=int, default=0, help="dashboard port; 0 takes a free one")
    add("--ray-address", default="", help="join this Ray instead of starting one")
    add("--ray-temp-dir", default="", help="directory for Ray's files, at most 36 characters; removed at the end")
    add("--group-host", default="127.0.0.1", help="address that leaders listen on")
    add(
        "--state",
        default="",
        help="where the desired state is kept: a file, or redis://HOST:PORT; memory when not given",
    )
    add("--cpu-devices", type=int, default=0, help="ranks that may run on CPU; chosen from the sizes when 0")
    add("--allowed-host", action="append", default=[], help="further name of the dashboard's site")
    add("--announce", action="store_true", help="one JSON line on stdout for each step of the start")
    for field in EngineSpec.__struct_fields__:
        default, on_cuda = getattr(engine_defaults("cpu"), field), getattr(engine_defaults("cuda"), field)
        flag = "--" + field.removesuffix("_s").removeprefix("total_").replace("_", "-")
        if isinstance(default, bool):
            add(flag, dest=field, action=argparse.BooleanOptionalAction, help="engine switch")
        else:
            chosen = str(default) if default == on_cuda else f"{default} on CPU and {on_cuda} on CUDA"
            add(flag, dest=field, type=type(default), help=f"engine limit; {chosen} when not given")
    return parser
