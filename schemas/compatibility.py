"""Compatibility: which records of one schema another can't read, field by field and in words; and a registry's modes over versions.

BACKWARD    the new schema reads what the last version wrote          upgrade readers first
FORWARD     the last version reads what the new schema writes         upgrade writers first
FULL        both
..._TRANSITIVE  the same against every version
NONE        anything goes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from schemas.avro import ABSENT, Array, AvroSchema, AvroType, Enum, Field, Fixed, Map, Primitive, Record, Recursion, Union
from schemas.errors import SchemaError

Mode = Literal["BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE", "NONE"]
MODES: tuple[Mode, ...] = get_args(Mode)

WIDENS = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
TIMES = ("timestamp-", "local-timestamp-", "time-", "date")


@dataclass(frozen=True, slots=True)
class Break:
    """One reason why some records of a writer can't be read.

    Attributes:
        path: dotted path of the field, by the reader's names; items of arrays and maps stand under the field itself. Empty = the whole.
        change: the writer's side and the reader's, shortly: ``long -> string``.
        words: the reason, in words.
        some: whether records without such values can still be read.
    """

    path: str
    change: str
    words: str
    some: bool = False

    def __str__(self) -> str:
        return f"{self.path or 'the record'}: {self.words}"


@dataclass(frozen=True, slots=True)
class Filled:
    """A field that the writer does not have: the reader sees its default in every record."""

    path: str
    default: object


@dataclass(frozen=True, slots=True)
class Finding:
    """One version that does not go with a new schema."""

    version: int
    direction: Literal["backward", "forward"]
    breaks: tuple[Break, ...]


def breaks(writer: AvroSchema, reader: AvroSchema) -> tuple[Break, ...]:
    """Every reason why records that one schema wrote can't be read by another; none if all can."""
    return tuple(_Comparison(writer, reader).breaks(writer.root, reader.root, ""))


def filled(writer: AvroSchema, reader: AvroSchema) -> tuple[Filled, ...]:
    """The reader's fields that get their default, since the writer has no such field."""
    return tuple(_filled(writer, reader, writer.root, reader.root, ""))


def judge(new: AvroSchema, versions: Sequence[tuple[int, AvroSchema]], mode: Mode) -> tuple[Finding, ...]:
    """What a mode has against a new schema.

    Args:
        new: the schema.
        versions: the subject's, oldest first, each with its number.
        mode: one of `MODES`.

    Raises:
        SchemaError: there is no such mode.
    """
    if mode not in MODES:
        raise SchemaError(f"no compatibility mode is called {mode!r}; there are {', '.join(MODES)}")
    against = versions if mode.endswith("_TRANSITIVE") else versions[-1:]
    found = []
    for version, schema in against if mode != "NONE" else ():
        if mode.startswith(("BACKWARD", "FULL")) and (troubles := breaks(schema, new)):
            found.append(Finding(version, "backward", troubles))
        if mode.startswith(("FORWARD", "FULL")) and (troubles := breaks(new, schema)):
            found.append(Finding(version, "forward", troubles))
    return tuple(found)


class _Comparison:
    def __init__(self, writer: AvroSchema, reader: AvroSchema) -> None:
        self._writer, self._reader = writer.named, reader.named
        self._seen: set[tuple[str, str]] = set()

    def breaks(self, writer: AvroType, reader: AvroType, path: str) -> Iterator[Break]:
        if isinstance(writer, Recursion):
            writer = self._writer[writer.name]
        if isinstance(reader, Recursion):
            reader = self._reader[reader.name]
        if isinstance(writer, Union):
            yield from self._of_branches(writer, reader, path)
        elif isinstance(reader, Union):
            yield from self._into_union(writer, reader, path)
        elif isinstance(writer, Record) and isinstance(reader, Record) and same_name(writer, reader):
            if (writer.name, reader.name) not in self._seen:
                self._seen.add((writer.name, reader.name))
                yield from self._of_fields(writer, reader, path)
                self._seen.discard((writer.name, reader.name))
        elif isinstance(writer, Array) and isinstance(reader, Array):
            yield from self.breaks(writer.items, reader.items, path)
        elif isinstance(writer, Map) and isinstance(reader, Map):
            yield from self.breaks(writer.values, reader.values, path)
        elif isinstance(writer, Enum) and isinstance(reader, Enum) and same_name(writer, reader):
            yield from _of_symbols(writer, reader, path)
        elif isinstance(writer, Fixed) and isinstance(reader, Fixed) and same_name(writer, reader):
            if writer.size_bytes != reader.size_bytes:
                yield _break(path, writer, reader, f"has {writer.size_bytes} bytes, wanted {reader.size_bytes}")
            else:
                yield from _of_units(writer, reader, path)
        elif isinstance(writer, Primitive) and isinstance(reader, Primitive):
            if writer.kind != reader.kind and reader.kind not in WIDENS.get(writer.kind, ()):
                yield _break(path, writer, reader, f"is {described(writer)}, which can't be read as {described(reader)}")
            else:
                yield from _of_units(writer, reader, path)
        else:
            yield _break(path, writer, reader, f"is {described(writer)}, which can't be read as {described(reader)}")

    def _of_branches(self, writer: Union, reader: AvroType, path: str) -> Iterator[Break]:
        """Each branch is a kind of value; where the others can be read, only some records break."""
        troubles = [(branch, tuple(self.breaks(branch, reader, path))) for branch in writer.branches]
        readable = any(not found for _, found in troubles)
        for branch, found in troubles:
            if found and branch.kind == "null":
                yield Break(path, _change(writer, reader), f"may be null, and {described(reader)} takes no null", readable)
            else:
                yield from (Break(each.path, each.change, each.words, each.some or readable) for each in found)

    def _into_union(self, writer: AvroType, reader: Union, path: str) -> Iterator[Break]:
        if reader.nullable is not None and writer.kind != "null":
            yield from self.breaks(writer, reader.nullable, path)
        elif all(any(True for _ in self.breaks(writer, branch, path)) for branch in reader.branches):
            yield _break(path, writer, reader, f"is {described(writer)}, which is none of {described(reader)}")

    def _of_fields(self, writer: Record, reader: Record, path: str) -> Iterator[Break]:
        for field, source in matched(writer, reader):
            where = f"{path}.{field.name}".lstrip(".")
            if source is not None:
                yield from self.breaks(source.type, field.type, where)
            elif field.default is ABSENT:
                yield Break(where, f"none -> {described(field.type)}", "is not written, and the reader has no default for it")


