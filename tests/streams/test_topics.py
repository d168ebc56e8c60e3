"""Topics, sending and looking at dead letters, against the real broker."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import TopicError
from streams.dead_letters import HEADER_ROOM_BYTES
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.kafka import OFFSET_BEGINNING, KafkaError, TopicFacts, TopicPartition, plain_consumer, plain_producer
from streams.planning.topics import ANY_MS, DAY_MS, INPUT_RECORD_BYTES, check_topics, findings, planned_topics
from tests.services import Broker
from tests.streams.command_line import Run, payment, runner, written
from tests.streams.payment import bound_pipeline, write_pipeline

SECOND_ENTITY = {"entities=(customer,)": 'entities=(customer, Entity("terminal", "terminal_id", (Window(days(1)),), (Count(),)))'}


def planned_facts(bound: Bound, partitions: int = 1, **changes: dict[str, str]) -> dict[str, TopicFacts]:
    """The facts of topics made as planned; `changes` by role."""
    return {
        plan.name: TopicFacts(plan.name, plan.partitions, {**plan.settings, **changes.get(plan.role.replace(" ", "_"), {})})
        for plan in planned_topics(bound, partitions)
    }


# --- plans and findings ---


def test_planned_topics_have_nothing_wrong_with_them(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path)
    assert findings(bound, planned_facts(bound)) == ()


def test_every_setting_that_could_lose_records_is_said_explicitly(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path)
    source, out, letters = planned_topics(bound, 3)
    assert source.settings["message.timestamp.type"] == "LogAppendTime"
    assert int(source.settings["retention.ms"]) == bound.retention_ms + 7 * DAY_MS
    for plan in (out, letters):
        assert plan.settings["message.timestamp.before.max.ms"] == plan.settings["message.timestamp.after.max.ms"] == ANY_MS
        assert plan.settings["retention.ms"] == "-1"
    assert int(letters.settings["max.message.bytes"]) == int(source.settings["max.message.bytes"]) + HEADER_ROOM_BYTES
    assert {plan.settings["cleanup.policy"] for plan in (source, out, letters)} == {"delete"}


@pytest.mark.parametrize(
    ("role", "settings", "fatal", "words"),
    [
        ("input", {"retention.ms": "3600000"}, False, "the windows look back 1.0 days"),
        ("dead_letters", {"max.message.bytes": "1048588"}, False, "larger letters go out without their value"),
        ("output", {"retention.ms": "604800000"}, False, "one that old is deleted at once"),
        ("output", {"cleanup.policy": "compact"}, True, "compaction"),
        ("dead_letters", {"cleanup.policy": "compact,delete"}, True, "compaction"),
    ],
)
def test_a_setting_that_would_lose_records_is_found(tmp_path: Path, role: str, settings: dict[str, str], fatal: bool, words: str) -> None:
    bound = bound_pipeline(tmp_path)
    facts = planned_facts(bound, 1, **{role: settings})
    (finding,) = findings(bound, facts)
    assert finding.fatal == fatal
    assert words in finding.words
    if fatal:
        with pytest.raises(TopicError, match="compaction"):
            check_topics(bound, facts)
    else:
        assert check_topics(bound, facts) == (finding,)


def test_an_entity_with_another_key_gets_an_internal_topic_unless_one_partition_has_all_its_events(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path, SECOND_ENTITY)
    assert len(planned_topics(bound, 1)) == 3
    internal = planned_topics(bound, 2)[3]
    assert (internal.role, internal.name, internal.partitions) == ("internal", "payments.by-terminal", 2)
    assert internal.settings["message.timestamp.type"] == "LogAppendTime"  # old events must not be deleted at once
    assert int(internal.settings["retention.ms"]) == DAY_MS + 7 * DAY_MS
    assert int(internal.settings["max.message.bytes"]) > INPUT_RECORD_BYTES
    assert findings(bound, planned_facts(bound, 2)) == ()


@pytest.mark.parametrize(
    ("topic", "change", "fatal", "words"),
    [
        ("payments.by-terminal", {"partitions": 3}, True, "it has 3 partitions and payments 2"),
        ("payments.by-terminal", {"retention.ms": "3600000"}, False, "the windows look back 1.0 days"),
        ("payments.by-terminal", {"cleanup.policy": "compact"}, True, "compaction"),
        ("payments.by-terminal", {"message.timestamp.type": "CreateTime"}, True, "old events would be deleted at once"),
        ("payments.by-terminal", {"max.message.bytes": "1048588"}, False, "would not fit"),
    ],
)
def test_what_is_wrong_with_an_internal_topic_is_found(tmp_path: Path, topic: str, change: dict[str, Any], fatal: bool, words: str) -> None:
    bound = bound_pipeline(tmp_path, SECOND_ENTITY)
    facts = planned_facts(bound, 2)
    settings = {**facts[topic].settings, **{name: value for name, value in change.items() if name != "partitions"}}
    facts[topic] = replace(facts[topic], partitions=change.get("partitions", 2), settings=settings)
    (finding,) = findings(bound, facts)
    assert (finding.topic, finding.fatal) == (topic, fatal)
    assert words in finding.words


def test_a_count_of_partitions_that_the_pipeline_does_not_declare_is_refused(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path, {'event_id="payment_id")': 'event_id="payment_id", partitions=2)'})
    with pytest.raises(TopicError, match="declares 2 partitions, and 3 are asked for"):
        planned_topics(bound, 3)
    facts = planned_facts(bound, 2)
    facts["payments"] = replace(facts["payments"], partitions=3)
    with pytest.raises(TopicError, match="it has 3 partitions, and the pipeline declares 2"):
        check_topics(bound, facts)


def test_an_entity_keyed_by_more_than_the_topics_key_stays_in_its_partition(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path, {'key="customer_id", windows': 'key=("customer_id", "currency"), windows'})
    assert len(planned_topics(bound, 8)) == 3


# --- on the broker ---


@pytest.fixture
def millrace(broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command line in a folder of its own, on the test run's broker."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    return runner(tmp_path, monkeypatch, capsys)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline file whose topics no other test has."""
    name = f"pay-{uuid.uuid4().hex[:8]}"
    return write_pipeline(tmp_path, {'Topic("payments"': f'Topic("{name}"', 'Topic("payments.scored"': f'Topic("{name}.scored"'})


