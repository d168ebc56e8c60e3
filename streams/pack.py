"""Pack records from the client into the batch that the steps work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.columns import PackedBytes
from schemas.framing import HeadersByRow
from streams.batch import Batch, Span
from streams.come_back import TOPIC, first_offset
from streams.kafka import Record


def pack(
    topic: str, records: Mapping[int, Sequence[Record]], next_offsets: Mapping[int, int], tokens: Mapping[int, int], replay: bool
) -> Batch:
    """One batch of the records of some partitions; a partition without records only moves its offset.

    Args:
        topic: the topic they all come from.
        records: by partition, in log order.
        next_offsets: by partition, the offset to commit once its records are done; names every partition of `records`.
        tokens: by partition, the assignment they were polled under.
        replay: whether only the state is to follow from them.
    """
    spans: list[Span] = []
    rows: list[Record] = []
    start = 0
    for partition, next_offset in next_offsets.items():
        found = records.get(partition, ())
        first = found[0].offset() if found else next_offset
        spans.append(Span(topic, partition, start, start + len(found), first, next_offset))
        rows.extend(found)
        start += len(found)
    values = [message.value() for message in rows]
    headers = headers_by_row(rows)
    absent = np.zeros(len(rows), np.bool_)
    if None in values:
        absent[:] = [value is None for value in values]
    return Batch(
        spans=tuple(spans),
        offsets=np.array([message.offset() for message in rows], np.int64),
        arrived_ms=np.array([message.timestamp()[1] for message in rows], np.int64),
        keys=[message.key() for message in rows],
        raw=PackedBytes.pack([value or b"" for value in values]),
        absent=absent,
        headers=headers,
        columns={},
        rejected=np.zeros(len(rows), np.uint8),
        tokens={partition: tokens[partition] for partition in next_offsets},
        replay=replay,
        first_offsets=first_offsets(topic, rows, headers),
    )


def headers_by_row(rows: Sequence[Record]) -> HeadersByRow:
    """The headers of the records that have any."""
    return {row: headers for row, message in enumerate(rows) if (headers := message.headers())}


def first_offsets(topic: str, rows: Sequence[Record], headers: HeadersByRow | None = None) -> NDArray[np.int64] | None:
    """Where records that came back as dead letters stood first (`streams.come_back.first_offset`), else -1; None if none of them did."""
    found: NDArray[np.int64] | None = None
    for row, given in (headers_by_row(rows) if headers is None else headers).items():
        if any(name == TOPIC for name, _ in given):
            offset = first_offset(topic, rows[row].partition(), given)
            if found is None:
                found = np.full(len(rows), -1, np.int64)
            found[row] = offset
    return found
