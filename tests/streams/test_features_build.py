"""`millrace features build`: files and topics to Parquet, the same bytes for the same events, and nothing half written."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.codec import Encoder
from schemas.columns import Column, PackedBytes
from schemas.table_file import read_metadata
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.kafka import plain_producer
from streams.local.embedded_broker import embedded_broker
from tests.services import Broker
from tests.streams.command_line import Done, Run, payment, runner, written
from tests.streams.payment import write_pipeline

START_MS = 1_700_000_000_000
FEATURES = ["night", "customer_count_1d", "customer_amount_mean_1d"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    write_pipeline(tmp_path)
    return runner(tmp_path, monkeypatch, capsys)


def payments(count: int = 10, **changes: Any) -> pl.DataFrame:
    """Payments a second apart; every fourth is refused."""
    rows = [payment(number, amount=-1.0 if number % 4 == 3 else number + 0.25, **changes) for number in range(count)]
    return pl.DataFrame(rows).with_columns(pl.from_epoch("event_time", "ms").dt.replace_time_zone("UTC"))


def built(folder: Path) -> pl.DataFrame:
    files = sorted(folder.rglob("*.parquet"))
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])


def digests(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()}


def build(run: Run, source: object, *more: object) -> Done:
    return run("features", "build", "pipeline.py", "--from", source, "--to", "out", "--json", *more)


def test_a_build_is_what_transform_gives_and_says_what_it_is_made_of(tmp_path: Path, run: Run) -> None:
    payments().write_parquet(tmp_path / "a.parquet")
    facts = build(run, "a.parquet").facts
    bound = load_bound(tmp_path / "pipeline.py")
    found = built(tmp_path / "out")
    assert found.drop("source_offset").equals(bound.transform(payments()))
    assert found["source_offset"].to_list() == list(range(10))
    assert facts == {
        "to": "out",
        "events": 10,
        "refused": 2,
        "reasons": {"amount_in_range": 2},
        "keys": {"customer": 2},
        "feature_fingerprint": bound.features.fingerprint,
        "files": 1,
    }
    said = read_metadata(tmp_path / "out/source_partition=0/part-00000.parquet")
    assert said is not None
    assert said["feature_fingerprint"] == bound.features.fingerprint
    assert said["offsets"] == [0, 10]
    assert said["partition"] == 0
    assert said["features"] == FEATURES
    assert said["schema"] == bound.schema.definition
    assert said["source"] == {"files": [{"name": "a.parquet", "bytes": (tmp_path / "a.parquet").stat().st_size}]}
    manifest = json.loads((tmp_path / "out/_features.json").read_text())
    assert manifest["parts"][0]["sha256"] == digests(tmp_path / "out")["source_partition=0/part-00000.parquet"]


def test_the_same_events_give_the_same_bytes_however_they_are_cut(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    payments().write_parquet(tmp_path / "a.parquet")
    build(run, "a.parquet", "--rows-per-file", 4)
    first = digests(tmp_path / "out")
    assert sorted(first) == ["_features.json", *(f"source_partition=0/part-0000{n}.parquet" for n in range(3))]
    monkeypatch.setattr("streams.offline.history.TURN_ROWS", 3)
    assert build(run, "a.parquet", "--rows-per-file", 4, "--overwrite").code == 0
    assert digests(tmp_path / "out") == first
    spans = [said["offsets"] for file in sorted((tmp_path / "out").rglob("*.parquet")) if (said := read_metadata(file))]
    assert spans == [[0, 4], [4, 8], [8, 10]]


@pytest.mark.parametrize("kind", ["csv", "csv of numbers", "jsonl", "parts"])
def test_other_kinds_of_files_give_the_same_features(tmp_path: Path, run: Run, kind: str) -> None:
    wanted = load_bound(tmp_path / "pipeline.py").transform(payments()).select(*FEATURES, "timing", "refused", "refused_detail")
    match kind:
        case "csv":
            payments().write_csv(tmp_path / "a.csv")
            source = "a.csv"
        case "csv of numbers":
            payments().with_columns(pl.col("event_time").dt.epoch("ms")).write_csv(tmp_path / "a.csv")
            source = "a.csv"
        case "jsonl":
            events = [payment(number, amount=-1.0 if number % 4 == 3 else number + 0.25) for number in range(10)]
            source = str(written(tmp_path / "a.jsonl", *events))
        case _:  # part-10 comes after part-9
            (tmp_path / "in").mkdir()
            for row in range(10):
                payments()[row].write_parquet(tmp_path / f"in/part-{row + 2}.parquet")
            source = "in"
    assert build(run, source).facts["events"] == 10
    assert built(tmp_path / "out").select(wanted.columns).equals(wanted)


def test_an_event_of_a_file_that_cannot_be_the_schemas_is_refused_and_the_next_one_read(tmp_path: Path, run: Run) -> None:
    written(tmp_path / "a.jsonl", payment(0), "{", payment(2, customer_id="c0"))
    assert build(run, "a.jsonl").facts["refused"] == 1
    found = built(tmp_path / "out")
    assert found["refused"].to_list() == [None, "not_encodable", None]
    assert found["customer_count_1d"].to_list() == [1.0, None, 2.0]
    assert found["payment_id"].to_list() == ["p0", None, "p2"]
    assert found["event_time"][2] == datetime.fromtimestamp(START_MS / 1000 + 2, UTC)


def container(folder: Path, schema: dict[str, Any], records: list[dict[str, Any]]) -> Path:
    file = folder / "a.avro"
    with file.open("wb") as out:
        fastavro.writer(out, schema, records)
    return file


def test_an_avro_container_is_read_and_one_that_is_cut_or_of_another_schema_is_one_line(tmp_path: Path, run: Run) -> None:
    schema: Any = load_bound(tmp_path / "pipeline.py").schema.definition
    file = container(tmp_path, schema, [payment(number) for number in range(3)])
    assert build(run, "a.avro").code == 0
    assert built(tmp_path / "out")["customer_count_1d"].to_list() == [1, 1, 2]
    file.write_bytes(file.read_bytes()[:-20])
    cut_short = build(run, "a.avro", "--overwrite")
    assert (cut_short.code, cut_short.err.count("\n")) == (17, 1)
    assert "no sound Avro container" in cut_short.err
    container(tmp_path, {"type": "record", "name": "Other", "fields": [{"name": "x", "type": "int"}]}, [{"x": 1}])
    other = build(run, "a.avro", "--overwrite")
    assert (other.code, other.err.count("\n")) == (17, 1)
    assert "a.avro" in other.err
    assert len(other.err) < 400
    assert len(built(tmp_path / "out")) == 3


def test_columns_that_the_schema_does_not_know_go_with_their_rows(tmp_path: Path, run: Run) -> None:
    payments().with_columns(fraud=pl.Series([row % 2 for row in range(10)])).write_parquet(tmp_path / "a.parquet")
    assert build(run, "a.parquet").code == 0
    assert built(tmp_path / "out")["fraud"].to_list() == [row % 2 for row in range(10)]


def corrupt(file: Path) -> Any:
    octets = bytearray(file.read_bytes())
    middle = slice(40, len(octets) // 2)
    octets[middle] = bytes(len(octets[middle]))
    file.write_bytes(bytes(octets))


def cut(file: Path) -> Any:
    file.write_bytes(file.read_bytes()[:-20])


def line(file: Path, number: int, text: str) -> Any:
    lines = file.read_text().splitlines()
    lines[number] = text
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("make", "source", "words"),
    [
        (lambda folder: None, "a.parquet", "a.parquet is missing"),
        (lambda folder: (folder / "in").mkdir(), "in", "nothing at in; wanted a file that ends in .parquet or"),
        (lambda folder: None, "x*.csv", "nothing at x*.csv; wanted a file of such a name"),
        (lambda folder: (folder / "a.parquet").touch(), "a.parquet", "a.parquet is empty"),
        (lambda folder: (folder / "a.csv").touch(), "a.csv", "a.csv is empty"),
        (lambda folder: (folder / "a.jsonl").touch(), "a.jsonl", "a.jsonl is empty"),
        (lambda folder: (folder / "a.xlsx").touch(), "a.xlsx", "a.xlsx: .xlsx suffix; wanted one of .parquet, .csv"),
        (lambda folder: payments()[:0].write_parquet(folder / "a.parquet"), "a.parquet", "the history holds no events"),
        (lambda folder: (folder / "a.parquet").write_bytes(b"PAR1 no"), "a.parquet", "a.parquet is no sound Parquet file: "),
        (lambda folder: (payments().write_parquet(folder / "a.parquet"), cut(folder / "a.parquet")), "a.parquet", "a.parquet is no sound"),
        (
            lambda folder: (payments(3000).write_parquet(folder / "a.parquet"), corrupt(folder / "a.parquet")),
            "a.parquet",
            "a.parquet is broken after 0 rows: ",
        ),
        (lambda folder: payments().drop("amount").write_parquet(folder / "a.parquet"), "a.parquet", "a.parquet has no column 'amount'; it"),
        (
            lambda folder: payments().with_columns(pl.col("amount").cast(pl.String)).write_parquet(folder / "a.parquet"),
            "a.parquet",
            "a.parquet: column 'amount' is of type large_string, wanted double",
        ),
        (
            lambda folder: (payments().write_csv(folder / "a.csv"), line(folder / "a.csv", 3, "p2,2023-11-14T22:13:22Z,c0,t,many,EUR")),
            "a.csv",
            "a.csv, row 2: amount is 'many', wanted double",
        ),
        (
            lambda folder: (payments().write_csv(folder / "a.csv"), line(folder / "a.csv", 3, "p2,c0,t")),
            "a.csv",
            "a.csv is no sound CSV file: CSV parse error",
        ),
        (
            lambda folder: (
                payments().with_columns(pl.col("event_time").dt.epoch("ms")).write_csv(folder / "a.csv"),
                line(folder / "a.csv", 5, "p4,noon,c0,t,1.0,EUR"),
            ),
            "a.csv",
            "a.csv, row 0: event_time is '1700000000000', wanted long (timestamp-millis)",
        ),
        (
            lambda folder: payments().with_columns(pl.col("event_time").dt.replace_time_zone(None)).write_parquet(folder / "a.parquet"),
            "a.parquet",
            "event_time holds times without a time zone; wanted times with one",
        ),
        (
            lambda folder: (
                payments().write_parquet(folder / "a.parquet"),
                payments().drop("currency").write_parquet(folder / "b.parquet"),
            ),
            "*.parquet",
            "b.parquet lacks currency; wanted the columns of a.parquet",
        ),
        (
            lambda folder: (payments().write_parquet(folder / "a.parquet"), payments().write_csv(folder / "b.csv")),
            ".",
            "files of several kinds (.csv, .parquet); wanted one",
        ),
        (
            lambda folder: payments().with_columns(source_offset=1).write_parquet(folder / "a.parquet"),
            "a.parquet",
            "the history has a column 'source_offset'",
        ),
    ],
)  # fmt: skip
def test_a_history_that_cannot_be_read_is_one_line_and_leaves_nothing(tmp_path: Path, run: Run, make: Any, source: str, words: str) -> None:
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = build(run, source)
    assert (done.code, done.out) == (17, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith("millrace: ")
    assert words in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_fault_late_in_the_files_leaves_nothing_either(tmp_path: Path, run: Run) -> None:
    payments().write_parquet(tmp_path / "a.parquet")
    payments().with_columns(pl.when(pl.col("payment_id") == "p7").then(None).otherwise("amount").alias("amount")).write_parquet(
        tmp_path / "b.parquet"
    )
    done = build(run, "*.parquet", "--rows-per-file", 3)
    assert done.code == 17
    assert "b.parquet, row 7: amount is null, wanted double" in done.err
    assert [file.name for file in tmp_path.iterdir() if "out" in file.name] == []


def test_features_that_are_there_are_replaced_only_when_told_so_and_never_by_a_failure(tmp_path: Path, run: Run) -> None:
    payments().write_parquet(tmp_path / "a.parquet")
    build(run, "a.parquet")
    first = digests(tmp_path / "out")
    again = build(run, "a.parquet")
    assert again.code == 17
    assert "out is there already; wanted a new folder, or --overwrite" in again.err
    assert build(run, "missing.parquet", "--overwrite").code == 17
    assert digests(tmp_path / "out") == first
    payments(3).write_parquet(tmp_path / "a.parquet")
    assert build(run, "a.parquet", "--overwrite").code == 0
    assert len(built(tmp_path / "out")) == 3
    assert sorted(file.name for file in tmp_path.iterdir() if "out" in file.name) == ["out"]


def test_a_folder_of_somebody_elses_is_never_replaced(tmp_path: Path, run: Run) -> None:
    payments().write_parquet(tmp_path / "a.parquet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    done = build(run, "a.parquet", "--overwrite")
    assert done.code == 17
    assert "holds no features of ours" in done.err
    assert (tmp_path / "out/thesis.txt").read_text() == "mine"


def test_an_event_that_comes_twice_counts_twice_unless_ids_are_to_be_unique(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = pl.concat([payments(6), payments(1)])
    twice.write_parquet(tmp_path / "a.parquet")
    assert build(run, "a.parquet").facts["events"] == 7
    assert built(tmp_path / "out")["customer_count_1d"].to_list() == [1, 1, 2, None, 3, 2, 2]
    monkeypatch.setattr("streams.offline.history.TURN_ROWS", 1)
    done = build(run, "a.parquet", "--unique-ids", "--overwrite")
    assert done.code == 17
    assert "a.parquet[0]@6: event id 'p0' came before" in done.err
    payments(6).write_parquet(tmp_path / "a.parquet")
    assert build(run, "a.parquet", "--unique-ids", "--overwrite").code == 0


def test_more_keys_than_memory_is_one_line(tmp_path: Path, run: Run) -> None:
    many = payments(1).select(pl.exclude("customer_id")).join(pl.DataFrame({"customer_id": [f"c{n}" for n in range(20_000)]}), how="cross")
    many.write_parquet(tmp_path / "a.parquet")
    done = build(run, "a.parquet", "--state-memory", 1)
    assert done.code == 17
    assert done.err.count("\n") == 1
    assert "more keys than memory" in done.err
    assert "20000 of customer" in done.err


def test_times_of_a_zone_are_read_in_it(tmp_path: Path, run: Run) -> None:
    paris = payments().with_columns(pl.col("event_time").dt.convert_time_zone("Europe/Paris").dt.replace_time_zone(None))
    paris.write_csv(tmp_path / "a.csv")
    assert build(run, "a.csv", "--time-zone", "Europe/Paris").code == 0
    wanted = load_bound(tmp_path / "pipeline.py").transform(payments())
    assert built(tmp_path / "out").select(FEATURES).equals(wanted.select(FEATURES))


def send(broker: Broker, topic: str, bound: Bound, numbers: range, partitions: int) -> None:
    """Payments to a topic, each at its own time, placed by their customer."""
    producer = plain_producer(broker.settings)
    for number in numbers:
        one = payment(number)
        columns: dict[str, Column] = {
            name: PackedBytes.pack([one[name].encode()]) for name in ("payment_id", "customer_id", "terminal_id", "currency")
        }
        columns |= {"event_time": np.array([one["event_time"]]), "amount": np.array([one["amount"]])}
        value = Encoder(bound.schema, "confluent", 1).encode(columns)[0]
        partition = int(one["customer_id"][1:]) % partitions
        producer.produce(topic, value, one["customer_id"], partition, timestamp=one["event_time"])
    assert producer.flush(10) == 0


@pytest.mark.broker
def test_a_topic_is_read_partition_by_partition_and_from_a_time_with_full_windows(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    bound = load_bound(tmp_path / "pipeline.py")
    (tmp_path / "1-payments-value.avsc").write_text(json.dumps(bound.schema.definition))
    whole = bound.transform(payments(20).with_columns(amount=pl.Series([float(n) for n in range(20)])))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    topic = broker.topic("payments", 2, retention_ms="-1")
    send(broker, topic, bound, range(20), partitions=2)

    assert build(run, f"kafka:{topic}").facts["events"] == 20
    found = built(tmp_path / "out")
    assert found["payment_id"].to_list() == [f"p{n}" for n in (*range(0, 20, 2), *range(1, 20, 2))]
    assert found.sort("event_time").select(FEATURES).equals(whole.select(FEATURES))
    said = json.loads((tmp_path / "out/_features.json").read_text())
    assert said["source"] == {"topic": topic, "partitions": {"0": [0, 10], "1": [0, 10]}}
    assert [part["file"] for part in said["parts"]] == [f"source_partition={p}/part-00000.parquet" for p in (0, 1)]

    since = datetime.fromtimestamp(START_MS / 1000, UTC) + timedelta(seconds=11)
    for start, first in ((since.isoformat(), 11), ("6", 12)):
        assert build(run, f"kafka:{topic}", "--start", start, "--end", 9, "--overwrite").facts["events"] == 18 - first
        part = built(tmp_path / "out").sort("event_time")
        assert part["payment_id"].to_list() == [f"p{n}" for n in range(first, 18)]
        assert part.select(FEATURES).equals(whole[first:18].select(FEATURES))


def test_a_topic_with_the_events_of_an_entity_in_several_partitions_is_refused(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pipeline(tmp_path, {'Entity("customer", key="customer_id"': 'Entity("customer", key="terminal_id"'})
    with embedded_broker({"payments": 2}) as address:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", address)
        done = build(run, "kafka:payments")
    assert done.code == 17
    assert "topic payments has 2 partitions keyed by 'customer_id': the events of customer lie in several" in done.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--start", "soon"], "'soon' is neither an offset nor a time"),
        (["--start", "2026-01-01T00:00:00"], "'2026-01-01T00:00:00' has no time zone; wanted one at its end"),
    ],
)
def test_an_edge_that_is_none_is_refused(run: Run, more: list[str], words: str) -> None:
    done = build(run, "kafka:payments", *more)
    assert (done.code, done.err.count("\n")) == (13, 1)
    assert words in done.err


def test_dictionary_columns_and_large_rows_keep_their_kind(tmp_path: Path, run: Run) -> None:
    table = payments().to_arrow()
    table = table.set_column(table.column_names.index("currency"), "currency", table["currency"].dictionary_encode())
    pq.write_table(table, tmp_path / "a.parquet")
    assert build(run, "a.parquet").code == 0
    found = pq.read_table(tmp_path / "out/source_partition=0/part-00000.parquet", partitioning=None)
    assert pa.types.is_dictionary(found.schema.field("currency").type)
