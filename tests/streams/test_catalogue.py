"""`millrace catalogue`: every topic of some pipelines, who writes and reads it, and what hangs on each field; no broker is near."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from streams.definition.load import load_bound
from streams.scored_event import output_schema
from tests.streams.command_line import Run, runner
from tests.streams.payment import write_pipeline
from tests.streams.staged import write_staged

CONSTRAINTS = """
format: 1
version: 2
owner: frauds@bank.example
description: words
fields:
  merchant.terminal_id: {regex: "T[0-9]+"}
  label_time: {presence: 0.9}
relations:
  - {name: told_after, holds: event_time <= label_time}
"""
SECOND = """
from millrace import Count, Entity, Model, Pipeline, Topic, Window, days

kind = Entity("kind", key="pipeline", windows=(Window(days(1)),), aggregates=(Count(),))
pipeline = Pipeline(
    "second",
    input=Topic("payments.scored", schema="scored.avsc", key="event_id", event_time="event_time", event_id="event_id"),
    entities=(kind,),
    model=Model("second", path="second.onnx", inputs=("threshold", *kind.feature_names)),
    output=Topic("second.scored"),
)
"""


@pytest.fixture
def millrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def topics(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {each["topic"]: each for each in facts["topics"]}


def named(parties: list[dict[str, Any]]) -> list[str]:
    return sorted(each.get("stage") or each["command"] for each in parties)


def used(topic: Mapping[str, Any], field: str) -> Any:
    (found,) = (each for each in topic["fields"] if each["name"] == field)
    return found["uses"][0] if found["uses"] else {}


def test_every_topic_says_who_writes_and_who_reads_it(millrace: Run, tmp_path: Path) -> None:
    write_staged(tmp_path)
    facts = millrace("catalogue", "pipeline.py", "--partitions", "4", "--json").facts
    assert {name: (each["roles"], named(each["written_by"]), named(each["read_by"])) for name, each in topics(facts).items()} == {
        "payments": (["input"], ["dlq replay"], ["by-customer"]),
        "fraud.by-device": (["internal"], ["by-customer"], ["by-device"]),
        "fraud.by-terminal": (["internal"], ["by-device", "labels"], ["by-terminal"]),
        "payments.scored": (["output"], ["by-terminal"], []),
        "payments.dlq": (["dead letters"], ["by-customer", "by-device", "by-terminal"], ["dlq replay"]),
        "payments.dlq.audit": (["receipts"], ["dlq replay"], ["dlq replay"]),
        "payment-labels": (["labels"], ["dlq replay --labels"], ["labels"]),
        "payment-labels.dlq": (["dead letters"], ["by-terminal", "labels"], ["dlq replay --labels"]),
        "payment-labels.dlq.audit": (["receipts"], ["dlq replay --labels"], ["dlq replay --labels"]),
    }
    assert [each["group"] for each in topics(facts)["payment-labels.dlq"]["read_by"]] == ["fraud.labels.dlq"]
    assert [each["group"] for each in topics(facts)["fraud.by-device"]["read_by"]] == ["fraud.by-device"]
    planned = millrace("plan", "pipeline.py", "--partitions", "4", "--json").facts
    without_receipts = {name for name, each in topics(facts).items() if each["roles"] != ["receipts"]}
    assert {each["topic"] for each in planned["topics"]} == without_receipts
    alone = millrace("catalogue", "pipeline.py", "--json").facts
    assert "fraud.by-device" not in topics(alone), "one partition needs no hop for what is not told later"


def test_every_field_says_what_hangs_on_it(millrace: Run, tmp_path: Path) -> None:
    write_staged(tmp_path)
    (tmp_path / "payment-labels.constraints.yaml").write_text(CONSTRAINTS)
    found = topics(millrace("catalogue", "pipeline.py", "--json").facts)
    counted = ["terminal_label_count_7d_delay_7d", "terminal_label_rate_7d_delay_7d"]
    assert used(found["payments"], "country") == {
        "pipeline": "fraud",
        "features": ["device_country_distinct_7d"],
        "model": ["device_country_distinct_7d"],
        "output": ["scores", "decision", "features"],
    }
    assert used(found["payments"], "note") == {}
    assert used(found["payment-labels"], "fraud") == {
        "pipeline": "fraud",
        "roles": ["label"],
        "rules": ["fraud_given"],
        "features": counted,
        "model": counted,
    }
    terminal = used(found["payment-labels"], "merchant.terminal_id")
    assert terminal["rules"] == ["merchant_terminal_id_given", "merchant_terminal_id_regex"]
    assert terminal["features"] == counted
    assert used(found["payment-labels"], "label_time") == {"pipeline": "fraud", "roles": ["time of the label"], "rules": ["told_after"]}
    said = {each["name"]: each["constraints"] for each in found["payment-labels"]["fields"] if each["constraints"]}
    assert said == {"merchant.terminal_id": {"regex": "T[0-9]+"}, "label_time": {"presence": 0.9}}
    (constraints,) = found["payment-labels"]["constraints"]
    assert (constraints["version"], constraints["holds"]["relations"]) == (2, [["told_after", "event_time <= label_time"]])


def test_what_one_pipeline_writes_another_reads(millrace: Run, tmp_path: Path) -> None:
    first = load_bound(write_pipeline(tmp_path))
    (tmp_path / "scored.avsc").write_text(json.dumps(output_schema(first).definition))
    (tmp_path / "second.py").write_text(SECOND)
    (tmp_path / "no_pipeline.py").write_text("x = 1\n")
    facts = millrace("catalogue", "--json").facts
    assert [each["pipeline"] for each in facts["pipelines"]] == ["payments", "second"]
    between = topics(facts)["payments.scored"]
    assert between["roles"] == ["output", "input"]
    assert [each.get("pipeline") for each in between["written_by"] if "stage" in each] == ["payments"]
    assert [each["pipeline"] for each in between["read_by"]] == ["second"]
    assert {each["fingerprint"] for each in between["schemas"]} == {output_schema(first).fingerprint}
    assert used(between, "threshold")["model"] == ["threshold"]
    words = millrace("catalogue").out
    assert "written by  payments, stage score\n" in words
    assert "threshold" in words


def test_versions_are_those_of_the_folder_or_the_registry(millrace: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pipeline(tmp_path)
    (tmp_path / "3-payments-value.avsc").write_text((tmp_path / "payments.avsc").read_text())
    other = json.loads((tmp_path / "payments.avsc").read_text())
    other["fields"].append({"name": "more", "type": "int", "default": 0})
    (tmp_path / "7-payments-value.avsc").write_text(json.dumps(other))
    (schema,) = topics(millrace("catalogue", "pipeline.py", "--json").facts)["payments"]["schemas"]
    assert schema["versions"] == {"subject": "payments-value", "latest": 7, "ours": 3, "ids": [3, 7], "says": ""}
    assert "payments-value, latest id 7 of 3, 7; this is 3" in millrace("catalogue", "pipeline.py").out
    assert "payments.scored-value is not registered" in millrace("catalogue", "pipeline.py").out

    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("MILLRACE_REGISTRY__CLIENT__MAX_RETRIES", "0")
    down = topics(millrace("catalogue", "pipeline.py", "--json").facts)
    for topic in ("payments", "payments.scored"):
        versions = down[topic]["schemas"][0]["versions"]
        assert (versions["latest"], versions["ours"]) == (None, None)
        assert "schema registry http://127.0.0.1:1 does not answer" in versions["says"]


@pytest.mark.parametrize(
    ("framing", "words"),
    [
        ('"json"', "json, in no registry"),
        ('"bare"', "bare, in no registry"),
        ("SingleObject()", "single-object Avro, in no registry"),
        ('CloudEvents(id="payment_id")', "CloudEvents of JSON or confluent Avro, id as payment_id: payments-value is not registered"),
        ('CloudEvents(avro="bare")', "CloudEvents of JSON or bare Avro, in no registry"),
    ],
)
def test_a_topic_says_how_its_records_are_framed(millrace: Run, tmp_path: Path, framing: str, words: str) -> None:
    write_pipeline(tmp_path, {'event_id="payment_id"': f'event_id="payment_id", framing={framing}'})
    assert words in millrace("catalogue", "pipeline.py").out


def test_one_field_is_shown_with_all_that_hangs_on_it(millrace: Run, tmp_path: Path) -> None:
    write_staged(tmp_path)
    facts = millrace("catalogue", "pipeline.py", "--field", "merchant", "--json").facts
    assert {name: [field["name"] for field in each["fields"]] for name, each in topics(facts).items()} == {
        "payments": ["merchant.terminal_id", "merchant.city"],
        "payment-labels": ["merchant.terminal_id"],
    }
    short = millrace("catalogue", "pipeline.py").out
    whole = millrace("catalogue", "pipeline.py", "--field", "event_time").out
    assert "and 5 more features" in short
    assert "more feature" not in whole and "terminal_label_rate_7d_delay_7d (model)" in whole


def test_the_page_has_everything_and_runs_nothing(millrace: Run, tmp_path: Path) -> None:
    write_staged(tmp_path)
    schema = json.loads((tmp_path / "payments.avsc").read_text())
    schema["fields"][0]["doc"] = "<script>alert(1)</script>"
    (tmp_path / "payments.avsc").write_text(json.dumps(schema))
    done = millrace("catalogue", "pipeline.py", "--html", "topics.html", "--json")
    page = (tmp_path / "topics.html").read_text()
    for name, topic in topics(done.facts).items():
        assert f'<section id="{name}">' in page
        assert all(f"<code>{each['name']}</code>" in page for each in topic["fields"])
    assert "&lt;script&gt;" in page
    assert not [word for word in ("<script", "http://", "https://", "src=", "@import") if word in page]
    again = millrace("catalogue", "pipeline.py", "--html", "topics.html")
    assert again.code != 0 and "wanted a file that is not there yet" in again.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--field", "merchnt"), "no topic here has a field 'merchnt'"),
        (("nowhere.py",), "no pipeline file at nowhere.py"),
        (("--dir", "empty"), "wanted some, or --dir with the folder that has them"),
        (("--live",), "the broker does not say what its topics are"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    millrace: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    write_staged(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("MILLRACE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    done = millrace("catalogue", *arguments)
    assert done.code != 0
    assert words in done.err and len(done.err.splitlines()) == 1, done.err
