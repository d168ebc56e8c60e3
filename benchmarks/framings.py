"""The same payments in every framing, to columns: ``python -m benchmarks.framings``.

Microseconds of CPU a record in batches of 5 000, each framing in turn within each round; medians over the rounds. The answers are
asserted: whatever the framing, the columns hold the same payments.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.codec import Ids
from benchmarks.result import circumstances, command_line, keep
from benchmarks.workloads import payment_schemas, payments
from schemas.avro import AvroSchema, write_value
from schemas.codec import Decoder, Framing
from schemas.columns import PackedBytes
from schemas.dress import CloudEventText, Dress, JsonText, bare, id_before, single_object
from schemas.framing import VALUE_SCHEMA_ID, CloudEvents, Headers, HeadersByRow, SingleObject

RECORDS = 5_000
CLOUD_EVENTS = CloudEvents(id="payment_id", time="event_time")

Case = tuple[Decoder, PackedBytes, HeadersByRow]


def id_in_header(avro: bytes, headers: Headers) -> tuple[bytes, Headers]:
    """Confluent's framing with the id outside."""
    return avro, (*headers, (VALUE_SCHEMA_ID, b"\0\0\0\0\1"))


def measure(rounds: int) -> dict[str, Any]:
    """Make the records, check what is read, and time it."""
    schema = payment_schemas()[1]
    said = payments(RECORDS)
    bodies = [write_value(each, schema.parsed) for each in said]
    ways: dict[str, tuple[Framing, Callable[..., Any]]] = {
        "confluent": ("confluent", id_before(1)),
        "confluent, id in a header": ("confluent", id_in_header),
        "bare": ("bare", bare),
        "single object": (SingleObject(), single_object(schema)),
        "json": ("json", JsonText(schema)),
        "cloud events of json": (CLOUD_EVENTS, _events(schema, CLOUD_EVENTS)),
        "cloud events of avro": (CLOUD_EVENTS, _events(schema, CloudEvents("payment_id", "event_time", data="avro"))),
    }
    cases = {name: _case(schema, framing, dress, bodies) for name, (framing, dress) in ways.items()}
    for name, case in cases.items():
        _check(name, case, said)
    took: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + 1):  # the first one warms up
        for name, (decoder, values, headers) in cases.items():
            begun = time.thread_time_ns()
            decoder.decode(values, None, headers)
            took[name].append((time.thread_time_ns() - begun) / RECORDS / 1e3)
    return {"us_per_record": {name: round(float(np.median(times[1:])), 3) for name, times in took.items()}}


def _events(schema: AvroSchema, framing: CloudEvents) -> Dress:
    return CloudEventText(schema, framing, id_before(1), "payments", "payment_id", "event_time", 1)


def _case(schema: AvroSchema, framing: Framing, dress: Callable[..., Any], bodies: list[bytes]) -> Case:
    dressed = [dress(body, ()) for body in bodies]
    headers = {row: given for row, (_, given) in enumerate(dressed) if given}
    return Decoder(schema, framing, Ids(payment_schemas())), PackedBytes.pack([value for value, _ in dressed]), headers


def _check(name: str, case: Case, said: list[dict[str, Any]]) -> None:
    decoder, values, headers = case
    decoded = decoder.decode(values, None, headers)
    if decoded.rejected.any():
        raise AssertionError(f"{name}: {np.count_nonzero(decoded.rejected)} records were refused")
    for field, column in decoded.columns.items():
        found = [text.decode() for text in column] if isinstance(column, PackedBytes) else np.asarray(column).tolist()
        if found != [each[field] for each in said]:
            raise AssertionError(f"{name}: column {field} does not hold what was written")


def main() -> None:
    """Measure, show, and keep the result."""
    parser = argparse.ArgumentParser(description="Microseconds a record of each framing.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--keep", action="store_true", help="write a dated result file")
    wanted = parser.parse_args()
    result = circumstances(command_line()) | measure(wanted.rounds)
    print(f"us of CPU a record in batches of {RECORDS}, medians of {wanted.rounds} rounds")
    for name, took in result["us_per_record"].items():
        print(f"{name:28}{took:>9.3f}")
    if wanted.keep:
        keep("framings", result)


if __name__ == "__main__":
    main()
