"""What a worker refuses to start on, or to go on with: one clear line, the documented exit code, and nothing committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from streams.planning.create_topics import create
from tests.live.conftest import SetUp
from tests.live.model import write_model
from tests.live.scene import Scene, at_ms, payment, payments, wait_for
from tests.live.stall import breaking
from tests.oracles.payments import HOUR_MS

DEFINITION, SCHEMA, MODEL, SETTINGS, TOPIC, STATE, BUG = 10, 11, 12, 13, 14, 15, 70


def last_line(log: str) -> str:
    return [line for line in log.splitlines() if line.startswith("millrace: ")][-1]


def without_a_model(scene: Scene) -> None:
    scene.bound.model_path.unlink()


def no_onnx(scene: Scene) -> None:
    scene.bound.model_path.write_bytes(b"not a model")


def of_other_features(scene: Scene) -> None:
    write_model(scene.bound, scene.bound.model_path, fingerprint="0" * 16)


def broken_schema(scene: Scene) -> None:
    (scene.folder / "schemas" / f"1-{scene.name}-value.avsc").write_text("{")


def unregistered_output(scene: Scene) -> None:
    for file in (scene.folder / "schemas").glob("*.scored-value.avsc"):
        file.unlink()


def missing_topics(scene: Scene) -> None:
    client = scene.broker.admin
    for answer in client.delete_topics([scene.bound.output.name]).values():
        answer.result()
    wait_for("gone", lambda: scene.bound.output.name not in client.list_topics(timeout=5).topics)


def nothing(scene: Scene) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "environment", "code", "words"),
    [
        (without_a_model, {}, MODEL, "card_fraud.onnx"),
        (no_onnx, {}, MODEL, "card_fraud.onnx"),
        (of_other_features, {}, MODEL, "0000000000000000"),
        (broken_schema, {}, SCHEMA, "value.avsc"),
        (unregistered_output, {}, SCHEMA, "is not registered; `millrace topics create`"),
        (missing_topics, {}, TOPIC, "`millrace topics create`"),
        (nothing, {"KAFKA__START": ""}, STATE, "kafka.start"),
    ],
)
def test_a_worker_that_cannot_start_says_why_in_one_line(
    scene: Scene, spoil: Callable[[Scene], None], environment: dict[str, Any], code: int, words: str
) -> None:
    scene.send_payments(payments(10))
    spoil(scene)
    worker = scene.worker(**environment)
    assert worker.ends() == code, worker.log
    assert words in last_line(worker.log)
    assert "Traceback" not in worker.log
    assert scene.committed() == {0: None}


def test_a_second_worker_with_the_name_of_a_live_one_is_refused(scene: Scene) -> None:
    scene.send_payments(payments(100))
    first = scene.worker("a")
    scene.drained(first)
    second = scene.worker("a")
    assert second.ends() == SETTINGS
    assert "another worker" in last_line(second.log)
    scene.send_payments(payments(100, first=100))
    scene.drained(first)
    assert first.stop() == 0
    assert scene.faults() == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('raise ValueError("no such night")', "no such night"),
        ("return found[:-1]", "night"),
        ('return np.where(bad, float("nan"), 0.0)', "night"),
    ],
    ids=["exception", "wrong length", "NaN"],
)
def test_a_bug_in_a_users_function_stops_the_worker_with_the_batchs_addresses(set_up: SetUp, line: str, words: str) -> None:
    scene = set_up(changes={**breaking(line), "from millrace import (": "import numpy as np\nfrom millrace import ("})
    scene.send_payments(payments(100))
    worker = scene.worker()
    scene.drained(worker)
    scene.send_payments([*payments(20, first=100), payment(0, amount=13.37), *payments(20, first=120)])
    assert worker.ends() == BUG, worker.log
    assert words in last_line(worker.log)
    assert f"{scene.name}[0]@" in last_line(worker.log)
    committed = scene.committed()[0] or 0
    assert 100 <= committed <= 120, "nothing of the failing batch"
    assert scene.faults(at_rest=False) == []


def test_offsets_and_state_that_contradict_each_other_are_refused_with_the_way_out(scene: Scene) -> None:
    scene.send_payments(payments(300))
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0

    # The offsets expired, or the group was renamed: only an operator knows what was put out.
    scene.delete_offsets()
    refused = scene.worker()
    assert refused.ends() == STATE
    assert "--on-conflict adopt" in last_line(refused.log)
    scene.send_payments(payments(100, first=300))
    adopting = scene.worker("a", "--on-conflict", "adopt")
    scene.drained(adopting)
    assert adopting.stop() == 0
    assert scene.faults() == []

    # The offsets were set back: the state is ahead of them.
    scene.commit_offset(200)
    refused = scene.worker()
    assert refused.ends() == STATE
    assert "--on-conflict rebuild" in last_line(refused.log)
    assert scene.committed() == {0: 200}
    rebuilding = scene.worker("a", "--on-conflict", "rebuild")
    scene.drained(rebuilding)
    assert rebuilding.stop() == 0
    again = [str(fault) for fault in scene.judge.faults(scene.evidence())]
    # The operator asked for these to be scored again; that they agree with what was put out before is what matters.
    assert [fault for fault in again if not fault.startswith(("duplicated", "out_of_order"))] == []
    assert len([fault for fault in again if fault.startswith("duplicated")]) == 200


def test_a_changed_definition_of_the_state_is_rebuilt_from_the_log(scene: Scene) -> None:
    scene.send_payments(payments(300))
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0
    before = scene.bound.features.fingerprint

    text = scene.file.read_text()
    scene.file.write_text(text.replace("lateness_ms=hours(1)", "lateness_ms=hours(2)"))
    scene.reload()
    write_model(scene.bound, scene.bound.model_path)
    create(scene.bound, scene.settings, 1, 1)
    late = [payment(n, event_time=at_ms(1_704_067_200_000 + n * 60_000 - 90 * 60_000)) for n in range(300, 400, 3)]
    scene.send_payments(late)
    after = scene.worker()
    scene.drained(after)
    assert after.stop() == 0
    assert "other_state" in after.log
    judge = replace(scene.judge, lateness_ms=2 * HOUR_MS, fingerprints=[before, scene.bound.features.fingerprint])
    assert [str(fault) for fault in judge.faults(scene.evidence())[:10]] == []
