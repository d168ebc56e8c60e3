"""The reports of the demo: every fraud once, a week after its payment and never before its score; and misfits among them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from examples.card_fraud import simulate
from examples.card_fraud.demo.feeder import Load, Reporting, Sending, Sheet
from examples.card_fraud.demo.records import Records
from examples.card_fraud.demo.reports import REPORTED_AFTER_MS, ReportKind, Reports, label_encoder, labels_of, reports
from examples.card_fraud.simulate import DAY_MS, Simulator
from schemas.codec import Decoder
from schemas.columns import Columns, PackedBytes
from schemas.registry import FileRegistry
from streams.definition.bound import Bound
from streams.definition.load import load_bound

PIPELINE = Path(simulate.__file__).with_name("labelled.py")
WORLD = Simulator(seed=3, customers=400, terminals=300)
FIRST_DAY = 10
LABELS_ID = 3


@pytest.fixture(scope="module")
def bound() -> Bound:
    return load_bound(PIPELINE)


def columns_of(bound: Bound, told: Reports) -> Columns:
    topic = labels_of(bound).topic
    decoded = Decoder(labels_of(bound).schema, topic.framing, FileRegistry(bound.schema_folder)).decode(PackedBytes.pack(told.values))
    assert not decoded.rejected.any()
    return decoded.columns


def test_each_fraud_is_reported_once_with_its_id_terminal_and_time_a_week_later(bound: Bound) -> None:
    told = reports(WORLD, label_encoder(bound, LABELS_ID), 3, 20)
    payments = WORLD.days(3, 20)
    frauds = payments.taken(np.flatnonzero(payments.fraud))
    first = told.kinds == ReportKind.FIRST
    columns = columns_of(bound, told)
    ids, terminals = list(cast("PackedBytes", columns["payment_id"])), list(cast("PackedBytes", columns["terminal_id"]))
    assert ids == told.keys
    assert [(ids[row], terminals[row]) for row in np.flatnonzero(first)] == list(zip(frauds.payment_id, frauds.terminal_id, strict=True))
    assert told.known_ms[first].tolist() == (frauds.event_ms + REPORTED_AFTER_MS).tolist()
    assert (np.diff(told.known_ms) >= 0).all()
    assert np.asarray(columns["fraud"]).all()


def test_some_are_said_again_and_some_are_of_payments_that_nobody_made(bound: Bound) -> None:
    told = reports(WORLD, label_encoder(bound, LABELS_ID), 3, 60)
    made = set(WORLD.days(3, 60).payment_id)
    found = Counter(told.kinds.tolist())
    assert 0 < found[ReportKind.AGAIN] + found[ReportKind.UNKNOWN] < 0.1 * len(told)
    for row in np.flatnonzero(told.kinds == ReportKind.AGAIN):
        assert told.values[row] in told.values[:row]
    for key, kind in zip(told.keys, told.kinds.tolist(), strict=True):
        assert (key in made) == (kind != ReportKind.UNKNOWN)
    assert min(found[ReportKind.AGAIN], found[ReportKind.UNKNOWN]) > 0


class Sent:
    """Takes what would go to the broker."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def send(self, topic: str, records: Records | Reports, first: int, last: int) -> None:
        assert topic == "payment-labels"
        self.keys += records.keys[first:last]


def reporting(bound: Bound) -> tuple[Reporting, Sheet, Sent]:
    load = Load(PIPELINE, "", 1, LABELS_ID, WORLD, FIRST_DAY, rate=1.0, seconds=5_000.0)
    sheet, sent = Sheet(load.records, 2 * load.records), Sent()
    return Reporting(load, bound, sheet, cast("Sending", sent)), sheet, sent


def of_days(bound: Bound, first_day: int, days: int) -> list[bytes]:
    return [key for day in range(days) for key in reports(WORLD, label_encoder(bound, LABELS_ID), first_day + day).keys]


def test_reports_go_out_as_event_time_comes_to_them_and_none_earlier(bound: Bound) -> None:
    feeder, sheet, sent = reporting(bound)
    begin_ms = WORLD.start_ms + FIRST_DAY * DAY_MS
    feeder.tell(begin_ms - 1)
    assert sent.keys == []
    known = reports(WORLD, label_encoder(bound, LABELS_ID), FIRST_DAY - 7).known_ms
    feeder.tell(int(known[0]))
    assert len(sent.keys) == np.count_nonzero(known == known[0])
    feeder.tell(begin_ms + 2 * DAY_MS - 1)
    assert sent.keys == of_days(bound, FIRST_DAY - 7, 2)
    assert sheet.reported == len(sent.keys) == len(sheet.report_kinds)


def test_no_payment_of_the_stream_is_reported_before_it_has_its_score(bound: Bound) -> None:
    feeder, sheet, sent = reporting(bound)
    for day in range(9):
        feeder.day_sent((day + 1) * 100)
    later_ms = WORLD.start_ms + (FIRST_DAY + 9) * DAY_MS - 1
    feeder.tell(later_ms)
    assert sent.keys == of_days(bound, FIRST_DAY - 7, 7)
    sheet.scored(99)
    feeder.tell(later_ms)
    assert sent.keys == of_days(bound, FIRST_DAY - 7, 7)
    sheet.scored(100)
    feeder.tell(later_ms)
    assert sent.keys == of_days(bound, FIRST_DAY - 7, 8)
    sheet.scored(900)
    feeder.tell(later_ms)
    assert sent.keys == of_days(bound, FIRST_DAY - 7, 9)