def test_create_makes_topics_as_planned_and_registers_schemas_and_may_be_repeated(millrace: Run, pipeline: Path, tmp_path: Path) -> None:
    made = millrace("topics", "create", pipeline, "--partitions", "2", "--json").facts
    assert [topic["made"] for topic in made["topics"]] == [True] * 3
    assert {topic["partitions"] for topic in made["topics"]} == {2}
    bound = load_bound(pipeline)
    for topic, plan in zip(made["topics"], planned_topics(bound, 2), strict=True):
        assert topic["settings"] == dict(plan.settings)
    assert made["findings"] == []
    assert sorted(path.name for path in tmp_path.glob("*.avsc")) == [
        f"1-{bound.input.name}-value.avsc",
        f"2-{bound.output.name}-value.avsc",
        "payments.avsc",
    ]
    again = millrace("topics", "create", pipeline, "--json").facts
    assert [topic["made"] for topic in again["topics"]] == [False] * 3
    assert [schema["made"] for schema in again["schemas"]] == [False] * 2
    assert again["findings"] == []


def test_create_says_what_is_wrong_with_a_topic_that_is_there(millrace: Run, broker: Broker, tmp_path: Path) -> None:
    source = broker.topic("pay", retention_ms="1000")
    file = write_pipeline(tmp_path, {'Topic("payments"': f'Topic("{source}"', 'Topic("payments.scored"': f'Topic("{source}.scored"'})
    done = millrace("topics", "create", file)
    assert done.code == 0, done.err
    assert f"look   {source}: its retention.ms is 1000" in done.out
    assert millrace("topics", "create", file, "--json").facts["topics"][0]["made"] is False


