"""Skew: the features of a span of the live stream, computed again from its logs and compared with those that were served, bit by bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schemas.errors import HistoryError
from schemas.features import Json
from streams.batch import Address
from streams.definition.bound import Bound
from streams.kafka import admin, topic_facts
from streams.offline.recompute import Recompute, Recomputed
from streams.offline.served import Served, read_served
from streams.offline.topic_history import Edge, TopicHistory
from streams.planning.stage import Stage, stages
from streams.scored_event import TIMINGS
from streams.settings import Settings

MOST_SHOWN = 10


@dataclass
class _Account:
    compared: int = 0
    equal: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    shown: list[Json] = field(default_factory=list)

    def differ(self, at: str, reason: str, columns: Mapping[str, list[float]], detail: str) -> None:
        """One row differs."""
        self.reasons[reason] += 1
        self.columns.update(list(columns))
        if len(self.shown) < MOST_SHOWN:
            self.shown.append({"at": at, "reason": reason, "detail": detail, "columns": dict(columns)})


def skew(
    bound: Bound,
    settings: Settings,
    start: Edge | None = None,
    end: Edge | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Json]:
    """Compare what a span of the input should have been served with what the output says was served.

    Every stage is played again over its own log: the first one over the span and what fills its windows, the others over all that their
    internal topics hold, labels among the events as they stand there.

    Args:
        bound: the pipeline.
        settings: of the broker and the registry.
        start: the first events to compare; earlier ones fill the windows. None = the earliest there are.
        end: the first not to compare any more; None = what is there now.
        progress: told how many more records are computed.

    Returns:
        The account: events compared, equal ones, the others by reason and by column, and the first that differ.

    Raises:
        HistoryError: scored events do not carry their features, or a stage's log was written by another definition of the pipeline.
        TopicError: a topic is missing.
        KafkaDown: the broker does not answer.
    """
    if not bound.pipeline.include_features:
        raise HistoryError(f"pipeline {bound.name!r} has include_features=False: what was served is not in its output")
    partitions = topic_facts(admin(settings.kafka), (bound.input.name,))[bound.input.name].partitions
    planned = [stage for stage in stages(bound, partitions) if stage.kind != "labels"]
    history = TopicHistory(bound, settings, bound.input.name, start, end, stage=planned[0])
    spans = {stretch.partition: (stretch.first, stretch.end) for stretch in history.stretches}
    served, unreadable = read_served(bound, settings, spans)
    again = Recompute(bound, settings, planned, history, served)
    again.run(progress)
    account = _Account()
    for partition, found in again.found.items():
        _compare(bound, planned, partition, found, served[partition], account)
    return {
        "topic": bound.input.name,
        "spans": {str(partition): list(span) for partition, span in spans.items()},
        "feature_fingerprint": bound.features.fingerprint,
        "compared": account.compared,
        "equal": account.equal,
        "reasons": {reason: count for reason, count in sorted(account.reasons.items()) if count},
        "columns": dict(account.columns.most_common()),
        "served_again": sum(each.repeated for each in served.values()),
        "handed_on_again": again.handed_again,
        "unreadable": unreadable,
        "log_begins": {str(stretch.partition): stretch.read_from for stretch in history.stretches},
        "stages": [{"stage": stage.name, "topic": stage.input.name, **again.logs[stage.name]} for stage in planned],
        "first": account.shown,
    }


def _compare(bound: Bound, planned: Sequence[Stage], partition: int, found: Recomputed, served: Served, account: _Account) -> None:
    rows = np.flatnonzero(found.had_by)
    place = served.find(rows + found.first)
    whole = found.had_by[rows] == (1 << len(planned)) - 1
    usable, was_served = found.usable[rows], place >= 0

    told: list[tuple[int, str, dict[str, list[float]], str]] = []
    both = usable & whole & was_served
    account.compared += int(both.sum())
    made, there = rows[both], place[both]
    bits = found.features[made].view(np.int64) != served.features[there].view(np.int64)
    other = np.array([served.fingerprints[each] != bound.features.fingerprint for each in there.tolist()], np.bool_)
    bad = bits.any(axis=1) | (found.timing[made] != served.timing[there]) | other | found.otherwise[made]
    account.equal += int((~bad).sum())
    for each in np.flatnonzero(bad).tolist():
        row, here = int(made[each]), int(there[each])
        names = [bound.features.names[c] for c in np.flatnonzero(bits[each]).tolist()]
        values = zip(served.features[here, bits[each]].tolist(), found.features[row, bits[each]].tolist(), strict=True)
        columns = {name: list(pair) for name, pair in zip(names, values, strict=True)}
        reason, detail = _why(bound, found, served, row, here, bool(columns))
        told.append((row, reason, columns, detail))
    for row in rows[usable & ~was_served].tolist():
        told.append((row, "not served" if row + found.first < served.last else "not served yet", {}, ""))
    for row in rows[usable & was_served & ~whole].tolist():
        lacking = next(stage for stage in planned if not found.had_by[row] >> stage.index & 1)
        told.append((row, "not in a stage's log", {}, f"{lacking.input.name} does not have it, or does not reach back to it"))
    for row in rows[~usable & was_served].tolist():
        told.append((row, "served, and would be refused", {}, str(found.refused[row])))
    for row, reason, columns, detail in sorted(told, key=lambda each: each[0]):
        account.differ(str(Address(bound.input.name, partition, row + found.first)), reason, columns, detail)


def _why(bound: Bound, found: Recomputed, served: Served, row: int, here: int, other_values: bool) -> tuple[str, str]:
    if served.fingerprints[here] != bound.features.fingerprint:
        return "other features", f"served by features {served.fingerprints[here]}, computed by {bound.features.fingerprint}"
    was, now = TIMINGS[served.timing[here]], TIMINGS[found.timing[row]]
    if was != now:
        return "other timing", f"served as {was}, computed as {now}: another order of events, or another past"
    if other_values:
        return "other values", "other bits by the same definitions: another past, or a function changed without its version"
    return "handed on otherwise", "the next stage was handed another record than this one hands on now"


def skew_words(facts: Mapping[str, Any]) -> str:
    """The account in words."""
    differing = facts["compared"] - facts["equal"]
    verdict = "same to the bit" if not facts["reasons"] else "not the same"
    lines = [f"{facts['compared']:,} events of {facts['topic']} compared, {differing:,} differ: {verdict}"]
    if len(facts["stages"]) > 1:
        lines += [f"  {each['stage']}: {each['records']:,} records of {each['topic']}{_labels_in(each)}" for each in facts["stages"]]
    lines += [f"  {count:,} {reason}" for reason, count in facts["reasons"].items()]
    lines += [f"  {count:,} rows differ in {name}" for name, count in facts["columns"].items()]
    for each in facts["first"]:
        lines.append(f"{each['at']}: {each['reason']}" + (f": {each['detail']}" if each["detail"] else ""))
        lines += [f"    {name}: served {was!r}, computed {now!r}" for name, (was, now) in each["columns"].items()]
    if facts["unreadable"]:
        lines.append(f"{facts['unreadable']:,} scored events can't be read by the output's schema: they were served by another version")
    if facts["served_again"]:
        lines.append(f"{facts['served_again']:,} were served more than once")
    if facts["handed_on_again"]:
        lines.append(f"{facts['handed_on_again']:,} were handed on more than once")
    return "\n".join(lines)


def _labels_in(log: Mapping[str, Any]) -> str:
    return f", {log['labels']:,} of them labels" if log["labels"] else ""
