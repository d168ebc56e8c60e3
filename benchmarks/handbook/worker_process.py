"""A worker as a process of its own, whose log is beside its pipeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.handbook.reader import NoProgress
from streams.local.process import choose_port

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 30
LOG_CHARACTERS = 3_000


def start_worker(
    folder: Path, instance: str, bootstrap_servers: str, redis_url: str, arguments: Sequence[str] = (), **variables: str
) -> subprocess.Popen[bytes]:
    """Run the pipeline in a folder.

    Args:
        folder: holds pipeline.py.
        instance: the worker's name; no two live ones share it.
        bootstrap_servers, redis_url: where the services are.
        arguments: more of them for `millrace run`.
        variables: more settings.
    """
    given = {
        "MILLRACE_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "MILLRACE_KAFKA__INSTANCE": instance,
        "MILLRACE_KAFKA__START": "earliest",
        "MILLRACE_KAFKA__SESSION_TIMEOUT_MS": "3000",
        "MILLRACE_REDIS__URL": redis_url,
        "MILLRACE_HEALTH__PORT": str(choose_port(None)),
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    command = [sys.executable, "-m", "millrace", "run", str(folder / "pipeline.py"), *arguments]
    with (folder / f"worker-{instance}.log").open("ab") as log:
        return subprocess.Popen(command, env={**os.environ, **given}, stdout=log, stderr=log, cwd=folder)


def stop_workers(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """End workers, and wait for them.

    Raises:
        NoProgress: one did not end well.
    """
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    codes = [worker.wait(STOP_SECONDS) for worker in workers]
    if any(codes):
        raise NoProgress(f"workers ended with {codes}")


def logs_in(folder: Path) -> str:
    """The ends of the logs of a folder's workers."""
    return "\n".join(f"{file.name}: {file.read_text(errors='replace')[-LOG_CHARACTERS:]}" for file in sorted(folder.glob("worker-*.log")))
