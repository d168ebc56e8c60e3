"""Bodies: how the records of a topic are undressed, by the framing that it declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from schemas.avro import ABSENT, AvroSchema, AvroType, Field, Primitive, Record, Union, to_json
from schemas.cloud_event_records import CloudEventRecords
from schemas.errors import SchemaError
from schemas.framing import WORDS, CloudEvents, Framing, SingleObject
from schemas.single_object import SingleObjects
from schemas.undress import JsonRecords, Undress, as_it_is, confluent, confluent_with_guids

_UNITS_PER_MS = {"timestamp-millis": 1, "timestamp-micros": 1_000}


@dataclass(frozen=True, slots=True)
class Bodies:
    """How records are undressed.

    Attributes:
        reader: of their bodies: the topic's schema, with defaults for fields that are told outside of them.
        undress: takes a batch out of its framing.
        prefixed: whether a body begins with a schema's id where `Undressed` gives no numbers; else it is the reader's own.
        schemas: those known from the start, by number.
    """

    reader: AvroSchema
    undress: Undress
    prefixed: bool = False
    schemas: Mapping[int, AvroSchema] = field(default_factory=dict)


def bodies(reader: AvroSchema, framing: Framing) -> Bodies:
    """How records of a schema are undressed.

    Raises:
        SchemaError: the framing is none, or goes with no such schema.
    """
    if isinstance(framing, SingleObject):
        missing = [each for each in framing.writers if isinstance(each, str)]
        assert not missing, "loaded when the pipeline was bound"
        objects = SingleObjects(reader, [each for each in framing.writers if isinstance(each, AvroSchema)])
        return Bodies(reader, objects, schemas=objects.schemas)
    if isinstance(framing, CloudEvents):
        return _of_cloud_events(reader, framing)
    if framing not in WORDS:
        raise SchemaError(f"framing {framing!r}, wanted one of {', '.join(WORDS)}, SingleObject(...) or CloudEvents(...)")
    if framing == "json":
        return Bodies(reader, JsonRecords(reader))
    if framing == "bare":
        return Bodies(reader, as_it_is)
    return Bodies(reader, confluent_with_guids if framing == "confluent-header" else confluent, prefixed=True)


def _of_cloud_events(reader: AvroSchema, framing: CloudEvents) -> Bodies:
    given = {each.name: each for each in reader.fields}
    units_per_ms = 1
    nullable: set[str] = set()
    for role, name in (("id", framing.id), ("time", framing.time)):
        if name is None:
            continue
        if name not in given:
            raise SchemaError(f"CloudEvents: {role}={name!r} is no field of {reader}; there are {', '.join(given)}")
        kind = _inner(given[name].type)
        logical = kind.logical if isinstance(kind, Primitive) else None
        if role == "id" and kind != Primitive("string"):
            raise SchemaError(f"CloudEvents: id={name!r} is of type {kind.kind}, wanted string")
        if role == "time" and (kind.kind != "long" or logical not in _UNITS_PER_MS):
            wanted = f"a long with logical type {' or '.join(_UNITS_PER_MS)}"
            raise SchemaError(f"CloudEvents: time={name!r} is of type {logical or kind.kind}, wanted {wanted}")
        units_per_ms = _UNITS_PER_MS.get(logical or "", units_per_ms)
        if isinstance(given[name].type, Union):
            nullable.add(name)
    inside = _with_defaults(reader, {name: "" if name == framing.id else 0 for name in (framing.id, framing.time) if name is not None})
    return Bodies(inside, CloudEventRecords(inside, framing, units_per_ms, frozenset(nullable)))


def _inner(kind: AvroType) -> AvroType:
    return kind.nullable or kind if isinstance(kind, Union) else kind


def _with_defaults(reader: AvroSchema, defaults: Mapping[str, str | int]) -> AvroSchema:
    """The schema with defaults for these of its fields that have none, since data need not say them."""
    root = reader.root
    assert isinstance(root, Record)
    fields = tuple(_with_default(each, defaults) for each in root.fields)
    return AvroSchema.parse(to_json(Record(root.name, fields, root.aliases), reader.named), f"schema {reader}")


def _with_default(each: Field, defaults: Mapping[str, str | int]) -> Field:
    if each.name not in defaults or each.default is not ABSENT:
        return each
    begins_with_null = isinstance(each.type, Union) and each.type.branches[0].kind == "null"
    return replace(each, default=None if begins_with_null else defaults[each.name])
