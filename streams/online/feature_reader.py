"""FeatureReader: a key's current features, straight from the state that workers keep in Redis.

One round trip a question, however many keys it is about. Nothing is claimed or written: any number of readers go on beside the workers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from schemas.errors import SettingsError
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.load_settings import load_settings
from streams.local.addresses import local_settings
from streams.online.key_features import Key, KeyFeatures
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.planning.stage import Stage

Time = int | datetime
OfUnknown = Literal["refuse", "empty"]


class FeatureReader:
    """Reads current features; close it, or use it in a `with`. May be shared by threads, whose questions then take turns.

    Args:
        pipeline: its file, or what `load_bound` made of it: the same definitions as the workers'.
        settings: of Redis, and of the broker if it is to be asked; None = the environment's, and those of `millrace up` here.
        which: of the pipelines in the file; needed if there are several.
        partitions: of the pipeline's input; None = as declared, else as the broker says, which is asked once.
        now_ms: the time "now".

    Raises:
        DefinitionError, SchemaError, SettingsError: the pipeline or the settings are broken.
        TopicError, KafkaDown: the broker was asked for the number of partitions, and does not know the topic or does not answer.
    """

    def __init__(
        self,
        pipeline: Bound | str | Path,
        settings: Settings | None = None,
        *,
        which: str | None = None,
        partitions: int | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        from streams.online.lookup import Lookup, partitions_in  # needs what pipeline files go without

        self._bound = pipeline if isinstance(pipeline, Bound) else load_bound(pipeline, which)
        loaded = settings or load_settings(None, os.environ, local_settings())
        self._now_ms = now_ms
        count = partitions or self._bound.input.partitions or partitions_in(loaded.kafka, self._bound.input.name)
        self._lookup = Lookup(self._bound, loaded.redis, count)

    def __enter__(self) -> FeatureReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of Redis."""
        self._lookup.close()

    @property
    def entities(self) -> tuple[str, ...]:
        """Whose features there are."""
        return self._lookup.entities

    def stage_of(self, entity: str) -> Stage:
        """The stage that keeps an entity's state."""
        return self._lookup.stage_of(entity)

    def get(self, entity: str, key: Key, *, at: Time | None = None, unknown: OfUnknown = "refuse") -> KeyFeatures:
        """The features of one key; see `get_many`."""
        return self.get_many(entity, [key], at=at, unknown=unknown)[0]

    def get_many(self, entity: str, keys: Sequence[Key], *, at: Time | None = None, unknown: OfUnknown = "refuse") -> list[KeyFeatures]:
        """The features of some keys, in one round trip (two, if a key lies where its partitioner would not have put it, or is unknown).

        All keys of a partition are read at one position: the numbers are those after exactly the events below it.

        Args:
            entity: whose keys.
            keys: text, integer or bytes as the key's field is; a tuple where there are several.
            at: the event time looked from: milliseconds since the epoch, or a moment with its time zone; None = now. The state
                holds what an event of the present may look at: a key does not look back further than its lateness.
            unknown: of keys without any event: "refuse" them, or give the features of an "empty" past.

        Raises:
            UnknownKey: there is a key without any event.
            SettingsError: there is no such entity, or a key is of another type.
            StateError: there is no state of this definition, or it was written by another version of Millrace.
            StoreDown: Redis does not answer, or the state is being built anew.
        """
        at_ms = self._now_ms() if at is None else _milliseconds(at)
        return self._lookup.features(entity, keys, at_ms, refuse_unknown=unknown == "refuse")


def _milliseconds(at: Time) -> int:
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise SettingsError(f"{at.isoformat()} has no time zone; wanted a moment with one, or milliseconds since the epoch")
        return round(at.timestamp() * 1_000)
    return at
