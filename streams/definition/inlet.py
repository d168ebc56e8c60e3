"""An inlet: a topic of others that a pipeline reads, its events' or its labels', and what records have to be there."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.avro import AvroSchema
from schemas.errors import DefinitionError
from streams.definition.bound import Bound, BoundLabels
from streams.definition.pipeline import Topic


@dataclass(frozen=True, slots=True)
class Inlet:
    """One of the topics by which records enter a pipeline.

    Attributes:
        bound: the pipeline.
        topic: where they come from.
        read: what they are held against.
    """

    bound: Bound
    topic: Topic
    read: Bound | BoundLabels

    @classmethod
    def of(cls, bound: Bound, labels: bool) -> Inlet:
        """That of a pipeline's events, or of its labels.

        Raises:
            DefinitionError: the pipeline reads no labels.
        """
        if not labels:
            return cls(bound, bound.input, bound)
        if bound.labels is None:
            raise DefinitionError(f"pipeline {bound.name!r} has no labels")
        return cls(bound, bound.labels.topic, bound.labels)

    @property
    def is_labels(self) -> bool:
        """Whether its records are labels."""
        return isinstance(self.read, BoundLabels)

    @property
    def words(self) -> str:
        """What messages call its records."""
        return f"the labels of pipeline {self.bound.name}" if self.is_labels else f"pipeline {self.bound.name}"

    @property
    def schema(self) -> AvroSchema:
        """As the pipeline reads it."""
        return self.read.schema

    @property
    def written_schema(self) -> AvroSchema:
        """As producers write it and registries know it."""
        return self.read.written_schema
