"""The frame of the peers: what is counted, compared and timed, and that each peer's folder is complete."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.peers import measure
from benchmarks.peers.__main__ import BAD_INPUT, _prepare, main
from benchmarks.peers.answers import answers_of, scored_schema
from benchmarks.peers.arguments import parse
from benchmarks.peers.arithmetic import Sample, drained, latencies_ms, missing_and_twice
from benchmarks.peers.definition import FEATURES, LATE, ON_TIME, TOO_LATE, compare, slow_features
from benchmarks.peers.environment import NoProgram, environment_folder, is_built
from benchmarks.peers.events import DAY_MS, LATENESS_MS, PER_CUSTOMER, WINDOWS_DAYS, Log, Payments, number_of
from benchmarks.peers.measure import Job, Measured, run_row
from benchmarks.peers.model import write_model
from benchmarks.peers.peer import MANIFEST, Build, Peer, PeerError, choose, find_peers, read_peer
from benchmarks.peers.peer_process import PeerProcess
from benchmarks.peers.result import as_result, keep, table
from benchmarks.peers.stand import Stand, stand_on
from benchmarks.peers.user_code import java_lines, python_lines
from schemas.avro import write_value
from schemas.columns import Ints, PackedBytes
from streams.definition.load import load_bound
from streams.local.services import Services
from streams.scored_event import output_schema
from tests.oracles import windows as oracle
from tests.redis_server import RedisServer
from transforms.aggregate import Count, Mean
from transforms.fixed_point import FixedPoint
from transforms.window import Window, days

PEERS = find_peers()
BY_NAME = {peer.folder.name: peer for peer in PEERS}


# The log


@given(st.integers(0, 25_000), st.integers(0, 25_000), st.integers(0, 25_000))
@settings(max_examples=20, deadline=None)
def test_a_stretch_of_the_log_is_the_same_however_it_is_asked_for(first: int, second: int, third: int) -> None:
    first, second, third = sorted((first, second, third))
    log = Log(customers=50)
    whole, part = log.rows(first, third), log.rows(second, third)
    for name in Payments.__slots__:
        assert np.array_equal(getattr(whole, name)[second - first :], getattr(part, name))


def test_after_the_history_windows_are_full_and_some_payments_are_late() -> None:
    log = Log(customers=20)
    payments = log.rows(0, 3 * log.history)
    counts, timings = [], []
    for customer in range(log.customers):
        rows = np.flatnonzero(payments.customer == customer)
        features, timing = slow_features(payments.event_ms[rows], payments.cents[rows])
        counts.append(features[payments.number[rows] >= log.history][:, 4])
        timings.append(timing)
    assert abs(np.concatenate(counts).mean() / PER_CUSTOMER - 1) < 0.1
    shares = np.bincount(np.concatenate(timings), minlength=3) / len(payments)
    assert 0.005 < shares[LATE] < 0.03
    assert 0.0005 < shares[TOO_LATE] < 0.01


def test_an_id_says_where_its_payment_stands() -> None:
    payments = Log(customers=10).rows(9_998, 10_003)
    ids = payments.columns()["payment_id"]
    assert isinstance(ids, PackedBytes)
    assert [number_of(name) for name in ids] == [9_998, 9_999, 10_000, 10_001, 10_002]
    assert len(payments.values()) == 5
    assert payments.values()[0][:5] == b"\x00\x00\x00\x00\x01"


# The definition


@given(st.lists(st.tuples(st.integers(0, 140), st.integers(1, 10_000)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_slow_features_are_those_of_the_projects_own_definition(log: list[tuple[int, int]]) -> None:
    # Quarters of days, so that payments stand on the windows' edges and the lateness' too.
    amount = FixedPoint("amount", scale=100, largest=50_000)
    windows = tuple(Window(days(n)) for n in WINDOWS_DAYS)
    past = oracle.Past(windows, LATENESS_MS)
    event_ms, cents = np.array([quarter * DAY_MS // 4 for quarter, _ in log], np.int64), np.array([v for _, v in log], np.int64)
    features, timing = slow_features(event_ms, cents)
    for row, (t, value) in enumerate(zip(event_ms.tolist(), cents.tolist(), strict=True)):
        wanted_timing, seen = past.look(t, (value,))
        wanted = [
            oracle.feature(aggregate, window, each[0], value)
            for window, each in zip(windows, seen, strict=True)
            for aggregate in (Count(), Mean(amount))
        ]
        assert features[row].tolist() == wanted
        assert timing[row] == wanted_timing


def _payments(event_ms: list[int]) -> Payments:
    count = len(event_ms)
    return Payments(np.arange(count), np.zeros(count, np.int64), np.array(event_ms), np.full(count, 100))


def test_answers_that_differ_are_counted_by_how_late_the_payment_was() -> None:
    payments = _payments([10 * DAY_MS, 10 * DAY_MS + 5, 10 * DAY_MS + 1, 8 * DAY_MS, 10 * DAY_MS + 9])
    right, timing = slow_features(payments.event_ms, payments.cents)
    assert timing.tolist() == [ON_TIME, ON_TIME, LATE, TOO_LATE, ON_TIME]
    everyone = np.zeros(1, np.int64)
    assert compare(payments, right, everyone).as_json() == {
        "share": 1.0,
        "to_the_bit": 1.0,
        "checked": 5,
        "differs": {"on_time": 0, "late": 0, "too_late": 0},
    }
    found = right.copy()
    found[0, 1] = np.nextafter(found[0, 1], 9)  # right, though not to the bit
    found[2, 0] += 1
    found[3, 5] *= 1.001
    found[4] = np.nan  # no answer: not compared
    said = compare(payments, found, everyone)
    assert (said.checked, said.right, said.to_the_bit) == (4, 2, 1)
    assert said.differs == {"on_time": 0, "late": 1, "too_late": 1}


def _scored(name: str, features: list[float], score: float) -> bytes:
    record = dict(zip(FEATURES, features, strict=True), event_id=name, score=score)
    return b"\x00\x00\x00\x00\x02" + write_value(record, scored_schema().parsed)


def test_answers_are_read_by_their_schema() -> None:
    values = [_scored("p-000000000007", [1, 2.5, 3, 4.5, 5, 6.5], 0.25), _scored("p-000000000003", [6, 5, 4, 3, 2, 1], 0.5)]
    found = answers_of(values, np.array([10.0, 11.0]), scored_schema())
    assert found.number.tolist() == [7, 3]
    assert found.features.tolist() == [[1, 2.5, 3, 4.5, 5, 6.5], [6, 5, 4, 3, 2, 1]]
    assert found.score.tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (_scored("card-7", [0] * 6, 0.5), "names no payment"),
        (_scored("p-000000000001", [0] * 6, 0.5)[:-2], "1 of its 1 answers are not of the schema"),
    ],
)
def test_answers_that_cannot_be_read_are_the_peers_trouble(value: bytes, words: str) -> None:
    with pytest.raises(PeerError, match=words):
        answers_of([value], np.array([10.0]), scored_schema())


# Figures


def _samples(steps: list[tuple[float, int]], cpu_a_second: float = 0.5) -> list[Sample]:
    return [Sample(at, count, cpu_a_second * at, 0.25 * at, 0.1 * at) for at, count in steps]


def test_a_drain_counts_from_the_end_of_the_history_to_the_last_answer() -> None:
    steady = drained(_samples([(at / 10, 100 * at) for at in range(101)] + [(15.0, 10_000)]), history=2_000)
    assert steady is not None
    assert steady.events == 8_000
    assert steady.events_per_s == pytest.approx(1_000)
    assert steady.cpu_us_per_event == pytest.approx(500)
    assert steady.kafka_cpu_us_per_event == pytest.approx(250)
    assert steady.redis_cpu_us_per_event == pytest.approx(100)


@pytest.mark.parametrize("phase", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_lumps_are_cut_where_one_has_passed_wherever_the_history_ends_in_them(phase: int) -> None:
    # A lump of 1,000 each second, read in ten parts within 0.1 s.
    steps = [(second + part / 100, 1_000 * second + 100 * part) for second in range(20) for part in range(1, 11)]
    found = drained(_samples(steps), history=2_000 + 100 * phase)
    assert found is not None
    assert found.events_per_s == pytest.approx(1_000)
    assert found.events % 1_000 == 0


def test_without_answers_after_the_history_there_is_no_figure() -> None:
    assert drained([], 100) is None
    assert drained(_samples([(1.0, 50), (2.0, 99)]), 100) is None
    assert drained(_samples([(1.0, 50), (2.0, 150)]), 100) is None


def test_latency_runs_from_when_a_payment_was_due_and_the_first_fifth_is_cut() -> None:
    # Ten payments from number 100 on, ten a second; all are seen together, 2 s after the first was due.
    numbers: Ints = np.array([99, 109, 108, 107, 106, 105, 104, 103, 102, 101, 100, 110])
    latency = latencies_ms(numbers, np.full(12, 52.0), first=100, count=10, begin=50.0, rate=10.0)
    assert latency.tolist() == pytest.approx([1_100, 1_200, 1_300, 1_400, 1_500, 1_600, 1_700, 1_800])


def test_missing_answers_and_second_ones_are_counted() -> None:
    assert missing_and_twice(np.array([0, 1, 3, 3, 3]), sent=5) == (2, 2)
    assert missing_and_twice(np.empty(0, np.int64), sent=3) == (3, 0)


# Lines of user code


def test_python_lines_are_those_with_a_word_outside_comments_and_docstrings() -> None:
    text = '''"""A module's docstring,
