"""The writers' schemas that a decoder has met, by id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from schemas.avro import AvroSchema, AvroType
from schemas.columns import Ints
from schemas.decode_kernel import UNREADABLE

_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Writers:
    """Which ids are known, and what became of their schemas."""

    ids: Ints = field(default_factory=_NONE.copy)
    entries: Ints = field(default_factory=_NONE.copy)  # where the programs start, or UNREADABLE
    schemas: Mapping[int, AvroSchema] = field(default_factory=dict)
    opaque: Mapping[int, Mapping[int, tuple[AvroType, Mapping[str, AvroType]]]] = field(default_factory=dict)  # by id, by slot
    troubles: Mapping[int, str] = field(default_factory=dict)  # why a schema can't be read

    def add(self, schema_id: int, entry: int, writer: AvroSchema, opaque: Mapping[int, tuple[AvroType, Mapping[str, AvroType]]]) -> Writers:
        """With one more schema."""
        more = self._with(schema_id, entry)
        return replace(more, schemas={**self.schemas, schema_id: writer}, opaque={**self.opaque, schema_id: opaque})

    def refuse(self, schema_id: int, trouble: str) -> Writers:
        """With one more schema that can't be read."""
        return replace(self._with(schema_id, UNREADABLE), troubles={**self.troubles, schema_id: trouble})

    def _with(self, schema_id: int, entry: int) -> Writers:
        return replace(self, ids=np.append(self.ids, schema_id), entries=np.append(self.entries, entry))
