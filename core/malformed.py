"""Says what is wrong with the bytes of a message that protobuf cannot read: the parser itself names no field."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from .errors import InvalidRequest

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def explain(data: bytes, descriptor: Descriptor) -> InvalidRequest:
    """The refusal of `data` as a message of type `descriptor`, naming the string field that is not UTF-8 if one is."""
    try:
        field = _bad_string(data, descriptor)
    except (IndexError, ValueError):
        field = ""
    if field:
        return InvalidRequest(f"{field} is not valid UTF-8", field=field)
    return InvalidRequest(f"the request is no well-formed {descriptor.full_name} message")


def _bad_string(data: bytes, descriptor: Descriptor) -> str:
    """Dotted path of the first string field that is not UTF-8; empty when all are."""
    at = 0
    counts: dict[int, int] = {}
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type != _LENGTH:
            at = _skip(data, at, wire_type)
            continue
        length, at = _varint(data, at)
        value, at = data[at : at + length], at + length
        field = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        index = counts.get(number, 0)
        counts[number] = index + 1
        name = f"{field.name}[{index}]" if field.is_repeated else field.name
        if field.type == FieldDescriptor.TYPE_STRING and not _is_utf8(value):
            return name
        if field.message_type is not None and (inner := _bad_string(value, field.message_type)):
            return f"{name}.{inner}"
    return ""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint of more than ten bytes")


def _skip(data: bytes, at: int, wire_type: int) -> int:
    if wire_type == _VARINT:
        return _varint(data, at)[1]
    if wire_type == _FIXED64:
        return at + 8
    if wire_type == _FIXED32:
        return at + 4
    raise ValueError(f"wire type {wire_type}")


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
