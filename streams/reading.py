"""How far a partition has been read, and which of its records were put out before."""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.kafka import Record


@dataclass(slots=True)
class Taken:
    """Records and next offsets of one batch, by partition."""

    records: dict[int, list[Record]] = field(default_factory=dict)
    next_offsets: dict[int, int] = field(default_factory=dict)

    def add(self, partition: int, records: list[Record], next_offset: int) -> None:
        self.records[partition], self.next_offsets[partition] = records, next_offset


@dataclass(slots=True)
class Reading:
    """How far a partition has been read."""

    position: int  # the next offset to read
    live_from: int  # what lies before it was put out earlier, and only rebuilds the state
    committed: int  # the next offset of the last batch handed on to be committed; -1 = none yet
    end: int | None = None  # where the partition was seen to end and is not taken yet: behind the last record, if there are markers

    def take(self, partition: int, records: list[Record], old: Taken, new: Taken) -> None:
        """Move past some records, in log order, and sort them into those to replay and those to score.

        The end is moved to if it was seen: a position before the markers of transactions would look like lag for ever.

        Args:
            partition: whose records they are.
            records: none before `position`; may be empty.
            old: gets the records before `live_from`.
            new: gets the others.
        """
        after = max(records[-1].offset() + 1 if records else 0, self.end or 0, self.position)
        self.end = None
        if self.position < self.live_from:
            past = [message for message in records if message.offset() < self.live_from]
            records = records[len(past) :]
            if after >= self.live_from:
                old.add(partition, past, self.live_from)
            elif past:
                old.add(partition, past, after)
        if after >= self.live_from and after > self.committed:
            new.add(partition, records, after)
            self.committed = after
        self.position = after