def test_create_makes_internal_topics_with_the_partitions_that_the_input_has(millrace: Run, pipeline: Path, tmp_path: Path) -> None:
    one_entity = load_bound(pipeline)
    assert millrace("topics", "create", pipeline, "--partitions", "3").code == 0
    text = pipeline.read_text().replace('Pipeline(\n    "payments"', f'Pipeline(\n    "{one_entity.input.name.replace("-", "_")}"')
    for old, new in SECOND_ENTITY.items():
        text = text.replace(old, new)
    pipeline.write_text(text)
    made = millrace("topics", "create", pipeline, "--partitions", "5", "--json").facts
    assert [(topic["role"], topic["made"], topic["partitions"]) for topic in made["topics"]] == [
        ("input", False, 3),
        ("output", False, 3),
        ("dead letters", False, 3),
        ("internal", True, 3),
    ]
    assert made["findings"] == []


def test_a_topic_that_is_missing_ends_with_14_and_the_way_out(millrace: Run, pipeline: Path) -> None:
    done = millrace("dlq", "ls", pipeline)
    assert done.code == 14
    assert done.err.count("\n") == 1
    assert "millrace topics create" in done.err


def records(broker: Broker, topic: str, partitions: int = 1) -> list[Any]:
    """Every record of a topic."""
    consumer = plain_consumer(broker.settings, f"test-{uuid.uuid4().hex}")
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)])
    found, ended = [], 0
    while ended < partitions:
        message = consumer.poll(10)
        assert message is not None, f"nothing of {topic} for 10 seconds"
        error = message.error()
        if error is None:
            found.append(message)
        else:
            assert error.code() == KafkaError._PARTITION_EOF
            ended += 1
    consumer.close()
    return found


def test_sent_events_are_keyed_framed_and_in_order_and_bad_ones_are_counted(
    millrace: Run, pipeline: Path, broker: Broker, tmp_path: Path
) -> None:
    millrace("topics", "create", pipeline)
    events = written(tmp_path / "e.jsonl", payment(1), payment(2, amount="many"), payment(3), payment(4))
    done = millrace("send", pipeline, events, "--json")
    assert (done.facts["read"], done.facts["sent"], done.facts["not_sent"]) == (4, 3, 1)
    assert done.facts["troubles"] == ["2: amount is 'many', wanted a number"]
    found = records(broker, load_bound(pipeline).input.name)
    assert [message.key() for message in found] == [b"c1", b"c1", b"c0"]
    assert [message.value()[:5] for message in found] == [b"\0\0\0\0\x01"] * 3
    assert [message.value()[5:8] for message in found] == [b"\x04p1", b"\x04p3", b"\x04p4"]


def test_a_rate_spreads_events_over_time_and_a_limit_ends_them(millrace: Run, pipeline: Path, tmp_path: Path) -> None:
    millrace("topics", "create", pipeline)
    events = written(tmp_path / "e.jsonl", *(payment(n) for n in range(100)))
    facts = millrace("send", pipeline, events, "--rate", "100", "--limit", "31", "--json").facts
    assert facts["sent"] == 31
    assert facts["seconds"] >= 0.3  # the last is due 0.3 s after the first


def test_an_event_larger_than_its_topic_takes_is_counted_and_the_others_sent(millrace: Run, broker: Broker, tmp_path: Path) -> None:
    source = broker.topic("pay", max_message_bytes="2000")
    file = write_pipeline(tmp_path, {'Topic("payments"': f'Topic("{source}"', 'Topic("payments.scored"': f'Topic("{source}.scored"'})
    millrace("topics", "create", file)
    events = written(tmp_path / "e.jsonl", payment(1), payment(2, currency="x" * 5_000), payment(3))
    facts = millrace("send", file, events, "--json").facts
    assert (facts["sent"], facts["not_sent"]) == (2, 1)
    assert facts["troubles"][0].startswith("2: ")