def matched(writer: Record, reader: Record) -> Iterator[tuple[Field, Field | None]]:
    """Each of the reader's fields with the writer's that fills it: by name, or by an alias; a field fills one other at most."""
    wanted = {each.name: each for each in reader.fields}
    renamed = {alias: each for each in reader.fields for alias in each.aliases}
    found: dict[str, Field] = {}
    for each in writer.fields:
        target = wanted.get(each.name) or renamed.get(each.name)
        if target is not None:
            found.setdefault(target.name, each)
    return ((field, found.get(field.name)) for field in reader.fields)


def _filled(writer: AvroSchema, reader: AvroSchema, wrote: AvroType, reads: AvroType, path: str) -> Iterator[Filled]:
    wrote, reads = (side.nullable if isinstance(side, Union) and side.nullable else side for side in (wrote, reads))
    if not isinstance(wrote, Record) or not isinstance(reads, Record):
        return
    for field, source in matched(wrote, reads):
        where = f"{path}.{field.name}".lstrip(".")
        if source is not None:
            yield from _filled(writer, reader, source.type, field.type, where)
        elif field.default is not ABSENT:
            yield Filled(where, field.default)


def _of_symbols(writer: Enum, reader: Enum, path: str) -> Iterator[Break]:
    unknown = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
    if unknown and reader.default is None:
        words = f"may be {', '.join(unknown)}, which the reader's enum {reader.name} does not have, nor a default"
        yield Break(path, f"+{', +'.join(unknown)}", words, len(unknown) < len(writer.symbols))


def _of_units(writer: Primitive | Fixed, reader: Primitive | Fixed, path: str) -> Iterator[Break]:
    """Numbers that would be taken for others: Avro's rules let them pass, and this reader does not."""
    if writer.logical is None or reader.logical is None:
        return
    if writer.logical != reader.logical and (writer.logical.startswith(TIMES) or reader.logical.startswith(TIMES)):
        yield _break(
            path, writer, reader, f"counts {writer.logical}, and the reader {reader.logical}: its numbers would be taken for others"
        )
    elif writer.logical == reader.logical == "decimal" and writer.scale != reader.scale:
        yield _break(path, writer, reader, f"is a decimal of scale {writer.scale}, and the reader's has scale {reader.scale}")


def _break(path: str, writer: AvroType, reader: AvroType, words: str) -> Break:
    return Break(path, _change(writer, reader), words)


def _change(writer: AvroType, reader: AvroType) -> str:
    return f"{described(writer)} -> {described(reader)}"


def same_name(writer: Record | Enum | Fixed, reader: Record | Enum | Fixed) -> bool:
    """Named types match by their names without namespace, or by an alias."""
    short = writer.name.rpartition(".")[2]
    return short == reader.name.rpartition(".")[2] or writer.name in reader.aliases or short in reader.aliases


def described(kind: AvroType) -> str:
    """A type in a few words."""
    if isinstance(kind, Union):
        if kind.nullable is not None:
            return f"{described(kind.nullable)} or null"
        return " or ".join(described(branch) for branch in kind.branches)
    if isinstance(kind, Record | Enum | Recursion):
        return f"{kind.kind if not isinstance(kind, Recursion) else 'record'} {kind.name}"
    if isinstance(kind, Fixed):
        return f"fixed {kind.name} of {kind.size_bytes} bytes"
    if isinstance(kind, Array):
        return f"array of {described(kind.items)}"
    if isinstance(kind, Map):
        return f"map of {described(kind.values)}"
    return f"{kind.kind} ({kind.logical})" if kind.logical else kind.kind
