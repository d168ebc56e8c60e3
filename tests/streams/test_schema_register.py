"""`millrace schema register`: the one way a schema gets into a registry, and safe to repeat."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from schemas.registry import open_registry
from tests.streams.command_line import Run, runner

PAYMENT = {"type": "record", "name": "Payment", "fields": [{"name": "id", "type": "string"}]}


@pytest.fixture
def millrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "payment.avsc").write_text(json.dumps(PAYMENT))
    return runner(tmp_path, monkeypatch, capsys)


def test_a_schema_has_one_id_however_often_it_is_registered(millrace: Run, tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    register = ("schema", "register", "payment.avsc", "--subject", "payments-value", "--folder", "schemas")
    assert [millrace(*register).out for _ in range(2)] == ["payments-value is now id 1\n", "payments-value was already id 1\n"]
    changed = PAYMENT | {"fields": [{"name": "id", "type": "bytes"}]}
    (tmp_path / "payment.avsc").write_text(json.dumps(changed))
    assert millrace(*register, "--json").facts["id"] == 2
    assert sorted(file.name for file in (tmp_path / "schemas").iterdir()) == ["1-payments-value.avsc", "2-payments-value.avsc"]


def test_it_goes_to_the_registry_that_the_settings_name(millrace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"mock://{uuid.uuid4().hex}"
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", url)
    made = millrace("schema", "register", "payment.avsc", "--subject", "payments-value", "--json").facts
    found = open_registry(url).latest("payments-value")
    assert found is not None
    assert (found[0], found[1].definition) == (made["id"], PAYMENT)


@pytest.mark.parametrize(
    ("text", "arguments", "code", "words"),
    [
        ('{"type": "record"', ("--folder", "."), 11, "is not JSON"),
        ('"string"', ("--folder", "."), 11, "wanted a record"),
        (json.dumps(PAYMENT), (), 13, "no registry to register with"),
        (json.dumps(PAYMENT), ("--folder", "nowhere"), 11, "schema folder nowhere is missing"),
    ],
)
def test_what_can_not_be_registered_is_one_line(
    millrace: Run, tmp_path: Path, text: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "payment.avsc").write_text(text)
    done = millrace("schema", "register", "payment.avsc", "--subject", "payments-value", *arguments)
    assert (done.code, words in done.err, len(done.err.splitlines())) == (code, True, 1), done.err
