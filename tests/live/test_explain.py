"""`millrace explain`: decisions of real workers, made again from their logs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from schemas.errors import HistoryError, SettingsError, StateError, TopicError
from streams.explain.explain import Options, explain
from streams.explain.log import LogReader
from streams.kafka import TopicPartition
from streams.state.snapshot import snapshot
from tests.live.conftest import SetUp
from tests.live.model import write_model
from tests.live.scene import START_MS, payment
from tests.live.stage_scene import StageScene
from tests.live.test_stages import frauds
from tests.live.test_stages import payments as staged_payments
from tests.oracles.payments import DAY_MS
from tests.services import Broker
from tests.streams.command_line import runner

FIRST, EVENTS = 300, 400
LATE = {50: 30, 120: 400, 121: 5, 330: 250}  # at whose place in the log which minute's payment comes


def minute(place: int) -> int:
    return LATE.get(place, place)


def sent(first: int, end: int) -> list[dict[str, Any]]:
    """Payments a minute apart, some late or too late, some that a rule refuses."""
    return [
        {**payment(minute(place), amount=-1.0 if place % 97 == 0 else payment(minute(place))["amount"]), "payment_id": f"P{place}"}
        for place in range(first, end)
    ]


def windows_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{entity['entity']}_{window['window']}": window
        for stage in facts["stages"]
        for entity in stage["entities"]
        for window in entity["windows"]
    }


def test_decisions_of_one_stage_are_made_again(
    set_up: SetUp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scene = set_up()
    topic, bound, settings = scene.bound.input.name, scene.bound, scene.settings
    scene.send_payments(sent(0, FIRST))
    worker = scene.worker()
    scene.drained(worker)
    snapshot(bound, settings, tmp_path / "kept")
    scene.send_payments(sent(FIRST, EVENTS))
    scene.drained(worker)
    assert worker.stop() == 0

    # On time, late, too late, and the first of all that was scored.
    for offset, timing in ((350, "on_time"), (50, "late"), (121, "too_late"), (1, "on_time")):
        facts: Any = explain(bound, settings, f"{topic}[0]@{offset}", None)
        assert (facts["verdict"], facts["differences"]) == ("same to the bit", []), facts
        assert facts["score"]["timing"] == facts["served"]["timing"] == timing
        assert facts["event"]["fields"]["payment_id"] == f"P{offset}"
        windows = windows_of(facts)
        for name in ("1d", "7d", "30d"):
            seen = windows[f"customer_{name}"]
            assert len(seen["events"]) + 1 == facts["features"][f"customer_count_{name}"]
            assert seen["itself"]
        moved = facts["contributions"]
        if offset > 1:
            assert moved["method"] == "trees"
            total = moved["baseline"] + sum(each["contribution"] for each in moved["features"])
            assert total == pytest.approx(facts["score"]["score"], abs=1e-5)

    # Who is inside, said by the definition: all of the customer's before it that were remembered. Nothing is a day old.
    facts = explain(bound, settings, f"{topic}[0]@350", None)
    inside = [p for p in range(350) if minute(p) % 7 == minute(350) % 7 and p % 97 and p != 121 and minute(p) <= minute(350)]
    events = windows_of(facts)["customer_1d"]["events"]
    assert sorted(each["event_id"] for each in events) == sorted(f"P{p}" for p in inside)
    assert events == sorted(events, key=lambda each: each["event_ms"])
    assert {each["at"] for each in events} == {f"{topic}[0]@{p}" for p in inside}
    assert facts["served"]["at"].startswith(bound.output.name)

    # Timestamps that say nothing of event times: all of the log is read before a difference is believed.
    with monkeypatch.context() as patched:
        patched.setattr(LogReader, "offset_at", lambda self, topic, partition, time_ms: 340)
        again = explain(bound, settings, f"{topic}[0]@350", None)
    assert again == facts

    # The same decision by the address of its answer, and by the event's id.
    assert explain(bound, settings, facts["served"]["at"], None) == facts
    assert explain(bound, settings, None, "P350") == facts

    # A record that was refused, one that has no answer yet, and what there is not.
    facts = explain(bound, settings, f"{topic}[0]@97", None)
    assert (facts["verdict"], facts["refused"]["reason"], facts["score"]) == ("refused", "amount_in_range", None)
    assert explain(bound, settings, None, "P194")["verdict"] == "refused"
    scene.send_payments([{**payment(EVENTS), "payment_id": "new"}])
    facts = explain(bound, settings, None, "new")
    assert (facts["verdict"], facts["served"], facts["score"]["timing"]) == ("nothing was served", None, "on_time")
    for at, event_id, kind, words in (
        (f"{topic}[0]@9999", None, HistoryError, "no record at"),
        (f"{topic}[3]@1", None, HistoryError, "has 1 partitions"),
        (f"{bound.output.name}[0]@9999", None, HistoryError, "no scored event at"),
        ("elsewhere[0]@1", None, SettingsError, "no topic that events of pipeline"),
        (topic, None, SettingsError, "wanted TOPIC\\[PARTITION\\]@OFFSET"),
        (None, "nobody", HistoryError, "no event 'nobody'"),
        (None, None, SettingsError, "either the address"),
    ):
        with pytest.raises(kind, match=words):
            explain(bound, settings, at, event_id)

    with pytest.raises(TopicError, match="no topic nowhere on the broker"):
        explain(replace(bound, pipeline=replace(bound.pipeline, input=replace(bound.input, name="nowhere"))), settings, None, "P1")

    # The command line, as text, as JSON, and as a page that parses.
    run = runner(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", scene.broker.bootstrap_servers)
    done = run("explain", scene.file, f"{topic}[0]@350", "--html", tmp_path / "page.html")
    assert done.code == 0, done.err
    assert "same to the bit" in done.out
    assert "49 events and itself" in done.out
    page = (tmp_path / "page.html").read_text()
    pictures = [f"<svg{part.partition('</svg>')[0]}</svg>" for part in page.split("<svg")[1:]]
    assert len(pictures) == 3
    circles = [len(list(ElementTree.fromstring(each).iter("circle"))) for each in pictures]
    assert circles == [0, 49, 0], "the customer's past; nothing of the terminal's is a week old"
    assert run("explain", scene.file, "--event", "P350", "--json").facts["verdict"] == "same to the bit"

    # A model of another version, a function that changed, other definitions: each is named.
    write_model(bound, bound.model_path, version="2")
    facts = explain(bound, settings, f"{topic}[0]@350", None)
    assert [each["what"] for each in facts["differences"]] == ["model version"]
    write_model(bound, tmp_path / "old.onnx", version="1")
    assert explain(bound, settings, f"{topic}[0]@350", None, Options(model=tmp_path / "old.onnx"))["differences"] == []
    scene.write_pipeline(
        {"% days(1) // hours(1) <= 6": "% days(1) // hours(1) <= 5", "days(1)), Window(days(7))": "days(1)), Window(hours(2))"}
    )
    write_model(scene.bound, bound.model_path)
    done = run("explain", scene.file, f"{topic}[0]@370", "--json")
    assert done.code == 1
    named = {each["what"] for each in json.loads(done.out)["differences"]}
    scene.write_pipeline({"0, 50_000),\n": "0, 100),\n"})
    write_model(scene.bound, bound.model_path)
    facts = explain(scene.bound, settings, f"{topic}[0]@350", None)
    assert (facts["verdict"], facts["refused"]["reason"]) == ("not the same", "amount_in_range")
    assert [(each["what"], each["computed"]) for each in facts["differences"]] == [("refused", "amount_in_range")]
    assert {"definitions", "feature night", "feature customer_count_7d"} <= named
    scene.write_pipeline({})
    write_model(bound, bound.model_path)

    # The log's beginning is deleted: a snapshot takes its place, or what is left has to do.
    client = scene.broker.admin
    for answer in client.delete_records([TopicPartition(topic, 0, 200)]).values():
        answer.result()
    with pytest.raises(HistoryError, match=r"the log begins at 200 .* `--snapshot FOLDER` begins with"):
        explain(bound, settings, f"{topic}[0]@350", None)
    facts = explain(bound, settings, f"{topic}[0]@350", None, Options(snapshots=tmp_path / "kept"))
    assert facts["verdict"] == "same to the bit"
    assert (facts["stages"][0]["read_from"], facts["stages"][0]["records_read"]) == (FIRST, 350 - FIRST)
    assert [each["event_id"] for each in windows_of(facts)["customer_1d"]["events"] if each["event_id"]] == [
        f"P{p}" for p in inside if p >= FIRST
    ]
    assert {each["at"] for each in windows_of(facts)["customer_1d"]["events"]} == {f"{topic}[0]@{p}" for p in inside}
    with pytest.raises(StateError, match="no snapshot for"):
        explain(bound, settings, f"{topic}[0]@250", None, Options(snapshots=tmp_path / "kept"))
    facts = explain(bound, settings, f"{topic}[0]@350", None, Options(accept_short_log=True))
    assert facts["verdict"] == "not the same"
    assert {"feature customer_count_30d", "score"} <= {each["what"] for each in facts["differences"]}
    assert all("the log begins at 200" in each["why"] for each in facts["differences"] if each["what"].startswith("feature"))


def test_decisions_of_two_stages_with_labels_are_made_again(broker: Broker, redis_url: str, tmp_path: Path) -> None:
    scene = StageScene(tmp_path / "scene", broker, redis_url)
    try:
        worker = scene.worker()
        early = staged_payments(400)
        scene.send_payments(early)
        scene.drained_stages(worker)
        scene.send_labels(frauds(early))
        scene.drained_stages(worker)
        scene.send_payments(staged_payments(200, first=400))
        scene.send_payments(staged_payments(100, first=600, days_later=1))
        scene.drained_stages(worker)
        assert worker.stop() == 0
        hop = scene.stages["by-terminal"].input.name
        labelled = 0
        for number in (3, 399, 650, 699):
            facts: Any = explain(scene.bound, scene.settings, None, f"P{number:06}")
            assert (facts["verdict"], facts["differences"]) == ("same to the bit", []), (number, facts["differences"])
            assert [stage["stage"] for stage in facts["stages"]] == ["by-customer", "by-terminal"]
            assert facts["stages"][1]["at"].startswith(hop)
            for name, window in windows_of(facts).items():
                entity, _, suffix = name.partition("_")
                assert len(window["events"]) + window["itself"] == facts["features"][f"{entity}_count_{suffix}"]
                if entity == "terminal":
                    ones = sum(each["label"] == 1 for each in window["events"])
                    assert ones == facts["features"][f"terminal_label_count_{suffix}"]
                    labelled += ones
                    assert all(each["source"].startswith(scene.bound.input.name) for each in window["events"])
        assert labelled > 5, "labels should be seen"

        # A record in the middle of its way leads to the same, and a label's record to none.
        assert explain(scene.bound, scene.settings, facts["stages"][1]["at"], None) == facts
        assert facts["event"]["event_ms"] == START_MS + DAY_MS + 699 * 10_000
        labels = [record for record in scene.read(hop) if b"P000000" in (record.value or b"")]
        at = f"{hop}[{labels[-1].partition}]@{labels[-1].offset}"
        with pytest.raises(HistoryError, match="is a label, wanted an event"):
            explain(scene.bound, scene.settings, at, None)
    finally:
        scene.close()
