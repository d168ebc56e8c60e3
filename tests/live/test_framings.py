"""Events in other framings than the default, on the real broker: sent by others and by us, scored, refused, mended, made again."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fastavro
import pytest

from millrace import EventWriter
from schemas.framing import VALUE_SCHEMA_ID, Header
from schemas.registry import FileRegistry
from schemas.undress import number_of
from tests.live.conftest import SetUp
from tests.live.scene import Scene, payment, wait_for
from tests.live.test_dlq_replay import EUROS, last_offset, written
from tests.oracles.payments import Evidence, Record, to_ms
from tests.schemas.test_single_object import slow_rabin
from tests.streams.command_line import runner
from tests.streams.command_line import written as lines

OURS = 12  # events that we send; the others are sent as anybody might
OTHERS = 36

Sent = tuple[bytes, list[Header], int]  # value, headers, and what the schema counts as


def avro(scene: Scene, said: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, scene.schemas[1], dict(said))
    return out.getvalue()


def as_json(said: Mapping[str, Any], *left_out: str, **layout: Any) -> bytes:
    made = {**said, "event_time": to_ms(said["event_time"])}
    return json.dumps({name: value for name, value in made.items() if name not in left_out}, **layout).encode()


def counted_as(name: bytes) -> int:
    return number_of(name) - (1 << 32)


def with_ids(scene: Scene) -> list[Callable[[Mapping[str, Any]], Sent]]:
    guid = FileRegistry(scene.folder / "schemas").guid_of(scene.bound.input.subject, scene.bound.written_schema)
    assert guid is not None
    number = counted_as(guid.bytes)
    return [
        lambda said: (scene.encode(said), [], 1),
        lambda said: (avro(scene, said), [(VALUE_SCHEMA_ID, b"\0\0\0\0\1")], 1),
        lambda said: (avro(scene, said), [(VALUE_SCHEMA_ID, b"\1" + guid.bytes)], number),
        lambda said: (b"\1" + guid.bytes + avro(scene, said), [], number),
    ]


def json_objects(scene: Scene) -> list[Callable[[Mapping[str, Any]], Sent]]:
    return [lambda said: (as_json(said), [], -1), lambda said: (as_json(said, indent=1), [], -1)]


def cloud_events(scene: Scene) -> list[Callable[[Mapping[str, Any]], Sent]]:
    def attributes(said: Mapping[str, Any], **more: Any) -> dict[str, str]:
        time = said["event_time"].isoformat().replace("+00:00", "Z")
        return {"specversion": "1.0", "id": said["payment_id"], "source": "/shop", "type": "paid", "time": time, **more}

    def binary(said: Mapping[str, Any], media: str) -> list[Header]:
        return [("content-type", media.encode()), *((f"ce_{name}", text.encode()) for name, text in attributes(said).items())]

    whole: list[Header] = [("content-type", b"application/cloudevents+json")]
    told = ("payment_id", "event_time")  # by the attributes alone
    return [
        lambda said: (as_json(said, *told), binary(said, "application/json"), -1),
        lambda said: (scene.encode({**said, "payment_id": "?"}), binary(said, "application/avro"), 1),
        lambda said: (avro(scene, said), [*binary(said, "application/avro"), (VALUE_SCHEMA_ID, b"\0\0\0\0\1")], 1),
        lambda said: (json.dumps(attributes(said, data=json.loads(as_json(said, *told)))).encode(), whole, -1),
        lambda said: (
            json.dumps(
                attributes(said, datacontenttype="application/avro", data_base64=base64.b64encode(scene.encode(said)).decode())
            ).encode(),
            whole,
            1,
        ),
    ]


def single_objects(scene: Scene) -> list[Callable[[Mapping[str, Any]], Sent]]:
    head = b"\xc3\x01" + slow_rabin(scene.bound.written_schema.canonical.encode()).to_bytes(8, "little")
    return [lambda said: (head + avro(scene, said), [], -1)]


@dataclass(frozen=True)
class Case:
    """A framing, who else writes it, what we write, and records that are none, with reason and words."""

    framing: str
    ways: Callable[[Scene], list[Callable[[Mapping[str, Any]], Sent]]]
    ours: Callable[[Scene], int]  # what the schema of our events counts as
    bad: Sequence[tuple[bytes, list[Header], str, str]]


def guids_number(scene: Scene) -> int:
    return with_ids(scene)[2](payment(0))[2]


CASES = {
    "confluent": Case(
        '"confluent-header"',
        with_ids,
        guids_number,
        [
            (b"\2\2", [(VALUE_SCHEMA_ID, b"\7")], "bad_magic", "header __value_schema_id is 07, wanted"),
            (b"\2\2", [(VALUE_SCHEMA_ID, b"\1" + bytes(16))], "unknown_schema", "GUID 00000000-0000-0000-0000-000000000000 is not in the"),
        ],
    ),
    "json": Case(
        '"json"',
        json_objects,
        lambda scene: -1,
        [
            (b"{", [], "bad_json", "no JSON"),
            (b'{"payment_id": 7}', [], "bad_field", "payment_id is 7, wanted text"),
            (as_json(payment(900, customer_id="C9")), [], "key_mismatch", "its field 'customer_id' says otherwise"),
        ],
    ),
    "cloud events": Case(
        'CloudEvents(id="payment_id", time="event_time")',
        cloud_events,
        lambda scene: -1,
        [(b"{}", [], "bad_envelope", "no CloudEvent"), (b"[]", [("content-type", b"application/cloudevents+json")], "bad_json", "array")],
    ),
    "single objects": Case(
        "SingleObject()",
        single_objects,
        lambda scene: -1,
        [
            (b"\0\0\0\0\1", [], "bad_magic", "wanted c3 01"),
            (b"\xc3\x01" + bytes(8), [], "unknown_fingerprint", "fingerprint 0000000000000000, wanted one of"),
        ],
    ),
}


def in_plain_clothes(scene: Scene, evidence: Evidence, meant: Mapping[int, tuple[Mapping[str, Any], int]]) -> Evidence:
    """The same run over records as the judge reads them; a dead letter stays that of its record only if its value is untouched."""
    plain: dict[bytes | None, bytes] = {}
    inputs: list[Record] = []
    for record in evidence.inputs:
        value = b"?" + (record.value or b"")
        if record.offset in meant:
            said, number = meant[record.offset]
            value = b"\0" + struct.pack(">i", number) + avro(scene, said)
        plain[record.value] = value
        inputs.append(record._replace(value=value))
    letters = [each._replace(value=plain.get(each.value, b"touched")) for each in evidence.letters]
    return replace(evidence, inputs=inputs, letters=letters)


def faults(scene: Scene, meant: Mapping[int, tuple[Mapping[str, Any], int]]) -> list[str]:
    numbers = {number for _, number in meant.values()}
    judge = replace(scene.judge, schemas=dict.fromkeys(numbers, scene.schemas[1]))
    return [str(fault) for fault in judge.faults(in_plain_clothes(scene, scene.evidence(), meant))[:10]]


def drain(scene: Scene) -> None:
    """A worker over all there is, what has just come back included."""
    wait_for("everything sent to be seen", lambda: scene.ends()[0] == last_offset(scene))
    worker = scene.worker(WORKER__UNKNOWN_SCHEMA_RETRY_SECONDS="0.3")
    scene.drained(worker)
    assert worker.stop() == 0, worker.log


@pytest.mark.parametrize("name", CASES)
def test_events_are_scored_refused_mended_and_made_again_in_every_framing(
    name: str, set_up: SetUp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    imports = {"    Count,\n": "    CloudEvents,\n    Count,\n    SingleObject,\n"}
    scene = set_up(changes={**imports, '    event_id="payment_id",\n': f'    event_id="payment_id",\n    framing={case.framing},\n'})
    monkeypatch.setenv("MILLRACE_KAFKA__BOOTSTRAP_SERVERS", scene.broker.bootstrap_servers)
    millrace = runner(scene.folder, monkeypatch, capsys)
    meant: dict[int, tuple[Mapping[str, Any], int]] = {}
    numbers: Iterator[int] = iter(range(1_000))

    # Others send, then a producer of ours, then `millrace send`; one payment in dollars among them, and what is no event.
    ways = case.ways(scene)
    for place in range(OTHERS):
        said = payment(next(numbers), currency="USD" if place == 7 else "EUR")
        value, headers, number = ways[place % len(ways)](said)
        meant[len(meant)] = said, number
        scene.send([(said["customer_id"].encode(), value)], headers=[("trace", b"7"), *headers])
    ours = [payment(next(numbers)) for _ in range(OURS)]
    with EventWriter[Any].of(scene.file, settings=scene.settings) as writer:
        writer.send_all(ours[: OURS // 2])
    file = lines(scene.folder / "events.jsonl", *(as_json(each).decode() for each in ours[OURS // 2 :]))
    assert millrace("send", scene.file, file, "--json").facts["sent"] == OURS - OURS // 2
    for said in ours:
        meant[len(meant)] = said, case.ours(scene)
    for value, headers, _, _ in case.bad:
        scene.send([(b"C0", value)], headers=[("trace", b"7"), *headers])
    drain(scene)
    assert faults(scene, meant) == []
    assert (len(scene.outputs()), len(scene.letters())) == (len(meant) - 1, 1 + len(case.bad))

    # Refused records are as they came, and say why.
    for letter, (value, headers, reason, words) in zip(scene.letters()[1:], case.bad, strict=True):
        assert (letter.value, letter.key) == (value, b"C0")
        assert list(letter.headers[: 1 + len(headers)]) == [("trace", b"7"), *headers]
        assert dict(letter.headers)["millrace.reason"] == reason.encode()
        assert words in (dict(letter.headers)["__connect.errors.exception.message"] or b"").decode()
        at = f"{letter.partition}@{letter.offset}"
        assert words in millrace("dlq", "show", scene.file, at, "--json").facts["message"]

    # A decision by one of the others' records, and one by ours, made again: found by the event's id, too.
    for number in (3, 4, OTHERS + 1):
        facts = millrace("explain", scene.file, "--event", payment(number)["payment_id"], "--json").facts
        assert (facts["verdict"], facts["differences"]) == ("same to the bit", []), facts
        assert facts["event"]["fields"]["payment_id"] == payment(number)["payment_id"]
    refused = millrace("explain", scene.file, "--event", payment(7)["payment_id"], "--json").facts
    assert (refused["verdict"], refused["refused"]["reason"]) == ("refused", "currency_one_of"), refused

    # Features over the same log; the checks of data read it as well.
    built = millrace("features", "build", scene.file, "--from", f"kafka:{scene.bound.input.name}", "--to", "built", "--json").facts
    assert built["events"] == len(meant) + len(case.bad)
    checked = millrace("schema", "validate", f"kafka:{scene.bound.input.name}", "--pipeline-file", scene.file, "--json")
    told = json.loads(checked.out)
    assert told["passed"] == len(meant) - 1
    assert told["reasons"] == Counter((dict(letter.headers)["millrace.reason"] or b"").decode() for letter in scene.letters())

    # What was in dollars comes back in euros, and is scored.
    fix = f"{written(scene.folder, 'fixes.py', EUROS)}:euros"
    back = millrace("dlq", "replay", scene.file, "--with", fix, "--json").facts
    assert (back["replayed"], back["would_pass"]) == (1, 1), back
    meant[len(meant) + len(case.bad)] = {**meant[7][0], "currency": "EUR"}, case.ours(scene)
    drain(scene)
    assert faults(scene, meant) == []
    last = scene.read(scene.bound.input.name)[-1]
    assert dict(last.headers)["trace"] == b"7"
    assert dict(last.headers)["millrace.replay.offset"] == b"7"
