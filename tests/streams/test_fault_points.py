"""Fault points: what is named happens where it is named, at the time it was asked for, and nowhere else."""

from __future__ import annotations

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
