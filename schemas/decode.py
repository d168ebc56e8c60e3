"""The decoder: Avro bytes to columns, a batch at a time."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.avro import AvroSchema, parse_type, read_value
from schemas.bodies import bodies
from schemas.columns import Columns, Ints, Mask, PackedBytes
from schemas.decode_kernel import HEADER_BYTES, PREFIX, STACK_WORDS, decode
from schemas.errors import RecordError, SchemaError
from schemas.framing import Framing, Headers, HeadersByRow, asks_a_registry
from schemas.layout import ROWS, Layout, Opaque, opaque_nodes
from schemas.program import FIRST_SLOT, Assembler, Program
from schemas.registry import Registry, schema_of_guid
from schemas.reject import Reject
from schemas.resolve import Resolver, is_bounded
from schemas.undress import BARE, Undressed
from schemas.words import Words
from schemas.writers import Writers

_NO_HEADERS: HeadersByRow = {}

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
    schema_ids: NDArray[np.int32]  # shape (n,): the writer's; -1 for the reader's own and where none could be read; < -1 for no id's


@dataclass(frozen=True, slots=True)
class _Met:
    """The schemas met so far and their programs, which belong together: an entry is a place in the code."""

    writers: Writers
    program: Program
    paths: tuple[str, ...]  # of each row of the code: the field it reads


@dataclass(frozen=True, slots=True)
class Body:
    """One record out of its framing.

    Attributes:
        writer: the schema it was written with.
        avro: its Avro bytes.
        columns: what was said outside of them, of one row.
    """

    writer: AvroSchema
    avro: bytes
    columns: Columns


class Decoder:
    """Reads records of one reader's schema, whoever wrote them, out of whatever their topic's framing puts around them.

    Stricter than fastavro, on purpose: trailing bytes, booleans other than 0 and 1, ints of more than 32 bits, negative lengths and
    indices, blocks that are not as long as they say and decimals without a byte are refused, and so are records with more than
    65,536 items of no bytes or nested more than about 80 deep. Fields that the reader drops are checked like the others.

    One thread may decode while others explain. Each call works on what it took hold of at its start, an unchanging `_Met`, and on
    arrays of its own. Schemas are compiled one at a time, and known to all at once when their programs are whole. The registry is
    asked outside of that, so that nobody waits for somebody else's answer. Only `decode` learns how much room a batch needs.

    Args:
        reader: what columns there are.
        framing: how the values are framed (`schemas/framing.py`); files of a `SingleObject` are loaded.
        writers: knows the schemas of the ids; framings that name none go without.

    Raises:
        SchemaError: the reader's schema is no record or does not go with the framing, or framed values come without a registry.
    """

    def __init__(self, reader: AvroSchema, framing: Framing = "confluent", writers: Registry | None = None) -> None:
        if asks_a_registry(framing) and writers is None:
            raise SchemaError("framed values name their schemas by id: wanted a registry that knows them")
        reader.fields  # noqa: B018 - refuses what is no record
        self._bodies = bodies(reader, framing)
        self.reader = self._bodies.reader
        self.framing = framing
        self._registry = writers if asks_a_registry(framing) else None
        self._layout = Layout()
        self._tree = self._layout.lay_out(self.reader.root)
        self._opaque = list(opaque_nodes(self._tree))
        self._out = Assembler()
        self._compiling = threading.Lock()  # held to change `_out` and `_met`
        self._items_a_row = np.ones(self._layout.domains, np.float64)  # learned: how much room a batch will need
        met = Writers() if self._bodies.prefixed else self._bind(Writers(), BARE, self.reader)
        for number, writer in self._bodies.schemas.items():
            met = self._bind(met, number, writer)
        self._met = _Met(met, self._out.assembled(), tuple(self._out.paths))

    def decode(self, values: PackedBytes, absent: Mask | None = None, headers: HeadersByRow = _NO_HEADERS) -> Decoded:
        """The columns of a batch; bytes and strings are stretches of the buffer that came in.

        Args:
            values: n records.
            absent: shape (n,); records without a value, such as tombstones.
            headers: by row, of the records that have any.

        Raises:
            RetryLater: a schema id is new, and the registry does not answer.
        """
        bare = self._bodies.undress(values, absent, headers)
        run, met = self._read(bare, absent)
        if n := len(values):
            self._items_a_row = np.maximum(self._items_a_row * 0.9, run.used / n)
        objects = {node.slot: self._objects(run, node, met.writers, bare) for node in self._opaque}
        return Decoded({**run.columns(self._tree, objects), **bare.columns}, run.rejected, run.schema_ids)

    def explain(self, value: bytes | None, headers: Headers = ()) -> RecordError:
        """Why one record is refused, in words; its reason is ``usable`` if it is not.

        Raises:
            RetryLater: its schema id is new, and the registry does not answer.
        """
        absent = np.array([value is None])
        bare = self._bodies.undress(PackedBytes.pack([value or b""]), absent, {0: headers})
        run, met = self._read(bare, absent)
        for node in self._opaque:
            self._objects(run, node, met.writers, bare)
        reject = Reject(int(run.rejected[0]))
        if reject is Reject.USABLE:
            return RecordError(reject.label, "nothing is wrong with its bytes")
        return bare.refused.get(0) or RecordError(reject.label, self._words(reject, value or b"", run, met, bare))

    def body(self, value: bytes, headers: Headers = ()) -> Body:
        """A usable record out of its framing.

        Raises:
            RetryLater: its schema id is new, and the registry does not answer.
        """
        bare = self._bodies.undress(PackedBytes.pack([value]), None, {0: headers})
        run, met = self._read(bare, None)
        assert not run.rejected[0], "only usable records are taken out of their framing"
        return Body(met.writers.schemas[int(self._schemas_of(run, bare)[0])], _avro_bytes(run, bare), bare.columns)

    def schema_words(self, value: bytes, headers: Headers = ()) -> str:
        """What a record calls the schema it was written with, as long as that can be read."""
        bare = self._bodies.undress(PackedBytes.pack([value]), None, {0: headers})
        run = self._run(bare, None, self._met)
        return _schema_words(int(self._schemas_of(run, bare)[0]), bare)

    def _words(self, reject: Reject, value: bytes, run: Words, met: _Met, bare: Undressed) -> str:
        number = int(self._schemas_of(run, bare)[0])
        if reject is Reject.TOMBSTONE:
            return "the record has no value, wanted an Avro record"
        if reject is Reject.EMPTY_VALUE:
            return "the value has no bytes, wanted an Avro record"
        if reject is Reject.BAD_MAGIC:
            guid = ", or 01, sixteen bytes of a schema's GUID and an Avro record" if self.framing == "confluent-header" else ""
            began = bare.bodies[0][:HEADER_BYTES].hex(" ")
            return f"the value begins with {began}, wanted 00, four bytes of schema id and an Avro record{guid}"
        if reject is Reject.UNKNOWN_SCHEMA:
            return f"no schema has the {_schema_words(number, bare)}"
        if reject is Reject.UNREADABLE_SCHEMA:
            named = _schema_words(number, bare).removeprefix("id ")
            return f"schema {named} can't be read as {self.reader}: {met.writers.troubles.get(number, '')}"
        at, pc = int(run.trouble[1]), int(run.trouble[0])
        path = met.paths[pc] if pc >= 0 else ""
        place = f"{path or 'the record'}, at byte {at} of {len(bare.bodies.data)}"
        return f"{place}: {_WORDS.get(reject, reject.label)}{self._second_opinion(run, met.writers.schemas[number], bare)}"

    def _second_opinion(self, run: Words, writer: AvroSchema, bare: Undressed) -> str:
        """What fastavro says to the same bytes, if it refuses them, too."""
        if not is_bounded(writer.root):  # a huge count of empty items, or a very deep value, would keep fastavro busy or break it
            return ""
        try:
            read_value(_avro_bytes(run, bare), writer.parsed, self.reader.parsed)
        except ValueError as error:
            return f" (fastavro: {error})"
        return ""

    def _schemas_of(self, run: Words, bare: Undressed) -> Ints:
        """Shape (n,): the numbers of the records' schemas, as writers are known by."""
        named = run.schema_ids.astype(np.int64) & 0xFFFFFFFF
        if bare.numbers is None:
            return named if self._bodies.prefixed else np.full(run.rows, BARE, np.int64)
        return np.where(bare.numbers == PREFIX, named, bare.numbers)

    def _read(self, bare: Undressed, absent: Mask | None) -> tuple[Words, _Met]:
        """The words of records, with all their schemas that the registry has."""
        met = self._met
        refused = list(bare.refused)
        if refused:  # what has no body is nothing to the kernel
            absent = np.zeros(len(bare.bodies), np.bool_) if absent is None else absent.copy()
            absent[refused] = True
        run = self._run(bare, absent, met)
        while (more := self._learn(run, met, bare)) is not met:
            met = more
            run = self._run(bare, absent, met)
        for row, error in bare.refused.items():
            run.rejected[row] = Reject[error.reason.upper()]
        return run, met

    def _run(self, bare: Undressed, absent: Mask | None, met: _Met) -> Words:
        values = bare.bodies
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
        framed = int(self._bodies.prefixed) if bare.numbers is None else 2
        numbers = starts if bare.numbers is None else bare.numbers
        row_slots = np.flatnonzero(np.array(self._layout.domain_of) == ROWS)[FIRST_SLOT:]
        scratch = np.empty((2, max(STACK_WORDS, self._layout.domains)), np.int64)
        done = 0
        while True:
            done = decode(
                data, starts, ends, missing, framed, numbers, met.writers.ids, met.writers.entries, program.code, program.tables,
                pool_start, run.base, row_slots, run.room, run.used, run.words, run.rejected, run.schema_ids, run.trouble, scratch, done,
            )  # fmt: skip
            if done == n:
                break
            run.grow()
        return run

    def _learn(self, run: Words, met: _Met, bare: Undressed) -> _Met:
        """Compile the schemas of ids that are unknown to a run; the same if there is none."""
        unknown = run.rejected == Reject.UNKNOWN_SCHEMA
        if self._registry is None or not unknown.any():
            return met
        wanted = np.unique(run.schema_ids[unknown].astype(np.int64) & 0xFFFFFFFF).tolist()
        asked = {number: self._ask(self._registry, number, bare) for number in wanted if number not in self._met.writers.ids}
        with self._compiling:
            writers = self._met.writers
            for schema_id, writer in asked.items():
                if writer is not None and schema_id not in writers.ids:  # another thread may have been quicker
                    writers = self._bind(writers, schema_id, writer)
            if writers is not self._met.writers:
                self._met = _Met(writers, self._out.assembled(), tuple(self._out.paths))
            return self._met if np.isin(wanted, writers.ids).any() else met

    def _ask(self, registry: Registry, number: int, bare: Undressed) -> AvroSchema | None:
        return schema_of_guid(registry, bare.guids[number]) if number in bare.guids else registry.schema(number)

    def _bind(self, writers: Writers, schema_id: int, writer: AvroSchema) -> Writers:
        """With one more schema: what becomes of it depends on it and the reader's alone."""
        resolver = Resolver(self._out, writer.named, self.reader.named)
        try:
            entry = resolver.compile(writer.root, self.reader.root, self._tree)
        except SchemaError as error:
            return writers.refuse(schema_id, str(error))
        return writers.add(schema_id, entry, writer, resolver.opaque)

    def _objects(self, run: Words, node: Opaque, known: Writers, bare: Undressed) -> NDArray[np.object_]:
        """The values of an opaque column; a row whose value fastavro can't resolve is rejected."""
        values = np.full(run.rows, None, np.object_)
        reader = parse_type(node.type, self.reader.named)
        writers: dict[int, Any] = {}
        stretches = run.texts(node.slot, node.domain)
        numbers = self._schemas_of(run, bare)
        for row in np.flatnonzero(run.rejected == 0).tolist():
            number = int(numbers[row])
            if number not in writers:
                writers[number] = parse_type(*known.opaque[number][node.slot])
            try:
                values[row] = read_value(stretches[row], writers[number], reader)
            except ValueError:
                run.rejected[row] = Reject.WRONG_BRANCH
        return values


def _avro_bytes(run: Words, bare: Undressed) -> bytes:
    """The only record's, without an id before them."""
    prefixed = run.schema_ids[0] != -1 if bare.numbers is None else bare.numbers[0] == PREFIX
    return bare.bodies[0][HEADER_BYTES if prefixed else 0 :]


def _schema_words(number: int, bare: Undressed) -> str:
    return f"GUID {bare.guids[number]}" if number in bare.guids else f"id {number}"
