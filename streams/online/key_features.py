"""What is known of a key, for whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Part = str | int | bytes
Key = Part | tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class KeyFeatures:
    """What is known of a key.

    Attributes:
        entity: whose.
        key: as asked for, a part for each of the entity's key columns.
        features: by name, in the catalogue's order: what an event at the time asked for would find, without that event.
        asked_ms: the time asked for, milliseconds since the epoch.
        evaluated_ms: the time looked from: the one asked for, or the oldest still admitted, if that is later.
        is_known: whether any event is remembered; without one, features are the values declared for no events.
        events: how many events are remembered.
        last_event_ms: the newest one's time; None = there is none.
        partition: of the topic that feeds the entity.
        position: the offset in that partition up to which all events are in these numbers.
    """

    entity: str
    key: tuple[Part, ...]
    features: Mapping[str, float]
    asked_ms: int
    evaluated_ms: int
    is_known: bool
    events: int
    last_event_ms: int | None
    partition: int
    position: int

    @property
    def age_ms(self) -> int | None:
        """How long before the time asked for the newest event was; negative if it is later; None = there is none."""
        return None if self.last_event_ms is None else self.asked_ms - self.last_event_ms
