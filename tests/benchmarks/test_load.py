"""Loads on a real broker and Redis: what comes of them, and of those that can't be run or end before their time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks.load.events import Events, Traffic
from benchmarks.load.generator import Generators, Source
from benchmarks.load.reader import WrongAnswer
from benchmarks.load.run import Options, run_load
from benchmarks.load.session import Session
from benchmarks.load.shape import Shape
from benchmarks.load.stand import stand_on
from schemas.errors import MissingProgram, StoreDown, TopicError
from streams.commands.bench import CHECKOUT, find_harness
from streams.kafka import KafkaDown
from streams.settings import Settings
from tests.live.scene import EXAMPLE, Scene, wait_for
from tests.services import Broker

# Seconds by themselves; both start processes by the handful, which on a machine with other work takes minutes.
pytestmark = pytest.mark.timeout(300)

TRAFFIC = Traffic(keys=40, live=20, zipf=0.5, late_share=0.05, too_late_share=0.02, poison_share=0.02)
PARTITIONS = 2  # so that terminals are a hop away


@pytest.fixture
def scene(tmp_path: Path, broker: Broker, redis_url: str) -> Iterator[Scene]:
    found = Scene(tmp_path / "pipeline", broker, redis_url, make_topics=False)
    yield found
    found.close()


def test_a_load_is_measured_and_its_answers_are_held_against_the_definition(scene: Scene) -> None:
    said: list[str] = []
    with stand_on(scene.settings, None, scene.file, None, PARTITIONS) as stand:
        events = Events(stand.bound, TRAFFIC)
        source = Source(stand.file, None, stand.settings.kafka, TRAFFIC, stand.schema_id)
        with closing(Generators(source, 2)) as generators:
            session = Session(stand, events, generators, said.append)
            session.send_history()
            with stand.working(1):
                session.drain()
                cut_short = session.run(Shape("constant", 3_000, 30), most_behind_seconds=0.0)
                found = session.run(Shape("ramp", 800, 3))
                session.settle()
                checked = session.check(8)

        # The check sees what is wrong: other events than were sent, one more, one less.
        end, sent = session.next_row, session.sent
        for changes, words in (
            ({"events": Events(stand.bound, replace(TRAFFIC, seed=1))}, "by the definition"),
            ({"next_row": end + 1, "sent": [*sent, np.array([end])]}, "1 have no answer and 0 more than they should"),
            ({"sent": [*sent[:-1], sent[-1][:-1]]}, "0 have no answer and 1 more than they should, .* not sent and has 1"),
            ({"next_row": end - 1, "sent": [rows[rows < end - 1] for rows in sent]}, "1 answers are to events that were never sent"),
        ):
            with pytest.raises(WrongAnswer, match=words):
                replace(session, **changes).check(8)

    # A run that was ended because the system fell behind has no answer for what was not sent, and lacks none.
    assert 0 < cut_short["events"] < 90_000
    assert cut_short["unanswered"] == 0
    assert cut_short["offered_share"] < 0.99
    assert cut_short["invalid"]
    rows = TRAFFIC.history + cut_short["events"] + Shape("ramp", 800, 3).expected_events
    assert found["events"] == Shape("ramp", 800, 3).expected_events
    assert (found["unanswered"], found["repeated"], found["offered_share"]) == (0, 0, 1.0)
    assert 0 < found["latency"]["p50_ms"] <= found["latency"]["p99_ms"] <= found["latency"]["max_ms"]
    assert sum(each["events"] for each in found["over_time"]) == found["events"]
    assert found["redis_bytes_per_event"] > 0
    assert found["cpu_us_per_event"].keys() == {"worker", "generators", "reader"}  # the services are not ours to look at
    assert found["us_per_event_by_step"].keys() >= {"extract", "transform", "score", "load", "transaction"}
    assert checked["answered"] == rows
    assert checked["keys"] == 16
    assert checked["features"] > 1_000
    assert 0 < checked["letters"] < rows / 10
    assert sum(checked["timing"].values()) + checked["letters"] == rows
    assert checked["timing"]["too_late"] > 0

    # And topics that have been used are refused, as are other numbers of partitions.
    options = Options(scene.file, settings=scene.settings, partitions=PARTITIONS, traffic=TRAFFIC)
    with pytest.raises(TopicError, match=r"holds .* records or more: a load runs on topics that nobody has used"):
        run_load(options)
    with pytest.raises(TopicError, match=r"has 2 partitions, wanted 3; say --partitions 2"):
        run_load(replace(options, partitions=3))


@pytest.mark.parametrize(
    ("section", "error"),
    [({"kafka": {"bootstrap_servers": "127.0.0.1:1"}}, KafkaDown), ({"redis": {"url": "redis://127.0.0.1:1/0"}}, StoreDown)],
)
def test_a_service_that_is_not_there_is_named(
    scene: Scene, section: dict[str, Any], error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.load.stand.ANSWER_SECONDS", 1.0)
    wrong = Settings.model_validate(
        {"kafka": {"bootstrap_servers": scene.broker.bootstrap_servers}, "redis": {"url": scene.redis_url}} | section
    )
    with pytest.raises(error, match="does not answer"):
        run_load(Options(scene.file, settings=wrong, traffic=TRAFFIC, results=tmp_path / "results"))
    assert not (tmp_path / "results").exists()


@pytest.mark.broker
def test_a_run_that_is_ended_keeps_what_it_has_and_leaves_nothing_running(tmp_path: Path, services: object) -> None:
    command = [sys.executable, "-m", "millrace", "bench", "load", str(EXAMPLE / "pipeline.py"), "--results", str(tmp_path / "results")]
    command += ["--rate", "500", "--seconds", "60", "--keys", "20", "--live", "10"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=said, stderr=said, start_new_session=True
        )

    def words() -> str:
        return (tmp_path / "said").read_text()

    try:
        wait_for("answers", lambda: re.search(r"[1-9][0-9,]* answered", words()) or process.poll() is not None, 180)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130, words()
    finally:
        if process.poll() is None:  # in good order, or it would leave its services behind
            process.terminate()
            process.wait(60)
    (file,) = (tmp_path / "results").iterdir()
    kept = json.loads(file.read_text())
    assert kept["complete"] is False
    assert kept["ended"] == "interrupted before its end"
    assert 0 < kept["run"]["events"] < 30_000
    assert kept["run"]["invalid"][0] == "interrupted"
    assert kept["run"]["latency"]["p50_ms"] > 0
    left = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if any(str(tmp_path) in word for word in p.info["cmdline"] or ())]
    assert left == []
    assert not list(tmp_path.glob("millrace-bench-*"))


def test_outside_a_checkout_it_says_where_the_benchmarks_are(tmp_path: Path) -> None:
    with pytest.raises(MissingProgram, match=r"no benchmarks/load in .*clone the repository"):
        find_harness(tmp_path)
