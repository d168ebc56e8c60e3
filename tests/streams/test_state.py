"""State's files and the log's reach, without a broker: what fits, what doesn't, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import SettingsError, StateError
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.kafka import Consumer, TopicFacts, TopicPartition
from streams.log_reach import shortfall
from streams.planning.stage import stages
from streams.recovery import Log
from streams.settings import Settings
from streams.state.namespaces import drop_state, list_words
from streams.state.places import Place, refuse_held
from streams.state.rebuild import Snapshot, check_fits, choose, lacking, rebuild_words
from streams.state.snapshot import FORMAT, snapshot_words
from tests.streams.command_line import Run, runner
from tests.streams.payment import write_pipeline
from transforms.archive import ShardFacts

HERE = TopicPartition("payments", 0)


@pytest.fixture
def millrace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command line in a folder of its own."""
    return runner(tmp_path, monkeypatch, capsys)


def bound_with(tmp_path: Path, windows: str = "Window(days(7))", changes: Mapping[str, str] | None = None) -> Bound:
    return load_bound(write_pipeline(tmp_path, {"windows=(Window(days(1)),)": f"windows=({windows},)", **(changes or {})}))


def place_of(bound: Bound, partitions: int = 1) -> Place:
    (stage,) = stages(bound, partitions)
    return Place(stage, TopicFacts("payments", partitions, {}))


def snapshot_of(bound: Bound, **changes: Any) -> Snapshot:
    place = place_of(bound)
    note = {
        "format": FORMAT,
        "topic": "payments",
        "partition": 0,
        "partitions": 1,
        "position": 100,
        "complete_at": 120,
        "state_fingerprint": place.stage.state_fingerprint,
        "state": bound.describe_state(place.stage.entities),
    }
    return Snapshot(Path("folder/score-0.parquet"), {**note, **changes})


# --- which snapshot ---


def test_a_snapshot_of_the_same_state_is_chosen(tmp_path: Path) -> None:
    bound = bound_with(tmp_path)
    other, good = snapshot_of(bound, partition=1), snapshot_of(bound)
    assert choose([other, good], bound.describe_state(bound.pipeline.entities), place_of(bound), 0) is good


@pytest.mark.parametrize(
    ("before", "after", "serves"),
    [
        ("Window(days(7))", "Window(days(7)), Window(days(3))", True),
        ("Window(days(7)), Window(days(3))", "Window(days(3))", True),
        ("Window(days(7))", "Window(days(8))", False),
        ("Window(days(7), delay_ms=days(1))", "Window(days(8))", True),
        ("Window(days(8))", "Window(days(7), delay_ms=days(1), grid_ms=hours(1))", False),  # its end lies up to an hour further back
    ],
)
def test_a_state_serves_another_definition_that_looks_back_no_further(tmp_path: Path, before: str, after: str, serves: bool) -> None:
    old, new = (bound_with(tmp_path, windows) for windows in (before, after))
    state, wanted = (each.describe_state(each.pipeline.entities) for each in (old, new))
    assert lacking(state, wanted) == ([] if serves else ["customer"])


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("lateness_ms=hours(1)", "lateness_ms=hours(2)", ["customer"]),
        ('Entity("customer", key="customer_id"', 'Entity("customer", key="terminal_id"', ["customer"]),
        ("scale=100", "scale=10", ["customer"]),
        ('Entity("customer"', 'Entity("buyer"', ["buyer"]),
    ],
)
def test_a_state_of_other_records_serves_nobody(tmp_path: Path, old: str, new: str, what: list[str]) -> None:
    before, after = bound_with(tmp_path), bound_with(tmp_path, changes={old: new})
    assert lacking(before.describe_state(before.pipeline.entities), after.describe_state(after.pipeline.entities)) == what


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partition": 1}, r"no snapshot of payments\[0\] in folder; there are files of payments\[1\]"),
        ({"topic": "orders"}, r"there are files of orders\[0\]"),
        ({"format": FORMAT + 1}, "another version's"),
        ({"partitions": 4}, "had 4 partitions, and it has 1"),
    ],
)
def test_a_file_that_is_not_of_this_partition_is_refused(tmp_path: Path, changes: Mapping[str, Any], words: str) -> None:
    bound = bound_with(tmp_path)
    with pytest.raises(StateError, match=words):
        choose([snapshot_of(bound, **changes)], bound.describe_state(bound.pipeline.entities), place_of(bound), 0)


def test_another_fingerprint_is_refused_by_name(tmp_path: Path) -> None:
    old, new = bound_with(tmp_path), bound_with(tmp_path, "Window(days(8))")
    place = place_of(new)
    with pytest.raises(StateError, match="holds another state") as refused:
        choose([snapshot_of(old)], new.describe_state(new.pipeline.entities), place, 0)
    for fingerprint in (place_of(old).stage.state_fingerprint, place.stage.state_fingerprint):
        assert fingerprint[:8] in str(refused.value)
    assert "customer" in str(refused.value)


@pytest.mark.parametrize(
    ("log", "committed", "words"),
    [
        (Log(0, 500), 120, None),
        (Log(100, 500), 120, None),
        (Log(0, 500), 119, "goes up to 120, ahead of the committed offset 119"),
        (Log(101, 500), 120, "stands at 100, but the log of payments.* begins at 101"),
    ],
)
def test_snapshot_log_and_offset_must_leave_no_gap(tmp_path: Path, log: Log, committed: int, words: str | None) -> None:
    made = snapshot_of(bound_with(tmp_path))
    if words is None:
        check_fits(made, log, committed, "payments[0]")
        return
    with pytest.raises(StateError, match=words):
        check_fits(made, log, committed, "payments[0]")


