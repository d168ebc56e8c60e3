"""Fault points: what is named happens where it is named, at the time it was asked for, and nowhere else."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PASSING = (
    "from streams.fault_points import passing\nfor _ in range(3): passing('after_commit'); passing('after_write'); print('.', flush=True)"
)


def passes(fault: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "MILLRACE_FAULT": fault, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", PASSING], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("fault", "said", "code"),
    [
        ("", 3, 0),
        ("after_commit", 0, -signal.SIGKILL),
        ("after_write:3", 2, -signal.SIGKILL),
        ("after_commit:2:term", 1, -signal.SIGTERM),
        ("before_commit:1", 3, 0),
    ],
)
def test_the_process_ends_at_the_point_that_is_named_and_no_sooner(fault: str, said: int, code: int) -> None:
    process = passes(fault)
    out, _ = process.communicate(timeout=30)
    assert (out.count("."), process.returncode) == (said, code)


def test_a_process_that_is_stopped_at_a_point_goes_on_when_it_is_let() -> None:
    process = passes("after_commit:3:stop")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=30)
    assert out.count(".") == 3


GOING_ON = """
import mmap, sys, threading
from streams.fault_points import arm, passing

def go_on():
    for number in range(1, 101):
        arm("after_commit:1:stop")
        passing("after_commit")
        went_on[:4] = number.to_bytes(4, "little")

went_on = mmap.mmap(int(sys.argv[1]), 4)
others = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(6)]
stopping = threading.Thread(target=go_on)
for each in (*others, stopping):
    each.start()
stopping.join()
"""


def test_a_thread_goes_no_further_than_the_point_at_which_its_process_is_stopped(tmp_path: Path) -> None:
    """A commit that went on for a moment would be made before the process stands still."""
    with (tmp_path / "went_on").open("w+b") as file:
        file.truncate(4)
        command = [sys.executable, "-c", GOING_ON, str(file.fileno())]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, pass_fds=[file.fileno()])
        went_on = mmap.mmap(file.fileno(), 4)
        try:
            for stops in range(100):
                _, status = os.waitpid(process.pid, os.WUNTRACED)
                assert os.WIFSTOPPED(status)
                assert int.from_bytes(went_on[:4], "little") == stops
                process.send_signal(signal.SIGCONT)
            assert process.wait(30) == 0
        finally:
            process.kill()
