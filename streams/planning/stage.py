"""A stage: one pass over one topic, owning the state of the entities whose events come in that topic's order.

     payments ──▶ by-customer ──▶ card_fraud.by-terminal ──▶ by-terminal ──▶ payments.scored
                                          ▲
     payment-labels ──▶ labels ───────────┘

The first stage reads the input. An entity on another key costs one hop, through an internal topic keyed by it; an entity that counts
labels always has such a topic, whatever its key, since a label's place among the events must be in one log. Everything a running
worker needs to be called by is derived here, so that two stages never meet in one name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from schemas.errors import DefinitionError
from streams.definition.bound import Bound
from streams.definition.pipeline import Topic
from streams.settings import KafkaSettings
from transforms.entity import Entity

Kind = Literal["events", "hop", "labels"]
MOST_PERMUTED = 6  # hops whose every order is tried
COLUMN_BYTES = {"boolean": 1, "enum": 1, "int": 4, "long": 6, "float": 4, "double": 8, "string": 12, "bytes": 16, "fixed": 16}
FEATURE_BYTES = 8
ONLY = "score"  # the name of a pipeline's only stage
LABELS = "labels"


@dataclass(frozen=True, slots=True)
class Stage:
    """One pass of a pipeline.

    Attributes:
        pipeline: its pipeline's name.
        name: unique in the pipeline.
        index: its place in the order in which events go through the stages, from 0; a stage of labels comes after them all.
        kind: ``events`` reads the pipeline's input, ``hop`` an internal topic, ``labels`` the labels' topic.
        input: read here.
        key_columns: what its input's partitions are made by.
        entities: whose state this stage owns.
        state_fingerprint: of that state.
        outputs: written here: one topic, or for labels one for each stage that counts them.
        feeds: the names of the stages that read `outputs`, in the same order; none for the last, which writes scored events.
        is_alone: whether the pipeline has no other.
        is_last: whether it scores.
    """

    pipeline: str
    name: str
    index: int
    kind: Kind
    input: Topic
    key_columns: tuple[str, ...]
    entities: tuple[Entity, ...]
    state_fingerprint: str
    outputs: tuple[Topic, ...]
    feeds: tuple[str, ...]
    is_alone: bool = True
    is_last: bool = True

    @property
    def key(self) -> str:
        """What its input is keyed by, in words."""
        return ", ".join(self.key_columns)

    @property
    def output(self) -> Topic:
        """The one topic it writes, or the first."""
        return self.outputs[0]

    @property
    def counts_labels(self) -> bool:
        """Whether labels come in its input, among the events."""
        return self.kind == "hop" and any(entity.has_labels for entity in self.entities)

    @property
    def retention_ms(self) -> int:
        """How far back its input must reach to rebuild its state."""
        return max((entity.retention_ms for entity in self.entities), default=0)

    @property
    def namespace(self) -> str:
        """Before every key of its state in Redis: another definition of the state is another namespace."""
        return f"{self.pipeline}.{self.name}.{self.state_fingerprint[:8]}"

    def group(self, settings: KafkaSettings) -> str:
        """Its consumer group."""
        group = settings.group or self.pipeline
        return group if self.is_alone else f"{group}.{self.name}"

    def transactional_prefix(self, settings: KafkaSettings) -> str:
        """Before the ids of a worker's transactional producers: the same after a restart, and no other worker's."""
        return f"{self.pipeline}-{self.name}-{settings.instance}"


def stages(bound: Bound, partitions: int | None = None) -> tuple[Stage, ...]:
    """The stages of a pipeline, in the order events go through them; one that reads labels comes last.

    Args:
        bound: the pipeline.
        partitions: how many the input has; None = as many as its definition says, else one.

    Raises:
        DefinitionError: the order that the pipeline declares leaves out an entity that needs a stage of its own.
    """
    count = partitions or bound.input.partitions or 1
    here = computed_at_once(bound, count)
    hops = _ordered(bound, _grouped([entity for entity in bound.pipeline.entities if entity not in here]), here)
    if not hops:
        return (_stage(bound, ONLY, 0, "events", bound.input, (bound.key,), here, (bound.output,), ()),)
    names = [f"by-{hop[0].name}" for hop in hops]
    topics = [Topic(f"{bound.name}.{name}", framing="bare", partitions=count) for name in names]
    first = f"by-{here[0].name}" if here else "first"
    found = [_stage(bound, first, 0, "events", bound.input, (bound.key,), here, (topics[0],), (names[0],))]
    for place, hop in enumerate(hops):
        after = tuple(topics[place + 1 : place + 2]) or (bound.output,)
        fed = tuple(names[place + 1 : place + 2])
        found.append(_stage(bound, names[place], place + 1, "hop", topics[place], hop[0].key_columns, hop, after, fed))
    if bound.labels is not None:
        counting = [stage for stage in found if stage.counts_labels]
        outputs, fed = tuple(stage.input for stage in counting), tuple(stage.name for stage in counting)
        found.append(_stage(bound, LABELS, len(found), "labels", bound.labels.topic, (bound.labels.key,), (), outputs, fed))
    return tuple(found)


def _stage(
    bound: Bound,
    name: str,
    index: int,
    kind: Kind,
    source: Topic,
    key: tuple[str, ...],
    entities: tuple[Entity, ...],
    outputs: tuple[Topic, ...],
    feeds: tuple[str, ...],
) -> Stage:
    state = bound.state_fingerprint_of(entities)
    return Stage(bound.name, name, index, kind, source, key, entities, state, outputs, feeds, name == ONLY, bound.output in outputs)


def computed_at_once(bound: Bound, partitions: int) -> tuple[Entity, ...]:
    """The entities whose events lie in one partition of the input each: the first stage computes them.

    Those are all entities if there is one partition, else the ones keyed by the input's key, alone or with more. An entity that
    counts labels is never among them.
    """
    return tuple(
        entity for entity in bound.pipeline.entities if not entity.has_labels and (partitions == 1 or bound.key in entity.key_columns)
    )


def fed_by(stage: Stage, all_stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages that read what a stage writes, in the order of its outputs."""
    by_name = {each.name: each for each in all_stages}
    return tuple(by_name[name] for name in stage.feeds)


