"""Damaged files: nothing but ConfigError comes out, whatever the bytes are."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llamas import write_llama

from headway.core.errors import ConfigError
from headway.worker.model.checkpoint import Checkpoint
from headway.worker.model.registry import load_model, read_config
from headway.worker.model.revision import model_revision
from headway.worker.model.safetensors_header import read_header
from headway.worker.parallel.communicator import alone

SMALLEST = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 8,
    "tie_word_embeddings": True,
}


def rewritten(header: dict[str, Any], data: bytes) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(start: int, stop: int, **changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(stop - start) // 4], "data_offsets": [start, stop], **changes}


DAMAGED: dict[str, tuple[bytes, str]] = {
    "overlap": (rewritten({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "tensor b overlaps"),
    "hole": (rewritten({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "tensor b leaves bytes"),
    "behind the end": (rewritten({"a": entry(0, 4), "b": entry(4, 12)}, bytes(8)), "cut short: tensor b"),
    "backwards": (rewritten({"a": entry(0, 4, data_offsets=[4, 0])}, bytes(4)), "tensor a would end"),
    "negative": (rewritten({"a": entry(0, 4, data_offsets=[-4, 0])}, bytes(4)), "entry of tensor a is damaged"),
    "bytes left": (rewritten({"a": entry(0, 4)}, bytes(9)), "5 bytes after its last tensor"),
    "another size": (rewritten({"a": entry(0, 8, shape=[3])}, bytes(8)), "tensor a of type F32 and shape [3]"),
    "vast shape": (rewritten({"a": entry(0, 8, shape=[2**62] * 8)}, bytes(8)), "tensor a of type F32"),
    "many dimensions": (rewritten({"a": entry(0, 8, shape=[1] * 99)}, bytes(8)), "entry of tensor a is damaged"),
    "huge number": (rewritten({"a": entry(0, 8, shape=[10**400])}, bytes(8)), "entry of tensor a is damaged"),
    "no offsets": (rewritten({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), "entry of tensor a is damaged"),
    "entry is a list": (rewritten({"a": [1]}, bytes(4)), "entry of tensor a is damaged"),
    "deep": ((100_000).to_bytes(8, "little") + b'{"a":' + b"[" * 99_995, "no safetensors file"),
    "name that no log can hold": (rewritten({"\ud800": entry(0, 4)}, bytes(4)), "no safetensors file"),
    "name of control characters": (rewritten({"a\n": entry(0, 4)}, bytes(4)), "tensor name 'a\\n' is damaged"),
    "list": (rewritten([], b""), "no safetensors file"),  # type: ignore[arg-type]
    "length": ((2**63).to_bytes(8, "little") + bytes(64), "its header would be 9223372036854775808 bytes long"),
    "cut in the header": ((500).to_bytes(8, "little") + b'{"a', "cut short: 11 bytes"),
    "pickle by another name": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00." * 20, "no safetensors file"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_headers(tmp_path: Path, name: str) -> None:
    file = tmp_path / "model.safetensors"
    data, words = DAMAGED[name]
    file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        Checkpoint(tmp_path)
    assert str(file) in str(caught.value) and words in str(caught.value)
    assert str(caught.value).encode()


class Spoilt:
    """The smallest of checkpoints, loaded after a change of its file."""

    def __init__(self, directory: Path) -> None:
        self.path = write_llama(directory, **SMALLEST)
        self.file = directory / "model.safetensors"
        self.good = self.file.read_bytes()
        self.header_bytes = 8 + int.from_bytes(self.good[:8], "little")
        self._config = read_config(directory)

    def loads(self, data: bytes) -> bool:
        """False when it is refused with the directory named. Anything else than a refusal gets out."""
        self.file.write_bytes(data)
        try:
            model_revision(self.path)
            load_model(self.path, self._config, alone(), torch.float32, torch.device("cpu"), lambda share: None)
        except ConfigError as error:
            assert str(self.path) in str(error)
            assert str(error).encode()  # a log can hold it
            return False
        return True


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spoilt]:
    """No allocation of more than 4 GB passes while the tests of this file run."""
    made = Spoilt(tmp_path_factory.mktemp("spoilt"))
    assert made.loads(made.good)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), before[1]))
    yield made
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_cut_at_any_byte(spoilt: Spoilt) -> None:
    """The header byte by byte, the data at every seventh."""
    cuts = [*range(spoilt.header_bytes), *range(spoilt.header_bytes, len(spoilt.good), 7)]
    for keep in cuts:
        spoilt.file.write_bytes(spoilt.good[:keep])
        with pytest.raises(ConfigError, match=re.escape(str(spoilt.file))):
            read_header(spoilt.file)


@settings(max_examples=500, deadline=None)
@given(data=st.data(), flip=st.integers(1, 255))
def test_any_byte_of_the_header_changed(spoilt: Spoilt, data: st.DataObject, flip: int) -> None:
    at = data.draw(st.integers(0, spoilt.header_bytes - 1))
    changed = bytearray(spoilt.good)
    changed[at] ^= flip
    spoilt.loads(bytes(changed))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200), length=st.integers(0, 250))
def test_any_bytes_at_all(spoilt: Spoilt, data: bytes, length: int) -> None:
    assert not spoilt.loads(length.to_bytes(8, "little") + data)


NUMBERS = st.one_of(st.integers(-5, 5), st.integers(-(2**70), 2**70), st.floats(allow_nan=False))
VALUES = st.one_of(NUMBERS, st.none(), st.booleans(), st.text(max_size=4), st.lists(NUMBERS, max_size=9))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), field=st.sampled_from(("dtype", "shape", "data_offsets")), value=VALUES)
def test_any_value_of_a_field(spoilt: Spoilt, data: st.DataObject, field: str, value: Any) -> None:
    header = json.loads(spoilt.good[8 : spoilt.header_bytes])
    name = data.draw(st.sampled_from(sorted(header)))
    header[name] = {**header[name], field: value}
    spoilt.loads(rewritten(header, spoilt.good[spoilt.header_bytes :]))
