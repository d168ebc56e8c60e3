"""Default values, from JSON to Avro's bytes: a field that the writer left out is read from these."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas.avro import ABSENT, Array, AvroType, Enum, Fixed, Map, Primitive, Record, Recursion, Union
from schemas.errors import SchemaError


def encode_default(kind: AvroType, value: Any, named: Mapping[str, AvroType], path: str) -> bytes:
    """The bytes of a default as a schema's JSON gives it.

    Raises:
        SchemaError: it is no value of the type; names the path.
    """
    if isinstance(kind, Recursion):
        return encode_default(named[kind.name], value, named, path)
    if isinstance(kind, Union):
        for place, branch in enumerate(kind.branches):  # the first it fits: that may be any branch since Avro 1.12
            try:
                return varint(place) + encode_default(branch, value, named, path)
            except SchemaError:
                continue
    elif isinstance(kind, Record) and isinstance(value, dict):
        given = {each.name: value.get(each.name, each.default) for each in kind.fields}
        if ABSENT not in given.values():
            return b"".join(encode_default(each.type, given[each.name], named, f"{path}.{each.name}") for each in kind.fields)
    elif isinstance(kind, Array) and isinstance(value, list):
        return _blocks([encode_default(kind.items, item, named, path) for item in value])
    elif isinstance(kind, Map) and isinstance(value, dict):
        return _blocks([_text(key.encode()) + encode_default(kind.values, item, named, path) for key, item in value.items()])
    elif isinstance(kind, Enum) and value in kind.symbols:
        return varint(kind.symbols.index(value))
    elif isinstance(kind, Fixed) and isinstance(value, str) and len(value) == kind.size_bytes and _is_latin(value):
        return value.encode("latin-1")
    elif isinstance(kind, Primitive) and (data := _primitive(kind.kind, value)) is not None:
        return data
    raise SchemaError(f"the default of {path} is {value!r}, which is no {kind.kind}")


def varint(value: int) -> bytes:
    """Avro's int and long: zigzag, then seven bits a byte, lowest first."""
    rest = (value << 1) ^ (value >> 63)
    data = bytearray()
    while rest > 127:
        data.append(rest & 127 | 128)
        rest >>= 7
    data.append(rest)
    return bytes(data)


def _primitive(kind: str, value: Any) -> bytes | None:
    if kind == "null" and value is None:
        return b""
    if kind == "boolean" and isinstance(value, bool):
        return bytes([value])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in ("int", "long") and isinstance(value, int) and number and -(limit := 1 << (31 if kind == "int" else 63)) <= value < limit:
        return varint(value)
    if kind == "float" and number:
        return np.float32(value).tobytes()
    if kind == "double" and number:
        return struct.pack("<d", value)
    if kind == "string" and isinstance(value, str):
        return _text(value.encode())
    if kind == "bytes" and isinstance(value, str) and _is_latin(value):
        return _text(value.encode("latin-1"))
    return None


def _is_latin(value: str) -> bool:
    # The bytes of a default are written as the characters U+0000 to U+00FF.
    return all(ord(character) < 256 for character in value)


def _text(data: bytes) -> bytes:
    return varint(len(data)) + data


def _blocks(items: list[bytes]) -> bytes:
    return (varint(len(items)) + b"".join(items) if items else b"") + varint(0)
