"""Avro schemas, read once: a tree of types with every name resolved, the canonical form and a fingerprint.

The door to fastavro: it parses and canonicalises schemas, and reads or writes the values that the codec hands it.

A schema is data of whoever may register one. So its text, its nesting and what it comes to are limited: a name used twice in a record used
twice in a record, and so on, is short to write and endless to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import fastavro
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType, parse_schema, to_parsing_canonical_form
from fastavro.schema import fingerprint as fingerprint_of

from schemas.errors import SchemaError
from schemas.features import Json, fingerprint

MOST_CHARACTERS = 1 << 20  # of a schema's text
MOST_TYPES = 20_000  # of a schema, each named type counted wherever it is used
DEEPEST = 100  # types inside types

# All that fastavro is known to raise at bytes it can't read or resolve; it has no class of its own for them.
_FASTAVRO_REFUSES = (SchemaResolutionError, EOFError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()  # a field without a default: None is one


@dataclass(frozen=True, slots=True)
class Primitive:
    """null, boolean, int, long, float, double, string or bytes; maybe with a logical type."""

    kind: str
    logical: str | None = None
    precision: int = 0  # of a decimal
    scale: int = 0  # of a decimal

    @property
    def name(self) -> str:
        return self.kind


@dataclass(frozen=True, slots=True)
class Fixed:
    """A number of bytes that is always the same."""

    name: str
    size_bytes: int
    aliases: tuple[str, ...] = ()
    logical: str | None = None
    precision: int = 0
    scale: int = 0
    kind: str = field(default="fixed", init=False)


@dataclass(frozen=True, slots=True)
class Enum:
    """One of some symbols."""

    name: str
    symbols: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    default: str | None = None
    kind: str = field(default="enum", init=False)


@dataclass(frozen=True, slots=True)
class Array:
    """Any number of values of one type."""

    items: AvroType
    kind: str = field(default="array", init=False)


@dataclass(frozen=True, slots=True)
class Map:
    """Any number of values of one type, each under a string."""

    values: AvroType
    kind: str = field(default="map", init=False)


@dataclass(frozen=True, slots=True)
class Union:
    """A value of one of several types."""

    branches: tuple[AvroType, ...]
    kind: str = field(default="union", init=False)

    @property
    def nullable(self) -> AvroType | None:
        """The other type, if this is null and one type."""
        others = [branch for branch in self.branches if branch.kind != "null"]
        return others[0] if len(others) == 1 and len(self.branches) == 2 else None


@dataclass(frozen=True, slots=True)
class Field:
    """A named value of a record. `default` is as JSON has it, or `ABSENT`."""

    name: str
    type: AvroType
    default: Any = field(default=ABSENT, hash=False)
    aliases: tuple[str, ...] = ()
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """Several named values."""

    name: str
    fields: tuple[Field, ...]
    aliases: tuple[str, ...] = ()
    kind: str = field(default="record", init=False)


@dataclass(frozen=True, slots=True)
class Recursion:
    """A record's name inside its own definition: look it up in `AvroSchema.named`."""

    name: str
    kind: str = field(default="recursion", init=False)


AvroType: TypeAlias = "Primitive | Fixed | Enum | Array | Map | Union | Record | Recursion"


@dataclass(frozen=True, slots=True)
class _Tree:
    root: AvroType
    named: Mapping[str, AvroType]


