"""The demo as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.card_fraud.demo.worker_process import own_environment
from schemas.errors import MissingProgram
from streams.commands.demo import CHECKOUT, run_demo
from streams.local.kafka_jars import find_java
from tests.conftest import ALLOW_NO_BROKER

START_SECONDS = 100


def demo(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `millrace demo` with a state directory of its own."""
    return subprocess.run(
        [sys.executable, "-m", "millrace", "demo", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "MILLRACE_STATE_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


def left_running(folder: Path) -> list[str]:
    """Processes that have the folder on their command line."""
    found = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [" ".join(words) for words in found if any(str(folder) in word for word in words)]


def assert_sums(facts: Any, live: int) -> None:
    sums = facts["sums"]
    assert facts["live"] == live
    assert sums["sent"] == facts["history"] + live
    assert sums["scored"] + sums["dead_letters"] == sums["sent"]
    assert sums["dead_letters"] > 0
    assert (sums["missing"], sums["duplicates"], sums["answered_wrongly"]) == (0, 0, 0)
    labels = facts["labels"]
    assert labels["matched"] + labels["repeated"] + labels["unmatched"] == labels["sent"]
    assert min(labels["matched"], labels["repeated"], labels["unmatched"]) > 0
    assert labels["taken_wrongly"] == 0
    assert facts["holds"] is True


@pytest.mark.broker
def test_a_run_on_a_real_broker_accounts_for_every_record_and_leaves_nothing_running(tmp_path: Path) -> None:
    try:
        find_java()
    except MissingProgram as error:
        if os.environ.get(ALLOW_NO_BROKER):
            pytest.skip(str(error))
        raise
    done = demo(tmp_path, "--seconds", "3", "--rate", "1000", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert_sums(facts, live=3_000)
    assert facts["broker"].startswith("Apache Kafka")
    assert facts["frauds"]["compromised terminal"]["caught"] > 0  # by the labels alone
    assert facts["exactly_once"].startswith("held")
    assert left_running(tmp_path) == []


def test_without_java_the_demo_says_what_is_missing_and_that_its_stand_in_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = demo(tmp_path, "--seconds", "2", "--rate", "1000", "--json", PATH=str(tmp_path / "bin"), JAVA_HOME="")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "Java was not found" in said
    assert "apt install openjdk" in said
    assert "docker compose up" in said
    assert "its transactions guarantee nothing" in said
    facts = json.loads(done.stdout)
    assert facts["exactly_once"].startswith("unproven")
    assert "stand-in" in facts["broker"]
    assert_sums(facts, live=2_000)
    assert left_running(tmp_path) == []


def test_without_a_checkout_the_demo_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingProgram, match=r"no examples/card_fraud in .*clone the repository and run `make demo`"):
        run_demo(seconds=1, rate=1, seed=1, plain=True, keep=False, as_json=False, checkout=tmp_path)


def test_what_the_shell_says_of_settings_does_not_reach_the_demos_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"MILLRACE_SETTINGS": "x.toml", "MILLRACE_KAFKA__INSTANCE": "x", "KAFKA_BOOTSTRAP_SERVERS": "x:1", "REDIS_URL_FILE": "x"}
    for name, value in {**ours, "MILLRACE_CACHE_DIR": "/cache", "KAFKA_OPTS": "x"}.items():
        monkeypatch.setenv(name, value)
    environment = own_environment()
    assert not ours.keys() & environment.keys()
    assert environment["MILLRACE_CACHE_DIR"] == "/cache"
    assert environment["KAFKA_OPTS"] == "x"
