"""Workers whose wall clock is set ahead and back while they run: the nursery of `streams.faults`, in whose workers a file says by how much.

The product has no switch for it. What it reads of the wall clock it reads through Python, so it is Python's that is shifted; the
client's own timers are left alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.account import Account
from streams.faults import nursery
from streams.faults.nursery import Nursery
from streams.upstream import Upstream
from tests.live.scene import ROOT

VARIABLE = "SHIFTED_CLOCK"


class WallClock:
    """The clock of the workers that a nursery forks."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_seconds: float) -> None:
        """Let it be so far ahead of the true one from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(str(ahead_seconds))
        new.replace(self._file)


@contextmanager
def shifted_workers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Nursery, WallClock]]:
    """A nursery, and the clock of its workers."""
    clock = WallClock(folder / "ahead")
    monkeypatch.setenv(VARIABLE, str(folder / "ahead"))
    opened = Nursery("tests.live.wall_clock", python_path=(str(ROOT),))
    try:
        yield opened, clock
    finally:
        opened.close()


def shift() -> None:
    """Set this worker's clock as the file says."""
    file = Path(os.environ[VARIABLE])
    seconds, nanoseconds = time.time, time.time_ns

    def ahead() -> float:
        return float(file.read_text())

    time.time = lambda: seconds() + ahead()
    time.time_ns = lambda: nanoseconds() + int(ahead() * 1e9)
    for made in (Account, Upstream):  # what their modules took for the clock when they were imported
        function: Any = made.__init__
        function.__defaults__ = tuple(time.time if each is seconds else each for each in function.__defaults__)


if __name__ == "__main__":
    nursery.main(before=shift)
