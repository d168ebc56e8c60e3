"""`millrace features build --labels`: a turn at a time, the same features as `Bound.transform` has of the whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from streams.definition.load import load_bound
from streams.offline import history as histories
from tests.streams.command_line import Run, runner
from tests.streams.payments import EXAMPLE

PIPELINE = EXAMPLE / "labelled.py"
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr(histories, "TURN_ROWS", 23)  # a week of delay spans many turns
    return runner(tmp_path, monkeypatch, capsys)


def made_up(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Payments over forty days, some late, refused, or under an id that came before; and reports early and late, twice, and of nothing."""
    random, rows = np.random.default_rng(seed), 300
    hours = np.sort(random.integers(0, 40 * 24, rows)).astype(float)
    hours[random.random(rows) < 0.1] -= 0.5
    numbers = np.arange(rows)
    numbers[50], numbers[200] = 49, 20
    events = pl.DataFrame(
        {
            "payment_id": [f"p{number}" for number in numbers],
            "event_time": [START + timedelta(hours=hour) for hour in hours],
            "customer_id": [f"c{number}" for number in random.integers(4, size=rows)],
            "terminal_id": [f"t{number}" for number in random.integers(3, size=rows)],
            "amount": np.where(random.random(rows) < 0.05, -1.0, 10.0),
            "currency": "EUR",
        },
        schema_overrides={"event_time": pl.Datetime("ms", "UTC")},
    )
    about = random.integers(-5, rows, size=rows)
    known = np.maximum(np.where(about >= 0, hours[about], 0.0) + random.integers(-24, 12 * 24, rows), 0)
    labels = pl.DataFrame(
        {
            "payment_id": [f"p{number}" for number in about],
            "fraud": random.random(rows) < 0.6,
            "label_time": [START + timedelta(hours=hour) for hour in known],
        },
        schema_overrides={"label_time": pl.Datetime("ms", "UTC")},
    )
    return events, labels


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("seed", range(3))
def test_a_build_with_labels_is_what_transform_gives(tmp_path: Path, run: Run, seed: int, kind: str) -> None:
    events, labels = made_up(seed)
    for part in range(2):  # the log goes on from file to file
        getattr(events[part * 150 : (part + 1) * 150], f"write_{kind}")(tmp_path / f"events-{part}.{kind}")
    labels.write_parquet(tmp_path / "labels.parquet")
    facts = run("features", "build", PIPELINE, "--from", f"events-*.{kind}", "--labels", "labels.parquet", "--to", "out", "--json").facts
    wanted = load_bound(PIPELINE).transform(events, labels=labels)
    found = pl.read_parquet(tmp_path / "out" / "source_partition=0" / "part-00000.parquet", hive_partitioning=False)
    names = [name for name in wanted.columns if name not in events.columns]
    assert found.select(names).equals(wanted.select(names))
    assert found["source_offset"].to_list() == list(range(300))
    assert found["payment_id"].to_list() == events["payment_id"].to_list()
    assert facts["events"] == 300
    assert (found["terminal_label_rate_30d_delay_7d"] > 0).sum() > 20  # labels did come through


def test_a_report_from_the_future_does_not_show(tmp_path: Path, run: Run) -> None:
    events, labels = made_up(7)
    events.write_parquet(tmp_path / "events.parquet")
    rates = []
    for days in (0, 60):
        labels.with_columns(pl.col("label_time") + timedelta(days=days)).write_parquet(tmp_path / "labels.parquet")
        run("features", "build", PIPELINE, "--from", "events.parquet", "--labels", "labels.parquet", "--to", f"out-{days}", "--json")
        found = pl.read_parquet(tmp_path / f"out-{days}" / "source_partition=0" / "part-00000.parquet", hive_partitioning=False)
        rates.append(found["terminal_label_rate_30d_delay_7d"].sum())
    assert rates[0] > 0 == rates[1]


def test_a_pipeline_that_counts_labels_wants_them_and_one_that_does_not_refuses_them(tmp_path: Path, run: Run) -> None:
    events, labels = (table.head(30) for table in made_up(0))
    events.write_parquet(tmp_path / "events.parquet")
    labels.write_parquet(tmp_path / "labels.parquet")
    done = run("features", "build", PIPELINE, "--from", "events.parquet", "--to", "out")
    assert done.code == 17
    assert "entity 'terminal' counts labels, and events alone do not tell them; wanted labels with them (`--labels`" in done.err
    done = run("features", "build", EXAMPLE / "pipeline.py", "--from", "events.parquet", "--labels", "labels.parquet", "--to", "out")
    assert (done.code, "has no labels; wanted Labels(...) in it" in done.err) == (17, True)
    labels.drop("label_time").write_parquet(tmp_path / "labels.parquet")
    done = run("features", "build", PIPELINE, "--from", "events.parquet", "--labels", "labels.parquet", "--to", "out")
    assert (done.code, "has no column 'label_time'" in done.err, (tmp_path / "out").exists()) == (17, True, False)
