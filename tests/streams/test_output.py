"""Which rows go out, and in which order: a batch's partitions one after the other, or abreast by when their records arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from schemas.avro import AvroSchema
from schemas.codec import Encoder
from schemas.columns import Columns, Ints
from schemas.reject import Reject
from streams.batch import Batch, Span
from streams.output import Output, Parcel
from tests.streams.batches import batch_of

NOW_MS = 1_700_000_000_000
BOUNDS_MS = (1 << 60, 1 << 60)
SCHEMA = AvroSchema.parse({"type": "record", "name": "Number", "fields": [{"name": "number", "type": "long"}]})


def batch(*arrived_ms: Sequence[int]) -> Batch:
    """Rows numbered through, whose event times are their numbers: of each partition those that arrived then."""
    times = [each for part in arrived_ms for each in part]
    spans, start = [], 0
    for partition, part in enumerate(arrived_ms):
        spans.append(Span("payments", partition, start, start + len(part), 0, len(part)))
        start += len(part)
    made = batch_of([b""] * len(times), [b"%d" % row for row in range(len(times))])
    numbers = np.arange(len(times), dtype=np.int64)
    return replace(made, spans=tuple(spans), arrived_ms=np.array(times, np.int64), columns={"number": numbers, "time": NOW_MS + numbers})


def output(abreast: bool) -> Output:
    def keys(batch: Batch, rows: Ints) -> Sequence[bytes | None]:
        return [batch.keys[row] for row in rows.tolist()]

    def columns(batch: Batch) -> Columns:
        return {"number": batch.columns["number"]}

    return Output("out", Encoder(SCHEMA, "bare"), columns, keys, "time", BOUNDS_MS, abreast=abreast)


def numbers_of(parcel: Parcel) -> list[int]:
    """The rows as they go out; what goes out with each is of the same row."""
    rows: list[int] = parcel.rows.tolist()
    assert list(parcel.values) == [bytes([2 * row]) for row in rows], "a small long is twice itself in Avro"
    assert list(parcel.keys) == [b"%d" % row for row in rows]
    assert list(parcel.stamps_ms) == [NOW_MS + row for row in rows]
    return rows


def test_rows_of_several_partitions_go_out_in_the_order_of_their_arrival() -> None:
    #   arrived   10  20  30  40  50
    #   [0]        0       1       2
    #   [1]            3       4
    made = batch([10, 30, 50], [20, 40])
    assert numbers_of(output(abreast=True).parcel(made, NOW_MS)) == [0, 3, 1, 4, 2]
    assert numbers_of(output(abreast=False).parcel(made, NOW_MS)) == [0, 1, 2, 3, 4]


def test_a_partition_keeps_the_order_of_its_log_whatever_its_timestamps_say() -> None:
    # Its second record says 5; it stands behind one of 30, and so goes after all that came by then.
    assert numbers_of(output(abreast=True).parcel(batch([30, 5, 40], [20, 30, 35]), NOW_MS)) == [3, 0, 1, 4, 5, 2]


def test_what_does_not_go_out_keeps_no_place_for_the_others_and_holds_none_back() -> None:
    made = batch([10, 50], [20, 40])
    made = made.rejecting(np.array([True, False, False, True]), Reject.NULL_KEY)
    assert numbers_of(output(abreast=True).parcel(made, NOW_MS)) == [2, 1]
    nothing = made.rejecting(np.ones(4, np.bool_), Reject.NULL_KEY)
    assert output(abreast=True).parcel(nothing, NOW_MS).values == ()


@pytest.mark.parametrize("abreast", [True, False])
def test_one_partition_goes_out_as_it_was_read(abreast: bool) -> None:
    assert numbers_of(output(abreast).parcel(batch([30, 10, 20]), NOW_MS)) == [0, 1, 2]
