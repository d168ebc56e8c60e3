"""What the demo shows: live, as a line, and at the end."""

from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from examples.card_fraud.demo.counters import Counters, parsed, read_counters
from examples.card_fraud.demo.records import FRAUDS, Kind
from examples.card_fraud.demo.scoreboard import Alert, Scoreboard, Snapshot
from examples.card_fraud.demo.summary import COUNTED, UNPROVEN, Run, facts_of, words
from examples.card_fraud.demo.tally import Account, ReportAccount
from examples.card_fraud.demo.view import View, plain_line
from streams.local.process import choose_port
from streams.metrics import Metrics, expose

STOLEN = Alert(100.0, 0.97, 1_708_438_380_000, "C000604", 12_521.85, 23.7, (15, 113, 460), 106, 41, Kind.COMPROMISED_CARD)
HARMLESS = replace(STOLEN, score=0.31, customer="C000017", amount=99.5, kind=Kind.GENUINE)
NOW = Snapshot(
    elapsed_seconds=42.3,
    seconds=60.0,
    sent=1_284_600,
    scored=1_284_000,
    refused=402,
    sent_rate=20_000.4,
    answered_rate=19_998.0,
    p50_ms=11.4,
    p99_ms=24.0,
    cpu_us=18.2,
    event_ms=1_708_438_380_000,
    speed_up=86_400.0,
    alerts=4_120,
    planted=8_141,
    caught=2_540,
    timings={"on_time": 1_283_900, "late": 60, "too_late": 40},
    reasons={"amount_in_range": 105, "truncated": 101, "currency_one_of": 98, "key_mismatch": 98},
    highest=(STOLEN, HARMLESS) * 20,
    letters=("payments[0]@164120 refused by rule: amount_in_range: amount is -12.0, wanted 0 to 50000",) * 40,
    reported=1_284,
    counters=Counters({"unmatched": 12, "matched": 1_240, "repeated": 9}, {"by-customer": 1_012, "by-terminal": 2_480, "labels": 3}),
)


def drawn(now: Snapshot, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=StringIO(), force_terminal=True, color_system=None)
    # Not `render_lines`: it cuts what does not fit.
    segments = console.render(View(now, "millrace demo"), console.options.update(height=height))
    return [line.rstrip() for line in "".join(segment.text for segment in segments).splitlines()]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 60)])
def test_the_view_fits_its_terminal_and_fills_it(width: int, height: int) -> None:
    lines = drawn(NOW, width, height)
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width


def test_at_eighty_columns_nothing_that_matters_is_cut() -> None:
    text = "\n".join(drawn(NOW, 80, 24))
    for shown in (
        "0:42 of 1:00",
        "1,284,600",
        "20,000/s",
        "11 ms",
        "24 ms",
        "18 us",
        "Tue 20 Feb 14:13",
        "86,400 x life",
        "4,120, 2,540 of them planted",
        "C000604 12,521.85",
        "23.7",
        "20 Feb 14:13",
        "stolen card",
        "41/106",
        " labels   1,284 sent: 1,240 matched, 9 repeated, 12 unmatched",
        " behind   by-customer 1,012, by-terminal 2,480, labels 3",
        "amount_in_range 105",
        "@164120  amount_in_range: amount is -12.0, wanted 0 to 50000",
    ):
        assert shown in text
    (waiting,) = (line for line in text.splitlines() if line.startswith(" waiting"))
    assert waiting.split()[1] == "198"


def test_before_anything_came_the_view_is_whole() -> None:
    nothing = replace(
        NOW,
        sent=0,
        scored=0,
        refused=0,
        p50_ms=math.nan,
        p99_ms=math.nan,
        cpu_us=math.nan,
        event_ms=0,
        highest=(),
        letters=(),
        reported=0,
        counters=Counters(),
    )
    assert len(drawn(nothing, 80, 24)) <= 24


def test_without_a_terminal_a_line_says_how_things_stand() -> None:
    line = plain_line(NOW)
    assert "\n" not in line
    for shown in ("0:42", "sent 1,284,600", "waiting 198", "p99 24 ms", "dead letters 402", "labels 1,261 of 1,284"):
        assert shown in line


def test_rates_and_latencies_are_those_of_the_last_seconds() -> None:
    now = 1_000.0
    board = Scoreboard(10_000, lambda: now)
    kinds, times = np.zeros(10_000, np.int8), np.arange(10_000, dtype=np.int64) * 1_000
    board.snapshot(0.0, 60.0, kinds[:0], times[:0], cpu_seconds=1.0, reported=0, counters=Counters())
    board.add_scored(np.arange(100), np.full(100, 9.0), {"on_time": 100}, [], np.zeros(0, np.bool_))
    now = 1_010.0
    board.snapshot(10.0, 60.0, kinds[:100], times[:100], cpu_seconds=2.0, reported=0, counters=Counters())
    now = 1_014.0
    board.add_scored(np.arange(100, 900), np.linspace(0.0, 0.1, 800), {"on_time": 800}, [], np.zeros(0, np.bool_))
    seen = board.snapshot(14.0, 60.0, kinds[:1_000], times[:1_000], cpu_seconds=2.1, reported=0, counters=Counters())
    assert (seen.sent_rate, seen.answered_rate) == pytest.approx((1_000 / 14, 900 / 14))
    now = 1_015.0
    seen = board.snapshot(15.0, 60.0, kinds[:1_000], times[:1_000], cpu_seconds=2.1, reported=0, counters=Counters())
    assert (seen.sent_rate, seen.answered_rate) == pytest.approx((180, 160))
    assert (seen.p50_ms, seen.p99_ms) == pytest.approx((50, 99))
    assert seen.cpu_us == pytest.approx(0.1 / 800 * 1e6)
    assert seen.waiting == 100
    assert seen.speed_up == pytest.approx(999 / 15)


