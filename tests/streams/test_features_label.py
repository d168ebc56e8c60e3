"""`millrace features label`: nothing is known earlier than it was."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.streams.command_line import Done, Run, payment, runner
from tests.streams.payment import write_pipeline

# A payment each noon from 1 January; labels take up to seven days.
#
#   1 .. 7        8 .. 14              15 .. 21      22 .. 28
#   train         its labels come      test          its labels come
START = datetime(2026, 1, 1, tzinfo=UTC)
NOON = timedelta(hours=12)
DAY = timedelta(days=1)
TRAIN = "train=2026-01-01T00:00:00Z..2026-01-08T00:00:00Z"
TEST = "test=2026-01-15T00:00:00Z..2026-01-22T00:00:00Z"


def day(number: float) -> datetime:
    """Midnight before the January day of this number."""
    return START + (number - 1) * DAY


def events(folder: Path, **changes: Any) -> None:
    rows = [{**payment(n), "event_time": day(n) + NOON, "payment_id": f"p{n}"} for n in range(1, 29)]
    pl.DataFrame(rows, schema_overrides={"event_time": pl.Datetime("ms", "UTC")}).with_columns(**changes).write_parquet(
        folder / "events.parquet"
    )


def labels(folder: Path, *rows: tuple[str, int, datetime]) -> None:
    pl.DataFrame(
        [{"payment_id": name, "label": value, "known_at": known} for name, value, known in rows],
        schema={"payment_id": pl.String, "label": pl.Int64, "known_at": pl.Datetime("us", "UTC")},
    ).write_parquet(folder / "labels.parquet")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    write_pipeline(tmp_path)
    events(tmp_path)
    started = runner(tmp_path, monkeypatch, capsys)
    assert started("features", "build", "pipeline.py", "--from", "events.parquet", "--to", "features").code == 0
    return started


def label(run: Run, *more: object, splits: tuple[str, ...] = (TRAIN, TEST)) -> Done:
    wanted = [part for split in splits for part in ("--split", split)]
    return run(
        *("features", "label", "pipeline.py", "--features", "features", "--labels", "labels.parquet", "--to", "set", "--delay", "7d"),
        *wanted, "--json", *more,
    )  # fmt: skip


def split(folder: Path, name: str) -> dict[str, int]:
    """The label of each event of a split."""
    found = pl.read_parquet(folder / "set" / name / "*.parquet")
    return dict(zip(found["payment_id"].to_list(), found["label"].to_list(), strict=True))


def test_a_label_from_the_future_does_not_show(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p2", 1, day(14)), ("p3", 1, day(15)), ("p4", 1, day(15) + timedelta(milliseconds=1)), ("p16", 1, day(20)))
    facts = label(run).facts
    # The training split's labels are those known when the delay after it is over, at the beginning of the 15th.
    assert split(tmp_path, "train") == {"p1": 0, "p2": 1, "p3": 1, "p4": 0, "p5": 0, "p6": 0, "p7": 0}
    assert split(tmp_path, "test") == {f"p{n}": int(n == 16) for n in range(15, 22)}
    assert facts["splits"]["train"]["labels_known_by"] == "2026-01-15T00:00:00+00:00"
    assert (facts["splits"]["train"]["positives"], facts["splits"]["train"]["negatives"]) == (2, 5)


def test_of_several_labels_the_last_one_known_by_then_holds(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p2", 0, day(12)), ("p2", 1, day(5)), ("p3", 0, day(5)), ("p3", 1, day(5)), ("p4", 1, day(5)), ("p4", 0, day(16)))
    label(run)
    found = split(tmp_path, "train")
    assert (found["p2"], found["p3"], found["p4"]) == (0, 1, 1)


def test_nothing_known_after_a_given_time_is_used_and_what_is_too_young_by_then_is_left_out(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p1", 1, day(9)), ("p5", 1, day(9)), ("p6", 1, day(11)))
    facts = label(run, "--known-by", "2026-01-10T12:00:00Z", splits=(TRAIN,)).facts
    # By noon of the 10th the delays of the first three are over, and one of the later ones is known to be bad.
    assert split(tmp_path, "train") == {"p1": 1, "p2": 0, "p3": 0, "p5": 1}
    assert facts["splits"]["train"]["unripe"] == 3


def test_labels_without_a_date_are_known_when_the_delay_of_their_event_is_over(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p2", 1, day(1)), ("p5", 1, day(1)))
    label(run, "--known-at", "-", "--known-by", "2026-01-10T12:00:00Z", splits=(TRAIN,))
    assert split(tmp_path, "train") == {"p1": 0, "p2": 1, "p3": 0}


def test_a_split_that_begins_before_the_labels_of_the_one_before_are_known_is_refused(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p2", 1, day(9)))
    done = label(run, splits=(TEST.replace("01-15T", "01-14T"), TRAIN))
    assert (done.code, done.err.count("\n")) == (13, 1)
    assert "split 'test' begins at 2026-01-14T00:00:00+00:00, and the labels of 'train' are those known at 2026-01-15" in done.err
    assert not (tmp_path / "set").exists()


def test_sampled_negatives_are_the_same_each_time_and_weigh_what_they_stand_for(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p2", 1, day(9)), ("p16", 1, day(20)))
    facts = label(run, "--negatives", 0.5).facts
    first = pl.concat([pl.read_parquet(tmp_path / "set" / name / "*.parquet") for name in ("train", "test")])
    kept = facts["splits"]["train"]["negatives_kept"] + facts["splits"]["test"]["negatives_kept"]
    assert 0 < kept < 12
    assert len(first) == kept + 2
    assert first.filter(label=1)["weight"].to_list() == [1.0, 1.0]
    assert set(first.filter(label=0)["weight"]) == {2.0}
    label(run, "--negatives", 0.5, "--overwrite")
    assert pl.concat([pl.read_parquet(tmp_path / "set" / name / "*.parquet") for name in ("train", "test")]).equals(first)
    label(run, "--negatives", 0.5, "--seed", 1, "--overwrite")
    again = pl.concat([pl.read_parquet(tmp_path / "set" / name / "*.parquet") for name in ("train", "test")])
    assert again["payment_id"].to_list() != first["payment_id"].to_list()


def test_refused_events_are_in_no_training_set_and_are_counted(tmp_path: Path, run: Run) -> None:
    events(tmp_path, amount=pl.when(pl.col("payment_id") == "p3").then(-1.0).otherwise("amount"))
    run("features", "build", "pipeline.py", "--from", "events.parquet", "--to", "features", "--overwrite")
    labels(tmp_path, ("p2", 1, day(9)))
    assert label(run, splits=(TRAIN,)).facts["splits"]["train"]["refused"] == 1
    assert "p3" not in split(tmp_path, "train")


def test_the_set_says_what_it_is_made_of_and_in_words_how_many_of_each_class(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p2", 1, day(9)), ("nobody", 1, day(9)))
    facts = label(run).facts
    assert facts["labels_of_unknown_events"] == 1
    said = json.loads((tmp_path / "set/_features.json").read_text())
    assert said["splits"] == facts["splits"]
    assert [part["rows"] for part in said["parts"]] == [7, 7]
    words = run(
        *("features", "label", "pipeline.py", "--features", "features", "--labels", "labels.parquet", "--to", "set", "--delay", "7d"),
        *("--split", TRAIN, "--overwrite"),
    ).out  # fmt: skip
    assert "train: 1 positives, 6 negatives, 14.286% positive; labels known by 2026-01-15" in words
    assert "1 of 2 labels are of events that are in no split" in words


def test_labels_of_csv_and_of_truth_values_are_read(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p2", 1, day(9)))
    table = pl.read_parquet(tmp_path / "labels.parquet")
    table.with_columns(pl.col("label").cast(pl.Boolean)).write_parquet(tmp_path / "labels.parquet")
    label(run)
    assert split(tmp_path, "train")["p2"] == 1
    table.write_csv(tmp_path / "labels.csv")
    done = run(
        *("features", "label", "pipeline.py", "--features", "features", "--labels", "labels.csv", "--to", "set", "--delay", "7d"),
        *("--split", TRAIN, "--overwrite"),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert split(tmp_path, "train")["p2"] == 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "labels.parquet holds no labels"),
        ([("p2", 2, day(9))], "labels.parquet, row 0: label is 2, wanted 0 or 1"),
        ([("x1", 1, day(9)), ("x2", 0, day(9))], "none of 2 labels is of an event in features"),
    ],
)
def test_labels_that_are_none_are_one_line(tmp_path: Path, run: Run, rows: list[tuple[str, int, datetime]], words: str) -> None:
    labels(tmp_path, *rows)
    done = label(run)
    assert (done.code, done.err.count("\n")) == (17, 1)
    assert words in done.err
    assert not (tmp_path / "set").exists()


def test_a_split_without_events_is_refused(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p2", 1, day(9)))
    done = label(run, splits=(TRAIN, "test=2027-01-01T00:00:00Z..2027-01-02T00:00:00Z"))
    assert done.code == 17
    assert "split 'test' has no events whose label is known" in done.err


def test_features_of_other_definitions_are_refused(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p2", 1, day(9)))
    write_pipeline(tmp_path, {"lateness_ms=hours(1)": "lateness_ms=hours(2)"})
    done = label(run)
    assert (done.code, done.err.count("\n")) == (17, 1)
    assert "features was made by features " in done.err
    assert "build it again" in done.err


def test_features_that_were_changed_are_refused(tmp_path: Path, run: Run) -> None:
    labels(tmp_path, ("p2", 1, day(9)))
    part = tmp_path / "features/source_partition=0/part-00000.parquet"
    pl.read_parquet(part, hive_partitioning=False)[:5].write_parquet(part)
    done = label(run)
    assert done.code == 17
    assert "has 5 rows, wanted 28 by _features.json" in done.err


@pytest.mark.parametrize(
    ("splits", "more", "words"),
    [
        (("train",), (), "'train' is no split; wanted NAME=TIME..TIME"),
        (("train=2026-01-08T00:00:00Z..2026-01-01T00:00:00Z",), (), "split 'train' ends before it begins"),
        (("train=1..2",), (), "'train=1..2' is no split"),
        ((TRAIN,), ("--negatives", 0), "--negatives 0.0, wanted more than 0 and at most 1"),
        ((TRAIN,), ("--delay", "a week"), "'a week' is no duration"),
    ],
)
def test_wishes_that_make_no_sense_are_one_line(
    tmp_path: Path, run: Run, splits: tuple[str, ...], more: tuple[object, ...], words: str
) -> None:
    labels(tmp_path, ("p2", 1, day(9)))
    done = label(run, *more, splits=splits)
    assert (done.code, done.err.count("\n")) == (13, 1)
    assert words in done.err
