"""The model revision: a digest that names what the replicas compute, and the root of all block keys.

Hashing every byte of a big checkpoint would take minutes at each start. Two checkpoints of one shape are told apart
just as well by pieces of each file: training changes nearly every weight, and the pieces touch every region of it.
"""

from __future__ import annotations

from pathlib import Path

import xxhash

from ...core.errors import ConfigError
from .safetensors_header import HEADER_LIMIT
from .weight_files import find_weight_files

TEXT_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
PIECES = 256
PIECE_BYTES = 4096


def model_revision(directory: Path, variant: str = "", load_format: str = "auto") -> str:
    """32 hexadecimal digits. Raises ConfigError when the checkpoint has no weights or cannot be read.

    `variant` names what keys and values depend on besides the files; `load_format` is GroupSpec's.
    """
    digest = xxhash.xxh3_128()

    def add(name: str, data: bytes) -> None:
        digest.update(len(name).to_bytes(8, "little") + name.encode() + len(data).to_bytes(8, "little"))
        digest.update(data)

    try:
        for name in TEXT_FILES:
            path = directory / name
            if path.exists():
                add(name, path.read_bytes())
        if load_format == "dummy":
            add("", b"dummy weights")
        else:
            for file in find_weight_files(directory).files:
                add(file.name, _sample(file))
    except OSError as error:
        raise ConfigError(f"{directory} cannot be read: {error}") from None
    if variant:
        add("", variant.encode())
    return digest.hexdigest()


def _sample(file: Path) -> bytes:
    """Size, safetensors header and evenly spread pieces of a weight file; all of it when it is small."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= PIECES * PIECE_BYTES:
            return stream.read()
        pieces = [size.to_bytes(8, "little"), stream.read(8)]
        header = int.from_bytes(pieces[1], "little")
        pieces.append(stream.read(min(header, size, HEADER_LIMIT)))
        for index in range(PIECES):
            stream.seek((size - PIECE_BYTES) * index // (PIECES - 1))
            pieces.append(stream.read(PIECE_BYTES))
    return b"".join(pieces)
