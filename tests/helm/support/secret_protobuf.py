"""Reads a Secret in Kubernetes' protobuf encoding, which is how Helm's client sends the releases that it stores."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\x00"


def decode(data: bytes) -> dict[str, Any]:
    """The Secret as its JSON form: name, labels, data and type."""
    # runtime.Unknown: 1 typeMeta, 2 raw.
    (raw,) = [value for field, value in _fields(data.removeprefix(MAGIC)) if field == 2]
    secret: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"labels": {}}, "data": {}}
    for field, value in _fields(raw):
        if field == 1:
            _metadata(value, secret["metadata"])
        elif field == 2:
            key, content = _entry(value)
            secret["data"][key] = base64.b64encode(content).decode()
        elif field == 3:
            secret["type"] = value.decode()
    return secret


def _metadata(data: bytes, metadata: dict[str, Any]) -> None:
    for field, value in _fields(data):
        if field == 1:
            metadata["name"] = value.decode()
        elif field == 11:
            key, content = _entry(value)
            metadata["labels"][key] = content.decode()


def _entry(data: bytes) -> tuple[str, bytes]:
    fields = dict(_fields(data))
    return fields[1].decode(), fields.get(2, b"")


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each length-delimited field; varints are passed over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        size, at = _varint(data, at)
        if tag & 7 == 2:
            yield tag >> 3, data[at : at + size]
            at += size
        elif tag & 7 != 0:
            raise ValueError(f"wire type {tag & 7} is not expected in a Secret")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
