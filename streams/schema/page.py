"""Pages with plots: statistics, findings and differences, as one HTML file that needs nothing from anywhere.

The plots are drawings inside the page (SVG), made by its template: they are bars, and a library
for plots would weigh more than all the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streams.offline.page import render
from streams.schema.stats import write_new


def stats_page(facts: Mapping[str, Any], out: Path) -> None:
    """What `stats` found.

    Raises:
        SettingsError: the file is there, or can't be written.
    """
    _write(out, f"Statistics of {facts['source']}", f"{facts['rows']:,} rows; {facts['unreadable']:,} can't be read", facts["fields"])


def validation_page(facts: Mapping[str, Any], statistics: Mapping[str, Any], out: Path) -> None:
    """What `validate` found, and what the data was like.

    Raises:
        SettingsError: the file is there, or can't be written.
    """
    words = f"{facts['rows']:,} rows: {facts['passed']:,} pass, {facts['refused']:,} would be refused"
    _write(out, f"{facts['source']} against {facts['against']}", words, statistics, facts["findings"], facts.get("comparisons", []))


def difference_page(facts: Mapping[str, Any], out: Path) -> None:
    """What `diff` found.

    Raises:
        SettingsError: the file is there, or can't be written.
    """
    for_page = [each for each in facts["comparisons"] if each["over"]] + [each for each in facts["comparisons"] if not each["over"]]
    _write(
        out,
        f"{facts['first']} and {facts['second']}",
        f"{facts['comparison']}, {facts['over']} differences",
        {},
        facts["findings"],
        for_page,
    )


def _write(out: Path, title: str, words: str, fields: Mapping[str, Any], findings: Any = (), comparisons: Any = ()) -> None:
    shown = [{"name": name, **each, "bars": _bars(each), "measured": _measured(each)} for name, each in fields.items()]
    write_new(out, render("data_checks.html", title=title, words=words, fields=shown, findings=findings, comparisons=comparisons))


def _bars(each: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The plot of a field: its histogram, or its top values; heights are shares of the highest."""
    measured = _measured(each)
    if each.get("top") and len(each["top"]) < 20:
        bars = [(str(one["value"]), one["count"] / max(each["rows"], 1)) for one in each["top"]]
    elif measured is not None:
        bars = [(f"{_short(low)} to {_short(high)}", share) for low, high, share in measured["histogram"]]
    else:
        bars = [(str(one["value"]), one["count"] / max(each["rows"], 1)) for one in each.get("top", [])]
    highest = max((share for _, share in bars), default=0.0) or 1.0
    return [{"words": words, "share": share, "height": share / highest} for words, share in bars]


def _measured(each: Mapping[str, Any]) -> Any:
    return next((each[word] for word in ("numbers", "items", "bytes") if word in each), None)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.5g}"
