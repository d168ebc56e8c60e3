"""Wire: how events are written to a topic, with what its registry calls their schema."""

from __future__ import annotations

from pathlib import Path

from schemas.avro import AvroSchema
from schemas.dress import Dress, dress
from schemas.errors import SchemaError
from schemas.framing import CloudEvents
from schemas.registry import ConfluentRegistry, FileRegistry, open_registry, registered_id
from streams.definition.event_columns import event_columns
from streams.definition.pipeline import Topic
from streams.settings import Settings

_UNITS_PER_MS = {"timestamp-millis": 1, "timestamp-micros": 1_000}


def wire(topic: Topic, schema: AvroSchema, folder: Path, settings: Settings, way_out: str) -> Dress:
    """How Avro bytes of a topic's schema become its records.

    Args:
        topic: with its framing, whose files are loaded.
        schema: as it is registered.
        folder: of schemas, where the settings name no registry.
        settings: where the registry is.
        way_out: what registers the schema.

    Raises:
        SchemaError: the schema is not the registered one.
        RetryLater: the registry does not answer.
    """
    framing = topic.framing
    schema_id = guid = None
    if framing in ("confluent", "confluent-header") or (
        isinstance(framing, CloudEvents) and framing.data == "avro" and framing.avro == "confluent"
    ):
        registry = open_registry(settings.registry.place(folder), settings.registry.client_keys)
        schema_id, state = registered_id(registry, topic.subject, schema)
        if schema_id is None:
            raise SchemaError(f"the schema of {topic.name} {state}; {way_out}")
        if framing == "confluent-header":
            assert isinstance(registry, FileRegistry | ConfluentRegistry)
            guid = registry.guid_of(topic.subject, schema)
    time = event_columns(schema).get(topic.event_time or "")
    event_time = None if time is None else (time.name, _UNITS_PER_MS.get(time.logical or "", 1))
    return dress(schema, framing, schema_id, guid, topic.name, topic.event_id or topic.key or "", event_time)
