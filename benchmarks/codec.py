"""Avro to columns and back: ``python -m benchmarks.codec``.

Microseconds of CPU a record, by the number of records in a batch, for

- *decode*: payments of six fields in the wire format, to columns;
- *three ids*: the same payments, from three producers with a schema each, mixed;
- *fastavro*: the same payments, one dict each;
- *encode*: scored events with one score and twenty features, from columns;
- *fastavro*: the same scored events, from dicts.

All take turns within each round; medians over the rounds are shown, and the ratios are medians of the rounds' ratios. The time is that of
the thread's CPU, so that neighbours on the machine count little. The answers are asserted: both decoders find the same values, both
encoders the same bytes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import circumstances, command_line, keep
from benchmarks.workloads import framed, payment_schemas, payments, scored_events
from schemas.avro import AvroSchema, read_value, write_value
from schemas.codec import Decoder, Encoder
from schemas.columns import Column, Constant, PackedBytes, Ragged, Symbols
from schemas.decode_kernel import HEADER_BYTES

BOUNDS = Path(__file__).with_name("bounds.json")
BATCH_RECORDS = (200, 5_000)
LARGEST = BATCH_RECORDS[-1]
FASTAVRO_RECORDS = 500  # a round: it is slow


class Ids:
    """A registry of schemas at hand."""

    def __init__(self, by_id: Mapping[int, AvroSchema]) -> None:
        self._by_id = by_id

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The schema with this id."""
        return self._by_id.get(schema_id)

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        """Nothing: the schemas have no subjects."""
        return None

    def register(self, subject: str, schema: AvroSchema) -> int:
        """Refused: nothing is ever added."""
        raise NotImplementedError(subject)


def measure(rounds: int) -> dict[str, Any]:
    """Make the inputs, check the answers, and time them."""
    schemas = payment_schemas()
    records = payments(LARGEST)
    one = framed(records, [1] * LARGEST, schemas)
    three = framed(records, [row % 3 + 1 for row in range(LARGEST)], schemas)
    decoder = Decoder(schemas[1], "confluent", Ids(schemas))
    schema, columns = scored_events(LARGEST)
    encoder = Encoder(schema, "confluent", 2)
    bodies = [value[HEADER_BYTES:] for value in one.take(slice(0, FASTAVRO_RECORDS))]
    _check_decoded(decoder, one, three, records)
    events = _check_encoded(encoder, schema, columns)

    def by_fastavro() -> None:
        for body in bodies:
            read_value(body, schemas[1].parsed)

    def to_fastavro() -> None:
        for event in events:
            write_value(event, schema.parsed)

    sizes: dict[str, Any] = {}
    for size in BATCH_RECORDS:
        some, mixed, head = one.take(slice(0, size)), three.take(slice(0, size)), _head(columns, size)
        calls: dict[str, tuple[Callable[[], object], int]] = {
            "decode": (lambda some=some: decoder.decode(some), size),  # type: ignore[misc]
            "three_ids": (lambda mixed=mixed: decoder.decode(mixed), size),  # type: ignore[misc]
            "fastavro_decode": (by_fastavro, FASTAVRO_RECORDS),
            "encode": (lambda head=head: encoder.encode(head), size),  # type: ignore[misc]
            "fastavro_encode": (to_fastavro, FASTAVRO_RECORDS),
        }
        sizes[str(size)] = _compare(calls, rounds)
    return {"bytes_a_payment": len(one.data) / LARGEST, "us_per_record": sizes}


def _check_decoded(decoder: Decoder, one: PackedBytes, three: PackedBytes, records: list[dict[str, Any]]) -> None:
    for values in (one, three):
        decoded = decoder.decode(values)
        if decoded.rejected.any():
            raise AssertionError(f"{np.count_nonzero(decoded.rejected)} records were refused")
        for name, column in decoded.columns.items():
            found = [text.decode() for text in column] if isinstance(column, PackedBytes) else np.asarray(column).tolist()
            if found != [record[name] for record in records]:
                raise AssertionError(f"column {name} does not hold what was written")


