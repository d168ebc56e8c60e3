"""Second and third schemas appear in mid-stream, on the real broker: their records are scored in the log's order like any other."""

from __future__ import annotations

import json
from typing import Any

import fastavro

from tests.live.scene import Scene, payment, payments

FIRST, SECOND, THIRD = IDS = 1, 52, 53


def other_schemas(scene: Scene) -> None:
    """The second has its fields turned round, whole amounts and a record more; the third amounts that may be null and an array more."""
    first = json.loads((scene.folder / "schemas" / f"1-{scene.name}-value.avsc").read_text())
    fields: list[Any] = first["fields"]
    device = {"type": "record", "name": "Device", "fields": [{"name": "os", "type": "string"}, {"name": "age", "type": ["null", "int"]}]}
    whole = [each | {"type": "int"} if each["name"] == "amount" else each for each in reversed(fields)]
    maybe = [each | {"type": ["null", "double"]} if each["name"] == "amount" else each for each in fields]
    for schema_id, changed in (
        (SECOND, [{"name": "device", "type": device}, *whole]),
        (THIRD, [*maybe, {"name": "tags", "type": {"type": "array", "items": "string"}}]),
    ):
        definition = first | {"fields": changed}
        (scene.folder / "schemas" / f"{schema_id}-{scene.name}-value.avsc").write_text(json.dumps(definition))
        scene.schemas[schema_id] = fastavro.parse_schema(definition)


def test_writers_schemas_that_appear_in_mid_stream_are_read_in_the_order_of_the_log_and_counted(scene: Scene) -> None:
    scene.send_payments(payments(100))
    worker = scene.worker()
    scene.drained(worker)
    other_schemas(scene)
    more: dict[int, dict[str, Any]] = {FIRST: {}, SECOND: {"device": {"os": "x", "age": None}}, THIRD: {"tags": ["a", "b"]}}
    records = []
    for number in range(100, 400):
        schema_id = IDS[number * 7 % 11 % 3]
        changes = more[schema_id] | ({"amount": number % 50} if schema_id == SECOND else {})
        event = payment(number, **changes)
        records.append((event["customer_id"].encode(), scene.encode(event, schema_id)))
    scene.send(records)
    scene.drained(worker)
    assert scene.faults() == []
    assert len(scene.outputs()) == 400
    lines = [line for line in worker.page("/metrics")[1].splitlines() if line.startswith("millrace_records_by_schema_total{")]
    by_id = {n: sum(float(line.rpartition(" ")[2]) for line in lines if f'schema_id="{n}"' in line) for n in IDS}
    wanted = {n: sum(value[4] == n for _, value in records) + (100 if n == FIRST else 0) for n in IDS}
    assert by_id == wanted, lines
    assert worker.stop() == 0
