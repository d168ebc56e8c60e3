"""Framings: what stands around a record's Avro or JSON, in its value and in its headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from schemas.avro import AvroSchema, load_schema
from schemas.errors import DefinitionError
from schemas.features import Json

Header: TypeAlias = tuple[str, bytes | None]
Headers: TypeAlias = Sequence[Header]
HeadersByRow: TypeAlias = Mapping[int, Headers]  # of the rows that have any

Word = Literal["confluent", "confluent-header", "bare", "json"]
WORDS: Final[tuple[str, ...]] = get_args(Word)

VALUE_SCHEMA_ID: Final = "__value_schema_id"  # the header in which Confluent's clients put a schema's id or GUID
ID_BYTES: Final = 5  # a zero, then the schema's id, big-endian
GUID_BYTES: Final = 17  # a one, then the schema's GUID
FINGERPRINT_BYTES: Final = 10  # C3 01, then the fingerprint, lowest byte first
SINGLE_OBJECT: Final = b"\xc3\x01"


@dataclass(frozen=True, slots=True)
class SingleObject:
    """Avro's single-object encoding: ``C3 01``, the fingerprint of the writer's schema, the Avro bytes.

    Attributes:
        writers: what producers write, besides the topic's own schema: ``.avsc`` files, relative to the pipeline file.
    """

    writers: tuple[str | AvroSchema, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.writers, str) or not all(isinstance(each, str | AvroSchema) for each in self.writers):
            raise DefinitionError(f"SingleObject: writers={self.writers!r}, wanted a tuple of .avsc files")
        object.__setattr__(self, "writers", tuple(self.writers))


@dataclass(frozen=True, slots=True)
class CloudEvents:
    """CloudEvents 1.0 in Kafka's binding: binary mode (``ce_*`` headers) and structured mode (one JSON object), told apart by record.

    Data are JSON or Avro, by their content type.

    Attributes:
        id: the field that the event's ``id`` goes to, whatever the data say there; None = to none.
        time: the field that the event's ``time`` goes to, likewise.
        avro: how Avro data are framed: ``confluent`` or ``bare``.
        data: what data are that don't say their type, and what is written: ``json`` or ``avro``.
        source: what written events say of where they come from; None = the topic's name.
        type: what written events say they are; None = the name of their schema.
    """

    id: str | None = None
    time: str | None = None
    avro: Literal["confluent", "bare"] = "confluent"
    data: Literal["json", "avro"] = "json"
    source: str | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        for name, choices in (("avro", ("confluent", "bare")), ("data", ("json", "avro"))):
            if getattr(self, name) not in choices:
                raise DefinitionError(f"CloudEvents: {name}={getattr(self, name)!r}, wanted {' or '.join(map(repr, choices))}")
        for name in ("id", "time", "source", "type"):
            if getattr(self, name) is not None and (not isinstance(getattr(self, name), str) or not getattr(self, name)):
                raise DefinitionError(f"CloudEvents: {name}={getattr(self, name)!r}, wanted text")


Framing: TypeAlias = Word | SingleObject | CloudEvents


def loaded(framing: Framing, folder: Path) -> Framing:
    """The same with the schemas of its files.

    Raises:
        SchemaError: a file is missing or broken.
    """
    if not isinstance(framing, SingleObject):
        return framing
    return replace(framing, writers=tuple(load_schema(folder / each) if isinstance(each, str) else each for each in framing.writers))


def asks_a_registry(framing: Framing) -> bool:
    """Whether its records name schemas that a registry knows."""
    return framing in ("confluent", "confluent-header") or (isinstance(framing, CloudEvents) and framing.avro == "confluent")


def describe_framing(framing: Framing) -> Json:
    """The definition, for a fingerprint: whatever changes what is read."""
    if isinstance(framing, SingleObject):
        return {"single_object": [each if isinstance(each, str) else each.fingerprint for each in framing.writers]}
    if isinstance(framing, CloudEvents):
        return {"cloud_events": {"id": framing.id, "time": framing.time, "avro": framing.avro, "data": framing.data}}
    return framing


def framing_words(framing: Framing) -> str:
    """What is read, for people."""
    if isinstance(framing, SingleObject):
        more = len(framing.writers)
        return "single-object Avro" + (f", {more} more writer{'s' if more > 1 else ''}" if more else "")
    if isinstance(framing, CloudEvents):
        taken = [f"{name} as {field}" for name, field in (("id", framing.id), ("time", framing.time)) if field]
        return f"CloudEvents of JSON or {framing.avro} Avro" + (f", {' and '.join(taken)}" if taken else "")
    return framing


def header(headers: Headers, name: str) -> bytes | None:
    """The first header of a name; None if there is none, or it is null."""
    for each, value in headers:
        if each == name:
            return value
    return None


def without(headers: Headers, names: Iterable[str]) -> tuple[Header, ...]:
    """The headers but for those of some names."""
    gone = frozenset(names)
    return tuple(each for each in headers if each[0] not in gone)
