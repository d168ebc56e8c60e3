"""Resolution: compiles how bytes of a writer's schema become columns of a reader's, by the rules of Avro's specification.

Fields are matched by name, or by a reader's alias; the writer's others are read and dropped; the reader's others take their default.
int, long and float widen, string and bytes stand for each other, enums go by symbol. Named types match by their names without
namespace, or by an alias. Beyond the specification, units are not mixed up: a timestamp in other units, or a decimal of another scale,
is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from schemas import program as op
from schemas.avro import ABSENT, Array, AvroType, Enum, Field, Fixed, Map, Primitive, Record, Recursion, Union
from schemas.default import encode_default
from schemas.errors import SchemaError
from schemas.layout import Group, Leaf, List, Node, Opaque, Option, items_of
from schemas.program import Assembler
from schemas.reject import Reject

_WIDENS = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
_PLAIN = {
    "boolean": op.BOOLEAN,
    "int": op.INT,
    "long": op.LONG,
    "float": op.FLOAT,
    "double": op.DOUBLE,
    "string": op.TEXT,
    "bytes": op.BYTES,
}
_TIMES = ("timestamp-", "local-timestamp-", "time-", "date")


class Resolver:
    """Compiles one writer's program.

    Args:
        out: where the program goes.
        writer: the named types of the writer's schema.
        reader: those of the reader's.

    Attributes:
        opaque: by slot, the type an opaque value was written as, and the named types of its schema.
    """

    def __init__(self, out: Assembler, writer: Mapping[str, AvroType], reader: Mapping[str, AvroType]) -> None:
        self._out = out
        self._writer = writer
        self._reader = reader
        self._routines: dict[str, int] = {}  # of recursive types, by name
        self._calls: list[tuple[int, str]] = []  # where one is called that is not written yet
        self._defaults: list[Resolver] = []  # default values are written as the reader's schema says
        self.opaque: dict[int, tuple[AvroType, Mapping[str, AvroType]]] = {}

    def compile(self, writer: AvroType, reader: AvroType, node: Node) -> int:
        """Append the program and tell where it starts.

        Raises:
            SchemaError: the writer's schema can't be resolved to the reader's; says which field, and both types.
        """
        entry = self._out.here
        try:
            self._value(writer, reader, node)
        except SchemaError:
            self._forget(entry)
            raise
        self._out.emit(op.END)
        for resolver in (self, *self._defaults):
            resolver._write_routines()
        return entry

    def _forget(self, here: int) -> None:
        self._out.forget(here)
        for resolver in (self, *self._defaults):
            resolver._calls = [call for call in resolver._calls if call[0] < here]

    def _value(self, writer: AvroType, reader: AvroType, node: Node) -> None:
        writer = self._writer[writer.name] if isinstance(writer, Recursion) and not isinstance(node, Opaque) else writer
        if isinstance(node, Opaque):
            self._opaque(writer, node)
        elif isinstance(writer, Union):
            self._union(writer, reader, node)
        elif isinstance(node, Option):
            assert isinstance(reader, Union)
            inner = reader.nullable
            assert inner is not None
            self._out.emit(op.VALID, node.slot, int(writer.kind != "null"))
            if writer.kind != "null":
                self._value(writer, inner, node.value)
        elif isinstance(node, Group) and isinstance(writer, Record) and isinstance(reader, Record) and _same_name(writer, reader):
            self._record(writer, reader, node)
        elif isinstance(node, List) and isinstance(writer, Array | Map) and isinstance(reader, Array | Map) and writer.kind == reader.kind:
            self._array(writer, reader, node)
        elif isinstance(node, Leaf):
            self._leaf(writer, reader, node)
        else:
            raise self._mismatch(writer, reader)

    def _record(self, writer: Record, reader: Record, node: Group) -> None:
        wanted = {each.name: each for each in reader.fields}
        renamed = {alias: each for each in reader.fields for alias in each.aliases}
        found: set[str] = set()
        for each in writer.fields:
            target = wanted.get(each.name) or renamed.get(each.name)
            with self._out.inside(each.name):
                if target is None or target.name in found:
                    self._skip(each.type)
                else:
                    found.add(target.name)
                    self._value(each.type, target.type, node.members[target.name])
        for each in reader.fields:
            if each.name not in found:
                with self._out.inside(each.name):
                    self._default(each, node.members[each.name])

    def _default(self, missing: Field, node: Node) -> None:
        if missing.default is ABSENT:
            raise SchemaError(f"{self._out.path}: the writer's schema has no such field, and the reader's has no default for it")
        data = encode_default(missing.type, missing.default, self._reader, self._out.path)
        self._out.emit(op.POOL, a=self._out.keep(data), b=len(data))
        written = Resolver(self._out, self._reader, self._reader)
        written._value(missing.type, missing.type, node)
        self._out.emit(op.LEAVE)
        self._defaults.append(written)
        self.opaque |= written.opaque

    def _array(self, writer: Array | Map, reader: Array | Map, node: List) -> None:
        begin = self._out.emit(op.ARRAY, node.slot, node.items_domain)
        self._value(items_of(writer), items_of(reader), node.items)
        self._close(begin, writer, node.items_domain)

    def _close(self, begin: int, writer: Array | Map, domain: int) -> None:
        self._out.rows[begin][3] = self._out.emit(op.NEXT, a=domain, b=begin + 1, c=least_bytes(items_of(writer)))

    def _union(self, writer: Union, reader: AvroType, node: Node) -> None:
        inner, target = writer.nullable, reader.nullable if isinstance(reader, Union) else None
        here = self._out.here
        if isinstance(node, Option) and inner is not None and target is not None:
            try:
                option = self._out.emit(op.OPTION, node.slot, [branch.kind for branch in writer.branches].index("null"))
                self._value(inner, target, node.value)
                self._out.rows[option][3] = self._out.here
                return
            except SchemaError:  # the nulls may still be read
                self._forget(here)
        self._branches(writer, reader, node)

    def _branches(self, writer: Union, reader: AvroType | None, node: Node | None) -> None:
        """Code for each branch; one that the reader can't take is refused when a record has it."""
        places = [0] * len(writer.branches)
        union = self._out.emit(op.UNION, b=len(places))
        exits: list[int] = []
        troubles: list[SchemaError] = []
        for index, branch in enumerate(writer.branches):
            places[index] = self._out.here
            try:
                if reader is None or node is None:
                    self._skip(branch)
                else:
                    self._value(branch, reader, node)
            except SchemaError as trouble:
                troubles.append(trouble)
                self._forget(places[index])
                self._out.emit(op.REFUSE, a=Reject.WRONG_BRANCH)
            exits.append(self._out.emit(op.JUMP))
        if troubles and len(troubles) == len(places):
            raise troubles[0]
        for place in exits:
            self._out.rows[place][2] = self._out.here
        self._out.rows[union][2] = self._out.table(places)

    def _leaf(self, writer: AvroType, reader: AvroType, node: Leaf) -> None:
        if not isinstance(writer, Primitive | Fixed | Enum) or not isinstance(reader, Primitive | Fixed | Enum):
            raise self._mismatch(writer, reader)
        self._check_units(writer, reader)
        if isinstance(writer, Enum) and isinstance(reader, Enum) and _same_name(writer, reader):
            self._enum(writer, reader, node.slot)
        elif isinstance(writer, Fixed) and isinstance(reader, Fixed) and _same_fixed(writer, reader):
            self._out.emit(op.DECIMAL if node.kind == "decimal" else op.FIXED, node.slot, writer.size_bytes)
        elif isinstance(writer, Primitive) and isinstance(reader, Primitive):
            self._primitive(writer, reader, node)
        else:
            raise self._mismatch(writer, reader)

    def _enum(self, writer: Enum, reader: Enum, slot: int) -> None:
        other = -1 if reader.default is None else reader.symbols.index(reader.default)
        codes = [reader.symbols.index(symbol) if symbol in reader.symbols else other for symbol in writer.symbols]
        self._out.emit(op.ENUM, slot, self._out.table(codes), len(codes))

    def _primitive(self, writer: Primitive, reader: Primitive, node: Leaf) -> None:
        wrote, wanted = writer.kind, reader.kind
        if wrote != wanted and wanted not in _WIDENS.get(wrote, ()):
            raise self._mismatch(writer, reader)
        if node.kind == "decimal":
            self._out.emit(op.DECIMAL, node.slot, -1)
        elif wanted in ("float", "double") and wrote in ("int", "long"):
            self._out.emit(op.INT_AS_FLOAT, node.slot, int(wrote == "long"), int(wanted == "double"))
        elif wrote == "float" and wanted == "double":
            self._out.emit(op.FLOAT_AS_DOUBLE, node.slot)
        elif wrote == "bytes" and wanted == "string":
            self._out.emit(op.TEXT, node.slot)
        elif wrote != "null":
            self._out.emit(_PLAIN[wrote], node.slot)

    def _check_units(self, writer: Primitive | Fixed | Enum, reader: Primitive | Fixed | Enum) -> None:
        if isinstance(writer, Enum) or isinstance(reader, Enum) or None in (writer.logical, reader.logical):
            return
        wrote, wanted = str(writer.logical), str(reader.logical)
        if wrote != wanted and (wrote.startswith(_TIMES) or wanted.startswith(_TIMES)):
            raise SchemaError(f"{self._out.path}: the writer counts {wrote}, the reader {wanted}; the numbers would be taken for others")
        if wrote == wanted == "decimal" and writer.scale != reader.scale:
            raise SchemaError(f"{self._out.path}: the writer's decimal has scale {writer.scale}, the reader's {reader.scale}")

    def _opaque(self, writer: AvroType, node: Opaque) -> None:
        self._out.emit(op.START, node.slot)
        self._skip(writer)
        self._out.emit(op.STOP, node.slot + 1)
        self.opaque[node.slot] = (writer, self._writer)

    def _skip(self, writer: AvroType) -> None:
        """Read a value into scratch: checked like any other."""
        if isinstance(writer, Recursion):
            self._calls.append((self._out.emit(op.CALL), writer.name))
        elif isinstance(writer, Union):
            self._branches(writer, None, None)
        elif isinstance(writer, Record):
            for each in writer.fields:
                with self._out.inside(each.name):
                    self._skip(each.type)
        elif isinstance(writer, Array | Map):
            begin = self._out.emit(op.ARRAY, a=op.NO_DOMAIN)
            self._skip(items_of(writer))
            self._close(begin, writer, op.NO_DOMAIN)
        else:
            self._leaf(writer, writer, Leaf(writer.kind, op.SCRATCH, op.NO_DOMAIN))

    def _write_routines(self) -> None:
        """What recursive types are read by; one routine may call others."""
        while self._calls:
            at, name = self._calls.pop()
            if name not in self._routines:
                self._routines[name] = self._out.here
                with self._out.inside(name):
                    self._skip(self._writer[name])
                    self._out.emit(op.RETURN)
            self._out.rows[at][2] = self._routines[name]

    def _mismatch(self, writer: AvroType, reader: AvroType) -> SchemaError:
        return SchemaError(f"{self._out.path or 'value'}: the writer's {_described(writer)} is not the reader's {_described(reader)}")


