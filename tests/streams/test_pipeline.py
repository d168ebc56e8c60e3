"""Pipelines: what is refused, what follows from a definition, and what its fingerprints know."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.columns import Constant, Nullable, PackedBytes
from schemas.errors import DefinitionError, SchemaError
from schemas.reject import FIRST_RULE
from schemas.rules import check
from streams.definition.bound import EventTime
from streams.definition.describe import describe
from streams.definition.load import load_bound, load_pipeline
from streams.definition.pipeline import Model, Topic
from streams.planning.stage import stages
from streams.settings import Settings
from tests.streams.payment import bound_pipeline, write_pipeline

EXAMPLE = Path(__file__).parents[2] / "examples/card_fraud/pipeline.py"
MODEL_INPUTS = '("amount", "night", *customer.feature_names)'


@pytest.mark.parametrize(
    ("changes", "fields", "wanted"),
    [
        # what the pipeline names and the schema lacks
        ({'key="customer_id", event_time': 'key="customer", event_time'}, {}, ["key='customer'", "did you mean 'customer_id'?"]),
        ({'event_id="payment_id"': 'event_id="id"'}, {}, ["event_id='id'", "no field of its schema"]),
        ({'event_time="event_time"': 'event_time="time"'}, {}, ["event_time='time'", "no field of its schema"]),
        ({'Entity("customer", key="customer_id"': 'Entity("customer", key="custmer_id"'}, {}, ["its key 'custmer_id'", "'customer_id'?"]),
        ({'FixedPoint("amount"': 'FixedPoint("amuont"'}, {}, ["its value 'amuont'", "did you mean 'amount'?"]),
        (
            {MODEL_INPUTS: '("amount", "customer_amount_mean_7d")'},
            {},
            ["customer_amount_mean_7d", "did you mean 'customer_amount_mean_1d'?"],
        ),
        # what it is used for and can't be
        ({}, {"event_time": "long"}, ["event_time", "is of type long", "timestamp-millis or timestamp-micros"]),
        ({}, {"event_time": "string"}, ["event_time", "is of type string", "wanted long"]),
        ({}, {"payment_id": "long"}, ["event_id='payment_id'", "is of type long", "wanted string"]),
        ({}, {"customer_id": "double"}, ["key='customer_id'", "is of type double"]),
        ({}, {"amount": "string"}, ["its value 'amount'", "is of type string"]),
        ({}, {"amount": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}}, ["'amount' is of type decimal"]),
        (
            {},
            {"customer_id": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
            ["key='customer_id' is of type decimal"],
        ),
        ({MODEL_INPUTS: '("currency",)'}, {}, ["input 'currency'", "is of type string", "wanted a number"]),
        ({'Entity("customer", key="customer_id"': 'Entity("customer", key="night"'}, {}, ["its key 'night' is a derived column"]),
        # names with two meanings
        ({'Derived("night"': 'Derived("amount"'}, {}, ["'amount' is a field of the event and a derived column"]),
        ({'Derived("night"': 'Derived("customer_count_1d"'}, {}, ["'customer_count_1d' is a derived column and a window feature"]),
        ({"derived=(": 'derived=(Derived("night", night), '}, {}, ["two derived columns are named 'night'"]),
        ({"entities=(customer,)": "entities=(customer, customer)"}, {}, ["two entities are named 'customer'"]),
        ({"rules=(": 'rules=(in_range("amount", 0, 1), '}, {}, ["two rules are named 'amount_in_range'"]),
        ({MODEL_INPUTS: '("amount", "amount")'}, {}, ["input 'amount' stands twice"]),
        ({"rules=(": 'rules=(Rule("event_time_given", night), '}, {}, ["two rules are named 'event_time_given'"]),
        # shapes
        ({"entities=(customer,)": "entities=customer"}, {}, ["entities should be a tuple of Entity", "(entitie"]),
        ({"entities=(customer,)": "entities=(amount,)"}, {}, ["each of entities should be a Entity, not FixedPoint"]),
        ({'rules=(in_range("amount", 0, 50_000),)': "rules=7"}, {}, ["rules should be a tuple of Rule, not 7"]),
        ({MODEL_INPUTS: '"amount"'}, {}, ["inputs should be a tuple of names, not 'amount'"]),
        ({MODEL_INPUTS: "()"}, {}, ["has no inputs"]),
        ({'event_id="payment_id"': 'event_id=""'}, {}, ["input topic 'payments' needs event_id="]),
        ({'Topic("payments.scored")': 'Topic("payments")'}, {}, ["'payments' can't be its output as well"]),
        ({'Topic("payments.scored")': 'Topic("payments.dlq")'}, {}, ["'payments.dlq' can't be its output as well"]),
        ({'Topic("payments.scored")': 'Topic("payments.scored", schema="x.avsc")'}, {}, ["schema of its output", "is derived"]),
        ({'Topic("payments.scored")': 'Topic("pay ments")'}, {}, ["'pay ments' is no name for a topic"]),
        ({'Pipeline(\n    "payments"': 'Pipeline(\n    "card-fraud"'}, {}, ["'card-fraud' is no name for a pipeline"]),
        ({'inputs=("amount"': 'threshold=2, inputs=("amount"'}, {}, ["threshold 2, wanted 0 to 1"]),
        (
            {'event_id="payment_id")': 'event_id="payment_id", framing="xml")'},
            {},
            ["framing 'xml', wanted 'confluent', 'confluent-header', 'bare', 'json', SingleObject(...) or CloudEvents(...)"],
        ),
        (
            {'Topic("payments.scored")': 'Topic("payments.scored", framing="json")'},
            {},
            ["topic 'payments.scored': an output can't be json, wanted framing='confluent' or 'bare'"],
        ),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, str], fields: dict[str, Any], wanted: list[str]
) -> None:
    with pytest.raises(DefinitionError) as caught:
        bound_pipeline(tmp_path, changes, fields)
    said = str(caught.value)
    assert "\n" not in said
    for part in wanted:
        assert part in said


def test_two_fixed_points_of_one_column_are_refused(tmp_path: Path) -> None:
    second = 'Mean(amount), Sum(FixedPoint("amount", scale=10, largest=1))'
    with pytest.raises(DefinitionError, match="'amount' is declared as two different FixedPoints"):
        bound_pipeline(tmp_path, {"Mean(amount)": second})


@pytest.mark.parametrize(
    ("text", "wanted"), [(None, "can't be read"), ("{", "is not JSON"), ('{"type": "recrd"}', "is not an Avro schema")]
)
def test_a_missing_or_broken_schema_file_is_refused_by_name(tmp_path: Path, text: str | None, wanted: str) -> None:
    file = write_pipeline(tmp_path)
    schema = tmp_path / "payments.avsc"
    schema.unlink()
    if text is not None:
        schema.write_text(text)
    with pytest.raises(SchemaError) as caught:
        load_bound(file)
    assert str(schema) in str(caught.value)
    assert wanted in str(caught.value)


def test_the_example_is_fit_and_its_features_stand_in_the_order_of_its_models_inputs() -> None:
    bound = load_bound(EXAMPLE)
    assert bound.features.names == bound.model.inputs
    assert bound.model_path == EXAMPLE.parent / "models/card_fraud.onnx"
    assert bound.schema_folder == EXAMPLE.parent / "schemas"
    assert bound.retention_ms == max(entity.retention_ms for entity in bound.pipeline.entities)


# --- implicit rules ---


def broken_rule(tmp_path: Path, fields: dict[str, Any], **columns: Any) -> str | None:
    """The name of the first rule that one payment breaks, its columns changed as given."""
    bound = bound_pipeline(tmp_path, {}, fields)
    payment: dict[str, Any] = {
        "payment_id": PackedBytes.pack([b"p"]),
        "customer_id": PackedBytes.pack([b"c"]),
        "terminal_id": PackedBytes.pack([b"t"]),
        "event_time": np.array([1_700_000_000_000]),
        "amount": np.array([12.5]),
        "currency": PackedBytes.pack([b"EUR"]),
        **columns,
    }
    code = int(check(bound.rules, payment, np.zeros(1, np.uint8))[0])
    return None if code == 0 else bound.rules[code - FIRST_RULE].name


def null_of(values: Any) -> Nullable:
    return Nullable(values, np.zeros(1, np.bool_))


NO_TEXT = PackedBytes.pack([b""])


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        ({}, None),
        ({"payment_id": NO_TEXT}, "payment_id_given"),
        ({"payment_id": null_of(NO_TEXT)}, "payment_id_given"),
        ({"customer_id": NO_TEXT}, "customer_id_given"),
        ({"customer_id": null_of(PackedBytes.pack([b"x"]))}, "customer_id_given"),
        ({"customer_id": Constant(b"", 1)}, "customer_id_given"),
        ({"event_time": null_of(np.array([5]))}, "event_time_given"),
        ({"event_time": np.array([-62_135_596_800_001])}, "event_time_in_years_1_to_9999"),
        ({"event_time": np.array([-62_135_596_800_000])}, None),
        ({"event_time": np.array([253_402_300_799_999])}, None),
        ({"event_time": np.array([253_402_300_800_000])}, "event_time_in_years_1_to_9999"),
        ({"event_time": np.array([0])}, None),
    ],
)
def test_an_event_without_an_id_a_key_or_a_time_breaks_an_implicit_rule(tmp_path: Path, columns: dict[str, Any], rule: str | None) -> None:
    assert broken_rule(tmp_path, {}, **columns) == rule


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -1e9, 1.001])
def test_an_amount_that_cannot_be_counted_breaks_a_rule_before_the_users(tmp_path: Path, amount: float) -> None:
    rule = broken_rule(tmp_path, {}, amount=np.array([amount]))
    assert rule is not None
    assert rule.startswith("countable_")


def test_a_users_rule_is_asked_after_the_implicit_ones(tmp_path: Path) -> None:
    assert broken_rule(tmp_path, {}, amount=np.array([-1.0])) == "amount_in_range"


def test_a_model_input_that_may_be_null_or_not_finite_has_a_rule_of_its_own(tmp_path: Path) -> None:
    changes = {MODEL_INPUTS: '("risk", "age")'}
    bound = bound_pipeline(tmp_path, changes, {"risk": "float", "age": ["null", "int"]})
    names = [rule.name for rule in bound.rules]
    assert "risk_finite" in names
    assert "age_given" in names


def test_each_implicit_rule_has_a_name_of_its_own_and_describes_itself(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path)
    names = [rule.name for rule in bound.rules]
    assert len(set(names)) == len(names)
    assert names[-1] == "amount_in_range"
    json.dumps([rule.describe() for rule in bound.rules])


# --- event time ---


def test_microseconds_are_floored_to_milliseconds_before_the_epoch_as_well() -> None:
    micros = EventTime("event_time", 1_000)
    assert np.asarray(micros.to_ms(np.array([1_999, 0, -1, -1_000, -1_001]))).tolist() == [1, 0, -1, -1, -2]
    nullable = micros.to_ms(Nullable(np.array([5_000]), np.array([True])))
    assert isinstance(nullable, Nullable)
    assert np.asarray(nullable.values).tolist() == [5]
    assert micros.to_ms(Constant(1_500, 2)) == Constant(1, 2)


def test_milliseconds_are_left_as_they_are() -> None:
    times = np.array([1, 2])
    assert EventTime("event_time", 1).to_ms(times) is times


# --- fingerprints ---


def test_loading_a_file_twice_gives_the_same_fingerprints(tmp_path: Path) -> None:
    one, other = bound_pipeline(tmp_path), bound_pipeline(tmp_path)
    assert (one.fingerprint, one.state_fingerprint, one.features.fingerprint) == (
        other.fingerprint,
        other.state_fingerprint,
        other.features.fingerprint,
    )


@pytest.mark.parametrize(
    ("changes", "fields", "changed"),
    [
        ({"lateness_ms=hours(1)": "lateness_ms=hours(2)"}, {}, {"pipeline", "state", "features"}),
        ({"scale=100": "scale=10"}, {}, {"pipeline", "state", "features"}),
        ({'key="customer_id", windows': 'key="terminal_id", windows'}, {}, {"pipeline", "state", "features"}),
        ({}, {"event_time": {"type": "long", "logicalType": "timestamp-micros"}}, {"pipeline", "state", "features"}),
        ({}, {"customer_id": ["null", "string"]}, {"pipeline", "state", "features"}),
        ({'Derived("night", night)': 'Derived("night", night, version=2)'}, {}, {"pipeline", "features"}),
        ({'"amount", "night"': '"night", "amount"'}, {}, {"pipeline", "features"}),
        ({"Count(), ": "Count(empty=1.0), "}, {}, {"pipeline", "features"}),
        ({"0, 50_000)": "0, 40_000)"}, {}, {"pipeline"}),
        ({'event_id="payment_id")': 'event_id="payment_id", framing="bare")'}, {}, {"pipeline"}),
        ({}, {"comment": "string"}, {"pipeline"}),
        ({'Topic("payments.scored")': 'Topic("elsewhere")'}, {}, set()),
        ({'path="payments.onnx"': 'path="other.onnx"'}, {}, set()),
    ],
)
def test_a_change_shows_in_just_the_fingerprints_that_it_concerns(
    tmp_path: Path, changes: dict[str, str], fields: dict[str, Any], changed: set[str]
) -> None:
    before, after = bound_pipeline(tmp_path), bound_pipeline(tmp_path, changes, fields)
    found = {
        "pipeline": before.fingerprint != after.fingerprint,
        "state": before.state_fingerprint != after.state_fingerprint,
        "features": before.features.fingerprint != after.features.fingerprint,
    }
    assert {name for name, differs in found.items() if differs} == changed


def test_two_processes_agree_on_every_fingerprint(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path)
    code = (
        "import sys; from streams.definition.load import load_bound; b = load_bound(sys.argv[1]); "
        "print(b.fingerprint, b.state_fingerprint, b.features.fingerprint)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pipeline.py")], cwd=EXAMPLE.parents[2], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [bound.fingerprint, bound.state_fingerprint, bound.features.fingerprint]


def test_a_pipeline_described_is_json_that_names_everything(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path)
    facts = json.loads(json.dumps(describe(bound)))
    assert facts["topics"] == {"input": "payments", "output": "payments.scored", "dead_letters": "payments.dlq"}
    assert [rule["name"] for rule in facts["rules"] if not rule["implicit"]] == ["amount_in_range"]
    assert [feature["name"] for feature in facts["features"]] == list(bound.model.inputs)
    assert facts["feature_fingerprint"] == bound.features.fingerprint


# --- stages ---


def test_a_stage_names_its_state_group_and_producers(tmp_path: Path) -> None:
    (stage,) = stages(bound_pipeline(tmp_path))
    kafka = Settings.model_validate({"kafka": {"instance": "w1"}}).kafka
    assert stage.namespace == f"payments.score.{stage.state_fingerprint[:8]}"
    assert stage.group(kafka) == "payments"
    assert stage.group(Settings.model_validate({"kafka": {"group": "other"}}).kafka) == "other"
    assert stage.transactional_prefix(kafka) == "payments-score-w1"
    assert stage.key == "customer_id"


# --- loading ---


def refusal(file: Path, name: str | None = None) -> str:
    with pytest.raises(DefinitionError) as caught:
        load_pipeline(file, name)
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("text", "line", "wanted"),
    [
        ("x = 1\nx = (\n", 2, "never closed"),
        ("\n\nraise ValueError('oh')\n", 3, "ValueError: oh"),
        ("import nowhere_to_be_found\n", 1, "ModuleNotFoundError"),
        ("from millrace import Window\n\nw = Window(-1)\n", 3, "length"),
        ("from millrace import Windw\n", 1, "Windw"),
    ],
)
def test_a_broken_file_is_one_line_with_file_and_line(tmp_path: Path, text: str, line: int, wanted: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    said = refusal(file)
    assert said.startswith(f"{file}:{line}: ")
    assert wanted in said


def test_a_fault_in_a_module_beside_the_file_is_told_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "words_of_this_test.py").write_text("\nboom = 1 / 0\n")
    file = tmp_path / "pipeline.py"
    file.write_text("import words_of_this_test\n")
    assert f"{tmp_path / 'words_of_this_test.py'}:2: ZeroDivisionError" in refusal(file)


def test_a_file_may_import_what_lies_beside_it_and_its_folder_is_never_first_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "night_of_this_test.py").write_text("def night(columns):\n    return columns['event_time'] > 0\n")
    file = write_pipeline(tmp_path, {"def night(columns):": "from night_of_this_test import night\n\ndef other(columns):"})
    first = sys.path[0]
    assert load_pipeline(file).name == "payments"
    assert sys.path[0] == first
    assert str(tmp_path) in sys.path


def test_a_file_that_is_not_there_or_no_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("")
    assert "no pipeline file" in refusal(tmp_path / "missing.py")
    assert "no pipeline file" in refusal(tmp_path / "pipeline.yaml")
    assert "no pipeline file" in refusal(tmp_path)


def test_a_file_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert "defines no pipeline" in refusal(tmp_path / "empty.py")


def test_two_pipelines_with_one_name_are_refused_and_one_under_two_names_is_not(tmp_path: Path) -> None:
    same = write_pipeline(tmp_path, {"pipeline = Pipeline(": "again = pipeline = Pipeline("})
    assert load_pipeline(same).name == "payments"
    file = tmp_path / "two.py"
    file.write_text(same.read_text() + "\nfrom dataclasses import replace\nother = replace(pipeline, include_features=False)\n")
    assert "two pipelines named 'payments'" in refusal(file)


def test_of_several_pipelines_one_is_chosen_by_name(tmp_path: Path) -> None:
    file = write_pipeline(tmp_path)
    file.write_text(file.read_text() + "\nfrom dataclasses import replace\nother = replace(pipeline, name='refunds')\n")
    assert load_pipeline(file, "refunds").name == "refunds"
    assert "payments, refunds" in refusal(file)
    assert "did you mean 'refunds'?" in refusal(file, "refund")


def test_a_users_module_that_our_package_hides_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/mine.py").write_text("x = 1\n")
    file = tmp_path / "pipeline.py"
    file.write_text("from schemas.mine import x\n")
    said = refusal(file)
    assert str(tmp_path / "schemas") in said
    assert "rename it" in said


def test_definitions_are_frozen_and_equal_by_value() -> None:
    assert Topic("a", key="k") == Topic("a", key="k")
    model = Model("m", "m.onnx", inputs=["a", "b"])  # type: ignore[arg-type]
    assert model.inputs == ("a", "b")
    with pytest.raises(AttributeError):
        model.name = "n"  # type: ignore[misc]
