"""The page of results: what stands on it follows from the results, and from nothing else."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.__main__ import differing, page, write
from benchmarks.report.read import newest, read_results
from benchmarks.report.table import number, share, table, times
from benchmarks.result import NotWritten, circumstances, keep
from schemas.errors import Refused

CODEC = {"us_per_record": {"5000": {"decode_ratio": 46.5, "encode_ratio": 40.74, "decode": 0.079}}}
PEER = {
    "name": "kafka-streams-memory", "peer": "Kafka Streams", "version": "4.3.1", "guarantee": "exactly_once", "how": "memory store",
    "complete": True, "events_per_s": 51_234.5, "cpu_us_per_event": 25.25, "rss_mb": 812.4, "lines_of_user_code": 210,
    "p50_ms": {"at_1000": 101.0, "at_half_best": None}, "p99_ms": {"at_1000": 140.0, "at_half_best": None},
    "features_right": {"share": 0.99999, "to_the_bit": 1.0}, "beside_millrace": {"cpu_times": 2.9, "speed_times": 1.7},
    "cannot": ["too-late events are dropped."], "command": "python -m benchmarks.peers kafka-streams-memory",
}  # fmt: skip


LATENCY = {"p50_ms": 12.0, "p90_ms": 15.0, "p99_ms": 21.0, "p99.9_ms": 29.0, "max_ms": 1_250.0}


def load(**changes: Any) -> dict[str, Any]:
    run = {
        "rate": 10_000.0, "warm_up_seconds": 1.5, "invalid": [], "latency": LATENCY,
        "generator": {"late_p99_ms": 1.2}, "cores": {"worker": 0.5}, "cpu_us_per_event": {"worker": 50.0}, "rss_mb": {"worker": 300.0},
        "bottleneck": "no core is full: worker 0.50", "redis_bytes_per_event": 300.0, "redis_commands_per_event": 1.9,
        "kafka_log_bytes_per_event": {"payments": 110.0}, "us_per_event_by_step": {"score": 4.0}, "curve": [[50.0, 12.0], [99.0, 21.0]],
        "over_time": [{"second": 0.0, "events": 9, "p50_ms": 11.0, "p99_ms": 20.0, "max_ms": 30.0}], **changes,
    }  # fmt: skip
    traffic = {"keys": 10_000, "live": 60, "zipf": 1.0, "late_share": 0.02, "too_late_share": 0.0, "poison_share": 0.0}
    settings = {"traffic": traffic, "partitions": 1, "workers": 1, "generators": 1}
    answers = {"answered": 600_000, "letters": 0, "features": 12_345, "keys": 40}
    return {
        **circumstances("millrace bench load p.py"),
        "complete": True,
        "counts": not run["invalid"],
        "settings": settings,
        "run": run,
        "answers": answers,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "results"
    found.mkdir()
    return found


def put(folder: Path, name: str, data: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(data))


def made(folder: Path) -> str:
    return page(newest(read_results(folder)))


def test_ratios_come_first_then_peers_then_what_one_machine_came_to(folder: Path) -> None:
    put(folder, "codec-2026-01-02T0304", CODEC)
    put(folder, "peers-kafka-streams-memory-2026-01-03T0000", PEER)
    put(folder, "load-constant-2026-01-04T000000", load())
    text = made(folder)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# Benchmarks", "## Ratios", "## Beside peers", "## Millrace alone", "## Under load", "### constant",
        "## How loads are measured", "## Where the figures come from",
    ]  # fmt: skip
    assert "| decoding, CPU a record | 46.5x | fastavro | 2026-01-02 03:04 | `python -m benchmarks.codec` |" in text
    assert "| Kafka Streams 4.3.1 | memory store | exactly_once | 2.9x | 1.7x | 100 % | 2026-01-03 00:00 |" in text
    assert "| 51,234 | 25.2 | 101.0 / 140.0 | — | 812 | 99.99 % | 210 |" in text  # nearly all is not all
    assert "too-late events are dropped." in text
    assert "| 10,000 | 12.0 | 15.0 | 21.0 | 29.0 | 1,250 | 1.5 | 1.2 |" in text
    assert "Zipf 1, 2.0% late" in text
    assert "600,000 of as many events, each once" in text


def test_the_newest_result_that_counts_is_shown(folder: Path) -> None:
    for stamp, ratio in (("2026-01-02T0304", 10.0), ("2026-01-02T030500", 20.0), ("2025-12-31T2359", 30.0)):
        put(folder, f"codec-{stamp}", {"us_per_record": {"5000": {"decode_ratio": ratio}}})
    put(folder, "load-constant-2026-01-04T0000", load(rate=5_000.0))
    put(folder, "load-constant-2026-01-05T0000", load(rate=6_000.0, invalid=["the generators were the bottleneck"]))
    put(folder, "load-ramp-2026-01-05T0000", load(invalid=["it did not become steady"]))
    text = made(folder)
    assert "| 20.0x |" in text
    assert "10.0x" not in text
    assert "| 5,000 | 12.0" in text
    assert "6,000" not in text
    assert "**Invalid**: it did not become steady." in text  # there is no other


def test_an_interrupted_result_is_marked_and_never_hides_a_complete_one(folder: Path) -> None:
    put(folder, "load-constant-2026-01-05T0000", {**load(), "complete": False, "ended": "interrupted before its end"})
    assert "**Not complete**: interrupted before its end." in made(folder)
    put(folder, "load-constant-2026-01-04T0000", load())
    assert "Not complete" not in made(folder)


def test_the_same_results_make_the_same_files_and_a_changed_page_is_found(folder: Path, tmp_path: Path) -> None:
    put(folder, "load-constant-2026-01-04T0000", load())
    put(folder, "peers-kafka-streams-memory-2026-01-03T0000", PEER)
    to = tmp_path / "docs" / "benchmarks.md"
    files = write(folder, to)
    assert [str(file.relative_to(tmp_path / "docs")) for file in files] == ["benchmarks.md", "plots/load-constant.svg", "plots/peers.svg"]
    assert differing(folder, to) == []
    to.write_text(to.read_text().replace("21.0", "2.1"))
    (tmp_path / "docs" / "plots" / "peers.svg").unlink()
    assert differing(folder, to) == ["benchmarks.md", "plots/peers.svg"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("codec", "{}", "wanted a name like"), ("codec-2026-01-02T0304", "{", "can't be read"), ("codec-2026-01-02T0304", "[]", "no object")],
)
def test_a_file_that_is_no_result_is_named(folder: Path, name: str, text: str, words: str) -> None:
    (folder / f"{name}.json").write_text(text)
    with pytest.raises(Refused, match=words):
        read_results(folder)


def test_without_results_the_command_says_how_they_are_made(folder: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.report", "--results", str(folder), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert "`make bench` makes them" in done.stderr


def test_figures_are_written_so_that_they_line_up() -> None:
    assert [number(each) for each in (0.05, 12.34, 1_234.5, None)] == ["0.1", "12.3", "1,234", "—"]
    assert [times(each) for each in (0.6, 12.34, 123.4, None)] == ["0.6x", "12.3x", "123x", "—"]
    assert [share(each) for each in (0.5, 0.999999, 1.0, None)] == ["50.00 %", "99.99 %", "100 %", "—"]
    assert table(("a", "b"), [("x|y", "1,000")]) == ["| a | b |", "|---|---:|", "| x\\|y | 1,000 |", ""]
    assert table(("a",), []) == []


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = keep("codec", {**circumstances("python -m benchmarks.codec"), **CODEC}, tmp_path / "new")
    assert [result.kind for result in read_results(tmp_path / "new")] == ["codec"]
    assert json.loads(file.read_text())["command"] == "python -m benchmarks.codec"
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match="--results names another folder"):
        keep("codec", CODEC, tmp_path / "file")
    assert list((tmp_path / "new").iterdir()) == [file]


def test_a_full_disk_leaves_no_half_of_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text = Path.write_text

    def half(self: Path, data: str, *arguments: Any, **named: Any) -> int:
        write_text(self, data[: len(data) // 2], *arguments, **named)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(NotWritten, match="No space left on device"):
        keep("codec", CODEC, tmp_path)
    assert list(tmp_path.iterdir()) == []
