"""Every kind of bad record on the real broker: it goes to the dead letters with its reason, and its neighbours are scored."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import replace
from typing import Any

import fastavro

from tests.live.conftest import SetUp
from tests.live.scene import Scene, alter_topic, at_ms, payment, payments
from tests.oracles.payments import letters_by_source

LIMIT_BYTES = 20_000
NULLABLE = 50
UNKNOWN = 77


def of_size(scene: Scene, number: int, size_bytes: int) -> bytes:
    """A payment whose value has just that many bytes."""
    short = len(scene.encode(payment(number, payment_id="")))
    for padding in range(size_bytes - short, size_bytes - short - 5, -1):  # its length takes a few bytes itself
        value = scene.encode(payment(number, payment_id="P" * padding))
        if len(value) == size_bytes:
            return value
    raise AssertionError(size_bytes)


def test_bad_records_become_dead_letters_and_their_neighbours_are_scored(scene: Scene) -> None:
    reader: Any = scene.schemas[1]
    fields = [{**field, "type": ["null", "double"]} if field["name"] == "amount" else field for field in reader["fields"]]
    scene.schemas[NULLABLE] = fastavro.parse_schema({"type": "record", "name": "card_fraud.Payment", "fields": fields})
    (scene.folder / "schemas" / f"{NULLABLE}-nullable.avsc").write_text(fastavro.schema.to_parsing_canonical_form(scene.schemas[NULLABLE]))
    good = [scene.encode(payment(n)) for n in range(40)]
    key = b"C0"

    def record(**changes: Any) -> tuple[bytes | None, bytes | None]:
        changed = payment(0, **changes)
        return str(changed["customer_id"]).encode(), scene.encode(changed)

    wanted: dict[str, list[tuple[bytes | None, bytes | None]]] = {
        "truncated": [(key, good[0][:-1]), (key, good[0][:9])],
        "bad_magic": [(key, b"\1" + good[0][1:]), (key, b"\0\0\0")],
        "trailing_bytes": [(key, good[0] + b"!")],
        "bad_utf8": [(key, good[0].replace(b"P000000", b"P\xff00000"))],
        "unknown_schema": [(key, b"\0" + struct.pack(">i", UNKNOWN) + good[0][5:])],
        "empty_value": [(key, b"")],
        "tombstone": [(key, None)],
        "null_key": [(None, good[0])],
        "key_mismatch": [(b"C1", good[0]), (b"", good[0])],
        "wrong_branch": [(key, scene.encode(payment(0, amount=None), NULLABLE))],
        "amount_in_range": [record(amount=-1.0)],
        "currency_one_of": [record(currency="USD")],
        "customer_id_given": [record(customer_id="")],
        "countable_amount": [record(amount=float("nan")), record(amount=float("inf")), record(amount=0.001), record(amount=50_000.01)],
        "event_time_in_years_1_to_9999": [record(event_time=2**62)],
        "too_large": [(key, of_size(scene, 0, LIMIT_BYTES + 1))],
    }
    reasons: dict[int, str] = {}
    records: list[tuple[bytes | None, bytes | None]] = []
    turn = 0
    for reason, bad in wanted.items():
        for each in bad:
            number = turn % len(good)
            records.append((str(payment(number)["customer_id"]).encode(), good[number]))
            reasons[len(records)] = reason
            records.append(each)
            turn += 1
    records.append((key, scene.encode(payment(0, amount=10.0), NULLABLE)))
    records.append((key, of_size(scene, 0, LIMIT_BYTES)))
    scene.send(records, headers=[("trace", b"7")])
    alter_topic(scene.broker, scene.bound.input.name, max_message_bytes=str(LIMIT_BYTES), retention_ms="86400000")

    worker = scene.worker(WORKER__UNKNOWN_SCHEMA_RETRY_SECONDS="0.3")
    scene.drained(worker)
    assert worker.stop() == 0
    evidence = scene.evidence()
    assert [str(fault) for fault in replace(scene.judge, most_bytes=LIMIT_BYTES).faults(evidence)[:10]] == []
    letters = letters_by_source(evidence.letters)
    found = {offset: letters[0, offset]["reason"] for offset in reasons}
    assert {o: r for o, r in found.items() if not r.startswith(reasons[o])} == {}
    assert all(("trace", b"7") in letter.headers for letter in evidence.letters)
    assert all(letters[0, offset]["message"].startswith(f"{scene.name}[0]@{offset} refused by ") for offset in reasons)
    assert "the windows look back" in worker.log  # the retention of the input, shorter than they do


def test_a_schema_registered_after_it_was_refused_stays_refused_in_a_replay(scene: Scene) -> None:
    def unknown(first: int) -> None:
        values = [(str(each["customer_id"]).encode(), scene.encode(each)) for each in payments(20, first)]
        scene.send((key, b"\0" + struct.pack(">i", UNKNOWN) + value[5:]) for key, value in values)

    scene.send_payments(payments(50))
    unknown(50)
    worker = scene.worker(WORKER__UNKNOWN_SCHEMA_RETRY_SECONDS="0.3")
    scene.drained(worker)
    worker.kill()
    with scene.redis() as client:  # all of it is replayed
        client.delete(scene.fence_key(0), *scene.blocks())
    schema = (scene.folder / "schemas" / f"1-{scene.name}-value.avsc").read_text()
    (scene.folder / "schemas" / f"{UNKNOWN}-late.avsc").write_text(schema)
    scene.send_payments(payments(50, first=70))
    unknown(120)
    after = scene.worker()
    scene.drained(after)
    assert after.stop() == 0
    assert scene.faults() == []  # the judge knows no such schema: counting one of these payments would show in the features
    assert len(scene.letters()) == 40


def test_a_letter_too_large_for_its_topic_goes_out_without_its_value(scene: Scene) -> None:
    value = of_size(scene, 0, 8_000) + b"!"
    scene.send([*((b"C0", scene.encode(payment(0))) for _ in range(3)), (b"C0", value)])
    alter_topic(scene.broker, scene.bound.input.dead_letters, max_message_bytes="5000")
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0
    (letter,) = scene.letters()
    headers = dict(letter.headers)
    assert letter.value is None
    assert headers["millrace.value_size_bytes"] == b"8001"
    assert headers["millrace.value_sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert len(scene.outputs()) == 3


def test_outputs_the_broker_refuses_become_letters_and_their_neighbours_do_not(scene: Scene) -> None:
    scene.send_payments(payments(10))
    worker = scene.worker()
    scene.drained(worker)
    # Changed under the running worker, which looked at the topic when it started.
    alter_topic(scene.broker, scene.bound.output.name, max_message_bytes="5000", message_timestamp_after_max_ms="3600000")
    far = payment(0, event_time=at_ms(253_402_300_000_000), customer_id="C9999", terminal_id="T9999")
    large = payment(0, payment_id="P" * 8_000)
    records = [*payments(40, first=10), far, *payments(40, first=50), large, *payments(40, first=90)]
    scene.send_payments(records)
    scene.drained(worker)
    scene.send_payments(payments(20, first=130))
    scene.drained(worker)
    assert worker.stop() == 0
    letters = letters_by_source(scene.letters())
    assert {offset: letter["reason"] for (_, offset), letter in letters.items()} == {50: "output_refused", 91: "output_refused"}
    assert {letter["counted"] for letter in letters.values()} == {"true"}  # they are in the windows of the payments after them
    faults = scene.faults()
    assert [fault for fault in faults if "is answered by an letter" not in fault] == []
    assert len(scene.outputs()) == 150


def test_times_of_1970_and_9999_are_scored_and_flagged_like_any_other(set_up: SetUp) -> None:
    scene = set_up()
    times_ms = [0, 0, 253_402_300_799_000, 1_704_067_200_000, 253_402_300_799_000 - 1_800_000, 1]
    scene.send_payments(payment(n, event_time=at_ms(ms), customer_id="C0", terminal_id="T0") for n, ms in enumerate(times_ms))
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0
    assert scene.faults() == []
    scored: list[Any] = [
        fastavro.schemaless_reader(io.BytesIO((each.value or b"")[5:]), scene.judge.output, None) for each in scene.outputs()
    ]
    assert [each["timing"] for each in scored] == ["on_time", "on_time", "on_time", "too_late", "late", "too_late"]


def test_too_large_a_share_of_refused_records_stops_the_worker(scene: Scene) -> None:
    scene.send_payments(payments(100))
    worker = scene.worker(DEAD_LETTERS__HALT_SHARE="0.5", DEAD_LETTERS__HALT_WINDOW_RECORDS="100")
    scene.drained(worker)
    scene.send([(b"C0", b"?")] * 400)
    assert worker.ends() == 20, worker.log
    assert "dead_letters.halt_share" in worker.log
    assert len(scene.outputs()) == 100
    assert scene.faults(at_rest=False) == []
