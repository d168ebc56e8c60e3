"""The tally: what became of every record that was sent, by its offset. The demo's claims are sums over it.

The input topic has one partition and no other writer, so the record sent as number i stands at offset i. So has the labels' topic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from examples.card_fraud.demo.records import FLAGGED_AS, FRAUDS, REFUSED_AS, Kind
from examples.card_fraud.demo.reports import ReportKind
from schemas.columns import Ints, Mask
from streams.scored_event import TIMINGS

NOT_SCORED = -1
UNMATCHED = "unmatched_label"  # the reason that the dead letter has to give


class Tally:
    """Counts answers: scored events and dead letters.

    Args:
        capacity: the most records there can be.
    """

    def __init__(self, capacity: int) -> None:
        self._scored = np.zeros(capacity, np.uint16)
        self._refused = np.zeros(capacity, np.uint16)
        self._timing = np.full(capacity, NOT_SCORED, np.int8)
        self._alert = np.zeros(capacity, np.bool_)
        self._reasons: dict[int, str] = {}
        self._strangers = 0
        self.scored = self.refused = 0

    def add_scored(self, offsets: Ints, timing: NDArray[np.int32], alert: Mask) -> None:
        """Count scored events, each of shape (n,): the offset it came from, its timing, and whether it was an alert."""
        known = self._known(offsets)
        np.add.at(self._scored, offsets[known], 1)
        self._timing[offsets[known]] = timing[known]
        self._alert[offsets[known]] = alert[known]
        self.scored += len(offsets)

    def add_refused(self, offset: int, reason: str) -> None:
        """Count a dead letter."""
        if self._known(np.array([offset]))[0]:
            self._refused[offset] += 1
            self._reasons[offset] = reason
        self.refused += 1

    def _known(self, offsets: Ints) -> Mask:
        known: Mask = (offsets >= 0) & (offsets < len(self._scored))
        self._strangers += int(np.count_nonzero(~known))
        return known

    def account(self, kinds: NDArray[np.int8], live_from: int) -> Account:
        """Draw up the account.

        Args:
            kinds: shape (sent,): what was sent, by offset.
            live_from: the first offset of the live stream: alerts and frauds before it are not counted.
        """
        sent = len(kinds)
        answers = self._scored.astype(np.int64) + self._refused
        strangers = self._strangers + int(answers[sent:].sum())
        scored, alert, live_kinds = self._scored[:sent] > 0, self._alert[live_from:sent], kinds[live_from:]
        return Account(
            sent=sent,
            scored=self.scored,
            refused=self.refused,
            missing=int(np.count_nonzero(answers[:sent] == 0)),
            duplicates=int((answers[:sent] - 1).clip(0).sum()),
            strangers=strangers,
            timings={name: int(np.count_nonzero(scored & (self._timing[:sent] == code))) for code, name in enumerate(TIMINGS)},
            reasons=dict(Counter(self._reasons.values()).most_common()),
            wrong=self._wrong(kinds),
            alerts=int(np.count_nonzero(alert)),
            frauds={kind: int(np.count_nonzero(live_kinds == kind)) for kind in FRAUDS},
            caught={kind: int(np.count_nonzero(alert & (live_kinds == kind))) for kind in FRAUDS},
        )

    def _wrong(self, kinds: NDArray[np.int8]) -> int:
        """How many answers are not the one that the record's kind calls for."""
        sent = len(kinds)
        scored, refused, timing = self._scored[:sent] > 0, self._refused[:sent] > 0, self._timing[:sent]
        to_be_refused = np.isin(kinds, list(REFUSED_AS))
        wrong = np.where(to_be_refused, scored, refused)
        expected = np.zeros(sent, np.int8)  # on time
        for kind, name in FLAGGED_AS.items():
            expected[kinds == kind] = TIMINGS.index(name)
        wrong |= scored & ~to_be_refused & (timing != expected)
        for offset, reason in self._reasons.items():
            if offset < sent and reason != REFUSED_AS.get(Kind(int(kinds[offset]))):
                wrong[offset] = True
        return int(np.count_nonzero(wrong))


@dataclass(frozen=True, slots=True)
class Account:
    """What was sent, and what came of it."""

    sent: int
    scored: int  # scored events, repeats included
    refused: int  # dead letters, repeats included
    missing: int  # records without an answer
    duplicates: int  # answers beyond a record's first
    strangers: int  # answers to records that were never sent
    wrong: int  # records with another answer than their kind calls for: refused, for which reason, on time, late or too late
    timings: dict[str, int]
    reasons: dict[str, int]
    alerts: int
    frauds: dict[Kind, int] = field(default_factory=dict)  # planted, by scenario
    caught: dict[Kind, int] = field(default_factory=dict)  # those among the alerts

    @property
    def precision(self) -> float:
        """The share of alerts that were frauds; NaN without alerts."""
        return sum(self.caught.values()) / self.alerts if self.alerts else float("nan")

    def broken(self) -> tuple[str, ...]:
        """What does not hold, a sentence each; none if all is well."""
        found = []
        if self.scored + self.refused != self.sent:
            found.append(f"{self.sent:,} records were sent, but {self.scored:,} were scored and {self.refused:,} refused")
        for count, words in (
            (self.missing, "records have no answer"),
            (self.duplicates, "answers came twice"),
            (self.strangers, "answers are to records that were not sent"),
            (self.wrong, "records were answered otherwise than they should have been"),
        ):
            if count:
                found.append(f"{count:,} {words}")
        return tuple(found)


class ReportTally:
    """Counts reports that came back as dead letters."""

    def __init__(self) -> None:
        self._letters: list[tuple[int, str]] = []

    def add_unmatched(self, offset: int, reason: str) -> None:
        """Count a dead letter of the labels."""
        self._letters.append((offset, reason))

    def account(self, kinds: NDArray[np.int8], counted: Mapping[str, int]) -> ReportAccount:
        """Draw up the account.

        Args:
            kinds: shape (sent,): what was sent, by offset.
            counted: what the worker says became of its labels.
        """
        unknown = {(int(offset), UNMATCHED) for offset in np.flatnonzero(kinds == ReportKind.UNKNOWN)}
        letters = Counter(self._letters)
        repeated = counted.get("repeated", 0)
        wrong = len(unknown ^ letters.keys()) + letters.total() - len(letters)
        wrong += abs(repeated - int(np.count_nonzero(kinds == ReportKind.AGAIN)))
        return ReportAccount(len(kinds), counted.get("matched", 0), repeated, len(self._letters), wrong)


@dataclass(frozen=True, slots=True)
class ReportAccount:
    """What was reported, and what came of it."""

    sent: int
    matched: int  # as the worker counts
    repeated: int  # as the worker counts
    unmatched: int  # dead letters, repeats included
    wrong: int  # reports that were taken otherwise than their kind calls for

    def broken(self) -> tuple[str, ...]:
        """What does not hold, a sentence each; none if all is well."""
        found = []
        if self.matched + self.repeated + self.unmatched != self.sent:
            found.append(
                f"{self.sent:,} labels were sent, but {self.matched:,} matched, {self.repeated:,} were repeated "
                f"and {self.unmatched:,} unmatched"
            )
        if self.wrong:
            found.append(f"{self.wrong:,} labels were taken otherwise than they should have been")
        return tuple(found)
