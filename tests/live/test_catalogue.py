"""`millrace catalogue --live`: what the broker has of a pipeline's topics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.kafka import TopicPartition, plain_consumer
from tests.live.stage_scene import StageScene
from tests.live.test_stages import payments
from tests.services import Broker
from tests.streams.command_line import runner


@pytest.fixture
def scene(broker: Broker, redis_url: str, tmp_path: Path) -> Iterator[StageScene]:
    made = StageScene(tmp_path / "scene", broker, redis_url, partitions=2)
    yield made
    made.close()


def test_the_catalogue_shows_what_the_broker_has_and_whoever_reads_it(
    scene: StageScene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLRACE_KAFKA__BOOTSTRAP_SERVERS", scene.broker.bootstrap_servers)
    millrace = runner(scene.folder, monkeypatch, capsys)
    sent = payments(60)
    scene.send_payments(sent)
    worker = scene.worker()
    scene.drained_stages(worker)
    assert worker.stop() == 0, worker.log
    stranger = plain_consumer(scene.settings.kafka, f"{scene.name}-stranger")
    try:
        (at,) = stranger.commit(offsets=[TopicPartition(scene.bound.input.name, 0, 1)], asynchronous=False)
    finally:
        stranger.close()
    assert at.error is None
    facts = millrace("catalogue", scene.file, "--live", "--json").facts
    topics = {each["topic"]: each for each in facts["topics"]}
    assert facts["pipelines"][0]["planned_for_partitions"] == 2
    assert {name for name, each in topics.items() if each["live"] is None} == {
        f"{scene.bound.input.name}.dlq.audit",
        f"{scene.label_topic}.dlq.audit",
    }
    live = topics[scene.bound.input.name]["live"]
    assert live["partitions"] == 2
    ends = scene.ends()
    assert live["groups"] == [
        {"group": f"{scene.name}-stranger", "lag": sum(ends.values()) - 1},
        {"group": f"{scene.name}.by-customer", "lag": 0},
    ]
    words = millrace("catalogue", scene.file, "--live").out
    assert f"group {scene.name}-stranger has {sum(ends.values()) - 1} before it, and is of nobody here" in words
