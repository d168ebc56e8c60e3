"""Result files, as the page reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import Refused

NAME = re.compile(r"(?P<kind>.+)-(?P<stamp>\d{4}-\d\d-\d\dT\d{4,6})\.json")


@dataclass(frozen=True, slots=True)
class Result:
    """A result file.

    Attributes:
        file: where it is.
        kind: what was measured.
        stamp: when, as the file's name has it; later ones compare greater.
        data: what it says.
    """

    file: Path
    kind: str
    stamp: str
    data: dict[str, Any]

    @property
    def date(self) -> str:
        """The day and the minute."""
        return f"{self.stamp[:10]} {self.stamp[11:13]}:{self.stamp[13:15]}"

    @property
    def command(self) -> str:
        """What runs it again."""
        return str(self.data.get("command") or f"python -m benchmarks.{self.kind.partition('-')[0]}")

    @property
    def counts(self) -> bool:
        """Whether it is complete and, as it says itself, valid; older results say nothing of it."""
        return bool(self.data.get("complete", True) and self.data.get("counts", True))


def read_results(folder: Path) -> list[Result]:
    """All results of a folder, oldest first.

    Raises:
        Refused: there are none, or a file is no result.
    """
    found = []
    for file in sorted(folder.glob("*.json")):
        named = NAME.fullmatch(file.name)
        if named is None:
            raise Refused(f"{file}: wanted a name like load-constant-2026-11-21T1757.json")
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise Refused(f"{file} can't be read: {error}") from error
        if not isinstance(data, dict):
            raise Refused(f"{file} holds no object")
        found.append(Result(file, named["kind"], named["stamp"], data))
    if not found:
        raise Refused(f"no results in {folder}; `make bench` makes them")
    return sorted(found, key=lambda result: (result.stamp, result.kind))


def newest(results: Sequence[Result]) -> dict[str, Result]:
    """By kind: the newest result that counts, else the newest that does not."""
    found: dict[str, Result] = {}
    for result in results:
        if result.counts or result.kind not in found or not found[result.kind].counts:
            found[result.kind] = result
    return dict(sorted(found.items()))
