"""The command line: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from inference.model_card import ModelCard
from schemas.errors import MillraceError, Refused, RetryLater, StateError, StoreDown, TooManyRecords
from streams.commands.cli import app, exit_code
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.settings import Settings
from tests.inference.small_models import row_sums
from tests.streams.command_line import Done, Run, payment, runner, written
from tests.streams.payment import write_pipeline


@pytest.fixture
def millrace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command line in a folder of its own."""
    return runner(tmp_path, monkeypatch, capsys)


def with_model(folder: Path, **card: Any) -> tuple[Path, Bound]:
    """A pipeline whose model gives the sum of its inputs."""
    file = write_pipeline(folder)
    bound = load_bound(file)
    given = {"name": "payments", "version": "7", "feature_names": bound.features.names, "feature_fingerprint": bound.features.fingerprint}
    made = ModelCard(**{**given, "threshold": 100.0, **card})
    onnx.save(row_sums(len(made.feature_names), card=made), folder / "payments.onnx")
    return file, bound


# --- how it ends ---


def test_help_names_every_verb(millrace: Run) -> None:
    done = millrace("--help")
    assert done.code == 0
    for verb in ("run", "check", "plan", "dry-run", "send", "up", "down", "status", "topics", "dlq", "settings", "version"):
        assert verb in done.out


@pytest.mark.parametrize("arguments", [("rum",), ("check",), ("check", "a.py", "--jsn"), ("dry-run", "a.py", "b", "--limit", "0")])
def test_a_command_line_that_makes_no_sense_ends_with_2(millrace: Run, arguments: tuple[str, ...]) -> None:
    assert millrace(*arguments).code == 2


def refused(done: Done, code: int, *words: str) -> None:
    assert done.code == code
    assert done.out == ""
    assert done.err.startswith("millrace: ")
    assert done.err.count("\n") == 1, done.err
    for word in words:
        assert word in done.err


