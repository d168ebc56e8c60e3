"""A peer's process and all processes below it: started, watched and ended."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.peers.peer import PeerError

STOP_SECONDS = 30.0
GOOD_ENDS = (0, -15, 143)  # of its own accord, or by the signal it was sent
LOOK_FOR_CHILDREN_SECONDS = 1.0
TAIL_LINES = 25


class PeerProcess:
    """One run of a peer."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path) -> None:
        self.log = log
        try:
            with log.open("w") as file:
                self._process = subprocess.Popen(
                    command, env={**os.environ, **environment}, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file
                )
        except OSError as error:
            raise PeerError(f"{command[0]} can't be started: {error}") from error
        self._root = psutil.Process(self._process.pid)
        self._all = [self._root]
        self._looked = 0.0
        self._used: dict[int, float] = {}  # by pid: the last that was seen of each

    def check(self) -> None:
        """Raise if it has ended.

        Raises:
            PeerError: it has, with the end of its log.
        """
        if self._process.poll() is not None:
            raise PeerError(f"it ended with {self._process.returncode}; its log ends with:\n{self.tail()}")

    def cpu_seconds(self) -> float:
        """User and system time so far, of all its processes, ended ones as last seen."""
        if time.monotonic() - self._looked > LOOK_FOR_CHILDREN_SECONDS:
            self._looked = time.monotonic()
            self._all = [self._root, *self._children()]
        for process in self._all:
            try:
                self._used[process.pid] = cpu_seconds(process)
            except psutil.NoSuchProcess:
                continue
        return sum(self._used.values())

    def rss_bytes(self) -> int:
        """Resident memory of all its processes."""
        total = 0
        for process in self._all:
            try:
                total += int(process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        return total

    def stop(self) -> None:
        """Ask it to end, and end it by force, children too, when its time is up.

        Raises:
            PeerError: it had to be forced, or ended badly.
        """
        children = self._children()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise PeerError(f"it did not end within {STOP_SECONDS:.0f} s of SIGTERM; its log ends with:\n{self.tail()}") from None
        finally:
            _kill(children)
        if self._process.returncode not in GOOD_ENDS:
            raise PeerError(f"it ended with {self._process.returncode} on SIGTERM; its log ends with:\n{self.tail()}")

    def kill(self) -> None:
        """End it and its children by force."""
        children = self._children()
        self._process.kill()
        self._process.wait()
        _kill(children)

    def tail(self) -> str:
        """The last lines it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])

    def _children(self) -> list[psutil.Process]:
        try:
            return list(self._root.children(recursive=True))
        except psutil.NoSuchProcess:
            return []


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of one process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
