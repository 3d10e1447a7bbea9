"""The header of a safetensors file, checked before anybody trusts it.

Layout (https://huggingface.co/docs/safetensors): eight bytes with the header's length, little-endian; the header, a
JSON object of tensor names with type, shape and byte range; the tensors' bytes, in order and without holes.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Annotated

import msgspec

from ...core.errors import ConfigError

HEADER_LIMIT = 100_000_000  # bytes; the format's own bound
DIMENSIONS = 8
METADATA = "__metadata__"
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class TensorEntry(msgspec.Struct, frozen=True):
    """One tensor of the file: `dtype` in the format's own words, `data_offsets` from the end of the header."""

    dtype: str
    shape: Annotated[tuple[Count, ...], msgspec.Meta(max_length=DIMENSIONS)]
    data_offsets: tuple[Count, Count]


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENTRY = msgspec.json.Decoder(TensorEntry)


def read_header(file: Path) -> dict[str, TensorEntry]:
    """The tensors that `file` holds, by name. Reads the header only.

    Raises ConfigError, naming the file and the tensor, when the header is damaged, when tensors overlap or leave bytes
    unused, and when the file is shorter or longer than it promises.
    """
    raw, data_bytes = _read_raw(file)
    try:
        entries = _OBJECT.decode(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is no safetensors file: its header is no JSON object of tensors: {error}") from None
    entries.pop(METADATA, None)
    header = {name: _entry(file, name, entry) for name, entry in entries.items()}
    _check_ranges(file, header, data_bytes)
    return header


def _read_raw(file: Path) -> tuple[bytes, int]:
    """The header's bytes, and how many bytes follow them."""
    try:
        # Not blocking: a name that leads to a pipe must not wait for somebody to write into it.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{file} is no regular file")
            size = status.st_size
            length = int.from_bytes(stream.read(8), "little")
            if size < 8:
                raise ConfigError(f"{file} is cut short: {size} bytes, too few for a safetensors file")
            if not 2 <= length <= HEADER_LIMIT:
                raise ConfigError(f"{file} is no safetensors file: its header would be {length} bytes long")
            if length > size - 8:
                raise ConfigError(f"{file} is cut short: {size} bytes, and its header alone is {length}")
            return stream.read(length), size - 8 - length
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None


def _entry(file: Path, name: str, raw: msgspec.Raw) -> TensorEntry:
    if not name.isprintable():
        raise ConfigError(f"{file}: the tensor name {name!r} is damaged")
    try:
        entry = _ENTRY.decode(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: the header's entry of tensor {name} is damaged: {error}") from None
    start, stop = entry.data_offsets
    if stop < start:
        raise ConfigError(f"{file}: tensor {name} would end at byte {stop}, before its start at {start}")
    size = ITEM_BYTES.get(entry.dtype)
    if size is not None and math.prod(entry.shape) * size != stop - start:
        raise ConfigError(
            f"{file}: tensor {name} of type {entry.dtype} and shape {list(entry.shape)} needs "
            f"{math.prod(entry.shape) * size} bytes, and the header gives it {stop - start}"
        )
    return entry


def _check_ranges(file: Path, header: dict[str, TensorEntry], data_bytes: int) -> None:
    """Each byte of the data belongs to exactly one tensor."""
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1].data_offsets):
        start, stop = entry.data_offsets
        if stop > data_bytes:
            raise ConfigError(
                f"{file} is cut short: tensor {name} ends at byte {stop} of the data, and there are {data_bytes}"
            )
        if start != end:
            fault = "overlaps the tensor before it" if start < end else "leaves bytes before it unused"
            raise ConfigError(f"{file}: tensor {name} {fault}: it starts at byte {start} of the data, not at {end}")
        end = stop
    if end != data_bytes:
        raise ConfigError(f"{file} has {data_bytes - end} bytes after its last tensor: it is damaged")
