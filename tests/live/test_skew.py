"""`millrace features skew`: what a real worker served, against its log."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from schemas.errors import HistoryError
from streams.hop import HopSchema
from streams.kafka import TopicPartition, plain_producer
from streams.offline.skew import skew, skew_words
from streams.offline.topic_history import Edge
from tests.live.conftest import SetUp
from tests.live.scene import Scene, payment
from tests.live.stage_scene import StageScene
from tests.live.test_stages import frauds, payments
from tests.services import Broker
from tests.streams.command_line import runner

EVENTS = 600


def served(set_up: SetUp) -> Scene:
    """A scene whose worker has scored payments of some customers, a few of them late, too late or refused."""
    scene = set_up()
    late = {50: 30, 120: 400, 121: 5, 300: 0}  # at whose place in the log an older payment comes
    numbers = [late.get(place, place) for place in range(EVENTS)]
    scene.send_payments(
        {**payment(number, amount=-1.0 if place % 97 == 0 else payment(number)["amount"]), "payment_id": f"P{place}"}
        for place, number in enumerate(numbers)
    )
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0
    return scene


def test_what_was_served_is_computed_again_to_the_bit_and_what_was_not_is_named(
    set_up: SetUp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scene = served(set_up)
    refused = len(range(0, EVENTS, 97))
    facts = skew(scene.bound, scene.settings)
    assert facts["reasons"] == {}, skew_words(facts)
    assert facts["compared"] == facts["equal"] == EVENTS - refused

    # A span in the middle: what came before it fills the windows.
    part = skew(scene.bound, scene.settings, Edge(offset=400), Edge(offset=500))
    assert (part["compared"], part["equal"], part["reasons"]) == (100 - 1, 100 - 1, {})

    # A function that changed without its version.
    scene.write_pipeline({"% days(1) // hours(1) <= 6": "% days(1) // hours(1) <= 5"})
    facts = skew(scene.bound, scene.settings)
    assert set(facts["columns"] if isinstance(facts["columns"], dict) else ()) == {"night"}
    assert isinstance(facts["reasons"], dict)
    assert list(facts["reasons"]) == ["other values"]
    words = skew_words(facts)
    assert f"{scene.bound.input.name}[0]@3" in words
    assert "night: served 1.0, computed 0.0" in words

    run = runner(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", scene.broker.bootstrap_servers)
    done = run("features", "skew", scene.file)
    assert (done.code, done.err) == (1, "")
    assert "not the same" in done.out

    # Other definitions; and a rule that would refuse now what was served.
    scene.write_pipeline({"lateness_ms=hours(1),\n)\n\n# A": "lateness_ms=hours(2),\n)\n\n# A", "0, 50_000),\n": "0, 100),\n"})
    facts = skew(scene.bound, scene.settings, None, Edge(offset=300))
    assert isinstance(facts["reasons"], dict)
    assert set(facts["reasons"]) == {"other features", "served, and would be refused"}


def test_an_event_that_was_not_served_is_named(set_up: SetUp) -> None:
    scene = set_up()
    scene.send_payments(payment(number) for number in range(20))
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0
    scene.send_payments(payment(number) for number in range(20, 25))
    facts = skew(scene.bound, scene.settings)
    assert facts["reasons"] == {"not served yet": 5}
    assert facts["compared"] == facts["equal"] == 20


@pytest.fixture
def stage_scene(broker: Broker, redis_url: str, tmp_path: Path) -> Iterator[StageScene]:
    scene = StageScene(tmp_path / "stages", broker, redis_url)
    yield scene
    scene.close()


def test_what_several_stages_and_labels_served_is_computed_again_to_the_bit(
    stage_scene: StageScene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scene, hop = stage_scene, stage_scene.stages["by-terminal"].input.name
    early = [{**each, "amount": -1.0 if place % 97 == 0 else each["amount"]} for place, each in enumerate(payments(500))]
    good = [each for each in early if each["amount"] >= 0]
    worker = scene.worker()
    scene.send_payments(early)
    scene.drained_stages(worker)
    scene.send_labels([*frauds(good), *frauds(good, fraud=False, every=10)])  # told, and half of them corrected
    scene.drained_stages(worker)
    scene.send_payments(payments(300, first=500, days_later=1))
    scene.drained_stages(worker)
    assert worker.stop() == 0, worker.log
    rates = [scene.judge_of_stages.payments.read(record)["features"]["terminal_label_rate_2d_delay_2h"] for record in scene.outputs()]
    assert sum(0 < rate < 1 for rate in rates) > 200, "labels should have counted"

    labels = len(good[::5]) + len(good[::10])
    facts: Any = skew(scene.bound, scene.settings)
    assert facts["reasons"] == {}, skew_words(facts)
    assert facts["compared"] == facts["equal"] == len(good) + 300
    assert facts["stages"] == [
        {"stage": "by-customer", "topic": scene.name, "records": 800, "labels": 0},
        {"stage": "by-terminal", "topic": hop, "records": len(good) + 300 + labels, "labels": labels},
    ]
    assert f"by-terminal: {len(good) + 300 + labels:,} records of {hop}, {labels} of them labels" in skew_words(facts)

    # A span in the middle: the windows of both stages are as full as they were.
    ends = scene.ends()
    part: Any = skew(scene.bound, scene.settings, Edge(offset=90), Edge(offset=130))
    assert part["reasons"] == {}
    assert 0 < part["compared"] <= sum(min(max(end - 90, 0), 40) for end in ends.values())

    # A function that changed without its version, in the first stage; and definitions that the log in between was not written by.
    scene.write_pipeline({**scene.changes, "% days(1) // hours(1) <= 6": "% days(1) // hours(1) <= 0"})
    other: Any = skew(scene.bound, scene.settings)
    assert (set(other["columns"]), set(other["reasons"])) == ({"night"}, {"other values"})
    scene.write_pipeline({**scene.changes, "days(1)), Window(days(7))": "days(1)), Window(hours(2))"})
    with pytest.raises(HistoryError, match=f"'by-terminal' was handed can't be computed again: {hop}.* another definition"):
        skew(scene.bound, scene.settings)
    scene.write_pipeline(scene.changes)

    # A record that was handed on once more is told of.
    first = scene.read(hop)[0]
    producer = plain_producer(scene.settings.kafka)
    producer.produce(hop, first.value, first.key, first.partition)
    assert producer.flush(30) == 0
    facts = skew(scene.bound, scene.settings)
    assert (facts["reasons"], facts["handed_on_again"]) == ({}, 1)

    # The log in between is cut: what it lacks can't be compared, and what stood behind that has lost some of its past.
    client = scene.broker.admin
    for answer in client.delete_records([TopicPartition(hop, first.partition, 40)]).values():
        answer.result()
    facts = skew(scene.bound, scene.settings)
    lacking = facts["reasons"]["not in a stage's log"]
    assert 0 < lacking <= 40
    assert facts["compared"] + lacking == len(good) + 300
    assert {name.split("_")[0] for name in facts["columns"]} == {"terminal"}
    run = runner(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", scene.broker.bootstrap_servers)
    done = run("features", "skew", scene.file)
    assert (done.code, done.err) == (1, "")
    assert f"{hop} does not have it, or does not reach back to it" in done.out


def hop_schema(scene: StageScene) -> Any:
    definition: Any = HopSchema.of(scene.bound, scene.stages["by-terminal"]).schema.definition
    return fastavro.parse_schema(definition)


def test_a_record_that_changed_between_two_stages_is_found_though_both_were_right_about_what_they_had(stage_scene: StageScene) -> None:
    scene, stage = stage_scene, stage_scene.stages["by-terminal"]
    hop, schema = stage.input.name, hop_schema(scene)
    first = scene.worker("first", "--stages", "by-customer")
    scene.send_payments(payments(100))
    scene.drained_of(("by-customer",), (first,))
    assert first.stop() == 0
    handed = scene.read(hop)
    client = scene.broker.admin
    for answer in client.delete_records([TopicPartition(hop, partition, -1) for partition in range(scene.partitions)]).values():
        answer.result()
    producer = plain_producer(scene.settings.kafka)
    for place, record in enumerate(handed):
        said: Any = fastavro.schemaless_reader(io.BytesIO(record.value or b""), schema, None)
        if place == 50:
            said["keys"]["terminal_id"] = "T-other"
            changed = f"{scene.name}[{said['source_partition']}]@{said['source_offset']}"
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, said)
        assert place == 50 or out.getvalue() == record.value
        producer.produce(hop, out.getvalue(), record.key, record.partition)
    assert producer.flush(30) == 0
    second = scene.worker("second", "--stages", "by-terminal")
    scene.drained_of(("by-terminal",), (second,))
    assert second.stop() == 0

    facts: Any = skew(scene.bound, scene.settings)
    assert facts["reasons"] == {"handed on otherwise": 1}, skew_words(facts)
    (shown,) = facts["first"]
    assert (shown["at"], shown["columns"]) == (changed, {})
