"""The worker of the demo: ``millrace run`` as a process of its own, as anybody would start it, its log in a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

from schemas.errors import MillraceError
from streams.local.process import Service, recall

STOP_SECONDS = 20.0
SHOWN_LINES = 8
FOREIGN = re.compile(r"MILLRACE_SETTINGS|MILLRACE_\w+__\w+|(KAFKA_BOOTSTRAP_SERVERS|REDIS_URL|SCHEMA_REGISTRY_URL|LOG_LEVEL)(_FILE)?")


class WorkerEnded(MillraceError):
    """The worker ended before the demo did."""


class WorkerProcess:
    """A running worker.

    Args:
        root: of the checkout.
        pipeline: the pipeline's file.
        settings: the settings file.
        folder: for its log and its record.
        port: of its health pages.
    """

    def __init__(self, root: Path, pipeline: Path, settings: Path, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "worker.log"
        command = [sys.executable, "-m", "millrace", "run", str(pipeline), "--settings", str(settings)]
        with self.log.open("w", encoding="utf-8") as log:
            # In a session of its own: Ctrl-C is for us, and we end it in good order.
            self._process = subprocess.Popen(
                command, cwd=root, env=own_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._facts = psutil.Process(self._process.pid)
        self._last_seconds = 0.0
        # Should we be killed, the next demo finds it by this, and ends it.
        Service("worker", (port,), self._process.pid, self._facts.create_time(), str(self.log)).remember(folder)

    def look(self) -> None:
        """See that it runs.

        Raises:
            WorkerEnded: it does not; with the end of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise WorkerEnded(f"the worker ended with exit code {code}; its log, {self.log}, ends with:\n{self._log_tail()}")

    @property
    def last_line(self) -> str:
        """What it logged last, without time and level."""
        lines = self._lines()
        return re.sub(r"^\S+ level=\S+ logger=\S+ ", "", lines[-1]) if lines else ""

    @property
    def cpu_seconds(self) -> float:
        """User and system time of its process so far."""
        try:
            times = self._facts.cpu_times()
            self._last_seconds = float(times.user + times.system)
        except psutil.NoSuchProcess:
            pass  # it has ended; what it had used when we last looked will do
        return self._last_seconds

    def stop(self) -> None:
        """Let it finish what is under way and end.

        Raises:
            WorkerEnded: it did not end well.
        """
        self.look()
        self._process.terminate()
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise WorkerEnded(f"the worker did not stop within {STOP_SECONDS:.0f} seconds; its log: {self.log}") from None
        if code != 0:
            raise WorkerEnded(f"the worker stopped with exit code {code}; its log, {self.log}, ends with:\n{self._log_tail()}")

    def end(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def _log_tail(self) -> str:
        return "\n".join(f"  {line}" for line in self._lines()[-SHOWN_LINES:])


def own_environment() -> dict[str, str]:
    """This process's environment, without what it says of settings: the demo's are in a file, and hold alone."""
    return {name: value for name, value in os.environ.items() if not FOREIGN.fullmatch(name)}


def end_leftover(folder: Path) -> bool:
    """End the worker of a demo that was killed, if it still runs; whether it did."""
    left = recall(folder)
    return left is not None and left.end(folder, STOP_SECONDS)
