"""A stage: one pass over one topic, owning the state of the entities that are keyed like it.

Today a pipeline is one stage. A second entity on another key becomes a second one: the first writes to an internal topic keyed by
that entity, the second reads it. Everything a running worker needs to be called by is derived here, so that two stages never meet
in one name.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.bound import Bound
from streams.pipeline import Topic
from streams.settings import KafkaSettings
from transforms.entity import Entity


@dataclass(frozen=True, slots=True)
class Stage:
    """One pass of a pipeline.

    Attributes:
        pipeline: its pipeline's name.
        name: unique in the pipeline.
        input: read here.
        key: the field of the input's key: what its partitions are made by.
        entities: whose state this stage owns.
        state_fingerprint: of that state.
        output: written here.
    """

    pipeline: str
    name: str
    input: Topic
    key: str
    entities: tuple[Entity, ...]
    state_fingerprint: str
    output: Topic

    @property
    def namespace(self) -> str:
        """Before every key of its state in Redis: another definition of the state is another namespace."""
        return f"{self.pipeline}.{self.name}.{self.state_fingerprint[:8]}"

    def group(self, settings: KafkaSettings) -> str:
        """Its consumer group."""
        return settings.group or self.pipeline

    def transactional_prefix(self, settings: KafkaSettings) -> str:
        """Before the ids of a worker's transactional producers: the same after a restart, and no other worker's."""
        return f"{self.pipeline}-{self.name}-{settings.instance}"


def stages(bound: Bound) -> tuple[Stage, ...]:
    """The stages of a pipeline, in the order events go through them."""
    last = Stage(bound.name, "score", bound.input, bound.key, bound.pipeline.entities, bound.state_fingerprint, bound.output)
    return (last,)
