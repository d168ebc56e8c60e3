"""A row's result: a dated file, and a line of the table that is printed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.measure import AT_1000, AT_HALF_BEST, Measured
from benchmarks.peers.peer import HERE, Peer, Row
from benchmarks.peers.user_code import lines_of_user_code

RESULTS = HERE.parent / "results"
COLUMNS = ("peer", "guarantee", "events/s", "CPU us", "x Millrace", "p50/p99 ms 1,000/s", "p50/p99 ms half", "RSS MB", "right", "lines")
WIDTHS = (40, 14, 10, 9, 11, 19, 19, 8, 8, 6)


def as_result(peer: Peer, row: Row, measured: Measured, beside: Measured | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a run; `beside` is Millrace's drain of the same minutes."""
    drain = measured.drain
    features = None if measured.features is None else {**measured.features.as_json(), "scores_right": measured.scores_right}
    return {
        "name": row.name,
        "peer": peer.name,
        "library": peer.library,
        "version": peer.version,
        "language": peer.language,
        "guarantee": row.guarantee,
        "how": row.how,
        "cannot": list(peer.cannot),
        "complete": measured.complete,
        "events_per_s": drain and drain.events_per_s,
        "cpu_us_per_event": drain and drain.cpu_us_per_event,
        "redis_cpu_us_per_event": drain and drain.redis_cpu_us_per_event,
        "kafka_cpu_us_per_event": drain and drain.kafka_cpu_us_per_event,
        "drained_events": drain and drain.events,
        "start_s": measured.start_s,
        "rss_mb": measured.rss_mb,
        "half_best_per_s": measured.half_best_per_s,
        "p50_ms": measured.p50_ms,
        "p99_ms": measured.p99_ms,
        "feeder_late_p99_ms": measured.feeder_late_p99_ms,
        "features_right": features,
        "missing": measured.missing,
        "twice": measured.twice,
        "lines_of_user_code": lines_of_user_code(peer.folder / name for name in peer.code),
        "beside_millrace": _beside(measured, beside),
        "settings": dict(settings),
        "machine": machine(),
        "load_average": os.getloadavg(),  # of other work, too: a figure under load says little
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.peers {row.name} --events {settings['events']} --seconds {settings['seconds']:g}",
        "started_as": measured.command,
        "notes": measured.notes,
    }


def _beside(measured: Measured, beside: Measured | None) -> dict[str, float] | None:
    if beside is None or beside.drain is None:
        return None
    figures = {"events_per_s": beside.drain.events_per_s, "cpu_us_per_event": beside.drain.cpu_us_per_event}
    if measured.drain is not None:
        figures["cpu_times"] = measured.drain.cpu_us_per_event / beside.drain.cpu_us_per_event
        figures["speed_times"] = beside.drain.events_per_s / measured.drain.events_per_s
    return figures


def keep(result: Mapping[str, Any], folder: Path) -> Path:
    """Write a result under its row and date; a reader sees all of it or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"peers-{result['name']}-{datetime.fromisoformat(result['date']):%Y-%m-%dT%H%M}.json"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return path


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The rows side by side."""
    return "\n".join(_line(cells) for cells in (COLUMNS, *map(_cells, results)))


def _line(cells: Sequence[str]) -> str:
    return "".join(
        f"{cell:<{width}}" if place < 2 else f"{cell:>{width}}" for place, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))
    )


def _cells(result: Mapping[str, Any]) -> tuple[str, ...]:
    features, beside = result["features_right"], result["beside_millrace"]
    return (
        result["name"] + ("" if result["complete"] else " (incomplete)"),
        result["guarantee"],
        _number(result["events_per_s"], ",.0f"),
        _number(result["cpu_us_per_event"], ",.1f"),
        _number(beside and beside.get("cpu_times"), ".1f"),
        *(f"{_number(result['p50_ms'][at], ',.0f')} / {_number(result['p99_ms'][at], ',.0f')}" for at in (AT_1000, AT_HALF_BEST)),
        _number(result["rss_mb"], ",.0f"),
        _number(features and features["share"], ".2%"),
        str(result["lines_of_user_code"]),
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def machine() -> dict[str, Any]:
    """What this runs on."""
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr.splitlines()
    return {
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "java": java[0] if java else None,
        "system": platform.platform(),
    }


def commit() -> str | None:
    """The commit this is, with a plus if files differ from it; None = outside a repository."""
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=HERE, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+" if changed else "")
