"""Dead letters of a pipeline in two stages come back: events that both stages' windows hold, and labels, each once."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.scene import START_MS, Worker, alter_topic, at_ms, wait_for
from tests.live.stage_scene import StageScene
from tests.live.test_dlq_replay import Facts, first_places, kill, written
from tests.live.test_stages import label_of, payments
from tests.live.test_state_of_stages import wipe
from tests.oracles.payments import Record
from tests.services import Broker
from tests.streams.command_line import Run, runner

MINUTE_MS = 60_000
CONSTRAINTS = """\
format: 1
version: 1
owner: frauds@bank.example
description: What a label has to be.
event_time: event_time
fields:
  terminal_id: {regex: "T[0-9]+"}
  payment_id: {unique: 30d}
"""
MEND = """
def terminals(labels):
    return {"terminal_id": [f"T{int(bytes(each).decode()[1:]) * 7 % 11}" for each in labels["payment_id"]]}
"""


@pytest.fixture
def scene(broker: Broker, redis_url: str, tmp_path: Path) -> Iterator[StageScene]:
    made = StageScene(tmp_path / "scene", broker, redis_url, partitions=2)
    (made.folder / "schemas" / f"{made.label_topic}.constraints.yaml").write_text(CONSTRAINTS)
    made.reload()
    yield made
    made.close()


@pytest.fixture
def millrace(scene: StageScene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("MILLRACE_KAFKA__BOOTSTRAP_SERVERS", scene.broker.bootstrap_servers)
    return runner(scene.folder, monkeypatch, capsys)


@pytest.fixture
def facts(scene: StageScene, millrace: Run) -> Facts:
    """What a verb of `millrace dlq` says, as facts."""
    return lambda verb, *arguments: millrace("dlq", verb, scene.file, *arguments, "--json").facts


def seen(scene: StageScene, topic: str, count: int) -> None:
    wait_for(f"{count} records of {topic}", lambda: len(scene.read(topic)) == count)


def returned(scene: StageScene, topic: str) -> list[Record]:
    return [record for record in scene.read(topic) if "millrace.replay.offset" in dict(record.headers)]


def one_payment(number: int, minutes: int, **changes: Any) -> dict[str, Any]:
    at = at_ms(START_MS + minutes * MINUTE_MS)
    customer = {"customer_id": "C0", "terminal_id": "T0", "amount": 10.0, "currency": "EUR"}
    return {"payment_id": f"P{number:06}", "event_time": at, **customer, **changes}


def test_what_the_windows_of_both_stages_hold_is_scored_and_counted_once_in_each(
    scene: StageScene, facts: Facts, millrace: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_all() -> None:
        worker = scene.worker()
        scene.drained_stages(worker)
        assert worker.stop() == 0, worker.log

    output, topic = scene.bound.output.name, scene.bound.input.name
    large = one_payment(1, 1, payment_id="L" * 8_000)
    worker = scene.worker()
    scene.send_payments([one_payment(0, 0)])
    scene.drained_stages(worker)
    alter_topic(scene.broker, output, max_message_bytes="5000")  # under the running worker
    scene.send_payments([large, one_payment(2, 2)])
    scene.drained_stages(worker)
    assert worker.stop() == 0, worker.log
    (letter,) = scene.letters()
    assert dict(letter.headers)["millrace.counted"] == b"true"

    held = facts("replay", "--dry-run")
    assert (held["chosen"], held["would_pass"]) == (1, 1), held
    assert facts("replay")["replayed"] == 1
    seen(scene, topic, 4)
    run_all()  # it came back too early, is refused once more, and keeps the places under which it is held
    assert len(scene.letters()) == 2

    alter_topic(scene.broker, output, max_message_bytes="1048588")
    assert facts("replay")["replayed"] == 1
    seen(scene, topic, 5)
    back = [dict(record.headers) for record in returned(scene, topic)]
    places = [{name: text for name, text in each.items() if "counted" in name} for each in back]
    assert places[0] == places[1]
    hop = scene.stages["by-terminal"].input.name
    assert f"millrace.replay.counted_at.{hop}" in places[0]
    run_all()
    scene.send_labels([label_of(large, True)])
    run_all()
    scene.send_payments([one_payment(3, 180)])
    run_all()
    wipe(scene)  # and so it is when the logs are read again
    scene.send_payments([one_payment(4, 181)])
    run_all()

    scored = [scene.judge_of_stages.payments.read(record) for record in scene.outputs()]
    features = ("customer_count_1d", "terminal_count_12h_delay_2h", "terminal_label_count_12h_delay_2h")
    found = {each["event_id"][:7]: [each["features"][name] for name in features] for each in scored}
    assert len(scored) == len(found) == 5
    assert found == {"P000000": [1, 0, 0], "LLLLLLL": [2, 0, 0], "P000002": [3, 0, 0], "P000003": [4, 3, 1], "P000004": [5, 3, 1]}
    assert facts("replay")["chosen"] == 0

    # A decision about what came back is made again, too.
    monkeypatch.setenv("MILLRACE_REDIS__URL", scene.redis_url)
    partition, offset = next((each.partition, each.offset) for each in reversed(returned(scene, topic)))
    told = millrace("explain", scene.file, f"{topic}[{partition}]@{offset}", "--json").facts
    assert told["event"]["came_back"]
    assert told["verdict"] == "same to the bit", told["differences"]


def test_what_an_internal_topic_has_forgotten_stays_and_says_so(scene: StageScene, facts: Facts) -> None:
    worker = scene.worker()
    alter_topic(scene.broker, scene.bound.output.name, max_message_bytes="5000")
    scene.send_payments([one_payment(1, 1, payment_id="L" * 8_000)])
    scene.drained_stages(worker)
    assert worker.stop() == 0, worker.log
    hop = scene.stages["by-terminal"].input.name
    scene.delete_all_of(hop)
    told = facts("replay")
    assert (told["chosen"], told["replayed"]) == (1, 0)
    assert f"windows hold its event under its place in {hop}, which does not have it any more" in told["would_not"][0]["example"]


def test_an_internal_topic_that_is_stamped_with_event_times_is_looked_through_from_its_start(scene: StageScene, facts: Facts) -> None:
    hop = scene.stages["by-terminal"].input.name
    alter_topic(scene.broker, hop, message_timestamp_type="CreateTime", retention_ms="-1")  # its times lie long before the record came in
    worker = scene.worker()
    alter_topic(scene.broker, scene.bound.output.name, max_message_bytes="5000")
    scene.send_payments([one_payment(1, 1, payment_id="L" * 8_000)])
    scene.drained_stages(worker)
    assert worker.stop() == 0, worker.log
    assert facts("replay")["replayed"] == 1
    topic = scene.bound.input.name
    seen(scene, topic, 2)
    (back,) = returned(scene, topic)
    assert f"millrace.replay.counted_at.{hop}" in dict(back.headers)


def outcomes(worker: Worker) -> dict[str, float]:
    named = {name: f'millrace_labels_total{{outcome="{name}",stage="by-terminal"}}' for name in ("matched", "repeated", "unmatched")}
    return {name: worker.metric(line) for name, line in named.items()}


def test_labels_that_break_their_constraints_are_letters_and_come_back_once_through_kills(
    scene: StageScene, facts: Facts, millrace: Callable[..., Any]
) -> None:
    # Within minutes, so that none is too late to be remembered, however the partitions are read.
    sent = [{**each, "event_time": at_ms(START_MS + n * 1_000)} for n, each in enumerate(payments(700))]
    worker = scene.worker()
    scene.send_payments(sent)
    scene.drained_stages(worker)
    unborn = one_payment(9_000, 100, terminal_id="T1")
    wrong = [{**label_of(each, True), "terminal_id": "X1"} for each in sent[:600]]
    scene.send_labels([label_of(each, True) for each in sent[600:]])
    scene.send_labels([*wrong, label_of(unborn, True), label_of(sent[650], True)])
    scene.send_raw_label(b"P000001", b"nothing")
    scene.drained_stages(worker)
    assert outcomes(worker) == {"matched": 100, "repeated": 1, "unmatched": 1}
    assert worker.metric('millrace_constraint_broken_total{constraint="payment_id_unique",stage="labels"}') == 1
    assert worker.metric('millrace_records_refused_total{reason="terminal_id_regex"') == 600

    reasons = {"terminal_id_regex": 600, "unmatched_label": 1, "bad_magic": 1}
    told = facts("ls", "--labels")
    assert (told["topic"], told["letters"]) == (f"{scene.label_topic}.dlq", 602)
    assert {each["reason"]: each["letters"] for each in told["reasons"]} == reasons
    assert facts("ls", "--labels", "--field", "terminal_id")["letters"] == 600
    shown = facts("show", told["reasons"][0]["first"], "--labels")
    assert (shown["value"]["terminal_id"], shown["context"]["millrace.counted"]) == ("X1", "false")
    checked = millrace("schema", "validate", f"kafka:{scene.label_topic}", "--pipeline-file", scene.file, "--labels", "--json")
    assert checked.code == 11, checked.err
    assert json.loads(checked.out)["reasons"] == {"terminal_id_regex": 600, "bad_magic": 1}

    mend = ("--labels", "--rule", "terminal_id_regex", "--with", f"{written(scene.folder, 'fixes.py', MEND)}:terminals")
    assert facts("replay", *mend, "--dry-run")["would_pass"] == 600
    assert facts("replay", "--labels", "--rule", "terminal_id_regex", "--dry-run")["would_pass"] == 0
    for fault in ("before_commit:2", "offsets_sent:1", "after_commit:1"):
        killed = kill(scene, fault, *mend)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = facts("replay", *mend, "--why", "old names of terminals")
    assert 0 < last["replayed"] < 600
    assert facts("replay", *mend)["replayed"] == 0
    wait_for("the labels to be seen", lambda: len(returned(scene, scene.label_topic)) == 600)
    assert set(first_places(returned(scene, scene.label_topic)).values()) == {1}
    scene.drained_stages(worker)
    assert outcomes(worker) == {"matched": 700, "repeated": 1, "unmatched": 1}

    scene.send_payments([unborn])  # what a label was waiting for
    scene.drained_stages(worker)
    assert facts("replay", "--labels", "--reason", "unmatched_label")["replayed"] == 1
    wait_for("the label to be seen", lambda: len(returned(scene, scene.label_topic)) == 601)
    scene.drained_stages(worker)
    assert outcomes(worker) == {"matched": 701, "repeated": 1, "unmatched": 1}
    assert facts("discard", "--labels", "--reason", "bad_magic", "--why", "noise")["discarded"] == 1
    told = facts("stats", "--labels")
    assert (told["open"], told["replayed"], told["discarded"], told["refused_again"]) == (0, 601, 1, 0)
    assert facts("stats")["letters"] == 0, "the events have letters of their own"

    scene.send_payments([one_payment(9_001, 8 * 60, terminal_id="T1")])
    scene.drained_stages(worker)
    scored = {each["event_id"]: each for each in map(scene.judge_of_stages.payments.read, scene.outputs())}
    mine = Counter(each["terminal_id"] for each in [*sent, unborn])["T1"]
    assert mine > 50
    assert scored["P009001"]["features"]["terminal_label_count_12h_delay_2h"] == mine
    assert worker.stop() == 0, worker.log
