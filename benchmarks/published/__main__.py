"""The handbook's tables, made again through the stream: ``python -m benchmarks.published --data FOLDER``.

The stream serves the fifteen features of every transaction, with the labels a week behind. Models are fitted on what was served in their
training week, exported to ONNX, and score their test week inside a worker; the figures are those of the scores in its output topic.
The folder holds the handbook's transactions.parquet; none of its rows is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.handbook.transactions import made_up, published
from benchmarks.published.live import Live
from benchmarks.published.reproduce import TABLES, reproduce
from benchmarks.published.weeks import FIRST_TRAINING_DAY, LOOK_BACK, folds
from streams.local import services as local

RESULTS = Path(__file__).parents[1] / "results"
LIBRARIES = ("numpy", "scikit-learn", "skl2onnx", "onnxruntime", "xgboost-cpu", "onnxmltools")


def main() -> None:
    """Run, compare, keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of transactions.parquet; without it transactions are made up")
    parser.add_argument("--weeks", type=int, default=4, choices=range(1, 5), help="test weeks of the second table")
    parser.add_argument("--table", action="append", default=[], choices=TABLES, help="one of the tables; both if not given")
    parser.add_argument("--only", action="append", default=[], metavar="MODEL", help="one of the models; may be given again")
    wanted = parser.parse_args()
    weeks = folds(wanted.weeks, FIRST_TRAINING_DAY if wanted.data else LOOK_BACK)
    first, end = weeks[0].train.start - LOOK_BACK, weeks[-1].test.stop
    rows = published(wanted.data / "transactions.parquet", end, first_day=first) if wanted.data else made_up(20_000, end)
    folder = Path(tempfile.mkdtemp(prefix="millrace-published-"))
    began = time.monotonic()
    try:
        services = local.up(folder / "services", say=lambda words: print(f"  {words}"))
        live = Live(folder / "pipelines", services.bootstrap_servers, services.redis_url, rows)
        found = reproduce(live, rows, weeks, wanted.table or TABLES, wanted.only, lambda words: print(words, flush=True))
    finally:
        local.down(folder / "services")
        shutil.rmtree(folder, ignore_errors=True)
    print(tables_in_words(found, beside_the_book=wanted.data is not None))
    now = datetime.now(UTC)
    result = {
        "at": now.isoformat(timespec="seconds"),
        "settings": {"weeks": wanted.weeks, "tables": wanted.table or list(TABLES), "only": wanted.only},
        "made_up": wanted.data is None,
        "libraries": {name: _version(name) for name in LIBRARIES},
        "seconds": round(time.monotonic() - began),
        "load": round(os.getloadavg()[1], 1),
        **found,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"published-{now:%Y-%m-%dT%H%M}.json").write_text(json.dumps(result, indent=2) + "\n")


def tables_in_words(found: Mapping[str, Any], beside_the_book: bool) -> str:
    """Both tables, and what the book has."""
    lines = []
    for table in (name for name in TABLES if name in found):
        lines.append(f"\n{table.replace('_', ' '):28} {'served':^21}" + f"{'book':^23}" * beside_the_book)
        for name, row in found[table].items():
            printed = (
                ""
                if row["book"] is None
                else "   " + " ".join("  -  " if value is None else f"{value:.3f}" for value in row["book"].values())
            )
            served = " ".join(f"{value:.4f}" for value in row["mean"].values())
            lines.append(f"{name:28} {served}" + printed * beside_the_book)
    return "\n".join(lines)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
