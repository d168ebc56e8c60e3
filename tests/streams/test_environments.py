"""One schema, several environments: pipelines bind SERVING, training sets TRAINING, and a mix-up is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from schemas.codec import Decoder
from schemas.columns import Nullable, PackedBytes
from schemas.errors import DefinitionError, SchemaError
from streams.definition.bound import Bound
from streams.definition.describe import describe
from streams.definition.load import load_bound
from tests.streams.command_line import Run, payment, runner, written
from tests.streams.payment import bound_pipeline, write_pipeline
from tests.streams.staged import write_staged

OPTIONAL: dict[str, Any] = {"label": ["null", "boolean"], "channel": "string"}
HEAD = "format: 1\nversion: 3\nowner: us\ndescription: words\n"
SAID = """
fields:
  amount: {range: [0, 500]}
  label: {environments: [TRAINING], presence: required}
  channel: {default: till}
environments:
  SERVING: {}
  TRAINING: {fields: {amount: {range: [1, 900]}, channel: {default: unknown}}}
  SHADOW: {fields: {amount: {range: [0, 50]}}}
"""


def constrained(folder: Path, said: str = SAID, changes: dict[str, str] | None = None) -> Path:
    """The pipeline of payments with constraints beside its schema."""
    file = write_pipeline(folder, changes, OPTIONAL)
    schema = json.loads((folder / "payments.avsc").read_text())
    for each in schema["fields"]:
        if each["name"] == "label":
            each["default"] = None
    (folder / "payments.avsc").write_text(json.dumps(schema))
    (folder / "payments.constraints.yaml").write_text(HEAD + said)
    return file


def names(bound: Bound) -> list[str]:
    return [rule.name for rule in bound.rules]


def test_a_pipeline_binds_serving(tmp_path: Path) -> None:
    bound = load_bound(constrained(tmp_path))
    assert bound.constraints is not None
    assert (bound.constraints.environment, bound.constraints.version) == ("SERVING", 3)
    assert names(bound)[-3:] == ["amount_in_range", "label_absent", "amount_range"]
    told: Any = describe(bound)
    assert [each["name"] for each in told["rules"] if not each["implicit"]] == ["amount_in_range", "label_absent", "amount_range"]
    assert told["constraints"]["owner"] == "us"


def test_a_pipeline_may_bind_an_environment_of_its_users_and_not_training(tmp_path: Path) -> None:
    shadow = {'event_id="payment_id")': 'event_id="payment_id", environment="SHADOW")'}
    bound = load_bound(constrained(tmp_path, changes=shadow))
    assert bound.rules[-1].wanted == "0 to 50"
    for name, error, words in (
        ("TRAINING", DefinitionError, "environment TRAINING is for training sets"),
        ("SHADE", SchemaError, "no environment 'SHADE'; did you mean 'SHADOW'?"),
    ):
        file = constrained(tmp_path, changes={'event_id="payment_id")': f'event_id="payment_id", environment="{name}")'})
        with pytest.raises(error, match=words.replace("?", r"\?")):
            load_bound(file)


@pytest.mark.parametrize(
    ("changes", "who"),
    [
        ({'inputs=("amount",': 'inputs=("amount", "label",'}, "model 'payments'"),
        ({'key="customer_id", windows': 'key=("customer_id", "label"), windows'}, "entity 'customer'"),
        ({'rules=(in_range("amount", 0, 50_000),)': 'rules=(present("label"),)'}, "rule 'label_present'"),
    ],
)
def test_what_serving_does_not_have_is_used_nowhere(tmp_path: Path, changes: dict[str, str], who: str) -> None:
    with pytest.raises(DefinitionError) as found:
        load_bound(constrained(tmp_path, changes=changes))
    assert f"{who} uses 'label', which is not there in SERVING: by " in str(found.value)
    assert str(found.value).endswith("only TRAINING has it")


def test_an_environment_has_defaults_of_its_own_and_registries_never_see_them(tmp_path: Path) -> None:
    bound = load_bound(constrained(tmp_path))
    written = bound.written_schema
    assert "till" not in json.dumps(written.definition)
    old: Any = json.loads(json.dumps(written.definition))
    old["fields"] = [each for each in old["fields"] if each["name"] != "channel"]
    from schemas.avro import AvroSchema, write_value
    from streams.offline.past_table import OneSchema

    writer = AvroSchema.parse(old)
    value = b"\0\0\0\0\1" + write_value({**payment(1), "label": None}, writer.parsed)
    columns = Decoder(bound.schema, "confluent", OneSchema(writer)).decode(PackedBytes.pack([value])).columns
    channel = columns["channel"]
    assert isinstance(channel, PackedBytes) and channel[0] == b"till"
    assert isinstance(columns["label"], Nullable)


def test_constraints_and_the_pipeline_agree(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="'amount_range' is a rule of the pipeline and a constraint in"):
        load_bound(constrained(tmp_path, changes={'in_range("amount", 0, 50_000),': 'Rule("amount_range", lambda c: c["amount"] >= 0),'}))
    write_pipeline(tmp_path, fields={"settled_at": {"type": "long", "logicalType": "timestamp-millis"}})
    (tmp_path / "payments.constraints.yaml").write_text(HEAD + "event_time: settled_at\n")
    with pytest.raises(DefinitionError, match="goes by 'settled_at'; wanted one"):
        load_bound(tmp_path / "pipeline.py")
    (tmp_path / "payments.constraints.yaml").unlink()
    with pytest.raises(SchemaError, match="can't be read"):
        bound_pipeline(tmp_path, {'event_id="payment_id")': 'event_id="payment_id", constraints="gone.yaml")'})


def test_constraints_change_the_pipelines_fingerprint_and_their_version_does_not(tmp_path: Path) -> None:
    before = load_bound(constrained(tmp_path)).fingerprint
    file = tmp_path / "payments.constraints.yaml"
    file.write_text(file.read_text().replace("version: 3", "version: 4"))
    assert load_bound(tmp_path / "pipeline.py").fingerprint == before
    file.write_text(file.read_text().replace("[0, 500]", "[0, 501]"))
    assert load_bound(tmp_path / "pipeline.py").fingerprint != before


# --- labels ---


LABEL_SAID = """
event_time: event_time
fields:
  label_time: {default: 5}
  merchant.terminal_id: {regex: "T[0-9]+"}
  payment_id: {unique: 30d}
