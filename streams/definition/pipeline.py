"""The pipeline file's objects: what is read, checked, derived, remembered, scored and written.

They are frozen data. Making them checks what can be checked without looking at anything else; `streams.definition.bound.bind` then
reads the schema and holds them against it. Nothing here opens a file or a connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass

from schemas.environment import NAME, SERVING, refuse_training
from schemas.errors import DefinitionError
from schemas.framing import WORDS, CloudEvents, Framing, SingleObject, framing_words
from schemas.rules import Rule
from streams.suggestion import did_you_mean
from transforms.derive import Derived
from transforms.entity import Entity

MOST_PARTITIONS = 100_000
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
        framing: what stands around its values. ``confluent`` = the schema's id before the Avro bytes, or its id or GUID in a header;
            written before them. ``confluent-header`` = that, or its GUID before the bytes; written in a header. ``bare`` = Avro bytes
            alone; ``json`` = JSON objects; `SingleObject` = Avro's own single-object encoding; `CloudEvents` = CloudEvents of JSON or
            Avro. An output is ``confluent`` or ``bare``.
        partitions: how many it has, if the definition is to say so: the plan follows from it where no broker is asked, and a topic
            of another count is refused. None = as it is made.
        constraints: path of the constraints of its values, relative to the pipeline file; None = those beside the schema, if there are
            any (``<topic>.constraints.yaml``).
        environment: which of the constraints' environments its records are of.
    """

    name: str
    schema: str | None = None
    key: str | None = None
    event_time: str | None = None
    event_id: str | None = None
    framing: Framing = "confluent"
    partitions: int | None = None
    constraints: str | None = None
    environment: str = SERVING

    def __post_init__(self) -> None:
        if not _is_like(_TOPIC_NAME, self.name) or self.name in (".", ".."):
            raise DefinitionError(f"{self.name!r} is no name for a topic: wanted 1 to 245 of a-z, A-Z, 0-9, '.', '_' and '-'")
        if not isinstance(self.framing, SingleObject | CloudEvents) and self.framing not in WORDS:
            words = ", ".join(map(repr, WORDS))
            raise DefinitionError(f"topic {self.name!r}: framing {self.framing!r}, wanted {words}, SingleObject(...) or CloudEvents(...)")
        if self.partitions is not None and not (isinstance(self.partitions, int) and 1 <= self.partitions <= MOST_PARTITIONS):
            raise DefinitionError(f"topic {self.name!r}: partitions {self.partitions!r}, wanted 1 to {MOST_PARTITIONS}")
        if not isinstance(self.environment, str) or not NAME.fullmatch(self.environment):
            raise DefinitionError(f"topic {self.name!r}: environment {self.environment!r}, wanted a word such as {SERVING}")
        refuse_training(self.environment, f"topic {self.name!r}")

    @property
    def dead_letters(self) -> str:
        """The topic that its refused records go to."""
        return f"{self.name}.dlq"

    @property
    def subject(self) -> str:
        """What a schema registry calls the schema of its values."""
        return f"{self.name}-value"


@dataclass(frozen=True, slots=True)
class Labels:
    """What became of events, known later: a topic whose records say which event it is about, and its label.

    A record carries the event's id, the event's own time, the label, and the key of every entity that counts labels, under the same
    field names as the event. All labels of one event must come under one key, so that the last one wins.

    Attributes:
        topic: where labels come from; `event_time` is the event's own, `event_id` the event's, `key` the record's.
        value: the field that holds the label: a boolean, or an int or long of 0 or 1.
        time: the field that says when the label became known; for people, nothing is computed from it.
    """

    topic: Topic
    value: str
    time: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.topic, Topic):
            raise DefinitionError(f"labels: their topic should be a Topic, not {self.topic!r}")
        _check_input("labels", self.topic)
        for role in ("value", "time"):
            name = getattr(self, role)
            if (name is not None or role == "value") and (not isinstance(name, str) or not name):
                raise DefinitionError(f"labels {self.topic.name!r}: {role}={name!r}, wanted the name of a field")


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
        labels: what became of events; None = nobody says.
        stages: names of entities, in the order in which those that need a stage of their own get it; None = the order that moves
            the fewest bytes.
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
    labels: Labels | None = None
    stages: tuple[str, ...] | None = None
    include_features: bool = True

    def __post_init__(self) -> None:
        _check_name("pipeline", self.name)
        for attribute, kind in (("rules", Rule), ("derived", Derived), ("entities", Entity)):
            object.__setattr__(self, attribute, self._all(attribute, kind, getattr(self, attribute)))
        for topic in ("input", "output"):
            self._expect(topic, Topic, getattr(self, topic))
        self._expect("model", Model, self.model)
        if self.labels is not None:
            self._expect("labels", Labels, self.labels)
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
        if self.stages is not None:
            object.__setattr__(self, "stages", self._stage_order(self.stages))

    @property
    def internal(self) -> str:
        """What the names of its internal topics begin with."""
        return f"{self.name}.by-"

    def _stage_order(self, stages: Sequence[str]) -> tuple[str, ...]:
        order = _strings(f"pipeline {self.name!r}: stages", stages)
        twice = repeated(order)
        if twice:
            raise DefinitionError(f"pipeline {self.name!r}: stages name {twice!r} twice")
        known = [entity.name for entity in self.entities]
        for name in order:
            if name not in known:
                raise DefinitionError(f"pipeline {self.name!r}: stages name {name!r}, which is no entity; {did_you_mean(name, known)}")
        return order

    def _check_topics(self) -> None:
        _check_input(f"pipeline {self.name!r}", self.input)
        named = {"input": self.input, "output": self.output}
        if self.labels is not None:
            named["labels"] = self.labels.topic
            if self.labels.topic.name in (self.input.name, self.input.dead_letters, self.output.name):
                raise DefinitionError(f"pipeline {self.name!r}: {self.labels.topic.name!r} can't be its labels topic as well")
            if self.labels.topic.dead_letters in (self.input.name, self.output.name):
                raise DefinitionError(f"pipeline {self.name!r}: {self.labels.topic.dead_letters!r} takes the dead letters of its labels")
        for role, topic in named.items():
            if topic.name.startswith(self.internal):
                raise DefinitionError(
                    f"pipeline {self.name!r}: its {role} topic {topic.name!r} would be taken for one of its own: "
                    f"names that begin with {self.internal!r} are internal topics'"
                )
        if self.output.name in (self.input.name, self.input.dead_letters):
            raise DefinitionError(f"pipeline {self.name!r}: {self.output.name!r} can't be its output as well")
        if self.output.framing not in ("confluent", "bare"):
            framing = framing_words(self.output.framing)
            raise DefinitionError(f"topic {self.output.name!r}: an output can't be {framing}, wanted framing='confluent' or 'bare'")
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


def _check_input(whose: str, topic: Topic) -> None:
    word = "their" if whose == "labels" else "its input"
    for needed in ("schema", "key", "event_time", "event_id"):
        if not getattr(topic, needed):
            raise DefinitionError(f"{whose}: {word} topic {topic.name!r} needs {needed}=...")


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
