"""Avro's single-object encoding: each value names its writer's schema by a fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas.avro import AvroSchema, to_json
from schemas.columns import Mask, PackedBytes
from schemas.errors import RecordError, SchemaError
from schemas.framing import FINGERPRINT_BYTES, SINGLE_OBJECT, HeadersByRow
from schemas.reject import Reject
from schemas.undress import BARE, Undressed, number_of


class SingleObjects:
    """Avro's single-object encoding, of schemas that are known from the start.

    Args:
        reader: the topic's own schema.
        writers: the others.

    Raises:
        SchemaError: two of them have one fingerprint, and say different things.
    """

    def __init__(self, reader: AvroSchema, writers: Sequence[AvroSchema]) -> None:
        self.schemas: dict[int, AvroSchema] = {}  # by number
        self._numbers = {reader.rabin: BARE}
        told = {reader.rabin: reader}
        for each in writers:
            if _meaning(told.setdefault(each.rabin, each)) != _meaning(each):
                raise SchemaError(
                    f"two schemas of {each} have the fingerprint {each.rabin.hex()} and other logical types: "
                    "what was written with one would be read as the other"
                )
            if each.rabin not in self._numbers:
                number = self._numbers[each.rabin] = number_of(each.rabin)
                self.schemas[number] = each

    def __call__(self, values: PackedBytes, absent: Mask | None, headers: HeadersByRow) -> Undressed:
        sizes = values.ends - values.starts
        numbers = np.full(len(values), BARE, np.int64)
        refused = {row: _no_single_object(values[row]) for row in np.flatnonzero((sizes > 0) & (sizes < FINGERPRINT_BYTES)).tolist()}
        rows = np.flatnonzero(sizes >= FINGERPRINT_BYTES)
        heads = values.data[values.starts[rows][:, None] + np.arange(FINGERPRINT_BYTES)]
        named = np.ascontiguousarray(heads[:, len(SINGLE_OBJECT) :]).view("<u8").ravel()
        marked = (heads[:, : len(SINGLE_OBJECT)] == np.frombuffer(SINGLE_OBJECT, np.uint8)).all(axis=1)
        known = np.zeros(len(rows), np.bool_)
        for fingerprint, number in self._numbers.items():
            theirs = marked & (named == np.uint64(int.from_bytes(fingerprint, "little")))
            numbers[rows[theirs]] = number
            known |= theirs
        refused |= {int(rows[place]): self._refusal(heads[place].tobytes()) for place in np.flatnonzero(~known).tolist()}
        starts = np.where(sizes >= FINGERPRINT_BYTES, values.starts + FINGERPRINT_BYTES, values.starts)
        return Undressed(PackedBytes(values.data, starts, values.ends), numbers, refused)

    def _refusal(self, head: bytes) -> RecordError:
        if not head.startswith(SINGLE_OBJECT):
            return _no_single_object(head)
        known = ", ".join(each.hex() for each in self._numbers)
        words = f"the value names the fingerprint {head[2:].hex()}, wanted one of the topic's schemas: {known}"
        return RecordError(Reject.UNKNOWN_FINGERPRINT.label, words)


def _no_single_object(head: bytes) -> RecordError:
    words = f"the value begins with {head.hex(' ')}, wanted c3 01, eight bytes of fingerprint and an Avro record"
    return RecordError(Reject.BAD_MAGIC.label, words)


def _meaning(schema: AvroSchema) -> Any:
    """What its bytes mean, logical types included, which the canonical form leaves out."""
    return _bytes_alone(to_json(schema.root, schema.named))


def _bytes_alone(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _bytes_alone(value) for key, value in node.items() if key not in ("default", "aliases")}
    return [_bytes_alone(each) for each in node] if isinstance(node, list) else node