relations:
  - {name: told_after_the_payment, holds: event_time <= label_time}
"""


TIME = {"type": "long", "logicalType": "timestamp-millis"}
GONE = {'event_id="payment_id"),\n    value': 'event_id="payment_id", constraints="gone.yaml"),\n    value'}


def labelled(folder: Path, said: str = LABEL_SAID, changes: dict[str, str] | None = None) -> Path:
    """The pipeline of three stages with constraints beside the schema of its labels."""
    file = write_staged(folder, changes, {"fraud": ["null", "boolean"], "label_time": ["null", TIME]})
    schema = json.loads((folder / "payment-labels.avsc").read_text())
    for each in schema["fields"]:
        if isinstance(each["type"], list):
            each["default"] = None
    (folder / "payment-labels.avsc").write_text(json.dumps(schema))
    (folder / "payment-labels.constraints.yaml").write_text(HEAD + said)
    return file


def test_labels_have_constraints_of_their_own(tmp_path: Path) -> None:
    bound = load_bound(labelled(tmp_path))
    assert bound.constraints is None and bound.labels is not None
    assert [rule.name for rule in bound.labels.rules[-2:]] == ["merchant_terminal_id_regex", "told_after_the_payment"]
    assert '"default": 5' not in json.dumps(bound.labels.written_schema.definition)
    assert '"default": 5' in json.dumps(bound.labels.schema.definition)
    told: Any = describe(bound)
    assert told["labels"]["constraints"]["version"] == 3
    before = bound.fingerprint
    (tmp_path / "payment-labels.constraints.yaml").unlink()
    assert load_bound(tmp_path / "pipeline.py").fingerprint != before


@pytest.mark.parametrize(
    ("said", "changes", "words"),
    [
        ("fields: {fraud: {environments: [TRAINING]}}", None, "labels 'payment-labels': value uses 'fraud', which is not there in SERVING"),
        ("fields: {label_time: {environments: [TRAINING]}}", None, "labels 'payment-labels': time uses 'label_time'"),
        ("fields: {frod: {presence: required}}", None, "the schema has no field 'frod'; did you mean 'fraud'?"),
        ("event_time: label_time", None, "has event_time='event_time', and"),
        (LABEL_SAID, GONE, "can't be read"),
        ("fields: {payment_id: {presence: required}}", None, ""),
    ],
)
def test_constraints_of_labels_agree_with_the_pipeline(tmp_path: Path, said: str, changes: dict[str, str] | None, words: str) -> None:
    file = labelled(tmp_path, said, changes)
    if not words:
        assert load_bound(file).labels is not None
        return
    with pytest.raises((DefinitionError, SchemaError)) as found:
        load_bound(file)
    assert words in str(found.value) and "\n" not in str(found.value)


def test_a_file_of_labels_is_held_against_all_that_is_asked_of_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled(tmp_path)
    (tmp_path / "other").mkdir()
    good = {"payment_id": "p0", "event_time": 1_000, "merchant": {"terminal_id": "T1"}, "fraud": True, "label_time": 2_000}
    wrong: list[dict[str, Any]] = [{"merchant": {"terminal_id": "X"}}, {"label_time": 999}, {"payment_id": ""}]
    file = written(tmp_path / "labels.jsonl", good, *({**good, "payment_id": f"p{n}", **each} for n, each in enumerate(wrong, 1)), good)
    run = runner(tmp_path, monkeypatch, capsys)
    done = run("schema", "validate", file, "--pipeline-file", "pipeline.py", "--labels", "--json")
    assert done.code == 11, done.err
    facts = json.loads(done.out)
    assert facts["against"] == "the labels of pipeline fraud"
    assert facts["reasons"] == {"merchant_terminal_id_regex": 1, "payment_id_given": 1, "told_after_the_payment": 1}
    assert {each["what"]: each["rows"] for each in facts["findings"]}["payment_id_unique"] == 1
    assert (facts["rows"], facts["passed"]) == (5, 2)
    for arguments, words in (
        (("--labels", "--schema", "payment-labels.avsc"), "--labels are a pipeline's; wanted --pipeline-file as well"),
        (("--labels", "--pipeline-file", constrained(tmp_path / "other")), "pipeline 'payments' has no labels"),
    ):
        refused = run("schema", "validate", file, *arguments)
        assert refused.code != 0 and words in refused.err and len(refused.err.splitlines()) == 1, refused.err


# --- training sets ---


def january(number: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number - 1)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    constrained(tmp_path)
    rows = [
        {**payment(n), "event_time": january(n + 0.5), "channel": "till", "amount": 0.0 if n == 3 else 600.0 if n == 4 else 5.0}
        for n in range(1, 9)
    ]
    pl.DataFrame(rows, schema_overrides={"event_time": pl.Datetime("ms", "UTC")}).write_parquet(tmp_path / "events.parquet")
    known = [{"payment_id": "p2", "label": 1, "known_at": january(4)}]
    pl.DataFrame(known, schema_overrides={"known_at": pl.Datetime("ms", "UTC")}).write_parquet(tmp_path / "labels.parquet")
    return runner(tmp_path, monkeypatch, capsys)


def built(run: Run) -> None:
    assert run("features", "build", "pipeline.py", "--from", "events.parquet", "--to", "features").code == 0


def label(run: Run, to: str = "set", features: str = "features") -> Any:
    split = ("--split", "train=2026-01-01T00:00:00Z..2026-01-10T00:00:00Z")
    known = ("--labels", "labels.parquet", "--delay", "1d")
    return run("features", "label", "pipeline.py", "--features", features, *known, *split, "--to", to, "--json")


def test_a_training_set_binds_training(tmp_path: Path, run: Run) -> None:
    built(run)
    said = label(run).facts["splits"]["train"]
    # Serving refused the payment of 600 already; training wants 1 at least, so the one of nothing is left out there.
    assert (said["refused"], said["broken"]) == (1, {"amount_range": 1})
    found = pl.read_parquet(tmp_path / "set" / "train" / "*.parquet")
    assert found["payment_id"].to_list() == ["p1", "p2", "p5", "p6", "p7", "p8"]
    assert json.loads((tmp_path / "set" / "_features.json").read_text())["environment"] == "TRAINING"
    assert json.loads((tmp_path / "features" / "_features.json").read_text())["environment"] == "SERVING"


def test_a_field_that_training_requires_has_to_be_there(tmp_path: Path, run: Run) -> None:
    built(run)
    file = tmp_path / "payments.constraints.yaml"
    file.write_text(file.read_text().replace("  channel:", "  outcome: {environments: [TRAINING], presence: required}\n  channel:"))
    schema = json.loads((tmp_path / "payments.avsc").read_text())
    schema["fields"].append({"name": "outcome", "type": ["null", "string"], "default": None})
    (tmp_path / "payments.avsc").write_text(json.dumps(schema))
    done = label(run)
    assert (done.code, done.err.count("\n")) == (17, 1), done.err
    assert "has no column 'outcome', which TRAINING requires" in done.err
    assert not (tmp_path / "set").exists()


def test_a_mix_up_is_refused(tmp_path: Path, run: Run) -> None:
    schema = tmp_path / "payments.avsc"
    schema.write_text(schema.read_text().replace("boolean", "int"))  # as the set has it
    built(run)
    assert label(run).code == 0
    again = label(run, to="again", features="set")
    assert (again.code, "set is a training set, of environment TRAINING" in again.err) == (17, True), again.err
    served = run("schema", "validate", "set/train", "--schema", "payments.avsc")
    assert (served.code, "set is of environment TRAINING, wanted SERVING" in served.err) == (10, True), served.err
    trained = run("schema", "validate", "set/train", "--schema", "payments.avsc", "--environment", "TRAINING", "--json")
    assert json.loads(trained.out)["refused"] == 0, trained.out
    # Live data that knows its labels is no live data.
    told = [{**payment(n), "channel": "till", "label": 1} for n in range(3)]
    (tmp_path / "told.jsonl").write_text("".join(json.dumps(each) + "\n" for each in told))
    refused = run("schema", "validate", "told.jsonl", "--pipeline-file", "pipeline.py", "--json")
    assert json.loads(refused.out)["reasons"] == {"label_absent": 3}
