"""`millrace features ls`, `show` and `diff`: what the definitions say of themselves."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from streams.definition.load import load_bound
from streams.offline.catalogue import catalogue
from tests.streams.command_line import Run, runner
from tests.streams.payment import bound_pipeline, write_pipeline

MEAN = "customer_amount_mean_1d"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    write_pipeline(tmp_path)
    return runner(tmp_path, monkeypatch, capsys)


def test_every_feature_is_told_with_its_window_unit_entity_field_and_models(run: Run) -> None:
    facts = run("features", "ls", "pipeline.py", "--json").facts
    told = {each["name"]: each for each in facts["features"]}
    assert list(told) == ["amount", "night", "customer_count_1d", MEAN]
    mean = told[MEAN]
    assert mean["description"] == "The mean of amount, by customer, over the last 1d."
    assert (mean["kind"], mean["unit"], mean["entity"], mean["key"]) == ("window", "amount", "customer", ["customer_id"])
    assert (mean["aggregate"], mean["fields"], mean["models"]) == ("mean", ["customer_id", "amount"], ["payments"])
    assert mean["window"]["length"] == "1d"
    assert mean["window"]["length_ms"] == 86_400_000
    assert (told["night"]["kind"], told["night"]["fields"]) == ("derived", ["event_time"])
    assert told["amount"]["kind"] == "field"


def test_the_words_are_those_of_the_definitions(tmp_path: Path) -> None:
    bound = bound_pipeline(
        tmp_path,
        {
            "def night(columns):": 'def night(columns):\n    """1 at night."""',
            "Window(days(1)),": "Window(days(1), delay_ms=days(7), grid_ms=hours(1)),",
            "Count(), Mean(amount)": "Count(), RatioToMean(amount), Min(amount)",
        },
    )
    definition = json.loads((tmp_path / "payments.avsc").read_text())
    definition["owner"] = "payments-team"
    for field in definition["fields"]:
        if field["name"] == "amount":
            field |= {"doc": "What was paid, in euros.", "owner": "ledger-team"}
    (tmp_path / "payments.avsc").write_text(json.dumps(definition))
    bound = load_bound(tmp_path / "pipeline.py")
    features = catalogue(bound)["features"]
    assert isinstance(features, list)
    told = {each["name"]: (each["description"], each["owner"]) for each in features}
    span = "by customer, over 1d that ended 7d ago, in cells of 1h."
    assert list(told.values()) == [
        ("What was paid, in euros.", "ledger-team"),
        ("1 at night.", "payments-team"),
        (f"How many events, {span}", "payments-team"),
        (f"The event's own amount over the mean of the window's other events, {span}", "ledger-team"),
        (f"The smallest value of amount, {span}", "ledger-team"),
    ]


def test_a_feature_that_no_model_is_given_says_so(tmp_path: Path) -> None:
    bound = bound_pipeline(tmp_path, {"*customer.feature_names": "customer.feature_names[0]"})
    features = catalogue(bound)["features"]
    assert isinstance(features, list)
    assert {each["name"]: each["models"] for each in features} == {
        "amount": ["payments"],
        "night": ["payments"],
        "customer_count_1d": ["payments"],
        MEAN: [],
    }


def test_in_words_each_feature_is_a_line(run: Run) -> None:
    lines = run("features", "ls", "pipeline.py").out.splitlines()
    assert lines[0].startswith("pipeline payments, features ")
    assert len(lines) == 2 + 4
    assert lines[-1].split("  ")[0] == MEAN
    assert lines[-1].endswith("The mean of amount, by customer, over the last 1d.")


def test_one_feature_is_shown_and_a_wrong_name_gets_a_suggestion(run: Run) -> None:
    shown = run("features", "show", "pipeline.py", MEAN)
    assert shown.out.startswith(f"{MEAN}: The mean of amount")
    assert run("features", "show", "pipeline.py", MEAN, "--json").facts["definition"]["what"]["aggregate"] == "mean"
    wrong = run("features", "show", "pipeline.py", "customer_amount_mean_2d")
    assert (wrong.code, wrong.err.count("\n")) == (10, 1)
    assert MEAN in wrong.err


def test_a_difference_names_what_came_what_went_and_what_changed_in_which_way(tmp_path: Path, run: Run) -> None:
    saved = run("features", "ls", "pipeline.py", "--json").out
    (tmp_path / "old.json").write_text(saved)
    assert run("features", "diff", "old.json", "pipeline.py", "--json").facts["changed"] == []
    write_pipeline(tmp_path, {"Count(), Mean(amount)": "Mean(amount), Std(amount)", "lateness_ms=hours(1)": "lateness_ms=hours(2)"})
    facts = run("features", "diff", "old.json", "pipeline.py", "--json").facts
    assert facts["added"] == ["customer_amount_std_1d"]
    assert facts["removed"] == ["customer_count_1d"]
    assert facts["changed"] == [{"name": MEAN, "same_numbers": False, "changes": {"acceptance.lateness_ms": [3_600_000, 7_200_000]}}]
    assert facts["model_inputs"] is not None
    words = run("features", "diff", "old.json", "pipeline.py").out.splitlines()
    assert "+ customer_amount_std_1d" in words
    assert "    acceptance.lateness_ms: 3600000 -> 7200000" in words


def test_a_change_of_words_alone_is_told_as_one(tmp_path: Path, run: Run) -> None:
    (tmp_path / "old.json").write_text(run("features", "ls", "pipeline.py", "--json").out)
    write_pipeline(tmp_path, {"def night(columns):": 'def night(columns):\n    """1 at night."""'})
    facts = run("features", "diff", "old.json", "pipeline.py", "--json").facts
    assert facts["old"] == facts["new"]
    assert facts["changed"] == [
        {"name": "night", "same_numbers": True, "changes": {"description": ["A derived column.", "1 at night."]}},
    ]


def test_since_when_a_feature_is_known_is_written_down_and_begins_anew_with_another_definition(tmp_path: Path, run: Run) -> None:
    def since() -> dict[str, str | None]:
        return {each["name"]: each["since"] for each in run("features", "ls", "pipeline.py", "--json").facts["features"]}

    assert set(since().values()) == {None}
    today = run("features", "ls", "pipeline.py", "--record", "--json").facts["features"][0]["since"]
    assert today == datetime.now(UTC).date().isoformat()
    file = tmp_path / "payments.features.json"
    file.write_text(file.read_text().replace(today, "2026-01-02"))
    assert set(since().values()) == {"2026-01-02"}
    write_pipeline(
        tmp_path, {"Count(), Mean(amount)": "Count(), Mean(amount), Std(amount)", 'Derived("night", night)': 'Derived("night", night, 2)'}
    )
    assert since() == {
        "amount": "2026-01-02",
        "night": None,
        "customer_count_1d": "2026-01-02",
        MEAN: "2026-01-02",
        "customer_amount_std_1d": None,
    }
    assert run("features", "ls", "pipeline.py", "--record").code == 0
    assert since()["night"] == today
    assert since()["amount"] == "2026-01-02"
    assert "since        2026-01-02" in run("features", "show", "pipeline.py", "amount").out
    file.write_text("[]")
    done = run("features", "ls", "pipeline.py")
    assert (done.code, done.err.count("\n")) == (10, 1)
    assert "payments.features.json is no record of features" in done.err


@pytest.mark.parametrize(("text", "words"), [("{", "can't be read"), ("[]", "is no catalogue"), ('{"format": 2}', "is no catalogue")])
def test_what_is_no_catalogue_is_refused(tmp_path: Path, run: Run, text: str, words: str) -> None:
    (tmp_path / "old.json").write_text(text)
    done = run("features", "diff", "old.json", "pipeline.py")
    assert (done.code, done.err.count("\n")) == (10, 1)
    assert words in done.err


class Texts(HTMLParser):
    """The texts and tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def test_the_page_holds_every_feature_and_no_markup_of_theirs(tmp_path: Path, run: Run) -> None:
    write_pipeline(tmp_path, {"def night(columns):": 'def night(columns):\n    """1 at <script>night</script> & later."""'})
    assert run("features", "ls", "pipeline.py", "--html", "page.html").code == 0
    page = Texts()
    page.feed((tmp_path / "page.html").read_text())
    assert "1 at <script>night</script> & later." in page.texts
    assert "script" not in page.tags
    assert page.tags.count("tr") == 1 + 4
    assert {"amount", "night", "customer_count_1d", MEAN} <= set(page.texts)


def test_a_page_that_cannot_be_written_is_one_line(run: Run) -> None:
    done = run("features", "ls", "pipeline.py", "--html", "nowhere/page.html")
    assert (done.code, done.err.count("\n")) == (13, 1)
    assert "--html nowhere/page.html can't be written" in done.err