def least_bytes(kind: AvroType) -> int:
    """The fewest bytes a value can take."""
    if isinstance(kind, Record):
        return sum(least_bytes(each.type) for each in kind.fields)
    if isinstance(kind, Fixed):
        return kind.size_bytes
    if isinstance(kind, Recursion):
        return 0
    return {"null": 0, "float": 4, "double": 8}.get(kind.kind, 1)


def is_bounded(kind: AvroType) -> bool:
    """Whether few bytes can only mean little work, for a reader that checks nothing."""
    if isinstance(kind, Record):
        return all(is_bounded(each.type) for each in kind.fields)
    if isinstance(kind, Union):
        return all(map(is_bounded, kind.branches))
    if isinstance(kind, Array | Map):
        return least_bytes(items_of(kind)) > 0 and is_bounded(items_of(kind))
    return not isinstance(kind, Recursion)


def _same_name(writer: Record | Enum | Fixed, reader: Record | Enum | Fixed) -> bool:
    short = writer.name.rpartition(".")[2]
    return short == reader.name.rpartition(".")[2] or writer.name in reader.aliases or short in reader.aliases


def _same_fixed(writer: Fixed, reader: Fixed) -> bool:
    return _same_name(writer, reader) and writer.size_bytes == reader.size_bytes


def _described(kind: AvroType) -> str:
    if isinstance(kind, Record | Enum | Fixed):
        size = f" of {kind.size_bytes} bytes" if isinstance(kind, Fixed) else ""
        return f"{kind.kind} {kind.name}{size}"
    if isinstance(kind, Union):
        return "union of " + ", ".join(_described(branch) for branch in kind.branches)
    return kind.kind
