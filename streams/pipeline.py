"""The pipeline file's objects: what is read, checked, derived, remembered, scored and written.

They are frozen data. Making them checks what can be checked without looking at anything else; `streams.bound.bind` then reads the
schema and holds them against it. Nothing here opens a file or a connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from schemas.errors import DefinitionError
from schemas.rules import Rule
from transforms.derive import Derived
from transforms.entity import Entity

Framing = Literal["confluent", "bare"]

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,245}")  # the broker takes 249; `.dlq` needs four
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")  # it becomes part of an Avro name


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, and how its records are read.

    Attributes:
        name: on the broker.
        schema: path of the Avro schema of its values, relative to the pipeline file. Needed for an input.
        key: the field whose text (UTF-8) is the record's key. Needed for an input.
        event_time: the field that says when it happened, a long with logical type timestamp-millis or -micros. Needed for an input.
        event_id: the field that names an event. Needed for an input.
        framing: ``confluent`` = a magic byte and the schema's id before the Avro bytes; ``bare`` = nothing before them.
    """

    name: str
    schema: str | None = None
    key: str | None = None
    event_time: str | None = None
    event_id: str | None = None
    framing: Framing = "confluent"

    def __post_init__(self) -> None:
        if not _is_like(_TOPIC_NAME, self.name) or self.name in (".", ".."):
            raise DefinitionError(f"{self.name!r} is no name for a topic: wanted 1 to 245 of a-z, A-Z, 0-9, '.', '_' and '-'")
        if self.framing not in ("confluent", "bare"):
            raise DefinitionError(f"topic {self.name!r}: framing {self.framing!r}, wanted 'confluent' or 'bare'")

    @property
    def dead_letters(self) -> str:
        """The topic that its refused records go to."""
        return f"{self.name}.dlq"

    @property
    def subject(self) -> str:
        """What a schema registry calls the schema of its values."""
        return f"{self.name}-value"


@dataclass(frozen=True, slots=True)
class Model:
    """A model, and the columns it is given.

    Attributes:
        name: what scored events call it.
        path: of the ONNX file, relative to the pipeline file.
        inputs: columns of the event, derived columns and window features, in the order of the model's row.
        threshold: scores at or above it are positive decisions; None = the one in the model's card.
    """

    name: str
    path: str
    inputs: tuple[str, ...]
    threshold: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", _strings(f"model {self.name!r}: inputs", self.inputs))
        _check_name("model", self.name)
        if not self.inputs:
            raise DefinitionError(f"model {self.name!r} has no inputs")
        twice = repeated(self.inputs)
        if twice:
            raise DefinitionError(f"model {self.name!r}: input {twice!r} stands twice")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise DefinitionError(f"model {self.name!r}: threshold {self.threshold}, wanted 0 to 1")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One flow of events: from an input topic, through rules, derived columns, windows and a model, to an output topic.

    Attributes:
        name: also the consumer group's, unless the settings say otherwise.
        input: where events come from.
        rules: what an event must be, beyond its schema; the first one broken is the reason in its dead letter.
        derived: new columns, each of which may use those before it.
        entities: whose past is looked at.
        model: what scores.
        output: where scored events go; its schema is derived.
        include_features: whether scored events carry the numbers the model saw.
    """

    name: str
    _: KW_ONLY
    input: Topic
    rules: tuple[Rule, ...] = ()
    derived: tuple[Derived, ...] = ()
    entities: tuple[Entity, ...] = ()
    model: Model
    output: Topic
    include_features: bool = True

    def __post_init__(self) -> None:
        _check_name("pipeline", self.name)
        for attribute, kind in (("rules", Rule), ("derived", Derived), ("entities", Entity)):
            object.__setattr__(self, attribute, self._all(attribute, kind, getattr(self, attribute)))
        for topic in ("input", "output"):
            self._expect(topic, Topic, getattr(self, topic))
        self._expect("model", Model, self.model)
        self._check_topics()
        for what, names in (
            ("rules", [rule.name for rule in self.rules]),
            ("derived columns", [derived.name for derived in self.derived]),
            ("entities", [entity.name for entity in self.entities]),
            ("window features", [name for entity in self.entities for name in entity.feature_names]),
        ):
            twice = repeated(names)
            if twice:
                raise DefinitionError(f"pipeline {self.name!r}: two {what} are named {twice!r}")

    def _check_topics(self) -> None:
        for needed in ("schema", "key", "event_time", "event_id"):
            if not getattr(self.input, needed):
                raise DefinitionError(f"pipeline {self.name!r}: its input topic {self.input.name!r} needs {needed}=...")
        if self.output.name in (self.input.name, self.input.dead_letters):
            raise DefinitionError(f"pipeline {self.name!r}: {self.output.name!r} can't be its output as well")
        if self.output.schema is not None:
            raise DefinitionError(f"pipeline {self.name!r}: the schema of its output {self.output.name!r} is derived; leave schema out")

    def _expect(self, attribute: str, kind: type, value: object) -> None:
        if not isinstance(value, kind):
            raise DefinitionError(f"pipeline {self.name!r}: {attribute} should be a {kind.__name__}, not {value!r}")

    def _all(self, attribute: str, kind: type, values: Iterable[object]) -> tuple[object, ...]:
        if isinstance(values, kind):
            raise DefinitionError(
                f"pipeline {self.name!r}: {attribute} should be a tuple of {kind.__name__}; write ({attribute[:-1]},) with its comma"
            )
        if not isinstance(values, list | tuple):
            raise DefinitionError(f"pipeline {self.name!r}: {attribute} should be a tuple of {kind.__name__}, not {values!r}")
        for value in values:
            self._expect(f"each of {attribute}", kind, value)
        return tuple(values)


def repeated(names: Iterable[str]) -> str | None:
    """The first name that stands twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _check_name(what: str, name: object) -> None:
    if not _is_like(_NAME, name):
        raise DefinitionError(f"{name!r} is no name for a {what}: wanted a letter, then up to 99 of a-z, A-Z, 0-9 and '_'")


def _is_like(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.fullmatch(name) is not None


def _strings(what: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise DefinitionError(f"{what} should be a tuple of names, not {values!r}")
    return tuple(values)
