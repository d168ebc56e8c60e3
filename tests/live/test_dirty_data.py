"""Dirty data from one end to the other: checked as a file, streamed on the real broker, checked as a topic, mended and replayed.

At each step everything is accounted for: read = scored + refused, by reason; and after the mending, scored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.order_scene import Dirty, OrderScene, dirty_orders
from tests.live.test_dlq_replay import let_run
from tests.oracles.payments import read_letter
from tests.services import Broker
from tests.streams.command_line import Done, runner

ORDERS = 3_000

MEND = """
import numpy as np
from millrace import Nullable

def mended(orders):
    nothing = np.zeros(len(orders["ordered_at"]), np.bool_)
    quantity = np.abs(orders["quantity"])
    status = np.array([bytes(each).decode().lower() for each in orders["status"]])
    quantity[status == "cancelled"] = 0
    at = orders["ordered_at"]
    ids = [f"O{(t - 1_704_067_200_000) // 1000}" for t in at.tolist()]
    return {"quantity": quantity, "status": list(status), "order_id": ids, "paid_at": at + 5_000, "returned": Nullable(nothing, nothing)}
"""


@pytest.fixture
def orders(broker: Broker, redis_url: str, tmp_path: Path) -> Any:
    scene = OrderScene(tmp_path / "orders", broker, redis_url)
    yield scene
    scene.close()


@pytest.fixture
def millrace(orders: OrderScene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    monkeypatch.setenv("MILLRACE_KAFKA__BOOTSTRAP_SERVERS", orders.broker.bootstrap_servers)
    return runner(orders.folder, monkeypatch, capsys)


def sent(scene: OrderScene, dirty: list[Dirty]) -> None:
    def record(each: Dirty) -> tuple[bytes, bytes]:
        key, value = scene.record(each.order)
        if each.corrupt == "truncated":
            value = value[:-1]
        elif each.corrupt == "bad_utf8":
            value = value.replace(b"paid", b"p\xe9id", 1)
        elif each.corrupt == "other_key":
            key = b"somebody else"
        return key, value

    scene.send(map(record, dirty))


def facts_of(done: Done) -> Any:
    """What a check printed that ends with 11 where it found something."""
    assert done.code in (0, 11), done.err
    return json.loads(done.out)


def test_dirty_orders_are_found_refused_mended_and_scored(orders: OrderScene, millrace: Callable[..., Done]) -> None:
    dirty = dirty_orders(ORDERS, seed=5)
    wanted = Counter(each.reason for each in dirty if each.reason)
    assert len(wanted) == 10 and 150 < sum(wanted.values()) < 400
    readable = [each for each in dirty if not each.corrupt]
    file = orders.folder / "orders.jsonl"
    file.write_text("".join(json.dumps(each.order) + "\n" for each in readable))

    schema = orders.folder / "schemas" / f"1-{orders.name}-value.avsc"
    checked = facts_of(millrace("schema", "validate", file, "--pipeline-file", orders.file, "--json"))
    as_file = Counter({reason: count for reason, count in wanted.items() if reason not in ("truncated", "bad_utf8", "key_mismatch")})
    assert (checked["rows"], checked["passed"]) == (len(readable), len(readable) - sum(as_file.values()))
    assert Counter(checked["reasons"]) == as_file

    sent(orders, dirty)
    of_topic = facts_of(millrace("schema", "validate", f"kafka:{orders.name}", "--pipeline-file", orders.file, "--json"))
    assert (of_topic["rows"], Counter(of_topic["reasons"])) == (ORDERS, wanted)

    worker = orders.worker()
    orders.drained(worker)
    read, scored, refused = (worker.metric(f"millrace_{name}_total{{") for name in ("records_read", "events_scored", "records_refused"))
    assert (read, scored, refused) == (ORDERS, ORDERS - sum(wanted.values()), sum(wanted.values()))
    for reason, count in wanted.items():
        by = "decode" if reason in ("truncated", "bad_utf8") else "rule"
        assert worker.metric(f'millrace_records_refused_total{{reason="{reason}",refused_by="{by}"') == count, reason
    missing = sum(each.order["country"] is None for each in dirty if not each.reason)
    assert missing > 20
    assert worker.metric('millrace_constraint_broken_total{constraint="country_presence_share"') == missing
    assert worker.metric('millrace_constraint_records_total{constraint="country_presence_share"') == scored
    assert worker.metric('millrace_constraint_broken_total{constraint="order_id_unique"') == 0
    assert worker.stop() == 0
    assert (len(orders.outputs()), len(orders.letters())) == (scored, refused)

    fixes = orders.folder / "mend.py"
    fixes.write_text(MEND)
    corrupt = wanted["truncated"] + wanted["bad_utf8"] + wanted["key_mismatch"]
    foreseen = millrace("dlq", "replay", orders.file, "--with", f"{fixes}:mended", "--dry-run", "--json").facts
    assert (foreseen["chosen"], foreseen["would_pass"]) == (refused, refused - corrupt)
    assert (
        millrace("dlq", "replay", orders.file, "--with", f"{fixes}:mended", "--why", "a bad week", "--json").facts["replayed"]
        == refused - corrupt
    )
    # What has no columns, or another's key, is mended by hand.
    copies = orders.folder / "copies.jsonl"
    assert millrace("dlq", "fix", orders.file, "--out", copies, "--json").facts["chosen"] == corrupt
    by_hand = {f"{each.partition}@{each.offset}": dirty[read_letter(each)["source_offset"]].order for each in orders.letters()}
    lines = []
    for copy in map(json.loads, copies.read_text().splitlines()):
        copy.pop("value_hex", None)
        order = by_hand[copy["at"]]
        lines.append(json.dumps({**copy, "key": order["customer"], "value": order}))
    copies.write_text("\n".join(lines) + "\n")
    assert millrace("dlq", "replay", orders.file, "--edited", copies, "--json").facts["replayed"] == corrupt
    let_run(orders)
    assert len(orders.outputs()) == ORDERS, "after the mending everything is scored"
    told = millrace("dlq", "stats", orders.file, "--json").facts
    assert (told["open"], told["replayed"]) == (0, refused)
    assert schema.is_file()
