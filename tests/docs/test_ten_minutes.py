"""From CSV history to a live scored topic: the page's commands, on a real broker."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from streams.local.process import choose_port
from streams.local.services import Services
from tests.docs.tutorial import commands_of, play
from tests.streams.command_line import runner

DOCS = Path(__file__).parents[2] / "docs" / "tutorials"
PAGE = DOCS / "ten-minutes.md"
OWN_SERVICES = ("millrace up", "millrace down")  # those of the test run are used


def test_every_command_of_the_page_prints_what_it_says(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(DOCS / "ten_minutes", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.svg"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", services.bootstrap_servers)
    monkeypatch.setenv("REDIS_URL", services.redis_url)
    monkeypatch.setenv("MILLRACE_HEALTH__PORT", str(choose_port(None)))
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parents[1]))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    run = runner(tmp_path, monkeypatch, capsys)
    commands = list(commands_of(PAGE))
    assert len(commands) == 14
    worker = None
    try:
        for command in commands:
            if command.text not in OWN_SERVICES:
                worker = play(command, run, tmp_path, capsys) or worker
        assert worker is not None
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        if worker is not None and worker.poll() is None:
            worker.kill()
            worker.wait()


@pytest.mark.parametrize("name", ["customer.svg", "scores.svg"])
def test_the_page_shows_its_pictures(name: str) -> None:
    assert f"(ten_minutes/{name})" in PAGE.read_text()
    assert (DOCS / "ten_minutes" / name).read_text().startswith("<?xml")
