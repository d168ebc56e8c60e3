"""Whether a partition's log reaches back far enough for a state to be built from it alone.

    ······┊──────────┼─────────────────────────────┼──────▶
          deleted    first record left             next record to score
                     ◀─────── what the windows look back on ───────▶  must not be longer than what is left

Measured in the records' timestamps (under LogAppendTime when they came in), so it holds for events that come in about as fast as
they happen. Nothing is asked of a log that still has its beginning.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from streams.kafka import Consumer, TopicPartition, next_messages
from streams.recovery import Log


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A log that begins too late."""

    begins_at: int  # offset
    begins_ms: int | None  # None: nothing is left
    wanted_ms: int

    def __str__(self) -> str:
        begins = "nothing is left of it" if self.begins_ms is None else f"its first record came {_shown(self.begins_ms)}"
        return f"the log begins at {self.begins_at} ({begins}), and the windows look back to {_shown(self.wanted_ms)}"


def shortfall(reader: Consumer, here: TopicPartition, log: Log, committed: int, retention_ms: int) -> Shortfall | None:
    """How the log falls short of what the next record to be scored looks back on; None if it doesn't.

    Args:
        reader: of committed records, with nothing assigned yet.
        here: the partition.
        log: what the broker has of it.
        committed: the next offset to score.
        retention_ms: how far back the windows look.

    Raises:
        KafkaDown: the broker gives no record.
    """
    if log.start == 0 or not retention_ms:
        return None
    begins_ms = _first_ms(reader, here, log.start)
    next_ms = _first_ms(reader, here, max(committed, log.start))
    wanted_ms = (time.time_ns() // 1_000_000 if next_ms is None else next_ms) - retention_ms
    return None if begins_ms is not None and begins_ms <= wanted_ms else Shortfall(log.start, begins_ms, wanted_ms)


def _first_ms(reader: Consumer, here: TopicPartition, offset: int) -> int | None:
    """The timestamp of the first record at or after an offset; None if there is none."""
    reader.assign([TopicPartition(here.topic, here.partition, offset)])
    found = next_messages(reader, f"{here.topic}[{here.partition}]@{offset}")[0]
    return found.timestamp()[1] if found.error() is None else None


def _shown(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"
