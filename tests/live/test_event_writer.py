"""A producer's events on the real broker: keyed, placed, framed as a worker reads them; wrong ones never leave."""

from __future__ import annotations

from typing import Any

import pytest

from millrace import EventWriter, RecordError
from streams.partitioner import misplaced
from tests.live.conftest import SetUp
from tests.live.scene import CUSTOMERS_ONLY, payment, payments


def test_what_the_writer_sends_is_what_a_worker_reads_and_what_it_refuses_is_not_sent(set_up: SetUp) -> None:
    scene = set_up(partitions=3, changes=CUSTOMERS_ONLY)
    sent = payments(30)
    with EventWriter[dict[str, Any]].of(scene.file, settings=scene.settings) as writer:
        writer.send(sent[0], headers=[("trace", b"7")])
        assert writer.send_all(sent[1:20]) == 19
        with pytest.raises(RecordError, match=r"amount_in_range: event 9: amount is -1\.0"):
            writer.send_all([*sent[20:29], payment(0, amount=-1.0), sent[29]])
        for wrong in (payment(0, currency="USD"), payment(0, customer_id=""), {"payment_id": "P"}):
            with pytest.raises(RecordError):
                writer.send(wrong)
    records = scene.read(scene.bound.input.name)
    assert sorted(record.value or b"" for record in records) == sorted(scene.encode(each) for each in sent[:29])
    for partition in range(3):
        assert misplaced([record.key for record in records if record.partition == partition], partition, 3)[1] == 0
    assert sum(("trace", b"7") in record.headers for record in records) == 1
