"""Dead letters of a pipeline in two stages come back: events that both stages' windows hold, and labels, each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.scene import START_MS, alter_topic, at_ms, wait_for
from tests.live.stage_scene import StageScene
from tests.live.test_dlq_replay import Facts
from tests.live.test_stages import label_of
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
