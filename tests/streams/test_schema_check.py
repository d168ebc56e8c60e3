"""`millrace schema check`: what a new schema would break, in words and by exit code, offline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams.definition.load import load_bound
from streams.schema.impact import uses
from tests.streams.command_line import Run, runner

EXAMPLE = Path(__file__).parents[2] / "examples" / "card_fraud"


@pytest.fixture
def millrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    shutil.copy(EXAMPLE / "pipeline.py", tmp_path)
    (tmp_path / "schemas").mkdir()
    shutil.copy(EXAMPLE / "schemas" / "1-payments-value.avsc", tmp_path / "schemas")
    return runner(tmp_path, monkeypatch, capsys)


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """Writes the example's schema with some fields changed, taken away or added."""

    def write(added: Any = (), name: str = "new.avsc", **fields: Any) -> Path:
        definition = json.loads((EXAMPLE / "schemas" / "1-payments-value.avsc").read_text())
        kept = [each | (fields.get(each["name"]) or {}) for each in definition["fields"] if fields.get(each["name"], {}) is not None]
        file = tmp_path / name
        file.write_text(json.dumps(definition | {"fields": [*kept, *added]}))
        return file

    return write


def test_a_changed_type_names_the_rules_features_and_model_it_breaks(millrace: Run, changed: Callable[..., Path]) -> None:
    done = millrace("schema", "check", changed(amount={"type": "string"}))
    assert done.code == 11
    assert done.err == f"millrace: {changed(amount={'type': 'string'})} is not BACKWARD compatible and breaks card_fraud\n"
    lines = [line.strip() for line in done.out.splitlines()]
    assert "the new schema can't read what version 1 wrote:" in lines
    assert "amount: is double, which can't be read as string" in lines
    (line,) = [line for line in lines if line.startswith("amount: string -> double breaks rules countable_")]
    assert "amount_in_range, features customer_amount_mean_1d (+8), model card_fraud (10 of its inputs), output payments.scored" in line
    assert "every record becomes a dead letter" in done.out


def test_a_renamed_field_breaks_its_readers_and_with_an_alias_only_the_new_ones_read_old_records(
    millrace: Run, changed: Callable[..., Path]
) -> None:
    done = millrace("schema", "check", changed(customer_id={"name": "customer"}), "--json")
    facts = json.loads(done.out)
    (pipeline,) = facts["pipelines"]
    (broken,) = pipeline["breaks"]
    assert (done.code, broken["field"], broken["roles"]) == (11, "customer_id", ["key"])
    assert len(broken["features"]) == 12  # every feature of the customer, whatever it sums
    aliased = millrace("schema", "check", changed(customer_id={"name": "customer", "aliases": ["customer_id"]}), "--json")
    facts = json.loads(aliased.out)
    assert (aliased.code, facts["compatible"], facts["breaks_pipelines"]) == (11, True, True)


def test_a_new_field_with_a_default_breaks_nothing(millrace: Run, changed: Callable[..., Path]) -> None:
    new = changed(added=[{"name": "channel", "type": "string", "default": "web"}])
    for mode in ("BACKWARD", "full_transitive"):
        done = millrace("schema", "check", new, "--mode", mode)
        assert (done.code, done.err) == (0, "")
        assert "pipeline card_fraud reads it as before" in done.out


def test_a_field_that_would_hold_its_default_for_ever_is_told_of(millrace: Run, changed: Callable[..., Path], tmp_path: Path) -> None:
    changed(name="schemas/1-payments-value.avsc", currency={"default": "EUR"})
    done = millrace("schema", "check", changed(currency=None))
    assert done.code == 0, done.err
    assert "currency: is not written, every event would have its default 'EUR': rule currency_one_of" in done.out


def test_which_subject_is_meant_is_told_by_name_or_record_or_asked_for(millrace: Run, changed: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copy(tmp_path / "schemas" / "1-payments-value.avsc", tmp_path / "schemas" / "1-refunds-value.avsc")
    done = millrace("schema", "check", changed())
    assert done.code == 11
    assert "payments-value, refunds-value all do; say which with --subject" in done.err
    assert millrace("schema", "check", changed(), "--subject", "refunds-value").code == 0
    assert millrace("schema", "check", changed(name="2-payments-value.avsc")).code == 0
    unknown = millrace("schema", "check", changed(), "--subject", "nothing")
    assert (unknown.code, "knows the subject 'nothing'" in unknown.err) == (11, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "strin"}]}', "is not an Avro schema"),
        ('"string"', "wanted a record"),
    ],
)
def test_a_broken_schema_is_one_line(millrace: Run, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "new.avsc").write_text(text)
    done = millrace("schema", "check", "new.avsc")
    assert (done.code, done.out) == (11, "")
    assert words in done.err and len(done.err.splitlines()) == 1


def test_what_functions_look_at_is_known_by_running_them() -> None:
    found = uses(load_bound(EXAMPLE / "pipeline.py"))
    assert found["event_time"].derived == ("weekend", "night")
    assert len(found["event_time"].features) == 15
    assert found["currency"].rules == ("currency_one_of",)
    assert found["currency"].model == ()
    assert found["payment_id"].roles == ("event id",)
