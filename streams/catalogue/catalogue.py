"""The catalogue: every topic of some pipelines, told by their definitions: what lies in it, who writes it, who reads it.

It works offline: pipeline files, their schemas and constraints are enough. What a registry and a broker have is added where they are asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.avro import AvroSchema
from schemas.constraints import Constraints
from schemas.features import Json
from schemas.framing import asks_a_registry, framing_words
from streams.catalogue.fields import Fields, event_fields, fields_of, label_fields, merge
from streams.catalogue.live import look, partitions_of
from streams.catalogue.versions import Versions
from streams.definition.bound import Bound
from streams.definition.inlet import Inlet
from streams.definition.pipeline import Topic
from streams.dlq.receipts import audit_topic
from streams.dlq.returning import group_of
from streams.hop import HopSchema
from streams.planning.stage import Stage, stages
from streams.scored_event import output_schema
from streams.settings import Settings

FORMAT = 1


@dataclass
class Entry:
    """One topic, as far as it is known.

    Attributes:
        topic: its name.
        roles: what it is to whom: input, labels, internal, output, dead letters, receipts.
        written_by, read_by: stages and commands of the pipelines here; of whom nothing is known here, nothing is said.
        schemas: one for each pipeline that says what its records are.
        constraints: likewise.
        fields: of its records, by dotted path.
        live: what the broker has of it; None = not asked.
    """

    topic: str
    roles: list[str] = field(default_factory=list)
    written_by: list[Json] = field(default_factory=list)
    read_by: list[Json] = field(default_factory=list)
    schemas: list[Json] = field(default_factory=list)
    constraints: list[Json] = field(default_factory=list)
    fields: Fields = field(default_factory=dict)
    live: Json = None

    def told(self) -> dict[str, Json]:
        """As facts."""
        fields: list[Json] = list(self.fields.values())
        return {**vars(self), "fields": fields}


class Catalogue:
    """Gathers topics from pipelines.

    Args:
        settings: names of groups, and where the registry is.
        partitions: of inputs that are on the broker.
        otherwise: of those that are not and declare none; None = one.
    """

    def __init__(self, settings: Settings, partitions: Mapping[str, int], otherwise: int | None) -> None:
        self.entries: dict[str, Entry] = {}
        self.pipelines: list[Json] = []
        self._settings, self._partitions, self._otherwise = settings, partitions, otherwise
        self._versions = Versions(settings.registry)

    def add(self, file: Path, bound: Bound) -> None:
        """Take in a pipeline.

        Raises:
            DefinitionError: its declared order of stages leaves an entity out, or a function fails on a batch without rows.
        """
        count = self._partitions.get(bound.input.name) or bound.input.partitions or self._otherwise or 1
        planned = stages(bound, count)
        kafka = self._settings.kafka
        self.pipelines.append(
            {
                "pipeline": bound.name,
                "file": str(file),
                "fingerprint": bound.fingerprint,
                "feature_fingerprint": bound.features.fingerprint,
                "model": bound.model.name,
                "planned_for_partitions": count,
                "stages": [{"stage": each.name, "reads": each.input.name, "writes": [to.name for to in each.outputs]} for each in planned],
            }
        )
        self._entry(bound.input.name, "input")
        for stage in planned:
            role = {"events": "input", "labels": "labels", "hop": "internal"}[stage.kind]
            reader: Json = {"pipeline": bound.name, "stage": stage.name, "group": stage.group(kafka)}
            self._entry(stage.input.name, role).read_by.append(reader)
            for topic in stage.outputs:
                written = self._entry(topic.name, "output" if topic == bound.output else "internal")
                written.written_by.append({"pipeline": bound.name, "stage": stage.name})
            for letters in _letters_of(bound, stage):
                self._entry(letters, "dead letters").written_by.append({"pipeline": bound.name, "stage": stage.name})
        self._describe(bound, planned)
        for inlet in [Inlet.of(bound, labels=False)] + ([Inlet.of(bound, labels=True)] if bound.labels is not None else []):
            command: dict[str, Json] = {"pipeline": bound.name, "command": f"dlq replay{' --labels' if inlet.is_labels else ''}"}
            self._entry(inlet.topic.dead_letters, "dead letters").read_by.append({**command, "group": group_of(inlet, kafka)})
            receipts = self._entry(audit_topic(inlet), "receipts")
            for parties in (receipts.written_by, receipts.read_by, self._entry(inlet.topic.name, "").written_by):
                parties.append(dict(command))

    def _entry(self, topic: str, role: str) -> Entry:
        entry = self.entries.setdefault(topic, Entry(topic))
        if role and role not in entry.roles:
            entry.roles.append(role)
        return entry

    def _describe(self, bound: Bound, planned: Sequence[Stage]) -> None:
        """What lies in each topic."""
        self._schema(bound, bound.input, bound.input.schema, bound.written_schema, event_fields(bound), bound.constraints)
        if bound.labels is not None:
            labels = bound.labels
            fields = label_fields(bound, labels)
            self._schema(bound, labels.topic, labels.topic.schema, labels.written_schema, fields, labels.constraints)
        scored = output_schema(bound)
        self._schema(bound, bound.output, None, scored, fields_of(scored))
        for stage in planned:
            if stage.kind == "hop":
                hop = HopSchema.of(bound, stage).schema
                self._schema(bound, stage.input, None, hop, fields_of(hop))

    def _schema(
        self, bound: Bound, topic: Topic, file: str | None, schema: AvroSchema, fields: Fields, constraints: Constraints | None = None
    ) -> None:
        entry = self._entry(topic.name, "")
        told: dict[str, Json] = {
            "pipeline": bound.name,
            "record": str(schema),
            "file": file,
            "fingerprint": schema.fingerprint,
            "framing": framing_words(topic.framing),
            "key": topic.key,
            "event_id": topic.event_id,
            "event_time": topic.event_time,
            "versions": self._versions.of(bound, topic.subject, schema) if asks_a_registry(topic.framing) else None,
        }
        entry.schemas.append(told)
        if constraints is not None:
            entry.constraints.append({"pipeline": bound.name, **constraints.describe()})
        merge(entry.fields, fields)


def catalogue(
    pipelines: Sequence[tuple[Path, Bound]], settings: Settings, partitions: int | None = None, live: bool = False
) -> dict[str, Json]:
    """Every topic of some pipelines.

    Args:
        pipelines: each with its file.
        settings: names of groups, and where registry and broker are.
        partitions: of inputs that neither broker nor definition says anything of.
        live: ask the broker as well.

    Raises:
        DefinitionError: a pipeline contradicts itself.
        KafkaDown: the broker was to be asked, and does not answer.
    """
    counts = partitions_of(settings, [bound.input.name for _, bound in pipelines]) if live else {}
    made = Catalogue(settings, counts, partitions)
    for file, bound in pipelines:
        made.add(file, bound)
    if live:
        for name, found in look(settings, made.entries).items():
            made.entries[name].live = found
    return {
        "format": FORMAT,
        "broker_asked": live,
        "field": None,
        "pipelines": made.pipelines,
        "topics": [entry.told() for entry in made.entries.values()],
    }


def of_field(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The same, narrowed to topics that have a field of this name (or one inside it), and to that field."""

    def kept(topic: Mapping[str, Any]) -> list[Any]:
        return [each for each in topic["fields"] if each["name"] == name or each["name"].startswith(f"{name}.")]

    return {**facts, "field": name, "topics": [{**topic, "fields": kept(topic)} for topic in facts["topics"] if kept(topic)]}


def _letters_of(bound: Bound, stage: Stage) -> Iterator[str]:
    """The topics that a stage writes dead letters to."""
    yield stage.input.dead_letters if stage.kind == "labels" else bound.input.dead_letters
    if stage.counts_labels and bound.labels is not None:
        yield bound.labels.topic.dead_letters