def test_a_broken_pipeline_file_ends_with_10_and_one_line(millrace: Run, tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("x = 1\nboom\n")
    refused(millrace("check", "p.py"), 10, "p.py:2: NameError")


def test_a_pipeline_that_names_no_column_ends_with_10(millrace: Run, tmp_path: Path) -> None:
    refused(millrace("check", write_pipeline(tmp_path, {'FixedPoint("amount"': 'FixedPoint("amuont"'})), 10, "did you mean 'amount'?")


def test_a_missing_schema_ends_with_11(millrace: Run, tmp_path: Path) -> None:
    file = write_pipeline(tmp_path)
    (tmp_path / "payments.avsc").unlink()
    refused(millrace("check", file), 11, "payments.avsc")


def test_a_missing_model_ends_with_12(millrace: Run, tmp_path: Path) -> None:
    refused(millrace("check", write_pipeline(tmp_path)), 12, "payments.onnx")


def test_a_model_that_is_no_onnx_ends_with_12(millrace: Run, tmp_path: Path) -> None:
    file = write_pipeline(tmp_path)
    (tmp_path / "payments.onnx").write_bytes(b"not a model")
    refused(millrace("check", file), 12, "payments.onnx")


def test_a_model_of_other_features_ends_with_12_and_shows_both_sides(millrace: Run, tmp_path: Path) -> None:
    file, bound = with_model(tmp_path, feature_fingerprint="f" * 16)
    refused(millrace("check", file), 12, "f" * 16, bound.features.fingerprint)


def test_a_model_of_another_shape_ends_with_12(millrace: Run, tmp_path: Path) -> None:
    file, _ = with_model(tmp_path, feature_names=("amount", "night"))
    refused(millrace("check", file), 12, "customer_count_1d")


def test_a_bad_setting_ends_with_13_before_anything_else_is_looked_at(
    millrace: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_KAFKA__START", "first")
    refused(millrace("check", tmp_path / "missing.py"), 13, "kafka.start", "'first'")


def test_two_bad_settings_are_two_lines(millrace: Run, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("kafka: {start: first}\nhealth: {port: -1}\n")
    done = millrace("settings", "--settings", "m.yaml")
    assert done.code == 13
    assert [line.split(":")[1].strip() for line in done.err.splitlines()] == ["health.port", "kafka.start"]


def test_a_registry_that_does_not_answer_ends_with_75(millrace: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "m.yaml").write_text(f"registry: {{url: '{url}', client: {{max.retries: 0}}}}")
        done = millrace("send", write_pipeline(tmp_path), written(tmp_path / "e.jsonl", payment(1)), "--settings", "m.yaml")
    refused(done, 75, "schema registry", "127.0.0.1")


def test_an_input_whose_schema_is_not_registered_is_not_sent_to(millrace: Run, tmp_path: Path) -> None:
    refused(millrace("send", write_pipeline(tmp_path), "e.jsonl"), 11, "payments is not registered", "millrace topics create")


def test_run_does_not_start_a_pipeline_whose_model_is_missing(millrace: Run, tmp_path: Path) -> None:
    done = millrace("run", write_pipeline(tmp_path))
    assert done.code == 12
    assert "payments.onnx" in done.err.splitlines()[-1]


def test_run_takes_no_other_word_for_a_conflict(millrace: Run, tmp_path: Path) -> None:
    refused(millrace("run", write_pipeline(tmp_path), "--on-conflict", "guess"), 13, "worker.on_conflict", "'guess'")


def test_a_reader_who_has_enough_is_no_fault(tmp_path: Path) -> None:
    file, _ = with_model(tmp_path)
    written(tmp_path / "e.jsonl", *(payment(n) for n in range(3_000)))
    command = f"{sys.executable} -m millrace dry-run {file} {tmp_path / 'e.jsonl'} 2>{tmp_path / 'err'} | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (tmp_path / "err").read_text()
    assert json.loads(done.stdout)["event_id"] == "p0"


def test_a_bug_in_a_users_function_shows_its_traceback_and_ends_with_70(millrace: Run, tmp_path: Path) -> None:
    body = 'return columns["event_time"] % days(1) // hours(1) <= 6'
    file = write_pipeline(tmp_path, {body: 'return columns["event_time"] / (columns["amount"] != 2)'})
    done = millrace("dry-run", file, written(tmp_path / "e.jsonl", payment(1), payment(2)), "--constant", "0.5")
    assert done.code == 70
    assert done.out == ""
    assert "Traceback" in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("millrace: stopped by a bug: DerivedFault: derived column 'night'")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreDown("redis is away"), 75),
        (RetryLater("later"), 75),
        (TooManyRecords("c1"), 20),
        (StateError("ahead"), 15),
        (Refused("no"), 2),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: MillraceError, code: int) -> None:
    assert exit_code(error) == code


# --- facts ---


def test_settings_are_shown_without_their_secrets(millrace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@r")
    monkeypatch.setenv("MILLRACE_KAFKA__CLIENT__SASL_PASSWORD", "hunter2")
    done, as_json = millrace("settings"), millrace("settings", "--json")
    assert "hunter2" not in done.out + done.err + as_json.out
    assert "sasl.password" in done.out
    assert as_json.facts["kafka"]["bootstrap_servers"] == "127.0.0.1:9092"


def test_the_settings_schema_is_printed_for_editors(millrace: Run) -> None:
    assert "kafka" in millrace("settings", "--schema").facts["properties"]


def test_version_is_printed_both_ways(millrace: Run) -> None:
    assert millrace("version").out.startswith("millrace ")
    assert set(millrace("version", "--json").facts) >= {"millrace", "python", "numpy"}


def test_status_without_services_says_so(millrace: Run) -> None:
    assert "millrace up" in millrace("status").out
    assert millrace("status", "--json").facts == {"services": []}


def test_down_without_services_is_no_fault(millrace: Run) -> None:
    done = millrace("down", "--json")
    assert done.code == 0
    assert done.facts["ended"] == []


def test_check_prints_a_page_or_everything(millrace: Run, tmp_path: Path) -> None:
    file, bound = with_model(tmp_path)
    page = millrace("check", file)
    assert page.code == 0, page.err
    for word in ("payments.scored", "payments.dlq", "amount_in_range", "night", "fit to run", bound.features.fingerprint):
        assert word in page.out
    facts = millrace("check", file, "--json").facts
    assert facts["model"]["version"] == "7"
    assert facts["stages"][0]["state"] == f"payments.score.{bound.state_fingerprint[:8]}"


def test_check_needs_no_broker_no_store_and_no_local_services(millrace: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = with_model(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("something was connected to"))
    assert millrace("check", file).code == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({'columns["event_time"] % days(1)': 'columns["evnt_time"] % days(1)'}, ["derived column 'night'", "evnt_time"]),
        ({'return columns["event_time"] % days(1) // hours(1) <= 6': "return 1"}, ["derived column 'night'"]),
        ({'in_range("amount", 0': 'in_range("amuont", 0'}, ["rule 'amuont_in_range'", "KeyError"]),
        ({'in_range("amount", 0, 50_000)': 'in_range("currency", 0, 1)'}, ["rule 'currency_in_range'", "no numbers"]),
    ],
)
def test_a_function_that_fails_without_rows_is_found_by_check(
    millrace: Run, tmp_path: Path, changes: dict[str, str], words: list[str]
) -> None:
    refused(millrace("check", write_pipeline(tmp_path, changes)), 10, *words)


# --- dry run ---


def test_a_dry_run_scores_every_good_event_and_says_why_it_refused_the_others(millrace: Run, tmp_path: Path) -> None:
    file, bound = with_model(tmp_path)
    events = written(
        tmp_path / "e.jsonl",
        payment(1),
        payment(2),
        payment(3, amount=-1.0),
        payment(4, customer_id=5),
        "{",
        payment(6, customer_id=""),
        payment(7),
        payment(8, event_time=1_700_000_000_000 - 2 * 3_600_000, customer_id="c1"),
    )
    done = millrace("dry-run", file, events)
    assert done.code == 0, done.err
    scored = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event_id"] for event in scored] == ["p1", "p2", "p7", "p8"]
    assert [event["source_offset"] for event in scored] == [1, 2, 7, 8]
    assert scored[2]["features"] == {"amount": 7.0, "night": 0.0, "customer_count_1d": 2.0, "customer_amount_mean_1d": 4.0}
    assert scored[2]["scores"] == [{"model": "payments", "version": "7", "role": "champion", "score": 13.0}]
    assert [event["timing"] for event in scored] == ["on_time", "on_time", "on_time", "too_late"]
    *refusals, summary = [json.loads(line) for line in done.err.splitlines()]
    assert [(each["at"], each["reason"]) for each in refusals] == [
        ("e.jsonl:4", "not_encodable"),
        ("e.jsonl:5", "not_encodable"),
        ("e.jsonl:3", "amount_in_range"),
        ("e.jsonl:6", "customer_id_given"),
    ]
    assert "amount is -1.0, wanted 0 to 50000" in refusals[2]["detail"]
    assert (summary["read"], summary["scored"], summary["refused"]) == (8, 4, 4)
    assert summary["feature_fingerprint"] == bound.features.fingerprint


def test_a_dry_run_is_the_same_however_its_batches_are_cut(millrace: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = with_model(tmp_path)
    events = written(tmp_path / "e.jsonl", *(payment(n, customer_id=f"c{n % 40}", amount=n % 7 + 0.25) for n in range(300)))
    whole = millrace("dry-run", file, events).out
    monkeypatch.setenv("MILLRACE_WORKER__BATCH_RECORDS", "7")
    monkeypatch.setenv("MILLRACE_WORKER__MAX_KEYS", "2")
    assert millrace("dry-run", file, events).out == whole
    assert len(whole.splitlines()) == 300


def test_a_dry_run_can_do_without_a_model_and_stop_early(millrace: Run, tmp_path: Path) -> None:
    file = write_pipeline(tmp_path)
    events = written(tmp_path / "e.jsonl", *(payment(n) for n in range(10)))
    done = millrace("dry-run", file, events, "--constant", "0.75", "--limit", "3")
    assert done.code == 0, done.err
    scored = [json.loads(line) for line in done.out.splitlines()]
    assert [(event["scores"][0]["score"], event["decision"]) for event in scored] == [(0.75, "positive")] * 3


def test_a_dry_run_of_a_file_that_is_not_there_ends_with_11(millrace: Run, tmp_path: Path) -> None:
    refused(millrace("dry-run", write_pipeline(tmp_path), "nothing.jsonl", "--constant", "0.5"), 11, "nothing.jsonl")


def test_an_empty_file_is_scored_to_nothing(millrace: Run, tmp_path: Path) -> None:
    done = millrace("dry-run", write_pipeline(tmp_path), written(tmp_path / "e.jsonl"), "--constant", "0.5")
    assert (done.code, done.out) == (0, "")
    assert json.loads(done.err)["read"] == 0


def test_a_dry_run_of_nothing_but_broken_lines_refuses_them_all(millrace: Run, tmp_path: Path) -> None:
    done = millrace("dry-run", write_pipeline(tmp_path), written(tmp_path / "e.jsonl", "{", "{"), "--constant", "0.5")
    assert (done.code, done.out) == (0, "")
    assert json.loads(done.err.splitlines()[-1])["refused"] == 2


# --- documentation ---

DOCS = Path(__file__).parents[2] / "docs"


def test_every_command_and_option_is_documented() -> None:
    page = (DOCS / "cli.md").read_text()
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert f"## millrace {group.name} {command.name}" in page
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        assert f"## millrace {name}" in page


def test_every_exit_code_is_documented() -> None:
    page = (DOCS / "cli.md").read_text()
    kinds: list[type[Refused]] = [Refused, *Refused.__subclasses__()]
    for kind in kinds:
        assert f"| {kind.exit_code} |" in page, kind
    for code in (0, 20, 70, 75, 130):
        assert f"| {code} |" in page


def test_every_setting_is_documented_with_its_default() -> None:
    lines = (DOCS / "settings.md").read_text().splitlines()
    for section, field in Settings.model_fields.items():
        for name, setting in field.annotation.model_fields.items():  # type: ignore[union-attr]
            (line,) = [line for line in lines if line.startswith(f"| `{section}.{name}` |")]
            default = setting.get_default()
            if isinstance(default, bool | int | float | str):
                assert f"`{str(default).lower() if isinstance(default, bool) else default}`" in line
