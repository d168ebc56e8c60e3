"""The handbook's fifteen features through two stages and four partitions, with labels, and with a worker killed on the way.

The whole of the handbook's data goes the same way with ``python -m benchmarks.handbook``. Here it is a cut of it where the data are
present (see ``tests/transforms/test_handbook.py``), made up transactions elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.handbook.compare import compare
from benchmarks.handbook.stream import Run
from benchmarks.handbook.transactions import made_up, published
from streams.local.services import Services

DATA = Path(os.environ.get("MILLRACE_DATA") or Path(__file__).parents[3] / "shared" / "data") / "handbook" / "transactions.parquet"


def test_features_equal_the_published_definitions_in_lock_step_and_their_logs_at_any_speed(services: Services, tmp_path: Path) -> None:
    rows = published(DATA, days=50, every=60) if DATA.exists() else made_up(8_000, 50)
    run = Run(tmp_path, services.bootstrap_servers, services.redis_url, 4)
    found = compare(rows, run(rows, workers=2, lock_step=True, kill=True), as_published=True)
    assert found["transactions"] == len(rows) > 5_000
    assert found["rows_unlike_the_published_definitions"] == found["labels_without_a_transaction"] == 0
