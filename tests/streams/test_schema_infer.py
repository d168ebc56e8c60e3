"""`millrace schema infer` on a dirty file: every line is a record or told of."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from schemas.avro import load_schema
from tests.streams.command_line import Run, runner


@pytest.fixture
def millrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


def dirty(file: Path) -> None:
    """1,000 orders: ids that are missing, quantities below 0, prices as text, cancelled ones, and lines that are no records."""
    source = random.Random(7)
    lines = []
    for n in range(1_000):
        order = {"id": f"o{n}", "quantity": source.randint(-2, 9), "price": source.randint(100, 999) / 100, "status": "paid"}
        if n % 50 == 0:
            del order["id"]
        if n % 40 == 1:
            order["status"] = "cancelled"
        if n % 90 == 3:
            order["price"] = f"{order['price']} EUR"
        lines.append(json.dumps(order).encode())
    lines[10:10] = [b'{"id": ', b'{"id": "caf\xe9"}', b"[1]", b'{"quantity": NaN}', b""]
    file.write_bytes(b"\n".join(lines) + b"\n")


def test_a_dirty_file_becomes_a_draft_and_an_account(millrace: Run, tmp_path: Path) -> None:
    dirty(tmp_path / "orders.jsonl")
    facts = millrace("schema", "infer", "orders.jsonl", "--name", "shop.Order", "--out", "order.avsc", "--json").facts
    assert (facts["records"], facts["no_records"]) == (1_000, 4)
    assert [each["line"] for each in facts["examples"]] == [11, 12, 13, 14]
    why = [each["words"].partition(":")[0] for each in facts["examples"]]
    assert why == ["no JSON", "no UTF-8", "list, wanted an object", "NaN is no number of JSON's"]
    fields = {each["field"]: each for each in facts["fields"]}
    assert fields["id"]["missing"] == 20
    assert (fields["quantity"]["low"], fields["quantity"]["high"]) == (-2, 9)
    assert fields["price"]["odd"] == [{"kind": "string", "values": 12, "first_row": 4}]
    assert {each["value"]: each["count"] for each in fields["status"]["values"]} == {"paid": 975, "cancelled": 25}
    assert facts["rules"] == ['in_range("quantity", -2, 9)', 'one_of("status", ("cancelled", "paid"))']
    assert [(each.name, each.type.kind) for each in load_schema(tmp_path / "order.avsc").fields] == [
        ("quantity", "long"),
        ("price", "double"),
        ("status", "string"),
        ("id", "union"),
    ]
    again = millrace("schema", "infer", "orders.jsonl", "--out", "order.avsc")
    assert (again.code, "order.avsc can't be written" in again.err) == (13, True)


def test_a_file_without_records_has_no_schema(millrace: Run, tmp_path: Path) -> None:
    (tmp_path / "nothing.jsonl").write_text("\n")
    for file, words in (("nothing.jsonl", "no records, no schema"), ("gone.jsonl", "gone.jsonl is missing")):
        done = millrace("schema", "infer", file)
        assert (done.code, words in done.err) == (11, True), done.err
