"""`millrace schema stats`, `validate`, `diff` and `infer` on files of every kind, clean and dirty, made here and real."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import polars as pl
import pytest

from tests.live.order_scene import CONSTRAINTS, SCHEMA, Dirty, an_order, dirty_orders
from tests.streams.command_line import Done, Run, runner

REAL = Path(os.environ.get("MILLRACE_DATA") or Path(__file__).parents[3] / "shared" / "data")
BIKES, NAB = REAL / "toulouse_bikes" / "bikes.parquet", REAL / "nab" / "series.parquet"
COUNT = 1_500


@pytest.fixture
def millrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "orders.avsc").write_text(json.dumps(SCHEMA))
    (tmp_path / "orders.constraints.yaml").write_text(CONSTRAINTS)
    return runner(tmp_path, monkeypatch, capsys)


def facts_of(done: Done) -> Any:
    """What a check printed that ends with 11 where it found something."""
    assert done.code in (0, 11), done.err
    return json.loads(done.out)


def wrong(dirty: list[Dirty], *without: str) -> Counter[str]:
    """How many orders are wrong in which way, as constraints alone would see it."""
    return Counter(each.reason for each in dirty if each.reason and each.reason not in without)


@pytest.fixture
def dirty() -> list[Dirty]:
    """Dirty orders; an empty id is none by its pattern, where no pipeline says so first."""
    found = [each for each in dirty_orders(COUNT, seed=9) if not each.corrupt]
    return [Dirty(each.order, "order_id_regex" if each.reason == "order_id_given" else each.reason) for each in found]


def write_as(kind: str, dirty: list[Dirty], folder: Path) -> str:
    orders = [each.order for each in dirty]
    file = folder / f"orders.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(order) + "\n" for order in orders))
    elif kind == "avro":
        plain = json.loads(json.dumps(SCHEMA).replace(', "logicalType": "timestamp-millis"', ""))
        with file.open("wb") as out:
            fastavro.writer(out, fastavro.parse_schema(plain), orders)
    else:
        frame = pl.DataFrame(orders, infer_schema_length=None)
        _ = frame.write_csv(file) if kind == "csv" else frame.write_parquet(file)
    return file.name


@pytest.mark.parametrize("kind", ["jsonl", "avro", "csv", "parquet"])
def test_a_file_of_any_kind_is_judged_alike(millrace: Run, tmp_path: Path, dirty: list[Dirty], kind: str) -> None:
    facts = facts_of(millrace("schema", "validate", write_as(kind, dirty, tmp_path), "--schema", "orders.avsc", "--json"))
    reasons = wrong(dirty)
    assert len(reasons) == 6
    assert Counter(facts["reasons"]) == reasons
    assert (facts["rows"], facts["passed"]) == (len(dirty), len(dirty) - sum(reasons.values()))
    found = {each["what"]: each for each in facts["findings"]}
    assert set(reasons) | {"country_presence_share"} == set(found)
    first = next(number for number, each in enumerate(dirty) if each.reason == "quantity_range")
    place = {"jsonl": f"orders.jsonl:{first + 1}", "avro": f"orders.avro:{first + 1}"}.get(kind, f"orders.{kind} row {first}")
    assert found["quantity_range"]["examples"][0] == [place, f"quantity is {dirty[first].order['quantity']}, wanted 0 to 100"]
    assert "freshness" in facts["not_looked_at"][0]


def test_rows_that_cannot_be_read_are_told_of_and_the_next_ones_read(millrace: Run, tmp_path: Path) -> None:
    lines = [json.dumps(an_order(n)).encode() for n in range(300)]
    lines[10] = lines[10].replace(b'"paid"', b'"p\xe9id"')
    lines[20] = lines[20][:50]
    lines[30] = lines[30].replace(b'"price": 1.3', b'"price": "1.30 EUR"')
    lines[40] = lines[40].replace(b'"order_id": "O40", ', b"")
    lines[50] = b"[1, 2]"
    (tmp_path / "orders.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    facts = facts_of(millrace("schema", "validate", "orders.jsonl", "--schema", "orders.avsc", "--json"))
    assert facts["reasons"] == {"bad_json": 2, "not_encodable": 2, "bad_utf8": 1}
    assert (facts["rows"], facts["passed"]) == (300, 295)
    found = {(each["what"], each["field"]): each["examples"] for each in facts["findings"]}
    assert found["not_encodable", "price"] == [["orders.jsonl:31", "price is '1.30 EUR', wanted a number"]]
    assert found["not_encodable", "order_id"] == [["orders.jsonl:41", "order_id is missing"]]
    assert [place for place, _ in found["bad_json", ""]] == ["orders.jsonl:21", "orders.jsonl:51"]


def test_a_broken_csv_is_read_around(millrace: Run, tmp_path: Path) -> None:
    rows = [f"O{n},{1_704_067_200_000 + n},c1,paid,{n % 9},1.5" for n in range(400)]
    rows[7] = rows[7].replace("paid", "pa,id")
    rows[8] = rows[8].replace("1.5", "1.5 EUR")
    rows[9] = rows[9].replace("paid", "p\udce9id")
    rows[10] = rows[10].removesuffix(",1.5")
    text = "order_id,ordered_at,customer,status,quantity,price\n" + "\n".join(rows) + "\n"
    (tmp_path / "orders.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    facts = facts_of(millrace("schema", "validate", "orders.csv", "--schema", "orders.avsc", "--json"))
    assert (facts["rows"], facts["reasons"]) == (400, {"wrong_columns": 2, "bad_utf8": 1, "not_encodable": 1})
    examples = {each["what"]: each["examples"] for each in facts["findings"] if each["examples"]}
    assert [place for place, _ in examples["wrong_columns"]] == ["orders.csv row 7", "orders.csv row 10"]
    assert examples["not_encodable"] == [["orders.csv row 8", "price is '1.5 EUR', wanted double"]]
    assert examples["bad_utf8"][0][0] == "orders.csv row 9"


def test_a_renamed_field_is_a_missing_one_and_an_unexpected_one(millrace: Run, tmp_path: Path) -> None:
    renamed = [{("client" if name == "customer" else name): value for name, value in an_order(n).items()} for n in range(20)]
    pl.DataFrame(renamed).write_parquet(tmp_path / "orders.parquet")
    (tmp_path / "orders.jsonl").write_text("".join(json.dumps(order) + "\n" for order in renamed))
    for file, reason in (("orders.parquet", "missing_column"), ("orders.jsonl", "not_encodable")):
        facts = facts_of(millrace("schema", "validate", file, "--schema", "orders.avsc", "--json"))
        assert (facts["passed"], facts["reasons"]) == (0, {reason: 20})
        found = {each["what"]: each["field"] for each in facts["findings"]}
        assert (found[reason], found["unexpected_field"]) == ("customer", "client")


def test_the_suggested_patch_lets_the_data_pass_and_leaves_the_rest_as_it_was(millrace: Run, tmp_path: Path) -> None:
    file = tmp_path / "orders.constraints.yaml"
    file.write_text(file.read_text().replace("  price:", "  # as the till has it\n  price:"))
    orders = [an_order(n, **({"quantity": 700} if n == 3 else {}), **({"status": "held"} if n == 5 else {})) for n in range(200)]
    (tmp_path / "orders.jsonl").write_text("".join(json.dumps(order) + "\n" for order in orders))
    before = file.read_text()
    facts = facts_of(millrace("schema", "validate", "orders.jsonl", "--schema", "orders.avsc", "--patch", "fix.patch", "--json"))
    assert facts["refused"] == 2
    assert file.read_text() == before, "it is a suggestion"
    subprocess.run(["patch", "-p1", "-i", "fix.patch"], check=True, cwd=tmp_path, capture_output=True)
    changed = [line for line in file.read_text().splitlines() if line not in before.splitlines()]
    assert changed == ["version: 2", "  status: {domain: [paid, open, cancelled, held]}", "  quantity: {range: [0, 700]}"]
    assert millrace("schema", "validate", "orders.jsonl", "--schema", "orders.avsc").code == 0


def test_repeated_values_are_found_within_their_window(millrace: Run, tmp_path: Path) -> None:
    orders = [an_order(n) for n in range(10)]
    orders += [an_order(3, customer="c9"), {**an_order(4), "ordered_at": an_order(4)["ordered_at"] + 3_600_000, "paid_at": None}]
    (tmp_path / "orders.jsonl").write_text("".join(json.dumps(order) + "\n" for order in orders))
    facts = facts_of(millrace("schema", "validate", "orders.jsonl", "--schema", "orders.avsc", "--json"))
    (found,) = facts["findings"]
    assert (found["what"], found["rows"], found["examples"]) == ("order_id_unique", 1, [["orders.jsonl:11", ""]])
    assert facts["refused"] == 0, "a record is not at fault for what came before it"


def days(folder: Path, shift: float) -> None:
    source = np.random.default_rng(1)
    orders = []
    for day in range(3):
        for n in range(800):
            price = float(source.lognormal(2 + (shift if day == 2 else 0), 0.4))
            orders.append(an_order(n, price=price, ordered_at=an_order(0)["ordered_at"] + day * 86_400_000 + n * 1_000, paid_at=None))
    (folder / "orders.jsonl").write_text("".join(json.dumps(order) + "\n" for order in orders))


def test_drift_from_one_day_to_the_next_is_found_where_it_is(millrace: Run, tmp_path: Path) -> None:
    days(tmp_path, 0.0)
    quiet = millrace("schema", "diff", "orders.jsonl", "--days", "--schema", "orders.avsc", "--json")
    assert quiet.code == 0, quiet.err
    assert len(quiet.facts["days"]) == 3
    days(tmp_path, 0.5)
    done = millrace("schema", "diff", "orders.jsonl", "--days", "--schema", "orders.avsc", "--html", "drift.html", "--json")
    assert done.code == 11
    over = [(each["field"], each["pair"]) for each in json.loads(done.out)["comparisons"] if each["over"]]
    assert over == [("price", "2024-01-02 to 2024-01-03")]
    page = (tmp_path / "drift.html").read_text()
    assert page.count("<svg") > 5 and "2024-01-02 to 2024-01-03" in page and "http" not in page.replace("http-equiv", "")
    loose = CONSTRAINTS.replace("price: {range: [0, null]}", "price: {range: [0, null], drift: {psi: 9, jensen_shannon: 1, l_infinity: 1}}")
    (tmp_path / "orders.constraints.yaml").write_text(loose)
    assert millrace("schema", "diff", "orders.jsonl", "--days", "--schema", "orders.avsc").code == 0


def test_yesterday_is_compared_without_its_rows(millrace: Run, tmp_path: Path) -> None:
    days(tmp_path, 0.0)
    assert millrace("schema", "stats", "orders.jsonl", "--schema", "orders.avsc", "--out", "before.json").code == 0
    days(tmp_path, 1.0)
    done = millrace("schema", "validate", "orders.jsonl", "--schema", "orders.avsc", "--baseline", "before.json", "--as", "skew", "--json")
    skewed = [each for each in json.loads(done.out)["findings"] if each["what"] == "skew"]
    assert {each["field"] for each in skewed} == {"price"}
    assert "psi is" in " ".join(each["words"] for each in skewed)
    assert millrace("schema", "diff", "before.json", "before.json").code == 0
    again = millrace("schema", "stats", "orders.jsonl", "--out", "before.json")
    assert (again.code, "wanted a file that is not there yet" in again.err) == (13, True)


@pytest.mark.parametrize("kind", ["jsonl", "avro", "csv", "parquet"])
def test_a_draft_of_any_file_takes_its_data(millrace: Run, tmp_path: Path, kind: str) -> None:
    orders = [Dirty(an_order(n, country=None if n == 7 else "DE"), "") for n in range(200)]
    name = write_as(kind, orders, tmp_path)
    done = millrace(
        "schema", "infer", name, "--name", "shop.Order", "--out", "draft.avsc", "--constraints-out", "draft.constraints.yaml", "--json"
    )
    fields = {each["field"]: each for each in done.facts["fields"]}
    assert fields["country"]["null"] + fields["country"]["missing"] == 1
    said = done.facts["constraints"]["fields"]
    assert said["quantity"] == {"range": [1, 9]} or said["quantity"] == {"presence": "required", "range": [1, 9]}
    assert said["country"] == {"presence": 0.98, "domain": ["DE"]}
    assert said["status"]["domain"] == ["paid"]
    checked = millrace("schema", "validate", name, "--schema", "draft.avsc", "--time-zone", "UTC")
    assert (checked.code, "nothing is wrong" in checked.out) == (0, True), checked.out + checked.err


def test_a_page_shows_every_field_and_runs_nothing(millrace: Run, tmp_path: Path, dirty: list[Dirty]) -> None:
    dirty[0] = Dirty({**dirty[0].order, "status": "<script>alert(1)</script>"}, "status_domain")
    name = write_as("jsonl", dirty, tmp_path)
    assert millrace("schema", "validate", name, "--schema", "orders.avsc", "--html", "page.html").code == 11
    assert millrace("schema", "stats", name, "--schema", "orders.avsc", "--html", "stats.html").code == 0
    for file in ("page.html", "stats.html"):
        page = (tmp_path / file).read_text()
        assert "<script" not in page
        assert all(f"<code>{each['name']}</code>" in page for each in SCHEMA["fields"])
    assert "&lt;script&gt;" in (tmp_path / "page.html").read_text()


def test_what_makes_no_sense_is_one_line(millrace: Run, tmp_path: Path) -> None:
    (tmp_path / "orders.jsonl").write_text(json.dumps(an_order(1)) + "\n")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bare.json").write_text('{"a": 1}\n')
    (tmp_path / "x.constraints.yaml").write_text(CONSTRAINTS.replace("quantity: {range: [0, 100]}", "quantty: {range: [0, 100]}"))
    pl.DataFrame({"at": [1]}).select(pl.col("at").cast(pl.Datetime("ms"))).write_parquet(tmp_path / "zone.parquet")
    for arguments, code, words in (
        (("validate", "gone.jsonl", "--schema", "orders.avsc"), 17, "gone.jsonl is missing"),
        (("validate", "empty.jsonl", "--schema", "orders.avsc"), 17, "empty.jsonl is empty"),
        (("validate", "orders.jsonl", "--schema", "orders.avsc", "--environment", "SERVNG"), 11, "did you mean 'SERVING'"),
        (("validate", "orders.jsonl", "--schema", "orders.avsc", "--constraints", "x.constraints.yaml"), 11, "did you mean 'quantity'"),
        (("validate", "orders.jsonl", "--constraints", "x.constraints.yaml"), 13, "wanted --schema as well"),
        (("validate", "orders.jsonl", "--schema", "orders.avsc", "--as", "shift"), 13, "wanted drift or skew"),
        (("validate", "orders.jsonl", "--pipeline-file", "p.py", "--schema", "orders.avsc"), 13, "wanted it, or --schema"),
        (("diff", "orders.jsonl"), 13, "1 sources; wanted two"),
        (("diff", "orders.jsonl", "--days", "--schema", "orders.avsc"), 11, "holds one day only (2024-01-01)"),
        (("diff", "orders.jsonl", "--days", "--time", "quantity", "--schema", "orders.avsc"), 17, "'quantity' is no time"),
        (("stats", "zone.parquet"), 17, "holds times without a time zone"),
        (("stats", "orders.avsc"), 17, ".avsc suffix; wanted one of"),
        (("stats", "kafka:a", "orders.jsonl"), 17, "wanted one topic, or files"),
    ):
        done = millrace("schema", *arguments)
        assert (done.code, done.err.count("\n")) == (code, 1), (arguments, done.err)
        assert words in done.err, (arguments, done.err)


@pytest.mark.skipif(not BIKES.is_file(), reason="the data is not on this machine")
def test_real_bike_stations_are_read_checked_and_compared_by_month(millrace: Run, tmp_path: Path) -> None:
    done = millrace(
        "schema",
        "infer",
        BIKES,
        "--time-zone",
        "UTC",
        "--limit",
        60_000,
        "--out",
        "b.avsc",
        "--constraints-out",
        "b.constraints.yaml",
        "--json",
    )
    fields = {each["field"]: each for each in done.facts["fields"]}
    assert {each["value"] for each in fields["station"]["values"]} == {
        "pomme", "place-esquirol", "place-des-carmes", "metro-canal-du-midi", "place-jeanne-darc"
    }  # fmt: skip
    facts = facts_of(millrace("schema", "validate", BIKES, "--schema", "b.avsc", "--time-zone", "UTC", "--json"))
    assert facts["rows"] == 182_470 == facts["passed"] + facts["refused"]
    rows = pl.read_parquet(BIKES)
    found = {each["what"]: each["rows"] for each in facts["findings"]}
    low, high = rows["temperature"][:60_000].min(), rows["temperature"][:60_000].max()
    assert found["row_range"] == 182_470 - 60_000, "a counter has no range"
    assert found["temperature_range"] == rows["temperature"].slice(60_000).is_between(low, high).not_().sum()
    once = "format: 1\nversion: 1\nowner: us\ndescription: d\nevent_time: moment\nfields: {moment: {unique: 1s}}\n"
    (tmp_path / "once.yaml").write_text(once)
    again = facts_of(
        millrace("schema", "validate", BIKES, "--schema", "b.avsc", "--constraints", "once.yaml", "--time-zone", "UTC", "--json")
    )
    assert [(each["what"], each["rows"]) for each in again["findings"]] == [("moment_unique", rows.height - rows["moment"].n_unique())]


@pytest.mark.skipif(not NAB.is_file(), reason="the data is not on this machine")
def test_real_series_step_back_in_time_and_repeat_it(millrace: Run, tmp_path: Path) -> None:
    rows = pl.read_parquet(NAB).filter(pl.col("series").str.ends_with("machine_temperature_system_failure"))
    rows.write_parquet(tmp_path / "machine.parquet")
    assert millrace("schema", "infer", "machine.parquet", "--time-zone", "UTC", "--out", "m.avsc").code == 0
    (tmp_path / "m.constraints.yaml").write_text(
        "format: 1\nversion: 1\nowner: us\ndescription: d\nevent_time: timestamp\nfields: {timestamp: {unique: 1ms}}\n"
    )
    facts = facts_of(millrace("schema", "validate", "machine.parquet", "--schema", "m.avsc", "--time-zone", "UTC", "--json"))
    (found,) = facts["findings"]
    assert (found["what"], found["rows"]) == ("timestamp_unique", 12), "its README says that 12 timestamps recur"