def _check_encoded(encoder: Encoder, schema: AvroSchema, columns: Mapping[str, Column]) -> list[Any]:
    written = encoder.encode(columns)
    events = [read_value(written[row][HEADER_BYTES:], schema.parsed) for row in range(FASTAVRO_RECORDS)]
    for row, event in enumerate(events):
        if write_value(event, schema.parsed) != written[row][HEADER_BYTES:]:
            raise AssertionError(f"event {row} is not what fastavro writes")
    return events


def _head(columns: Mapping[str, Column], rows: int) -> dict[str, Column]:
    def cut(column: Column) -> Column:
        if isinstance(column, Constant):
            return Constant(column.value, rows)
        if isinstance(column, Symbols):
            return Symbols(column.codes[:rows], column.symbols)
        if isinstance(column, Ragged):
            items = column.items
            return Ragged(_head(items, rows) if isinstance(items, Mapping) else items, column.starts[:rows], column.ends[:rows])
        if isinstance(column, PackedBytes):
            return column.take(slice(0, rows))
        assert isinstance(column, np.ndarray)
        return column[:rows]

    return {name: cut(column) for name, column in columns.items()}


def _compare(calls: Mapping[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, float]:
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):  # the first one warms up
        for name, (call, records) in calls.items():
            repeats = 4 * LARGEST // records if not name.startswith("fastavro") else 1
            begun = time.thread_time_ns()
            for _ in range(repeats):
                call()
            took[name].append((time.thread_time_ns() - begun) / (records * repeats) / 1e3)
    counted = {name: np.array(times[1:]) for name, times in took.items()}
    figures = {name: round(float(np.median(times)), 3) for name, times in counted.items()}
    for name, top, bottom in (
        ("decode_ratio", "fastavro_decode", "decode"),
        ("encode_ratio", "fastavro_encode", "encode"),
        ("three_ids_ratio", "three_ids", "decode"),
    ):
        figures[name] = round(float(np.median(counted[top] / counted[bottom])), 2)
    return figures


def _missed(result: dict[str, Any]) -> list[str]:
    floors, found = json.loads(BOUNDS.read_text())["codec"], result["us_per_record"][str(LARGEST)]
    most = {"decode": "decode_us", "encode": "encode_us", "three_ids_ratio": "three_ids_times_one"}
    missed = [f"{name} is {found[name]}, at most {floors[floor]} is wanted" for name, floor in most.items() if found[name] > floors[floor]]
    if found["decode_ratio"] < floors["decode_times_as_fast_as_fastavro"]:
        missed.append(f"decoding is {found['decode_ratio']} times as fast as fastavro, wanted {floors['decode_times_as_fast_as_fastavro']}")
    return missed


def main() -> None:
    """Measure, show, keep the result, and hold it against the floors."""
    parser = argparse.ArgumentParser(description="Microseconds a record of the codec.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", action="store_true", help="write a dated result file")
    wanted = parser.parse_args()
    result = circumstances(command_line()) | measure(wanted.rounds)
    print(f"us of CPU a record, medians of {wanted.rounds} rounds; a payment has {result['bytes_a_payment']:.0f} bytes")
    print(f"{'records':>8}{'decode':>9}{'three ids':>11}{'ratio':>7}{'fastavro':>10}{'ratio':>7}{'encode':>9}{'fastavro':>10}{'ratio':>7}")
    for size, found in result["us_per_record"].items():
        print(
            f"{size:>8}{found['decode']:>9}{found['three_ids']:>11}{found['three_ids_ratio']:>7}{found['fastavro_decode']:>10}"
            f"{found['decode_ratio']:>7}{found['encode']:>9}{found['fastavro_encode']:>10}{found['encode_ratio']:>7}"
        )
    if wanted.keep:
        keep("codec", result)
    if missed := _missed(result):
        raise SystemExit("; ".join(missed))


if __name__ == "__main__":
    main()
