"""Checkpoints that ask for Python code of their own."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import ConfigError
from .fields import read_json

FILES = ("config.json", "tokenizer_config.json")


def refuse_remote_code(directory: Path) -> None:
    """Raises ConfigError when the checkpoint has transformers load code that lies in it (`auto_map`).

    Nothing here ever runs such code. To pass over it unasked would be no better: an author adds code to compute, or to
    split text, otherwise than the architecture does whose name the checkpoint still carries, and then answers would be
    wrong without a sign (docs/decisions/0013-code-in-a-checkpoint.md).
    """
    for name in FILES:
        path = directory / name
        if path.exists() and read_json(path).get("auto_map"):
            raise ConfigError(
                f"{path}: auto_map asks for Python code of the checkpoint, which never runs here; if the model and its "
                "tokenizer are the same without that code, as in Phi-3, start with --ignore-remote-code"
            )
