"""`millrace init`: what it makes runs as it is, from its own tests to scored events on the real broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.avro import read_value
from streams.definition.load import load_bound
from streams.local.process import choose_port
from streams.scored_event import output_schema
from tests.live.scene import read_topic, wait_for
from tests.services import Broker
from tests.streams.command_line import runner

ROOT = Path(__file__).parents[2]


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_") or name == "MILLRACE_CACHE_DIR"}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def test_a_new_project_flows_from_end_to_end(
    broker: Broker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner(tmp_path, monkeypatch, capsys)
    services = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers, "REDIS_URL": redis_url}
    for variable, value in services.items():
        monkeypatch.setenv(variable, value)
    name = f"t-{uuid.uuid4().hex[:10]}"
    file = tmp_path / name / "pipeline.py"
    assert f"events on {name}-events" in run("init", name).out
    assert run("topics", "create", file).code == 0
    variables = environment(**services, MILLRACE_KAFKA__START="earliest", MILLRACE_HEALTH__PORT=str(choose_port(None)))
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "millrace", "run", "pipeline.py"]
        worker = subprocess.Popen(command, cwd=file.parent, env=variables, stdout=out, stderr=out)
    try:
        assert run("send", file, file.with_name("events.jsonl")).code == 0

        def all_scored() -> list[Any]:
            assert worker.poll() is None, log.read_text()
            found = read_topic(broker, f"{name}-events.scored")
            return found if len(found) == 20 else []

        records = wait_for("twenty scored events", all_scored)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0, log.read_text()
    finally:
        worker.kill()
        worker.wait()
    assert "model without a golden set name=constant version=constant-0.5" in log.read_text()
    schema = output_schema(load_bound(file))
    scored = [read_value(record.value[5:], schema.parsed) for record in records]
    assert {each["scores"][0]["score"] for each in scored} == {0.5}
    assert {each["scores"][0]["version"] for each in scored} == {"constant-0.5"}
    largest = next(each for each in scored if each["event_id"] == "E-00019")
    assert largest["features"]["account_amount_ratio_to_mean_1d"] > 100
    explained = run("explain", file, "--event", "E-00019", "--json").facts
    assert explained["verdict"] == "same to the bit"
    (key,) = run("features", "get", file, "account=A1", "--at", "2026-01-01T03:15:00Z", "--json").facts["keys"]
    assert (key["features"]["account_count_1d"], key["behind"], key["age_ms"]) == (7.0, 0, 300_000)
    assert (
        "account A1 at 2026-01-01 03:15:00.000Z: 7 events" in run("features", "get", file, "account=A1", "--at", "2026-01-01T03:15:00Z").out
    )
    assert run("features", "get", file, "account=nobody").code == 18
    refused = run("features", "get", file, "account")
    assert (refused.code, refused.err) == (13, "millrace: 'account' names no key; wanted ENTITY=KEY, such as customer=123\n")


def test_its_own_tests_pass_and_its_files_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner(tmp_path, monkeypatch, capsys)
    facts = run("init", "new-risk", "--json").facts
    project = tmp_path / "new-risk"
    assert facts["pipeline"] == "new_risk"
    assert sorted(facts["files"]) == sorted(str(file.relative_to(project)) for file in project.rglob("*") if file.is_file())
    for file in facts["files"]:
        assert "$" not in (project / file).read_text(), file
    compose = yaml.safe_load((project / "docker-compose.yml").read_text())
    assert set(compose["services"]) == {"kafka", "redis", "topics", "worker"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=project, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
    checked = run("check", project / "pipeline.py", "--json").facts["model"]
    assert (checked["version"], checked["golden"]) == ("constant-0.5", None)

    # What is there is not touched; what is no name is no project.
    before = (project / "pipeline.py").read_text()
    again = run("init", "new-risk")
    assert (again.code, again.err) == (13, "millrace: new-risk is there already; wanted a new folder\n")
    assert (project / "pipeline.py").read_text() == before
    assert "is no name for a pipeline" in run("init", "7up").err
    (tmp_path / "file").write_text("")
    assert "can't be written" in run("init", "file/inside").err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "new-risk"], "nothing is left half made"
