"""A schema is known by its id although a newer one was registered after it: producers change before readers do."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from schemas.avro import AvroSchema
from schemas.registry import Registry, open_registry, registered_id


def schema(*names: str) -> AvroSchema:
    return AvroSchema.parse({"type": "record", "name": "R", "fields": [{"name": name, "type": "long", "default": 0} for name in names]})


@pytest.mark.parametrize("place", ["folder", "mock"])
def test_a_schema_keeps_its_id_when_a_newer_one_is_registered(tmp_path: Path, place: str) -> None:
    registry: Registry = open_registry(tmp_path if place == "folder" else f"mock://{uuid.uuid4().hex}")
    assert registered_id(registry, "r-value", schema("a")) == (None, "is not registered")
    first = registry.register("r-value", schema("a"))
    assert registered_id(registry, "r-value", schema("a")) == (first, "")
    second = registry.register("r-value", schema("a", "b"))
    assert registered_id(registry, "r-value", schema("a", "b")) == (second, "")
    assert registered_id(registry, "r-value", schema("a")) == (first, "")
    assert registered_id(registry, "r-value", schema("c")) == (None, f"is registered as id {second} with other fields")