def test_the_highest_scores_are_the_latest_ones_sorted() -> None:
    now = 1_000.0
    board = Scoreboard(10, lambda: now)
    none, fraud = np.zeros(0, np.int64), np.zeros(2, np.bool_)
    old, low, high = (replace(STOLEN, read_at=at, score=score) for at, score in ((985.0, 0.99), (995.0, 0.2), (996.0, 0.8)))
    board.add_scored(none, np.zeros(0), {}, [old, low, high], fraud)
    seen = board.snapshot(1.0, 60.0, np.zeros(0, np.int8), none, 0.0, 0, Counters())
    assert seen.highest == (high, low)


TAKEN = ReportAccount(9, 6, 2, 1, 0)


def run_of(account: Account, *, reports: ReportAccount = TAKEN, is_real_broker: bool = True) -> Run:
    sent_at = 100.0 + np.arange(20.0)
    latency_seconds = np.where(np.arange(20) < 5, 3.0, 0.01)
    latency_seconds[19] = np.nan  # a dead letter has no score
    return Run(
        account=account,
        reports=reports,
        history=10,
        begun_at=100.0,
        sent_at=sent_at,
        latency_seconds=latency_seconds,
        set_up_seconds={"kernels": 0.5},
        live_cpu_seconds=0.002,
        history_cpu_seconds=0.0001,
        history_answers=10,
        history_seconds=0.1,
        broker="a broker",
        is_real_broker=is_real_broker,
        model="card_fraud 1",
        threshold=0.5,
        rate=1.0,
        seed=1,
    )


GOOD = Account(30, 29, 1, 0, 0, 0, 0, {"on_time": 29}, {"truncated": 1}, 4, dict.fromkeys(FRAUDS, 2), dict.fromkeys(FRAUDS, 1))


def test_the_summary_leaves_the_first_slow_seconds_out_and_says_so() -> None:
    facts = facts_of(run_of(GOOD))
    assert facts["latency_ms"] == {"p50": 10.0, "p99": 10.0, "max": 10.0, "after_seconds": 5.0}
    assert "without the first 5 s" in dict(words(facts))["event to score"]
    assert facts["cpu_us_per_event"] == {"live": 100.0, "catching_up": 10.0}


def test_the_summary_says_what_holds() -> None:
    facts = facts_of(run_of(GOOD))
    assert facts["holds"] is True
    assert facts["exactly_once"] == COUNTED
    assert dict(words(facts))["frauds"].startswith("3 of 6 planted were caught: large amount 1 of 2")
    assert facts["precision"] == 0.75


def test_on_a_stand_in_nothing_is_proven() -> None:
    facts = facts_of(run_of(GOOD, is_real_broker=False))
    assert facts["exactly_once"] == UNPROVEN


@pytest.mark.parametrize("is_real_broker", [True, False])
def test_a_summary_whose_sums_do_not_hold_says_so_and_claims_nothing(is_real_broker: bool) -> None:
    facts = facts_of(run_of(replace(GOOD, missing=1), is_real_broker=is_real_broker))
    assert facts["holds"] is False
    assert facts["exactly_once"] not in (COUNTED, UNPROVEN)
    assert ("BROKEN", "1 records have no answer") in words(facts)


def test_a_summary_whose_labels_do_not_add_up_says_so_and_claims_nothing() -> None:
    good, lost = facts_of(run_of(GOOD)), facts_of(run_of(GOOD, reports=ReportAccount(9, 5, 2, 1, 0)))
    assert dict(words(good))["labels"].startswith("9 sent = 6 matched + 2 repeated + 1 unmatched; taken wrongly 0")
    assert lost["holds"] is False
    assert ("BROKEN", "9 labels were sent, but 5 matched, 2 were repeated and 1 unmatched") in words(lost)


def test_the_counters_are_those_of_the_workers_page() -> None:
    first, later = Metrics("p", "m", "1", "f"), Metrics("p", "m", "1", "f")
    later.labels.labels("matched").inc(12)
    later.labels.labels("unmatched").inc()
    first.lag.labels("payments", 0).set(7)
    later.lag.labels("p.by-terminal", 0).set(3)
    later.lag.labels("p.by-terminal", 1).set(4)
    found = parsed(expose({"by-customer": first, "by-terminal": later}).decode())
    assert found == Counters({"matched": 12, "unmatched": 1}, {"by-customer": 7, "by-terminal": 7})
    assert found.labels_done == 13


def test_a_page_that_does_not_answer_leaves_what_was_known() -> None:
    known = Counters({"matched": 1})
    assert read_counters(choose_port(None), known) == known
