"""The encoder: columns to Avro bytes, a batch at a time."""

from __future__ import annotations

import numpy as np

from schemas.avro import AvroSchema
from schemas.columns import Columns, Ints, PackedBytes
from schemas.encode_kernel import STACK_WORDS, encode, straight_bytes
from schemas.encode_program import EncodeProgram, Scratch
from schemas.errors import SchemaError
from schemas.framing import Framing, framing_words

_MOST_CONSTANTS = 1_000
_MOST_GUESSED_BYTES = 1 << 26  # one huge row says little about the next batch


class Encoder:
    """Writes records of one schema.

    Columns go by dotted path, as `Decoder` gives them. A float64 column may fill a float, and an integer column a double; a `Constant`
    costs next to nothing. A nullable record is null in a row where all its columns are. Calls must not overlap.

    Args:
        schema: what is written.
        framing: ``confluent``, a zero and the schema id before each value, or ``bare``.
        schema_id: what the registry calls the schema; of no use for bare values.

    Raises:
        SchemaError: the schema is no record, the framing another, or the id no unsigned number of 32 bits.
    """

    def __init__(self, schema: AvroSchema, framing: Framing = "confluent", schema_id: int = 0) -> None:
        schema.fields  # noqa: B018 - refuses what is no record
        if not 0 <= schema_id < 1 << 32:
            raise SchemaError(f"schema id {schema_id} does not fit the four bytes it has in a framed value")
        if framing not in ("confluent", "bare"):
            raise SchemaError(f"columns are written as {framing_words(framing)}, wanted 'confluent' or 'bare'")
        self.schema = schema
        self._header = b"\0" + schema_id.to_bytes(4, "big") if framing == "confluent" else b""
        self._scratch = Scratch()
        self._constants: dict[tuple[str, type, object], bytes] = {}
        self._bytes_a_row = 64.0  # learned: how much room a batch will need

    def encode(self, columns: Columns, rows: Ints | None = None) -> PackedBytes:
        """The bytes of the given rows (all by default), in that order, back to back in one buffer.

        Raises:
            KeyError: a column is missing.
            TypeError: a column holds something else than its field.
            ValueError: a row to be written holds null, a number out of range or an unknown symbol.
            IndexError: there is no such row.
        """
        n = len(next(iter(columns.values()), ()))
        chosen = np.ones(n, np.bool_)
        if rows is None:
            rows = np.arange(n, dtype=np.int64)
        elif len(rows):
            if rows.min() < 0 or rows.max() >= n:
                raise IndexError(f"rows {rows.min()} to {rows.max()} of {n}")
            chosen = np.zeros(n, np.bool_)
            chosen[rows] = True
        if len(self._constants) > _MOST_CONSTANTS:
            self._constants.clear()
        program = EncodeProgram(self.schema.named, chosen, self._constants)
        program.literal(self._header)
        program.add(self.schema.root, columns, "", chosen)
        return self._run(program, np.ascontiguousarray(rows, np.int64))

    def _run(self, program: EncodeProgram, rows: Ints) -> PackedBytes:
        code, words, base, literals, data = program.finish(self._scratch)
        out = np.empty(min(int(self._bytes_a_row * 1.1 * len(rows)) + 256, _MOST_GUESSED_BYTES), np.uint8)
        ends = np.zeros(len(rows), np.int64)
        most = straight_bytes(program.code)
        stack = np.empty(STACK_WORDS, np.int64)
        done = 0
        while (done := encode(data, words, base, code, literals, rows, out, ends, stack, most, done)) < len(rows):
            more = np.empty(2 * len(out), np.uint8)
            more[: len(out)] = out
            out = more
        if len(rows) == 0:
            return PackedBytes(out[:0], ends, ends)
        self._bytes_a_row = max(self._bytes_a_row * 0.9, ends[-1] / len(rows))
        return PackedBytes(out[: ends[-1]], np.concatenate((np.zeros(1, np.int64), ends[:-1])), ends)