def test_a_snapshot_that_stands_at_the_committed_offset_needs_no_log(tmp_path: Path) -> None:
    made = snapshot_of(bound_with(tmp_path), complete_at=100)
    check_fits(made, Log(400, 500), 100, "payments[0]")


# --- the log's reach ---


class Records:
    """A reader of a partition whose records have these timestamps, by offset; what is not there was deleted, or is yet to come."""

    def __init__(self, stamps_ms: Mapping[int, int]) -> None:
        self._stamps_ms = dict(stamps_ms)
        self._at = 0

    def assign(self, places: list[TopicPartition]) -> None:
        self._at = places[0].offset

    def poll(self, seconds: float) -> Any:
        return _Message(next((ms for offset, ms in sorted(self._stamps_ms.items()) if offset >= self._at), None))


class _Message:
    def __init__(self, stamp_ms: int | None) -> None:
        self._stamp_ms = stamp_ms

    def error(self) -> Any:
        from streams.kafka import KafkaError

        return KafkaError(KafkaError._PARTITION_EOF) if self._stamp_ms is None else None

    def timestamp(self) -> tuple[int, int]:
        assert self._stamp_ms is not None
        return 2, self._stamp_ms


@pytest.mark.parametrize(
    ("first_ms", "next_ms", "is_short"),
    [(1_000, 1_700, True), (1_000, 1_999, True), (1_000, 2_000, False), (1_000, 9_000, False)],
)
def test_a_log_reaches_back_if_its_first_record_is_older_than_all_that_is_looked_at(first_ms: int, next_ms: int, is_short: bool) -> None:
    reader: Any = Records({40: first_ms, 90: next_ms})
    found = shortfall(reader, HERE, Log(40, 91), 90, 1_000)
    assert (found is not None) == is_short


def test_a_log_with_its_beginning_is_never_short() -> None:
    nobody: Any = None
    assert shortfall(nobody, HERE, Log(0, 10), 10, 10**9) is None


def test_a_state_without_windows_needs_no_log() -> None:
    nobody: Any = None
    assert shortfall(nobody, HERE, Log(5, 10), 10, 0) is None


def test_what_is_to_come_is_looked_at_from_now_on() -> None:
    reader: Any = Records({40: 1_000})
    assert shortfall(reader, HERE, Log(40, 50), 50, 1_000) is None  # 1970 is long ago
    gone: Consumer | Any = Records({})
    found = shortfall(gone, HERE, Log(50, 50), 50, 1_000)
    assert found is not None
    assert "nothing is left of it" in str(found)


def test_a_shortfall_says_where_the_log_begins_and_how_far_it_should_reach() -> None:
    reader: Any = Records({40: 86_400_000, 90: 2 * 86_400_000})
    said = str(shortfall(reader, HERE, Log(40, 91), 90, 3 * 86_400_000))
    assert said == (
        "the log begins at 40 (its first record came 1970-01-02 00:00:00+00:00), and the windows look back to 1969-12-31 00:00:00+00:00"
    )


# --- what is held, and what is said ---


def test_what_a_worker_holds_is_not_touched() -> None:
    refuse_held("p.score.00000000", (ShardFacts("0", 5, False, 1, 100),))
    with pytest.raises(StateError, match="holds partition 1, 3; stop it first"):
        refuse_held("p.score.00000000", tuple(ShardFacts(str(n), 5, n % 2 == 1, 1, 100) for n in range(4)))


def test_a_namespace_of_another_pipeline_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    bound = bound_with(tmp_path)
    for namespace in ("other.score.01234567", "payments2.score.01234567", "payments"):
        with pytest.raises(SettingsError, match="no namespace of pipeline 'payments'"):
            drop_state(bound, Settings(), namespace)


@pytest.mark.parametrize("arguments", [(), ("--from", "x", "--from-log")])
def test_a_rebuild_is_told_what_from(millrace: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert millrace("state", "rebuild", write_pipeline(tmp_path), *arguments).code == 2


def test_without_pyarrow_a_snapshot_says_what_to_install(millrace: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = millrace("state", "snapshot", write_pipeline(tmp_path), "--to", tmp_path / "to")
    assert (done.code, done.err.count("\n")) == (13, 1)
    assert "pip install" in done.err


def test_facts_are_told_in_lines() -> None:
    namespace = {"namespace": "p.score.01234567", "current": True, "keys": 3, "size_bytes": 4_000, "positions": {"0": 7, "1": None}}
    assert "p.score.01234567" in list_words({"pipeline": "p", "namespaces": [{**namespace, "held": ["1"]}]})
    assert "0@7, 1@-, a worker holds 1" in list_words({"pipeline": "p", "namespaces": [{**namespace, "held": ["1"]}]})
    assert list_words({"pipeline": "p", "namespaces": []}) == "no state of p in Redis"
    file = {"file": "score-0.parquet", "topic": "t", "partition": 0, "position": 5, "complete_at": 9, "keys": {"e": 2}, "size_bytes": 7}
    assert "t[0]@5, complete with the log up to 9: 2 e" in snapshot_words({"files": [file], "folder": "f"})
    done = {"stage": "score", "topic": "t", "partition": 0, "snapshot": None, "keys_loaded": 0, "replayed_from": 0, "position": 9}
    assert rebuild_words({"partitions": [done]}) == "score  t[0]: nothing, then the log 0..9; stands at 9"
