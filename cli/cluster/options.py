"""What `headway up` is asked for, with the defaults that fit this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from ...core.errors import ConfigError

LAST_PORT = 65535


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything is resolved: `replicas` and `device` too. Ports of 0 mean any free one.

    `engine` holds further flags for the controller, as it takes them on its command line.
    """

    model: str
    model_name: str
    replicas: int
    tp: int
    pp: int
    device: str
    port: int
    engine: tuple[str, ...] = ()

    def ports(self) -> dict[str, int]:
        """By front: http is the port asked for, the others follow it."""
        names = ("http", "grpc", "admin", "admin_grpc")
        return {name: self.port + offset if self.port else 0 for offset, name in enumerate(names)}


def resolve(
    *,
    model: str,
    model_name: str,
    replicas: int | None,
    tp: int,
    pp: int,
    device: str,
    port: int,
    engine: tuple[str, ...],
) -> UpOptions:
    """Fills in defaults from the machine. Raises ConfigError for what it cannot hold."""
    for name, value in (("--tp", tp), ("--pp", pp), ("--replicas", 1 if replicas is None else replicas)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if port != 0 and not 1 <= port <= LAST_PORT - 3:
        raise ConfigError(f"--port must be 0 or at least 1 and at most {LAST_PORT - 3}, got {port}")
    gpus = visible_gpus()
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device must be auto, cpu or cuda, got {device!r}")
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if replicas is None:
        replicas = max(1, gpus // (tp * pp)) if device == "cuda" else max(1, 2 // (tp * pp))
    if device == "cuda" and replicas * tp * pp > gpus:
        raise ConfigError(
            f"{replicas} replicas of tp {tp} x pp {pp} need {replicas * tp * pp} GPUs, this machine shows {gpus}: "
            "lower --replicas, --tp or --pp, or use --device cpu"
        )
    if model != "demo":
        model = str(Path(model).expanduser().absolute())
        check_text(Path(model))
    return UpOptions(
        model=model,
        model_name=model_name,
        replicas=replicas,
        tp=tp,
        pp=pp,
        device=device,
        port=port,
        engine=engine,
    )


def visible_gpus() -> int:
    """NVIDIA devices that a process of ours would see, without importing torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([name for name in chosen.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)])


def check_text(model: Path) -> None:
    """Raises ConfigError when the router could not read the model's text files: the replicas, which see token ids only,
    would start all the same and wait for requests that never come. A directory that is missing is left to others."""
    from ...router.text.model import ModelText

    if (model / "config.json").is_file():
        names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
        try:
            ModelText({name: (model / name).read_bytes() for name in names if (model / name).is_file()})
        except (ConfigError, OSError) as error:
            raise ConfigError(f"{model}: {error}") from None
