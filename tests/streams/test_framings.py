"""What a topic's framing means to a pipeline: where it is refused, what is told of it, what its definition's fingerprint knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.avro import write_value
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.errors import DefinitionError, SchemaError
from schemas.framing import VALUE_SCHEMA_ID, SingleObject
from schemas.json_record import as_it_travels
from schemas.registry import FileRegistry
from streams.commands.faults import prove
from streams.definition.bound import Bound
from streams.definition.describe import describe
from streams.planning.plan import plan, plan_words
from streams.producer.wire import wire
from streams.settings import Settings
from tests.schemas.avro_cases import at_row
from tests.streams.payment import bound_pipeline, write_pipeline

PAYMENT = {"payment_id": "P1", "event_time": 1_500, "customer_id": "C1", "terminal_id": "T", "amount": 1.5, "currency": "EUR"}
NOBODY = Settings.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1"}})


def framed(folder: Path, framing: str) -> Bound:
    return bound_pipeline(folder, {'event_id="payment_id")': f'event_id="payment_id", framing={framing})'})


@pytest.mark.parametrize(
    ("framing", "words"),
    [
        ('"json"', "json"),
        ('"confluent-header"', "confluent-header"),
        ("SingleObject()", "single-object Avro"),
        ('SingleObject(("old.avsc",))', "single-object Avro, 1 more writer"),
        (
            'CloudEvents(id="payment_id", time="event_time")',
            "CloudEvents of JSON or confluent Avro, id as payment_id and time as event_time",
        ),
        ('CloudEvents(avro="bare")', "CloudEvents of JSON or bare Avro"),
    ],
)
def test_check_and_plan_say_how_events_are_read(tmp_path: Path, framing: str, words: str) -> None:
    (tmp_path / "old.avsc").write_text('{"type": "record", "name": "Payment", "fields": [{"name": "payment_id", "type": "string"}]}')
    bound = framed(tmp_path, framing)
    told: Any = describe(bound)
    assert told["input"]["read_as"] == words
    assert json.loads(json.dumps(told)) == told
    planned = plan_words(plan(bound, NOBODY, answer_seconds=0.1))
    assert f"  framing  {words}\n" in planned
    assert "framing" not in plan_words(plan(bound_pipeline(tmp_path), NOBODY, answer_seconds=0.1))


@pytest.mark.parametrize(
    ("framing", "kind", "words"),
    [
        ('SingleObject(("nowhere.avsc",))', SchemaError, "nowhere.avsc can't be read"),
        ('SingleObject("old.avsc")', DefinitionError, "writers='old.avsc', wanted a tuple of .avsc files"),
        ('SingleObject(("micros.avsc",))', DefinitionError, "topic 'payments': two schemas of Payment have the fingerprint"),
        ('CloudEvents(id="id")', DefinitionError, "topic 'payments': CloudEvents: id='id' is no field of Payment; there are payment_id"),
        ('CloudEvents(time="amount")', DefinitionError, "topic 'payments': CloudEvents: time='amount' is of type double"),
        ('CloudEvents(avro="json")', DefinitionError, "CloudEvents: avro='json', wanted 'confluent' or 'bare'"),
    ],
)
def test_a_framing_that_does_not_go_with_its_topic_is_refused(tmp_path: Path, framing: str, kind: type[Exception], words: str) -> None:
    write_pipeline(tmp_path, fields={"event_time": {"type": "long", "logicalType": "timestamp-micros"}})
    (tmp_path / "micros.avsc").write_text((tmp_path / "payments.avsc").read_text())
    with pytest.raises(kind) as caught:
        framed(tmp_path, framing)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fingerprint_knows_the_framing_and_the_state_does_not(tmp_path: Path) -> None:
    (tmp_path / "old.avsc").write_text('{"type": "record", "name": "Payment", "fields": [{"name": "payment_id", "type": "string"}]}')
    framings = ['"confluent"', '"json"', "SingleObject()", 'SingleObject(("old.avsc",))', "CloudEvents()", 'CloudEvents(id="payment_id")']
    bounds = [framed(tmp_path, framing) for framing in framings]
    assert len({bound.fingerprint for bound in bounds}) == len(framings)
    assert len({bound.state_fingerprint for bound in bounds}) == 1
    assert bounds[0].fingerprint == bound_pipeline(tmp_path).fingerprint
    assert framed(tmp_path, 'CloudEvents(source="a", type="b")').fingerprint == bounds[4].fingerprint  # said of what is written alone


def test_the_files_of_writers_are_found_from_the_pipelines_folder(tmp_path: Path) -> None:
    (tmp_path / "old.avsc").write_text('{"type": "record", "name": "Payment", "fields": [{"name": "payment_id", "type": "string"}]}')
    framing = framed(tmp_path, 'SingleObject(("old.avsc",))').input.framing
    assert isinstance(framing, SingleObject)
    assert [str(each) for each in framing.writers] == ["Payment"]


@pytest.mark.parametrize(
    "framing",
    [
        '"confluent"',
        '"confluent-header"',
        '"bare"',
        '"json"',
        "SingleObject()",
        'CloudEvents(time="event_time")',
        'CloudEvents(data="avro")',
    ],
)
def test_what_is_written_to_a_topic_is_what_its_workers_read(tmp_path: Path, framing: str) -> None:
    bound = framed(tmp_path, framing)
    (tmp_path / "1-payments-value.avsc").write_text(json.dumps(bound.schema.definition))
    avro = write_value(PAYMENT, as_it_travels(bound.schema))
    value, headers = wire(bound.input, bound.written_schema, tmp_path, NOBODY, "")(avro, [("trace", b"7")])
    assert headers[0] == ("trace", b"7")
    assert (VALUE_SCHEMA_ID in dict(headers)) == (framing == '"confluent-header"')
    decoder = Decoder(bound.schema, bound.input.framing, FileRegistry(tmp_path))
    decoded = decoder.decode(PackedBytes.pack([value]), None, {0: headers})
    assert decoded.rejected.tolist() == [0]
    plain = Decoder(bound.schema, "bare").decode(PackedBytes.pack([avro]))
    for name, column in plain.columns.items():
        assert at_row(decoded.columns[name], 0) == at_row(column, 0)


def test_a_schema_that_is_not_registered_is_needed_only_by_framings_that_name_it(tmp_path: Path) -> None:
    for framing, names in (('"json"', False), ("CloudEvents()", False), ("SingleObject()", False), ('CloudEvents(data="avro")', True)):
        bound = framed(tmp_path, framing)
        if names:
            with pytest.raises(SchemaError, match="the schema of payments is not registered; the way out"):
                wire(bound.input, bound.written_schema, tmp_path, NOBODY, "the way out")
        else:
            wire(bound.input, bound.written_schema, tmp_path, NOBODY, "")


def test_a_run_of_faults_refuses_a_topic_whose_events_it_can_not_make(tmp_path: Path) -> None:
    framed(tmp_path, '"json"')
    with pytest.raises(DefinitionError, match="topic 'payments' is json; this command makes events in framing 'confluent' or 'bare' only"):
        prove(tmp_path / "pipeline.py", None, 1.0, 7, 1.0)