def several_need_exactly_once(bound: Bound, all_stages: Sequence[Stage]) -> str:
    """Why a pipeline of several stages can't be run with at_least_once."""
    names = ", ".join(stage.name for stage in all_stages)
    return (
        f"pipeline {bound.name!r} has {len(all_stages)} stages ({names}), and under at_least_once an event may reach the later ones twice, "
        "where it would count twice; worker.delivery is at_least_once, wanted exactly_once"
    )


def columns_needed(bound: Bound, entities: Iterable[Entity]) -> tuple[str, ...]:
    """Columns of the event that these entities, the model and the output's key are made of, in the schema's order."""
    wanted = {bound.key, *bound.model.inputs, *(column for entity in entities for column in entity.columns_needed)}
    return tuple(name for name in bound.columns if name in wanted)


def _grouped(entities: Sequence[Entity]) -> list[tuple[Entity, ...]]:
    """Entities by hop: those keyed alike share one, and so does one keyed by more with one keyed by less."""
    groups: list[list[Entity]] = []
    for entity in sorted(entities, key=lambda each: len(set(each.key_columns))):  # stable: declared order within a size
        home = next((group for group in groups if set(group[0].key_columns) <= set(entity.key_columns)), None)
        if home is None:
            groups.append([entity])
        else:
            home.append(entity)
    declared = [entity.name for entity in entities]
    return sorted((tuple(group) for group in groups), key=lambda group: declared.index(group[0].name))


def _ordered(bound: Bound, hops: list[tuple[Entity, ...]], here: tuple[Entity, ...]) -> list[tuple[Entity, ...]]:
    """The hops as the pipeline declares them, else in the order that moves the fewest bytes; of several such, the declared order."""
    declared = bound.pipeline.stages
    if declared is not None:
        for hop in hops:
            if not any(entity.name in declared for entity in hop):
                raise DefinitionError(
                    f"pipeline {bound.name!r}: stages leave out {hop[0].name!r}, which needs one of its own; name it, or leave stages out"
                )
        return sorted(hops, key=lambda hop: min(declared.index(entity.name) for entity in hop if entity.name in declared))
    if len(hops) <= MOST_PERMUTED:
        return list(min(permutations(hops), key=lambda order: bytes_moved(bound, tuple(order), here)))
    return sorted(hops, key=lambda hop: FEATURE_BYTES * _features_given(bound, hop) - column_bytes(bound, columns_needed(bound, hop)))


def bytes_moved(bound: Bound, hops: Sequence[tuple[Entity, ...]], here: tuple[Entity, ...]) -> int:
    """About how many bytes of columns and features an event carries over all hops, in this order."""
    return sum(hop_bytes(bound, hops[place:], (here, *hops[:place])) for place in range(len(hops)))


def hop_bytes(bound: Bound, later: Sequence[tuple[Entity, ...]], before: Sequence[tuple[Entity, ...]]) -> int:
    """About how many bytes of columns and features an event carries over one hop: with the stages after it, and those before."""
    columns = columns_needed(bound, [entity for hop in later for entity in hop])
    made = sum(_features_given(bound, hop) for hop in before)
    derived = sum(each.name in bound.model.inputs for each in bound.pipeline.derived)
    return column_bytes(bound, columns) + FEATURE_BYTES * (made + derived)


def column_bytes(bound: Bound, names: Iterable[str]) -> int:
    """About how many bytes columns of the event take, beside its id and time, which travel anyway."""
    there = (bound.event_id, bound.event_time.column)
    return sum(COLUMN_BYTES[bound.columns[name].type] for name in dict.fromkeys(names) if name not in there)


def _features_given(bound: Bound, entities: Iterable[Entity]) -> int:
    """How many of their features the model is given."""
    return sum(name in bound.model.inputs for entity in entities for name in entity.feature_names)
