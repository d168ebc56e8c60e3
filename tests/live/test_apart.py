"""Stages apart: a process each, ended together, and the same answers."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pytest

from streams.local.process import choose_port
from tests.live.scene import Worker, wait_for
from tests.live.stage_scene import StageScene
from tests.live.test_stages import frauds, payments
from tests.services import Broker

STAGES = ("by-customer", "by-terminal", "labels")


@pytest.fixture
def scene(broker: Broker, redis_url: str, tmp_path: Path) -> Iterator[StageScene]:
    made = StageScene(tmp_path / "scene", broker, redis_url)
    yield made
    made.close()


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        first = choose_port(None)
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                return first
            except OSError:
                continue


def processes(worker: Worker) -> dict[str, psutil.Process]:
    """By stage, those that were started last."""
    return {name: psutil.Process(int(pid)) for name, pid in re.findall(r"started stage=(\S+) pid=(\d+)", worker.log)}


def ready_at(port: int, stages: list[str]) -> bool:
    """Whether the process that answers at a port has these stages, and is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return list(json.load(answer)["stages"]) == stages
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return False


def test_a_process_for_each_stage_one_of_which_ends_the_others_and_nothing_is_lost(scene: StageScene) -> None:
    port = free_ports(3)
    first = scene.worker("first", "--apart", port=port)
    sent = payments(1_000)
    scene.send_payments(sent[:600])
    scene.drained_stages(first)
    running = processes(first)
    assert sorted(running) == sorted(STAGES)
    for place, name in enumerate(scene.stages):
        wait_for(f"{name} to be ready", partial(ready_at, port + place, [name]))
    running["by-terminal"].kill()
    assert first.ends() == 128 + signal.SIGKILL
    assert "ended stage=by-terminal code=137" in first.log
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in running.values())

    scene.send_payments(sent[600:])
    scene.send_labels(frauds(sent))
    second = scene.worker("first", "--apart", port=port)
    scene.drained_stages(second)
    running = processes(second)
    assert second.stop() == 0, second.log
    wait_for("all to have ended", lambda: not any(process.is_running() for process in running.values()))
    assert scene.faults_of_stages() == []


def test_stages_whose_starter_is_killed_stop_by_themselves(scene: StageScene) -> None:
    starter = scene.worker("first", "--apart", port=free_ports(3))
    scene.send_payments(payments(200))
    scene.drained_stages(starter)
    running = processes(starter)
    assert len(running) == len(STAGES) and all(process.is_running() for process in running.values())
    starter.kill()
    _, alive = psutil.wait_procs(running.values(), timeout=30)
    assert not alive, starter.log
    assert starter.log.count("which started this stage, is gone") == len(STAGES)
    assert scene.faults_of_stages() == []


def test_a_stage_that_can_not_start_ends_all_with_its_code(scene: StageScene) -> None:
    worker = scene.worker("all", "--apart", "--stages", "by-customer,by-nobody")
    assert worker.ends() == 13, worker.log
    assert "has no stage 'by-nobody'" in worker.log