of two lines."""

import os  # counts

# Does not.
def f(
    a,
    b="""two
lines""",
):
    """Not this."""
    return [
        a,  # nor the brackets' own lines
    ]


class C:
    """Nor this."""

    x = "# this does"
'''
    assert python_lines(text) == 9  # import, def, a, b, its second line, return, a, class, x


def test_java_lines_are_those_with_a_word_outside_comments() -> None:
    text = """// no
package a;

/** No,
 * no. */
class A {
    String s = "/*"; // and its comment not
    String t = "\\"*/";
    char c = '"'; /* no */
    int f() {
        return 1; /* a
        comment */ }
}
"""
    assert java_lines(text) == 7


# The folders


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.folder.name)
def test_a_peers_folder_is_complete(peer: Peer) -> None:
    assert len((peer.folder / "README.md").read_text().split()) > 40
    if peer.language == "java":
        assert peer.build is not None
        return
    for name in peer.code:
        ast.parse((peer.folder / name).read_text())
    assert all(row.command[0] == "{python}" for row in peer.rows)
    programs = {word.replace("{folder}", str(peer.folder)) for row in peer.rows for word in row.command if word.endswith(".py")}
    assert programs
    assert all(Path(program).is_file() for program in programs)
    if peer.requirements is not None:
        lines = peer.requirements.read_text().splitlines()
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
        assert f"{peer.library}=={peer.version}" in lines


def test_all_python_peers_call_the_model_in_the_same_runtime() -> None:
    pins = [line for peer in PEERS if peer.requirements for line in peer.requirements.read_text().splitlines() if "onnxruntime" in line]
    assert len(pins) >= 4
    assert len(set(pins)) == 1


def test_millrace_comes_first_and_names_choose_rows_or_folders() -> None:
    assert PEERS[0].library == "millrace"
    assert [row.name for _, row in choose(PEERS, ["quix"])] == ["quix-at-least-once", "quix-exactly-once"]
    assert [row.name for _, row in choose(PEERS, ["quix-exactly-once", "millrace"])] == ["millrace", "quix-exactly-once"]
    with pytest.raises(PeerError, match="no peer is named spark; there are millrace, "):
        choose(PEERS, ["spark"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('guarantee = "at_least_once"', 'guarantee = "always"'), "guarantee is 'always', wanted one of"),
        (('language = "python"', ""), "lacks ['language']"),
        (("events = ", 'extra = "1"\nevents = '), "unknown ['extra']"),
        (('code = ["app.py"]', 'code = ["other.py"]'), "code names other.py"),
        (("[[row]]", "[row"), "can't be read"),
    ],
)
def test_a_wrong_description_is_told_by_file_and_entry(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    text = (BY_NAME["faust"].folder / MANIFEST).read_text()
    assert text.count(change[0]) == 1
    (tmp_path / MANIFEST).write_text(text.replace(*change))
    (tmp_path / "app.py").write_text("")
    with pytest.raises(PeerError, match=re.escape(words)) as found:
        read_peer(tmp_path)
    assert str(tmp_path / MANIFEST) in str(found.value)


def test_an_environment_is_kept_for_each_content_of_its_requirements(tmp_path: Path) -> None:
    requirements = tmp_path / "faust" / "requirements.txt"
    requirements.parent.mkdir()
    requirements.write_text("a==1\n")
    environment = {"MILLRACE_CACHE_DIR": str(tmp_path / "cache")}
    first = environment_folder(requirements, environment)
    assert first.parent == tmp_path / "cache" / "peers"
    assert environment_folder(requirements, environment) == first
    requirements.write_text("a==2\n")
    assert environment_folder(requirements, environment) != first


def test_a_build_is_made_again_when_an_input_is_newer(tmp_path: Path) -> None:
    build = Build(("true",), ("pom.xml", "src"), "target/a.jar")
    assert not is_built(tmp_path, build)
    for number, name in enumerate(("pom.xml", "src/deep/A.java", "target/a.jar")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (number, number))
    assert is_built(tmp_path, build)
    os.utime(tmp_path / "src/deep/A.java", (9, 9))
    assert not is_built(tmp_path, build)


def test_a_peer_that_needs_a_program_is_left_out_of_all_but_not_when_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = replace(BY_NAME["millrace"], folder=tmp_path, build=Build(("no-such-maven", "package"), (), "a.jar"))
    assert _prepare([(peer, peer.rows[0])], named=False) == ([], 0)
    assert "no-such-maven, which is not on PATH" in capsys.readouterr().err
    with pytest.raises(NoProgram):
        _prepare([(peer, peer.rows[0])], named=True)
    broken = replace(peer, build=Build((sys.executable, "-c", "raise SystemExit('no jar')"), (), "a.jar"))
    assert _prepare([(broken, peer.rows[0])], named=False) == ([], 1)
    assert "no jar" in capsys.readouterr().err


# A peer's process


def test_a_process_that_ends_by_itself_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    process = PeerProcess([sys.executable, "-c", "print('out of cheese'); raise SystemExit(3)"], tmp_path / "log", {}, tmp_path)
    with pytest.raises(PeerError, match="it ended with 3; its log ends with:\nout of cheese"):
        _until_it_raises(process)


def test_the_cpu_and_the_memory_of_children_count_and_they_end_too(tmp_path: Path) -> None:
    child = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint('done', flush=True)\ntime.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = PeerProcess([sys.executable, "-c", parent], tmp_path / "log", {}, tmp_path)
    try:
        deadline = time.monotonic() + 30
        while process.cpu_seconds() < 0.2:
            assert time.monotonic() < deadline, process.tail()
            time.sleep(0.05)
        (inner,) = process._children()
        assert process.rss_bytes() > inner.memory_info().rss
    finally:
        process.stop()
    inner.wait(10)
    assert not inner.is_running()


def _until_it_raises(process: PeerProcess) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        process.check()
        time.sleep(0.02)


# Results


def test_a_result_has_every_field_and_says_how_far_it_is_from_millrace(tmp_path: Path) -> None:
    peer = BY_NAME["faust"]
    drain = drained(_samples([(at / 10, 100 * at) for at in range(101)]), history=2_000)
    measured = Measured(drain=drain, notes=["interrupted"])
    beside = Measured(drain=None if drain is None else replace(drain, events_per_s=50_000.0, cpu_us_per_event=10.0))
    result = as_result(peer, peer.rows[0], measured, beside, {"events": 8_000, "seconds": 5.0})
    assert result["beside_millrace"] == {"events_per_s": 50_000.0, "cpu_us_per_event": 10.0, "cpu_times": 50.0, "speed_times": 50.0}
    assert result["lines_of_user_code"] == python_lines((peer.folder / "app.py").read_text())
    assert result["command"] == "python -m benchmarks.peers faust --events 8000 --seconds 5"
    assert result["complete"] is False
    assert result["features_right"] is None
    assert result["p99_ms"] == {"at_1000": None, "at_half_best": None}
    path = keep(result, tmp_path)
    assert re.fullmatch(r"peers-faust-\d{4}-\d\d-\d\dT\d{4}\.json", path.name)
    assert json.loads(path.read_text())["notes"] == ["interrupted"]
    assert [line.split()[0] for line in table([result]).splitlines()] == ["peer", "faust"]
    assert "faust (incomplete)" in table([result])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["spark"], "no peer is named spark"),
        (["--events", "5"], "--events 5: wanted 1,000 at least"),
        (["--seconds", "1"], "--seconds 1: wanted 3 at least, or 0"),
        (["--customers", "2"], "--customers 2: wanted 10"),
    ],
)
def test_a_bad_command_line_is_one_line_and_exit_code_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == BAD_INPUT
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


def test_rows_are_listed_without_starting_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--json", "bytewax"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "bytewax"
    assert row["version"] == BY_NAME["bytewax"].version


def test_a_peer_takes_the_command_line_of_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    places = ("bootstrap-servers", "redis-url", "input", "output", "model", "group", "schemas", "state-dir")
    monkeypatch.setattr(sys, "argv", ["app.py", *(word for name in places for word in (f"--{name}", name)), "--guarantee", "exactly_once"])
    given = parse()
    assert (given.bootstrap_servers, given.state_dir, given.guarantee) == ("bootstrap-servers", "state-dir", "exactly_once")


@pytest.mark.parametrize(
    ("trouble", "interrupted", "note"),
    [(KeyboardInterrupt(), True, "interrupted"), (PeerError("no answer for 60 s"), False, "no answer for 60 s")],
)
def test_a_run_that_breaks_off_keeps_what_it_measured_and_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: BaseException, interrupted: bool, note: str
) -> None:
    def all_of_it(run: measure._Run, events: int, seconds: float) -> None:
        run.measured.start_s = 1.5
        raise trouble

    monkeypatch.setattr(measure._Run, "all", all_of_it)
    (peer, row), *_ = choose(PEERS, ["confluent"])
    nowhere = Stand(tmp_path, "127.0.0.1:1", "redis://127.0.0.1:1/0", psutil.Process(), psutil.Process())
    measured = run_row(nowhere, Job(Log(), tmp_path, scored_schema()), peer, row, Path(sys.executable), events=1_000, seconds=0)
    assert (measured.complete, measured.interrupted, measured.notes, measured.start_s) == (False, interrupted, [note], 1.5)


def test_millraces_own_row_runs_and_is_right(services: Services, server: RedisServer, tmp_path: Path) -> None:
    (peer, row), *_ = choose(PEERS, ["millrace"])
    bound = load_bound(peer.folder / "pipeline.py")
    log = Log(customers=10)
    write_model(tmp_path / "model.onnx", log, bound)
    where = replace(stand_on(services, tmp_path), redis_url=f"{server.url}?db=9")
    measured = run_row(
        where, Job(log, tmp_path / "model.onnx", output_schema(bound)), peer, row, Path(sys.executable), events=1_000, seconds=0
    )
    assert measured.complete, measured.notes
    assert measured.features is not None
    assert measured.features.checked > 100
    assert measured.features.to_the_bit == measured.features.checked
    assert (measured.scores_right, measured.missing, measured.twice) == (1.0, 0, 0)
    with redis.Redis.from_url(where.redis_url) as connection:
        assert connection.dbsize() == 0  # nothing is left for the next peer