@dataclass(frozen=True)
class AvroSchema:
    """A parsed schema. Two are equal if their definitions are, documentation included.

    Attributes:
        definition: the schema as its author wrote it, as JSON.
    """

    definition: Json = field(hash=False)

    @classmethod
    def parse(cls, definition: str | Json, source: str = "schema") -> AvroSchema:
        """Read a schema from JSON text or from what JSON text means.

        Raises:
            SchemaError: it is no schema, or beyond the limits; the message names `source`.
        """
        if isinstance(definition, str) and len(definition) > MOST_CHARACTERS:
            raise SchemaError(f"{source} has {len(definition)} characters, wanted at most {MOST_CHARACTERS}")
        try:
            schema = cls(json.loads(definition) if isinstance(definition, str) and definition.lstrip()[:1] in '{["' else definition)
            _measure(schema.root, source)  # what is broken is found now
        except json.JSONDecodeError as error:
            raise SchemaError(f"{source} is not JSON: {error}") from error
        except (SchemaParseException, UnknownType, KeyError, TypeError, ValueError, AttributeError) as error:
            raise SchemaError(f"{source} is not an Avro schema: {type(error).__name__}: {error}") from error
        except RecursionError as error:
            raise SchemaError(f"{source} is nested too deep, wanted at most {DEEPEST} types inside each other") from error
        return schema

    @cached_property
    def parsed(self) -> Any:
        """What fastavro makes of it."""
        return parse_schema(json.loads(json.dumps(self.definition)), _force=True)

    @cached_property
    def canonical(self) -> str:
        """Avro's parsing canonical form: two schemas with one form read the same bytes."""
        return to_parsing_canonical_form(self.parsed)

    @cached_property
    def rabin(self) -> bytes:
        """Avro's 64-bit fingerprint of the canonical form, lowest byte first, as single-object encoding has it."""
        return bytes.fromhex(fingerprint_of(self.canonical, "CRC-64-AVRO"))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all that matters to a reader: names, types, defaults, aliases and logical types, but no docs."""
        return fingerprint(_spelled_out(self.root, set()))

    @cached_property
    def _tree(self) -> _Tree:
        named: dict[str, AvroType] = {}
        return _Tree(_read(self.parsed, named), named)

    @property
    def root(self) -> AvroType:
        """The type of the whole value."""
        return self._tree.root

    @property
    def named(self) -> Mapping[str, AvroType]:
        """Every record, enum and fixed by its full name."""
        return self._tree.named

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of the record this schema describes.

        Raises:
            SchemaError: it describes no record.
        """
        if not isinstance(self.root, Record):
            raise SchemaError(f"the schema describes a value of type {self.root.kind}, wanted a record")
        return self.root.fields

    def __str__(self) -> str:
        return self.root.name if isinstance(self.root, Primitive | Fixed | Enum | Record | Recursion) else self.root.kind


