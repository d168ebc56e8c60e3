"""A test on the real broker that is skipped fails the run, unless the run was told that it may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SKIPPED = """
import pytest

@pytest.mark.broker
def test_on_the_broker():
    pytest.skip("no time")

def test_elsewhere():
    pytest.skip("no data")
"""

NEEDS_ONE = """
def test_on_the_broker(topic):
    assert topic("any")
"""


def run(test: str, folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one file, under the rules of this folder's conftest."""
    file = folder / "test_one.py"
    file.write_text(test)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *options, str(file)]
    environment = {name: value for name, value in os.environ.items() if name != "MILLRACE_ALLOW_NO_BROKER" and "XDIST" not in name}
    return subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "in processes"])
def test_a_skipped_test_on_the_broker_fails_the_run_by_name(options: tuple[str, ...], tmp_path: Path) -> None:
    done = run(SKIPPED, tmp_path, *options)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "test_on_the_broker: a test on the real broker was skipped" in done.stdout
    assert "test_elsewhere: a test" not in done.stdout


def test_it_may_be_skipped_when_the_run_was_told_so(tmp_path: Path) -> None:
    done = run(SKIPPED, tmp_path, MILLRACE_ALLOW_NO_BROKER="1")
    assert done.returncode == pytest.ExitCode.OK
    assert "2 skipped" in done.stdout


def test_without_java_a_test_on_the_broker_fails_and_says_what_is_missing(tmp_path: Path) -> None:
    done = run(NEEDS_ONE, tmp_path, PATH=str(tmp_path), JAVA_HOME="")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "Java was not found" in done.stdout


def test_without_java_it_is_skipped_when_the_run_was_told_so(tmp_path: Path) -> None:
    done = run(NEEDS_ONE, tmp_path, PATH=str(tmp_path), JAVA_HOME="", MILLRACE_ALLOW_NO_BROKER="1")
    assert done.returncode == pytest.ExitCode.OK
    assert "1 skipped" in done.stdout
