"""Refusals: what was refused earlier, and must be again."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np

from streams.batch import Batch
from streams.dead_letters import TooManyRefused

log = logging.getLogger(__name__)

Place = tuple[int, int]  # partition and offset

NOISY_SCHEMAS = 20
MOST_REFUSED_SCHEMAS = 150  # the broker takes 4 KiB of metadata with an offset; an id and its offset take up to 24 bytes


class Refusals:
    """What was refused and must be refused again when it is replayed: schema ids by partition, each from an offset on.

    A schema id the registry did not know stays refused although it may be registered later: a replay must reject exactly what was
    rejected. `outputs` are addresses whose scored event the broker will never take, `letters` those whose dead letter it won't;
    `suspects` were refused together with others, and one of them is at fault.
    """

    def __init__(self) -> None:
        self._schemas: dict[int, dict[int, int]] = {}
        self.outputs: set[Place] = set()
        self.letters: Counter[Place] = Counter()  # how often
        self.suspects: set[Place] = set()

    def learn(self, partition: int, found: Mapping[int, int]) -> None:
        """Replace what is known of a partition by what the committed offset says: all that was refused before it."""
        self._schemas[partition] = dict(found)

    def schemas(self, partition: int) -> Mapping[int, int]:
        """Refused schema ids of a partition, with the offset each is refused from."""
        return self._schemas.get(partition, {})

    def patient(self, partition: int) -> bool:
        """Whether an unknown schema id is still worth waiting for: after many, they are no schemas but noise."""
        return len(self._schemas.get(partition, {})) < NOISY_SCHEMAS

    def refuse_schema(self, partition: int, schema_id: int, offset: int) -> None:
        """Refuse a schema id from an offset on.

        Raises:
            TooManyRefused: there are more than the metadata of an offset can carry.
        """
        known = self._schemas.get(partition, {})
        self._schemas[partition] = {schema_id: offset, **known}
        if len(self._schemas[partition]) > MOST_REFUSED_SCHEMAS:
            raise TooManyRefused(
                f"partition {partition}: more than {MOST_REFUSED_SCHEMAS} schema ids are not in the registry; "
                "wanted a registry that knows the producers' schemas, or producers that write the framing the pipeline declares"
            )
        if schema_id not in known:
            log.warning("schema_refused schema_id=%d partition=%d from_offset=%d", schema_id, partition, offset)

    def forget(self, partition: int, next_offset: int) -> None:
        """Everything of a partition before this offset is final: its addresses are of no more use."""
        for places in (self.outputs, self.suspects):
            places.difference_update([place for place in places if place[0] == partition and place[1] < next_offset])
        for place in [place for place in self.letters if place[0] == partition and place[1] < next_offset]:
            del self.letters[place]


def rows_at(places: Collection[Place], batch: Batch) -> list[int]:
    """The rows of a batch that stand at one of these places."""
    found: list[int] = []
    for span in batch.spans if places else ():
        wanted = [offset for partition, offset in places if partition == span.partition]
        found += (span.start + np.flatnonzero(np.isin(batch.offsets[span.rows], wanted))).tolist()
    return found


def place_of(batch: Batch, row: int) -> Place:
    """Where a row stands, as refusals are remembered."""
    at = batch.address(row)
    return at.partition, at.offset
