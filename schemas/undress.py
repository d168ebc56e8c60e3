"""Undress: takes a batch's records out of what stands around them, so that only Avro bytes and the numbers of their schemas are left.

A number is a registry's id; of a schema that is named otherwise (a GUID, a fingerprint) it is made of its name, at 2^31 or above, where no
registry has ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from uuid import UUID

import numpy as np

from schemas.avro import AvroSchema
from schemas.columns import Column, Ints, Mask, PackedBytes
from schemas.decode_kernel import PREFIX
from schemas.errors import RecordError
from schemas.framing import GUID_BYTES, ID_BYTES, VALUE_SCHEMA_ID, HeadersByRow, header
from schemas.json_body import JsonBodies
from schemas.reject import Reject

BARE: Final = -1  # in place of a number: the reader's own schema

Undress: TypeAlias = "Callable[[PackedBytes, Mask | None, HeadersByRow], Undressed]"


@dataclass(frozen=True, slots=True)
class Undressed:
    """A batch's bodies.

    Attributes:
        bodies: n stretches of Avro bytes.
        numbers: shape (n,): of each one's schema, `BARE`, or `PREFIX` where it stands before the body as Confluent has it; None = all
            are as the framing says.
        refused: by row, why a record has no body.
        columns: what was said outside of the bodies, of length n.
        guids: by number.
    """

    bodies: PackedBytes
    numbers: Ints | None = None
    refused: Mapping[int, RecordError] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    guids: Mapping[int, UUID] = field(default_factory=dict)


def number_of(name: bytes) -> int:
    """The number of a schema that has no id: 2^31 up to 2^32 - 2, the same wherever it is asked for."""
    made = int.from_bytes(hashlib.sha256(name).digest()[:4], "big") | 0x80000000
    return made if made != 0xFFFFFFFF else 0xFFFFFFFE


def as_it_is(values: PackedBytes, absent: Mask | None, headers: HeadersByRow) -> Undressed:
    """Bare Avro."""
    return Undressed(values)


def confluent(values: PackedBytes, absent: Mask | None, headers: HeadersByRow) -> Undressed:
    """Confluent's framing: an id or a GUID in a header, else an id before the value."""
    return _confluent(values, headers, np.zeros(0, np.int64))


def confluent_with_guids(values: PackedBytes, absent: Mask | None, headers: HeadersByRow) -> Undressed:
    """The same, with values that begin with a one and a GUID.

    Only where that is declared: garbage that begins with a one would else be as many unknown schemas, and they are remembered.
    """
    return _confluent(values, headers, _with_guids(values))


def _confluent(values: PackedBytes, headers: HeadersByRow, marked: Ints) -> Undressed:
    outside = {row: found for row, each in headers.items() if (found := header(each, VALUE_SCHEMA_ID)) is not None}
    if not outside and not len(marked):
        return Undressed(values)
    numbers = np.full(len(values), PREFIX, np.int64)
    starts = values.starts.copy()
    refused: dict[int, RecordError] = {}
    guids: dict[int, UUID] = {}

    def name(row: int, octets: bytes) -> None:
        number, guid = number_of(octets), UUID(bytes=octets)
        if guids.setdefault(number, guid) == guid:
            numbers[row] = number
        else:
            words = f"GUID {guid} counts under the number {number}, as {guids[number]} does: wanted GUIDs of a registry's making"
            refused[row] = RecordError(Reject.BAD_MAGIC.label, words)

    for row in marked.tolist():
        if row not in outside:
            start = int(starts[row])
            name(row, values.data[start + 1 : start + GUID_BYTES].tobytes())
            starts[row] += GUID_BYTES
    for row, found in outside.items():
        if len(found) == ID_BYTES and found[0] == 0:
            numbers[row] = int.from_bytes(found[1:], "big")
        elif len(found) == GUID_BYTES and found[0] == 1:
            name(row, found[1:])
        else:
            words = f"header {VALUE_SCHEMA_ID} is {found[:20].hex(' ')}, wanted 00 and four bytes of schema id, or 01 and sixteen of a GUID"
            refused[row] = RecordError(Reject.BAD_MAGIC.label, words)
    return Undressed(PackedBytes(values.data, starts, values.ends), numbers, refused, guids=guids)


def _with_guids(values: PackedBytes) -> Ints:
    """Rows that begin with a one and have room for a GUID."""
    if not len(values.data):
        return np.zeros(0, np.int64)
    ones = values.data.take(values.starts, mode="clip") == 1  # a value without bytes may start where the buffer ends
    if not ones.any():
        return np.zeros(0, np.int64)
    return np.flatnonzero(ones & (values.ends - values.starts >= GUID_BYTES))


class JsonRecords:
    """JSON bodies, as the Avro bytes of the reader's schema."""

    def __init__(self, reader: AvroSchema) -> None:
        self._json = JsonBodies(reader)

    def __call__(self, values: PackedBytes, absent: Mask | None, headers: HeadersByRow) -> Undressed:
        bodies: list[bytes] = []
        refused: dict[int, RecordError] = {}
        for row, text in enumerate(values):
            body = b""
            if text:
                try:
                    body = self._json.of_text(text)
                except RecordError as error:
                    refused[row] = error
            bodies.append(body)
        return Undressed(PackedBytes.pack(bodies), None, refused)
