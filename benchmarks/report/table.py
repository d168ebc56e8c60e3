"""Tables in Markdown, and how figures are written in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

NONE = "—"
Row = Sequence[object]
_NUMBER = re.compile(rf"({NONE}|(at least )?[+-]?[\d,]+(\.\d+)?( ?%|x)?)")


def table(head: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Lines of a table, an empty one at the end; columns of numbers stand right. Without rows there is none."""
    if not rows:
        return []
    right = [all(_NUMBER.fullmatch(str(row[place])) for row in rows) for place in range(len(head))]
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---:" if each else "---" for each in right) + "|"]
    return [*lines, *("| " + " | ".join(_cell(each) for each in row) + " |" for row in rows), ""]


def number(value: Any, digits: int = 1) -> str:
    """A figure with thousands parted; from 1,000 on without decimals."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1_000 or digits == 0 else f"{value:,.{digits}f}"


def times(value: Any) -> str:
    """A ratio."""
    return NONE if value is None else f"{value:,.0f}x" if value >= 100 else f"{value:.1f}x"


def share(value: Any) -> str:
    """A share in percent; 100 % is nothing less than all."""
    if value is None:
        return NONE
    return "100 %" if value >= 1 else f"{min(value, 0.9999) * 100:.2f} %"


def code(words: str) -> str:
    """A command."""
    return f"`{words}`"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
