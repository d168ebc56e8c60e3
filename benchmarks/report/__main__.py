"""Write the page of results, or check it: ``python -m benchmarks.report``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.report.loads import loads
from benchmarks.report.peers import peers
from benchmarks.report.read import Result, newest, read_results
from benchmarks.report.rows import alone, provenance, ratios
from benchmarks.report.words import INTRODUCTION, METHOD
from benchmarks.result import RESULTS, ROOT
from schemas.errors import MillraceError, Refused

PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = "plots"


def page(results: Mapping[str, Result]) -> str:
    """The page: ratios first, then peers, absolute figures, loads, how it was measured, and what it comes from."""
    sections = (
        [*INTRODUCTION.splitlines(), ""],
        ratios(results),
        peers(results, PLOTS),
        alone(results),
        loads(results, PLOTS),
        [*METHOD.splitlines(), ""],
        provenance(results),
    )
    return "\n".join(line for section in sections for line in section).rstrip() + "\n"


def write(folder: Path, to: Path) -> list[Path]:
    """Make the page and its plots; the files that were written.

    Raises:
        Refused: there are no results, or one can't be read.
    """
    from benchmarks.report.plots import draw

    results = newest(read_results(folder))
    words = page(results)
    to.parent.mkdir(parents=True, exist_ok=True)
    plots = draw(results, to.parent / PLOTS)
    to.write_text(words, encoding="utf-8")
    return [to, *plots]


def differing(folder: Path, to: Path) -> list[str]:
    """Names of files beside the page that are not what the results say."""
    with tempfile.TemporaryDirectory() as made:
        names = {file.relative_to(made): file.read_bytes() for file in write(folder, Path(made) / to.name)}
    return [str(name) for name, wanted in names.items() if not (to.parent / name).is_file() or (to.parent / name).read_bytes() != wanted]


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--to", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the page is not what the results say")
    parser.add_argument("--json", action="store_true", help="name what was written as JSON")
    wanted = parser.parse_args()
    try:
        files = differing(wanted.results, wanted.to) if wanted.check else [str(file) for file in write(wanted.results, wanted.to)]
    except MillraceError as error:
        print(f"report: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, Refused) else 1
    print(
        json.dumps(files) if wanted.json else "\n".join(f"{file} is not what the results say" if wanted.check else file for file in files)
    )
    return int(wanted.check and bool(files))


if __name__ == "__main__":
    sys.exit(main())