def test_status_shows_each_partition_and_that_no_worker_answers(
    millrace: Run, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_HEALTH__PORT", "1")
    millrace("topics", "create", pipeline)
    millrace("send", pipeline, written(tmp_path / "e.jsonl", payment(1), payment(2)))
    facts = millrace("status", pipeline, "--json").facts
    (stage,) = facts["stages"]
    assert (stage["stage"], stage["group"], stage["topic"]) == ("score", "payments", load_bound(pipeline).input.name)
    assert stage["partitions"] == [{"partition": 0, "begin": 0, "end": 2, "committed": None, "lag": None}]
    assert facts["worker"]["ready"] is False
    page = millrace("status", pipeline).out
    assert "log 0..2, nothing committed" in page
    assert "not ready" in page


# --- dead letters ---


def post(broker: Broker, topic: str, value: bytes | None, stage: str, reason: str, offset: int) -> None:
    """Write a letter as a worker does."""
    headers: list[tuple[str, str | bytes | None]] = [
        ("traceparent", b"00-1"),
        ("__connect.errors.topic", b"payments"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", str(offset).encode()),
        ("__connect.errors.exception.message", b"payments[3]@7 refused by rule: amount is -1.0"),
        ("millrace.stage", stage.encode()),
        ("millrace.reason", reason.encode()),
        ("millrace.timestamp_ms", b"1700000000000"),
    ]
    producer = plain_producer(broker.settings)
    producer.produce(topic, value, b"c1", headers=headers)
    assert producer.flush(20) == 0


def test_letters_are_counted_by_reason_and_one_is_shown_whole(millrace: Run, pipeline: Path, broker: Broker, tmp_path: Path) -> None:
    millrace("topics", "create", pipeline)
    bound = load_bound(pipeline)
    millrace("send", pipeline, written(tmp_path / "e.jsonl", payment(7, amount=-1.0)))
    (record,) = records(broker, bound.input.name)
    letters = bound.input.dead_letters
    assert millrace("dlq", "ls", pipeline, "--json").facts == {"topic": letters, "letters": 0, "reasons": []}
    post(broker, letters, record.value(), "rule", "amount_in_range", 7)
    post(broker, letters, record.value()[:-3], "decode", "truncated", 8)
    post(broker, letters, None, "decode", "tombstone", 9)
    post(broker, letters, record.value(), "rule", "amount_in_range", 10)

    facts = millrace("dlq", "ls", pipeline, "--json").facts
    assert facts["letters"] == 4
    assert facts["reasons"][0] == {"stage": "rule", "reason": "amount_in_range", "letters": 2, "first": "0@0", "last": "0@3"}
    assert "truncated" in millrace("dlq", "ls", pipeline).out

    shown = millrace("dlq", "show", pipeline, "0@0", "--json").facts
    assert (shown["at"], shown["record"], shown["key"]) == (f"{letters}[0]@0", "payments[3]@7", "c1")
    assert shown["value"] == payment(7, amount=-1.0)
    assert bytes.fromhex(shown["value_hex"]) == record.value()
    assert shown["timestamp"] == "2023-11-14T22:13:20.000+00:00"
    assert shown["headers"] == {"traceparent": "00-1"}

    torn = millrace("dlq", "show", pipeline, "0@1", "--json").facts
    assert isinstance(torn["value"], str)
    assert torn["value"]
    assert "no value" in millrace("dlq", "show", pipeline, "0@2").out


@pytest.mark.parametrize(("at", "code"), [("0@99", 14), ("7@0", 14), ("first", 13)])
def test_a_letter_that_is_not_there_is_one_line(millrace: Run, pipeline: Path, at: str, code: int) -> None:
    millrace("topics", "create", pipeline)
    done = millrace("dlq", "show", pipeline, at)
    assert done.code == code
    assert done.err.count("\n") == 1


def test_status_says_that_the_broker_is_away(millrace: Run, pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr("streams.commands.status.ANSWER_SECONDS", 0.5)
    facts = millrace("status", pipeline, "--json").facts
    assert "the broker does not say" in facts["trouble"]
