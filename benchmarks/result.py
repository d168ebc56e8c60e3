"""Results: dated files of JSON in a folder, each with all that is needed to judge it, written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from schemas.errors import Refused

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("millrace", "confluent-kafka", "numba", "numpy", "onnxruntime", "redis", "fastavro")


class NotWritten(Refused):
    """A result could not be kept."""


def command_line() -> str:
    """What was typed to run the benchmark that asks, but for the interpreter's path."""
    module = sys.modules["__main__"].__spec__
    name = module.name.removesuffix(".__main__") if module is not None else Path(sys.argv[0]).name
    return shlex.join(["python", "-m", name, *sys.argv[1:]])


def keep(kind: str, result: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write a result under its kind and the present minute, beside those of other minutes; returns the file.

    Raises:
        NotWritten: the folder can't be written to, or its disk is full; nothing is left behind.
    """
    stamp = f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}"
    file = folder / f"{kind}-{stamp}.json"
    new = file.with_suffix(".json.new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        new.replace(file)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise NotWritten(f"{file} can't be written: {error.strerror or error}; --results names another folder") from error
    return file


def circumstances(command: str) -> dict[str, Any]:
    """What every result says of itself: when, where, with what, and how to have it again."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
    }


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM ends a benchmark as Ctrl-C does, so that services are ended and what was measured is kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def machine() -> dict[str, Any]:
    """What this runs on."""
    return {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_average": [round(each, 2) for each in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Of the packages that decide the numbers."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The revision, with a plus if files differ from it; empty outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}+" if changed.strip() else head


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
