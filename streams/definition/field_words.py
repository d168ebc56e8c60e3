"""What a schema says of its fields: their words, and who answers for them (an attribute ``owner`` of the field, or its record)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.avro import AvroSchema, Record, Union
from schemas.features import Json


class FieldWords:
    """The words and owners of a schema's fields, by dotted path."""

    def __init__(self, schema: AvroSchema) -> None:
        definition = schema.definition
        self._owner = definition.get("owner") if isinstance(definition, Mapping) else None
        self._docs: dict[str, str] = {}
        self._owners: dict[str, Json] = {}
        self._learn(definition, schema.root, "")

    def doc(self, path: str | None) -> str:
        """A field's words; empty if it has none."""
        return self._docs.get(path or "", "")

    def owner(self, path: str | None) -> Json:
        """Who answers for a field: its own owner, or that of the record it is in."""
        return self._owners.get(path or "", self._owner)

    def _learn(self, definition: Any, kind: object, above: str) -> None:
        if isinstance(kind, Union):
            kind = kind.nullable
        if not isinstance(kind, Record):
            return
        if isinstance(definition, list):
            definition = next((each for each in definition if isinstance(each, Mapping)), {})
        written = {each["name"]: each for each in definition.get("fields", ())} if isinstance(definition, Mapping) else {}
        for field in kind.fields:
            path = f"{above}{field.name}"
            self._docs[path] = field.doc
            owner = written.get(field.name, {}).get("owner", self._owners.get(above.rstrip("."), self._owner))
            if owner is not None:
                self._owners[path] = owner
            self._learn(written.get(field.name, {}).get("type"), field.type, f"{path}.")
