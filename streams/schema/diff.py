"""`millrace schema diff`: how far two samples of data are apart: training and serving (skew), one day and the next (drift)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from schemas.constraints import Constraints, no_constraints
from schemas.environment import SERVING
from schemas.errors import SchemaError
from schemas.features import Json
from schemas.statistics import Statistics, names_of
from schemas.statistics_distance import distance
from streams.offline.history import TOPIC_PREFIX
from streams.schema.source import Reading, Source, open_source
from streams.schema.stats import load, look, look_by_day

Comparison = Literal["drift", "skew"]


def compare(
    first: Statistics, second: Statistics, constraints: Constraints | None, comparison: Comparison, pair: str = ""
) -> list[dict[str, Any]]:
    """Every field of two samples: how far apart, and by which measures too far.

    A measure is over if it reaches its threshold beyond what two samples of these sizes differ by through chance.
    """
    rules = no_constraints(SERVING) if constraints is None else constraints
    found = []
    for name in names_of((first, second)):
        if name in rules.absent:
            continue
        one, two = first.fields.get(name), second.fields.get(name)
        if one is None or two is None:
            found.append(_of(name, pair, only=None if one is None and two is None else "second" if one is None else "first"))
            continue
        if one.type.kind != two.type.kind:
            found.append(_of(name, pair, types=[str(one.type), str(two.type)]))
            continue
        if one.is_time:
            continue  # time goes on
        apart = distance(one, two)
        over = [each for each, value in apart.measures.items() if value - apart.by_chance[each] > rules.threshold(comparison, each, name)]
        limits = {each: rules.threshold(comparison, each, name) for each in over}
        bars = [[words, p, q] for words, p, q in apart.bars]
        highest = max((max(p, q) for _, p, q in apart.bars), default=0.0)
        found.append({**_of(name, pair), "measures": apart.measures, "over": over, "limits": limits, "bars": bars, "highest": highest,
                      "by_chance": apart.by_chance})  # fmt: skip
    return found


def _of(name: str, pair: str, only: str | None = None, types: list[str] | None = None) -> dict[str, Any]:
    said: dict[str, Any] = {"field": name, "pair": pair, "measures": {}, "over": [], "limits": {}, "bars": [], "highest": 0.0}
    if only is not None:
        said |= {"over": ["only"], "only": only}
    if types is not None:
        said |= {"over": ["type"], "types": types}
    return said


def statistics_of(given: Sequence[str], how: Reading) -> tuple[str, Statistics]:
    """The statistics that a file holds (`stats --out`), or those of data in files or a topic.

    Raises:
        HistoryError, SchemaError, TopicError: there are none; says why.
    """
    if len(given) == 1 and given[0].endswith(".json") and not given[0].startswith(TOPIC_PREFIX) and _holds_statistics(Path(given[0])):
        return given[0], load(Path(given[0]))
    source: Source = open_source(given, how)
    return source.name, look(source).statistics


def _holds_statistics(file: Path) -> bool:
    try:
        with file.open("rb") as start:
            return start.read(30).replace(b" ", b"").startswith(b'{"format":"millracesta')
    except OSError as error:
        raise SchemaError(f"{file} can't be read: {error.strerror}") from error


def diff_facts(first: str, second: str, how: Reading, constraints: Constraints | None, comparison: Comparison) -> dict[str, Any]:
    """Two samples.

    Raises:
        HistoryError, SchemaError, TopicError: one can't be read; says why.
    """
    name, one = statistics_of([first], how)
    other, two = statistics_of([second], how)
    return _facts(name, other, compare(one, two, constraints, comparison), comparison, (one.rows, two.rows))


def days_facts(given: Sequence[str], how: Reading, time: str | None, constraints: Constraints | None) -> dict[str, Any]:
    """Each day of one source with the day before.

    Raises:
        HistoryError: it can't be read, or holds one day only.
    """
    source = open_source(given, how)
    name, days, _ = look_by_day(source, time)
    if len(days) < 2:
        raise SchemaError(f"{source.name} holds one day only ({_iso(next(iter(days)))}); wanted two or more")
    found = [
        each
        for (before, one), (after, two) in pairwise(days.items())
        for each in compare(one, two, constraints, "drift", f"{_iso(before)} to {_iso(after)}")
    ]
    rows = {_iso(day): each.rows for day, each in days.items()}
    return {**_facts(source.name, f"its days by {name}", found, "drift", (sum(rows.values()),)), "days": rows}


def _facts(first: str, second: str, found: Sequence[dict[str, Any]], comparison: Comparison, rows: Sequence[int]) -> dict[str, Any]:
    findings = [finding for each in found for finding in findings_of(each, comparison)]
    return {
        "first": first,
        "second": second,
        "rows": list(rows),
        "comparison": comparison,
        "over": sum(bool(each["over"]) for each in found),
        "findings": findings,
        "comparisons": list(found),
    }


def findings_of(each: Mapping[str, Any], comparison: Comparison) -> list[dict[str, Json]]:
    """What is too far apart in a field, as findings."""
    found: list[dict[str, Json]] = []
    where = f"{each['pair']}: " if each["pair"] else ""
    for measure in each["over"]:
        if measure == "only":
            words = f"only the {each['only']} has it"
        elif measure == "type":
            words = f"is {each['types'][0]} in the first, {each['types'][1]} in the second"
        else:
            words = f"{measure} is {each['measures'][measure]:.4f}, wanted {each['limits'][measure]:g} at most"
            if measure != "presence" and each["bars"]:
                bar, p, q = max(each["bars"], key=lambda bar: abs(bar[1] - bar[2]))
                words += f"; most of it: {bar}, {p:.1%} and then {q:.1%}"
        found.append({"what": comparison, "field": each["field"], "rows": None, "share": None, "words": where + words, "examples": []})
    return found


def refuse(facts: Mapping[str, Any]) -> None:
    """End with the exit code of data that is not as it should be.

    Raises:
        SchemaError: something is over.
    """
    if facts["over"]:
        raise SchemaError(f"{facts['over']} differences between {facts['first']} and {facts['second']} are over their thresholds")


def diff_words(facts: Mapping[str, Any]) -> str:
    """A table: a line for each field that is too far apart, then the others if there are few."""
    rows = " and ".join(f"{count:,}" for count in facts["rows"])
    lines = [f"{facts['comparison']} between {facts['first']} and {facts['second']} ({rows} rows): {facts['over']} over"]
    shown = [each for each in facts["comparisons"] if each["over"]] or facts["comparisons"]
    if len(facts["comparisons"]) <= 40:
        shown = facts["comparisons"]
    width = max([len(each["field"]) for each in shown] + [5])
    lines.append(f"{'field':{width}}  {'js':>8} {'l_inf':>8} {'psi':>8} {'presence':>8}")
    for each in shown:
        numbers = [each["measures"].get(name) for name in ("jensen_shannon", "l_infinity", "psi", "presence")]
        line = " ".join(f"{'' if number is None else f'{number:.4f}':>8}" for number in numbers)
        lines.append(
            f"{each['field']:{width}}  {line}{'  over' if each['over'] else ''}{'  ' + each['pair'] if each['pair'] else ''}".rstrip()
        )
    lines += [f"{each['field']}: {each['words']}" for each in facts["findings"]]
    return "\n".join(lines)


def _iso(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
