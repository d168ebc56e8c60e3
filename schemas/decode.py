"""The decoder: Avro bytes to columns, a batch at a time."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.avro import AvroSchema, parse_type, read_value
from schemas.columns import Columns, Mask, PackedBytes
from schemas.decode_kernel import HEADER_BYTES, STACK_WORDS, decode
from schemas.errors import RecordError, SchemaError
from schemas.layout import ROWS, Layout, Opaque, opaque_nodes
from schemas.program import FIRST_SLOT, Assembler, Program
from schemas.registry import Registry
from schemas.reject import Reject
from schemas.resolve import Resolver, is_bounded
from schemas.words import Words
from schemas.writers import Writers

Framing: TypeAlias = Literal["confluent", "bare"]

_BARE_ID = -1

_WORDS = {
    Reject.TRUNCATED: "the bytes end inside it",
    Reject.MALFORMED: "its number, length or block can't be: too many bits, negative, nested too deep, or not as long as it says",
    Reject.TRAILING_BYTES: "the record ends here, but its bytes go on",
    Reject.BAD_UTF8: "its bytes are not UTF-8",
    Reject.BAD_ENUM: "its index has no symbol",
    Reject.BAD_UNION: "its index has no branch",
    Reject.BAD_BOOLEAN: "its byte is neither 0 nor 1",
    Reject.OUT_OF_RANGE: "its number needs more than 64 bits",
    Reject.UNKNOWN_SYMBOL: "the writer's symbol is none of the reader's, and the reader has no default",
    Reject.WRONG_BRANCH: "the writer's value is of a type that the reader does not take; a null counts as one",
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """The records of a batch as columns. What stands in a rejected row means nothing."""

    columns: Columns  # by dotted path, each of length n
    rejected: NDArray[np.uint8]  # shape (n,): 0 = usable, else a `Reject`
    schema_ids: NDArray[np.int32]  # shape (n,): the writer's; -1 for bare values and where none could be read


@dataclass(frozen=True, slots=True)
class _Met:
    """The schemas met so far and their programs, which belong together: an entry is a place in the code."""

    writers: Writers
    program: Program
    paths: tuple[str, ...]  # of each row of the code: the field it reads


class Decoder:
    """Reads records of one reader's schema, whoever wrote them.

    Stricter than fastavro, on purpose: trailing bytes, booleans other than 0 and 1, ints of more than 32 bits, negative lengths and
    indices, blocks that are not as long as they say and decimals without a byte are refused, and so are records with more than
    65,536 items of no bytes or nested more than about 80 deep. Fields that the reader drops are checked like the others.

    One thread may decode while others explain. Each call works on what it took hold of at its start, an unchanging `_Met`, and on
    arrays of its own. Schemas are compiled one at a time, and known to all at once when their programs are whole. The registry is
    asked outside of that, so that nobody waits for somebody else's answer. Only `decode` learns how much room a batch needs.

    Args:
        reader: what columns there are.
        framing: ``confluent``, a zero and a schema id before each value, or ``bare``.
        writers: knows the schemas of the ids; bare values without it are the reader's own.

    Raises:
        SchemaError: the reader's schema is no record, or framed values come without a registry.
    """

    def __init__(self, reader: AvroSchema, framing: Framing = "confluent", writers: Registry | None = None) -> None:
        if framing == "confluent" and writers is None:
            raise SchemaError("framed values name their schemas by id: wanted a registry that knows them")
        self.reader = reader
        self.framing = framing
        self._registry = writers
        self._layout = Layout()
        reader.fields  # noqa: B018 - refuses what is no record
        self._tree = self._layout.lay_out(reader.root)
        self._opaque = list(opaque_nodes(self._tree))
        self._out = Assembler()
        self._compiling = threading.Lock()  # held to change `_out` and `_met`
        self._items_a_row = np.ones(self._layout.domains, np.float64)  # learned: how much room a batch will need
        met = self._bind(Writers(), _BARE_ID, reader) if framing == "bare" else Writers()
        self._met = _Met(met, self._out.assembled(), tuple(self._out.paths))

    def decode(self, values: PackedBytes, absent: Mask | None = None) -> Decoded:
        """The columns of a batch; bytes and strings are stretches of the buffer that came in.

        Args:
            values: n records.
            absent: shape (n,); records without a value, such as tombstones.

        Raises:
            RetryLater: a schema id is new, and the registry does not answer.
        """
        run, met = self._read(values, absent)
        if n := len(values):
            self._items_a_row = np.maximum(self._items_a_row * 0.9, run.used / n)
        objects = {node.slot: self._objects(run, node, met.writers) for node in self._opaque}
        return Decoded(run.columns(self._tree, objects), run.rejected, run.schema_ids)

    def explain(self, value: bytes | None) -> RecordError:
        """Why one record is refused, in words; its reason is ``usable`` if it is not.

        Raises:
            RetryLater: its schema id is new, and the registry does not answer.
        """
        run, met = self._read(PackedBytes.pack([value or b""]), np.array([value is None]))
        for node in self._opaque:
            self._objects(run, node, met.writers)
        reject = Reject(int(run.rejected[0]))
        if reject is Reject.USABLE:
            return RecordError(reject.label, "nothing is wrong with its bytes")
        return RecordError(reject.label, self._words(reject, value or b"", run, met))

    def _words(self, reject: Reject, value: bytes, run: Words, met: _Met) -> str:
        schema_id = int(run.schema_ids[0]) & 0xFFFFFFFF
        if reject is Reject.TOMBSTONE:
            return "the record has no value, wanted an Avro record"
        if reject is Reject.EMPTY_VALUE:
            return "the value has no bytes, wanted an Avro record"
        if reject is Reject.BAD_MAGIC:
            return f"the value begins with {value[:HEADER_BYTES].hex(' ')}, wanted 00, four bytes of schema id and an Avro record"
        if reject is Reject.UNKNOWN_SCHEMA:
            return f"no schema has the id {schema_id}"
        if reject is Reject.UNREADABLE_SCHEMA:
            return f"schema {schema_id} can't be read as {self.reader}: {met.writers.troubles.get(schema_id, '')}"
        at, pc = int(run.trouble[1]), int(run.trouble[0])
        path = met.paths[pc] if pc >= 0 else ""
        place = f"{path or 'the record'}, at byte {at} of {len(value)}"
        return f"{place}: {_WORDS.get(reject, reject.label)}{self._second_opinion(value, run, met.writers)}"

    def _second_opinion(self, value: bytes, run: Words, writers: Writers) -> str:
        """What fastavro says to the same bytes, if it refuses them, too."""
        schema_id = _BARE_ID if self.framing == "bare" else int(run.schema_ids[0]) & 0xFFFFFFFF
        writer = writers.schemas[schema_id]
        if not is_bounded(writer.root):  # a huge count of empty items, or a very deep value, would keep fastavro busy or break it
            return ""
        try:
            read_value(value[HEADER_BYTES if schema_id != _BARE_ID else 0 :], writer.parsed, self.reader.parsed)
        except ValueError as error:
            return f" (fastavro: {error})"
        return ""

    def _read(self, values: PackedBytes, absent: Mask | None) -> tuple[Words, _Met]:
        """The words of records, with all their schemas that the registry has."""
        met = self._met
        run = self._run(values, absent, met)
        while (more := self._learn(run, met)) is not met:
            met = more
            run = self._run(values, absent, met)
        return run, met

    def _run(self, values: PackedBytes, absent: Mask | None, met: _Met) -> Words:
        n = len(values)
        program = met.program
        data = np.ascontiguousarray(values.data)
        pool_start = len(data)
        if len(program.pool):
            data = np.concatenate((data, program.pool))
        # An item takes a byte or more, unless it is empty: no more room than that, however many items one odd record once had.
        room = np.minimum(self._items_a_row * 1.25 * n, len(data)).astype(np.int64) + 16
        room[ROWS] = n
        run = Words(data, self._layout, room, n)
        starts, ends = np.ascontiguousarray(values.starts), np.ascontiguousarray(values.ends)
        missing = np.zeros(n, np.bool_) if absent is None else np.ascontiguousarray(absent)
        framed = int(self.framing == "confluent")
        row_slots = np.flatnonzero(np.array(self._layout.domain_of) == ROWS)[FIRST_SLOT:]
        scratch = np.empty((2, max(STACK_WORDS, self._layout.domains)), np.int64)
        done = 0
        while True:
            done = decode(
                data, starts, ends, missing, framed, met.writers.ids, met.writers.entries, program.code, program.tables, pool_start,
                run.base, row_slots, run.room, run.used, run.words, run.rejected, run.schema_ids, run.trouble, scratch, done,
            )  # fmt: skip
            if done == n:
                break
            run.grow()
        return run

    def _learn(self, run: Words, met: _Met) -> _Met:
        """Compile the schemas of ids that are unknown to a run; the same if there is none."""
        unknown = run.rejected == Reject.UNKNOWN_SCHEMA
        if self._registry is None or not unknown.any():
            return met
        wanted = (np.unique(run.schema_ids[unknown]).astype(np.int64) & 0xFFFFFFFF).tolist()
        asked = {schema_id: self._registry.schema(schema_id) for schema_id in wanted if schema_id not in self._met.writers.ids}
        with self._compiling:
            writers = self._met.writers
            for schema_id, writer in asked.items():
                if writer is not None and schema_id not in writers.ids:  # another thread may have been quicker
                    writers = self._bind(writers, schema_id, writer)
            if writers is not self._met.writers:
                self._met = _Met(writers, self._out.assembled(), tuple(self._out.paths))
            return self._met if np.isin(wanted, writers.ids).any() else met

    def _bind(self, writers: Writers, schema_id: int, writer: AvroSchema) -> Writers:
        """With one more schema: what becomes of it depends on it and the reader's alone."""
        resolver = Resolver(self._out, writer.named, self.reader.named)
        try:
            entry = resolver.compile(writer.root, self.reader.root, self._tree)
        except SchemaError as error:
            return writers.refuse(schema_id, str(error))
        return writers.add(schema_id, entry, writer, resolver.opaque)

    def _objects(self, run: Words, node: Opaque, known: Writers) -> NDArray[np.object_]:
        """The values of an opaque column; a row whose value fastavro can't resolve is rejected."""
        values = np.full(run.rows, None, np.object_)
        reader = parse_type(node.type, self.reader.named)
        writers: dict[int, Any] = {}
        stretches = run.texts(node.slot, node.domain)
        for row in np.flatnonzero(run.rejected == 0).tolist():
            schema_id = int(run.schema_ids[row]) & 0xFFFFFFFF if self.framing == "confluent" else _BARE_ID
            if schema_id not in writers:
                writers[schema_id] = parse_type(*known.opaque[schema_id][node.slot])
            try:
                values[row] = read_value(stretches[row], writers[schema_id], reader)
            except ValueError:
                run.rejected[row] = Reject.WRONG_BRANCH
        return values
