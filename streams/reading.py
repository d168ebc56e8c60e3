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

    def take(self, partition: int, records: list[Record], end: int, old: Taken, new: Taken) -> None:
        """Move past some records, in log order, and sort them into those to replay and those to score.

        Args:
            partition: whose records they are.
            records: none before `position`; may be empty.
            end: the offset at which the partition ended, 0 if that was not seen. It may lie beyond the last record: the markers of
                transactions take offsets, and a position behind them would look like lag for ever.
            old: gets the records before `live_from`.
            new: gets the others.
        """
        after = max(records[-1].offset() + 1 if records else 0, end, self.position)
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
