"""Log lines: those that say the same over and over are let through seldom, and counted."""

from __future__ import annotations

import logging

from streams.log import MOST_KINDS, Seldom


def line(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("librdkafka", logging.WARNING, __file__, 1, text, arguments, None)


def test_a_line_that_comes_all_the_time_is_let_through_now_and_then_with_how_many_were_not() -> None:
    now = 100.0
    seldom = Seldom(5.0, lambda: now)
    passed = []
    for tick in range(400):  # ten seconds of a line every 25 ms
        now = 100.0 + tick * 0.025
        record = line("FAIL [%s] %s", "rdkafka#producer-1", f"Connect failed (after {tick}ms in state CONNECT)")
        if seldom.filter(record):
            passed.append(record.getMessage())
    assert passed == [
        "FAIL [rdkafka#producer-1] Connect failed (after 0ms in state CONNECT)",
        "FAIL [rdkafka#producer-1] Connect failed (after 200ms in state CONNECT) left_out=199",
    ]


def test_other_lines_pass_beside_it() -> None:
    seldom = Seldom(5.0, lambda: 0.0)
    assert [seldom.filter(line(text)) for text in ("a 1", "b 1", "a 2", "c", "b 3")] == [True, True, False, True, False]


def test_kinds_without_end_do_not_fill_the_memory() -> None:
    seldom = Seldom(5.0, lambda: 0.0)
    assert all(seldom.filter(line("x" * n)) for n in range(10 * MOST_KINDS))
    assert len(seldom._seen) <= MOST_KINDS + 1
