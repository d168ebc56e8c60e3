"""The handbook's 1,754,155 transactions through two stages and four partitions: ``python -m benchmarks.handbook --data FILE``.

Labels come seven days after their transactions; two workers share the partitions, one is killed on the way. Two statements are
checked, and the program fails if one is not true of every row:

- the features of each customer and each terminal equal their definition over that key's own log, to the last bit;
- fed in lock-step with the days (``--lock-step``), they equal the published definitions, to the last bit. At full speed days race
  past each other between partitions, and the order of a terminal's log is then not the calendar's; how many rows differ is shown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.handbook.compare import compare
from benchmarks.handbook.stream import Run
from benchmarks.handbook.transactions import made_up, published
from streams.local import services as local

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    """Run, compare, keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the handbook's transactions.parquet; without it transactions are made up")
    parser.add_argument("--days", type=int, default=10_000, help="only the first so many")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th terminal")
    parser.add_argument("--rows", type=int, default=100_000, help="how many transactions are made up")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lock-step", action="store_true", help="wait for each day to be routed")
    parser.add_argument("--no-kill", action="store_true", help="let all workers live")
    wanted = parser.parse_args()
    rows = published(wanted.data, wanted.days, wanted.every) if wanted.data else made_up(wanted.rows, 60)
    folder = Path(tempfile.mkdtemp(prefix="millrace-handbook-"))
    try:
        services = local.up(folder / "services", say=lambda words: print(f"  {words}"))
        run = Run(folder / "pipeline", services.bootstrap_servers, services.redis_url, wanted.partitions)
        print(f"streaming {len(rows):,} transactions and as many labels")
        outcome = run(rows, workers=wanted.workers, lock_step=wanted.lock_step, kill=not wanted.no_kill)
        print("comparing")
        found = compare(rows, outcome, wanted.lock_step)
    finally:
        local.down(folder / "services")
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in found.items():
        print(f"  {name:40} {value:>14,}")
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(wanted).items() if name != "data"}
    result = {"at": now.isoformat(timespec="seconds"), "settings": settings, "made_up": wanted.data is None, **found}
    (RESULTS / f"handbook-{now:%Y-%m-%dT%H%M}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