def load_schema(path: Path | str) -> AvroSchema:
    """Read an ``.avsc`` file.

    Raises:
        SchemaError: the file is missing, not JSON, or not a schema; says which and why.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"schema {path} can't be read: {error}") from error
    return AvroSchema.parse(text.strip(), f"schema {path}")


def to_json(kind: AvroType, named: Mapping[str, AvroType]) -> Any:
    """A type as a schema of its own, with every name it uses defined inside it."""
    return _spelled_out(kind, set(), named)


def parse_type(kind: AvroType, named: Mapping[str, AvroType]) -> Any:
    """A type as fastavro wants it."""
    return parse_schema(to_json(kind, named), _force=True)


def read_value(data: bytes, writer: Any, reader: Any = None) -> Any:
    """What fastavro reads from bytes; the schemas are parsed ones.

    Raises:
        ValueError: it refuses them, in its words.
    """
    source = BytesIO(data)
    try:
        value = fastavro.schemaless_reader(source, writer, reader)
    except _FASTAVRO_REFUSES as error:
        raise ValueError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error
    if source.tell() != len(data):
        raise ValueError(f"{len(data) - source.tell()} bytes are left over")
    return value


def write_value(value: Any, schema: Any) -> bytes:
    """The bytes fastavro writes for a value."""
    target = BytesIO()
    fastavro.schemaless_writer(target, schema, value)
    return target.getvalue()


def _read(node: Any, named: dict[str, AvroType]) -> AvroType:
    if isinstance(node, str):
        return named[node] if node in named else Primitive(node)
    if isinstance(node, list):
        return Union(tuple(_read(branch, named) for branch in node))
    kind = node["type"]
    if isinstance(kind, dict | list):
        return _read(kind, named)
    if kind in ("record", "error"):
        return _read_record(node, named)
    aliases = tuple(node.get("aliases", ()))
    logical = {"logical": node.get("logicalType"), "precision": node.get("precision", 0), "scale": node.get("scale", 0)}
    if kind == "fixed":
        named[node["name"]] = fixed = Fixed(node["name"], node["size"], aliases, **logical)
        return fixed
    if kind == "enum":
        named[node["name"]] = enum = Enum(node["name"], tuple(node["symbols"]), aliases, node.get("default"))
        return enum
    if kind == "array":
        return Array(_read(node["items"], named))
    if kind == "map":
        return Map(_read(node["values"], named))
    return named[kind] if kind in named else Primitive(kind, **logical)


def _read_record(node: Any, named: dict[str, AvroType]) -> Record:
    name = node["name"]
    named[name] = Recursion(name)
    fields = tuple(
        Field(each["name"], _read(each["type"], named), each.get("default", ABSENT), tuple(each.get("aliases", ())), each.get("doc", ""))
        for each in node["fields"]
    )
    named[name] = record = Record(name, fields, tuple(node.get("aliases", ())))
    return record


def _measure(root: AvroType, source: str) -> None:
    """Refuse a tree that is too deep, or too large once every name is spelled out."""
    sizes: dict[int, tuple[int, int]] = {}  # by identity, of records: a named one stands in the tree wherever it is used

    def measured(node: AvroType, above: int) -> tuple[int, int]:
        if above > DEEPEST:
            raise SchemaError(f"{source} is nested too deep, wanted at most {DEEPEST} types inside each other")
        if id(node) not in sizes:
            inside = [measured(each, above + 1) for each in _inside(node)]
            sizes[id(node)] = 1 + sum(size for size, _ in inside), 1 + max((depth for _, depth in inside), default=0)
        size, depth = sizes[id(node)]
        if size > MOST_TYPES:
            raise SchemaError(f"{source} comes to more than {MOST_TYPES} types with every name spelled out")
        if above + depth > DEEPEST:
            raise SchemaError(f"{source} is nested too deep, wanted at most {DEEPEST} types inside each other")
        return size, depth

    measured(root, 0)


def _inside(node: AvroType) -> tuple[AvroType, ...]:
    if isinstance(node, Record):
        return tuple(each.type for each in node.fields)
    if isinstance(node, Union):
        return node.branches
    return (node.items,) if isinstance(node, Array) else (node.values,) if isinstance(node, Map) else ()


def _spelled_out(node: AvroType, seen: set[str], named: Mapping[str, AvroType] | None = None) -> Any:
    if isinstance(node, Recursion) and node.name not in seen and named is not None:
        node = named[node.name]
    if isinstance(node, Union):
        return [_spelled_out(branch, seen, named) for branch in node.branches]
    if isinstance(node, Array):
        return {"type": "array", "items": _spelled_out(node.items, seen, named)}
    if isinstance(node, Map):
        return {"type": "map", "values": _spelled_out(node.values, seen, named)}
    if isinstance(node, Primitive):
        return {"type": node.kind, **_logical(node)} if node.logical else node.kind
    if node.name in seen or isinstance(node, Recursion):
        return node.name
    seen.add(node.name)
    head = {"type": node.kind, "name": node.name, **({"aliases": list(node.aliases)} if node.aliases else {})}
    if isinstance(node, Fixed):
        return {**head, "size": node.size_bytes, **_logical(node)}
    if isinstance(node, Enum):
        return {**head, "symbols": list(node.symbols), **({"default": node.default} if node.default is not None else {})}
    return {**head, "fields": [_spelled_out_field(each, seen, named) for each in node.fields]}


def _spelled_out_field(node: Field, seen: set[str], named: Mapping[str, AvroType] | None) -> Any:
    default = {} if node.default is ABSENT else {"default": node.default}
    aliases = {"aliases": list(node.aliases)} if node.aliases else {}
    return {"name": node.name, "type": _spelled_out(node.type, seen, named), **default, **aliases}


def _logical(node: Primitive | Fixed) -> dict[str, Any]:
    if node.logical is None:
        return {}
    digits = {"precision": node.precision, "scale": node.scale} if node.logical == "decimal" else {}
    return {"logicalType": node.logical, **digits}
