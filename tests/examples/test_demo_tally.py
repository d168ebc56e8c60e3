"""The demo's sums hold when every record was answered once and as it should have been, and in no other case."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from examples.card_fraud.demo.records import FRAUDS, REFUSED_AS, Kind
from examples.card_fraud.demo.reports import ReportKind
from examples.card_fraud.demo.tally import UNMATCHED, Account, ReportTally, Tally
from streams.scored_event import TIMINGS

# offset         0             1                    2               3                      4          5              6
SENT = [Kind.GENUINE, Kind.LARGE_AMOUNT, Kind.TRUNCATED, Kind.COMPROMISED_CARD, Kind.LATE, Kind.TOO_LATE, Kind.WRONG_KEY]
KINDS = np.array(SENT, np.int8)
TIMING = {4: "late", 5: "too_late"}
ALERTS = (1,)
CAPACITY = 9

Fault = Callable[[Tally], None]


def score(tally: Tally, offset: int, timing: str | None = None) -> None:
    code = TIMINGS.index(timing or TIMING.get(offset, "on_time"))
    tally.add_scored(np.array([offset]), np.array([code], np.int32), np.array([offset in ALERTS]))


def refuse(tally: Tally, offset: int, reason: str | None = None) -> None:
    tally.add_refused(offset, reason or REFUSED_AS[SENT[offset]])


def answered(*, without: tuple[int, ...] = ()) -> Tally:
    tally = Tally(CAPACITY)
    for offset, kind in enumerate(SENT):
        if offset not in without:
            (refuse if kind in REFUSED_AS else score)(tally, offset)
    return tally


def account(tally: Tally, live_from: int = 0) -> Account:
    return tally.account(KINDS, live_from)


def test_the_sums_hold_when_all_was_answered_once_and_rightly() -> None:
    drawn = account(answered())
    assert drawn.broken() == ()
    assert (drawn.sent, drawn.scored, drawn.refused, drawn.missing, drawn.duplicates) == (7, 5, 2, 0, 0)
    assert drawn.timings == {"on_time": 3, "late": 1, "too_late": 1}
    assert drawn.reasons == {"truncated": 1, "key_mismatch": 1}


def test_a_score_that_never_came_is_missing() -> None:
    drawn = account(answered(without=(3,)))
    assert drawn.missing == 1
    assert drawn.broken()


def test_a_letter_that_never_came_is_missing() -> None:
    assert account(answered(without=(2,))).missing == 1


def test_a_missing_score_is_not_made_up_for_by_another_that_came_twice() -> None:
    tally = answered(without=(3,))
    score(tally, 0)
    drawn = account(tally)
    assert drawn.scored + drawn.refused == drawn.sent
    assert (drawn.missing, drawn.duplicates) == (1, 1)
    assert len(drawn.broken()) == 2


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda tally: score(tally, 0), id="a score twice"),
        pytest.param(lambda tally: refuse(tally, 2), id="a letter twice"),
        pytest.param(lambda tally: refuse(tally, 0, "truncated"), id="a letter for what was scored"),
        pytest.param(lambda tally: score(tally, 6), id="a score for what was refused"),
    ],
)
def test_a_second_answer_is_a_duplicate(again: Fault) -> None:
    tally = answered()
    again(tally)
    drawn = account(tally)
    assert drawn.duplicates == 1
    assert drawn.broken()


@pytest.mark.parametrize("offset", [7, CAPACITY, -1], ids=["not sent yet", "beyond all that will be sent", "no offset"])
def test_an_answer_to_what_was_never_sent_is_noticed(offset: int) -> None:
    tally = answered()
    score(tally, offset)
    drawn = account(tally)
    assert drawn.strangers == 1
    assert drawn.broken()


@pytest.mark.parametrize(
    ("offset", "answer"),
    [
        pytest.param(2, lambda tally: score(tally, 2), id="a broken record scored"),
        pytest.param(0, lambda tally: refuse(tally, 0, "truncated"), id="a good record refused"),
        pytest.param(2, lambda tally: refuse(tally, 2, "malformed"), id="refused for another reason"),
        pytest.param(4, lambda tally: score(tally, 4, "on_time"), id="a late one taken for on time"),
        pytest.param(5, lambda tally: score(tally, 5, "late"), id="one too late taken for late"),
        pytest.param(0, lambda tally: score(tally, 0, "late"), id="one on time taken for late"),
    ],
)
def test_an_answer_other_than_the_kind_calls_for_is_wrong(offset: int, answer: Fault) -> None:
    tally = answered(without=(offset,))
    answer(tally)
    drawn = account(tally)
    assert (drawn.wrong, drawn.missing, drawn.duplicates) == (1, 0, 0)
    assert drawn.broken() == ("1 records were answered otherwise than they should have been",)


def test_frauds_and_alerts_are_those_of_the_live_stream() -> None:
    drawn = account(answered())
    assert drawn.frauds == {kind: int(kind != Kind.COMPROMISED_TERMINAL) for kind in FRAUDS}
    assert drawn.caught == {kind: int(kind == Kind.LARGE_AMOUNT) for kind in FRAUDS}
    assert (drawn.alerts, drawn.precision) == (1, 1.0)
    later = account(answered(), live_from=2)
    assert later.alerts == 0
    assert later.frauds[Kind.LARGE_AMOUNT] == 0
    assert np.isnan(later.precision)


REPORTS = np.array([ReportKind.FIRST, ReportKind.FIRST, ReportKind.AGAIN, ReportKind.FIRST, ReportKind.UNKNOWN], np.int8)
COUNTED = {"matched": 3, "repeated": 1, "unmatched": 1}


def letters(*found: tuple[int, str]) -> ReportTally:
    tally = ReportTally()
    for offset, reason in found:
        tally.add_unmatched(offset, reason)
    return tally


def test_the_sums_of_labels_hold_when_each_was_taken_as_it_should_have_been() -> None:
    drawn = letters((4, UNMATCHED)).account(REPORTS, COUNTED)
    assert (drawn.sent, drawn.matched, drawn.repeated, drawn.unmatched, drawn.wrong) == (5, 3, 1, 1, 0)
    assert drawn.broken() == ()


@pytest.mark.parametrize(
    ("found", "counted"),
    [
        pytest.param([], {**COUNTED, "unmatched": 0}, id="one never taken"),
        pytest.param([(4, UNMATCHED)], {**COUNTED, "matched": 2}, id="one lost on the way"),
        pytest.param([(4, UNMATCHED)], {**COUNTED, "matched": 2, "repeated": 2}, id="a first one taken for a repeat"),
        pytest.param([(4, UNMATCHED)], {**COUNTED, "matched": 4, "repeated": 0}, id="a repeat taken for a first one"),
        pytest.param([(1, UNMATCHED)], COUNTED, id="another one unmatched"),
        pytest.param([(4, UNMATCHED), (4, UNMATCHED)], COUNTED, id="a letter twice"),
        pytest.param([(4, "malformed")], COUNTED, id="refused for another reason"),
    ],
)
def test_a_label_that_was_taken_otherwise_breaks_the_sums(found: list[tuple[int, str]], counted: dict[str, int]) -> None:
    assert letters(*found).account(REPORTS, counted).broken()
