"""A tutorial's commands, as they stand on its page: run in order, each must print what the page says it prints."""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.streams.command_line import Run

PROMPT = "    $ "
PATIENCE_SECONDS = 60.0


@dataclass
class Command:
    """A command of a page, and the lines below it that it must print among others."""

    text: str
    prints: list[str] = field(default_factory=list)


def commands_of(page: Path) -> Iterator[Command]:
    """The commands of a page."""
    command: Command | None = None
    for line in page.read_text().splitlines():
        if line.startswith(PROMPT):
            if command is not None:
                yield command
            command = Command(line.removeprefix(PROMPT))
        elif command is not None and line.startswith("    "):
            command.prints.append(line.removeprefix("    "))
        elif command is not None and line:
            yield command
            command = None
    if command is not None:
        yield command


def play(command: Command, run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> subprocess.Popen[bytes] | None:
    """Run a command in the folder it stands in; one that ends with & runs on, and is returned."""
    words = shlex.split(command.text)
    settings = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        settings[name] = value
    if words[-1] == "&":
        with (folder / "worker.log").open("wb") as log:
            started = [sys.executable, "-m", "millrace", *words[1:-1]]
            # A folder of its own: the interpreter looks for modules in the one it starts from.
            return subprocess.Popen(started, env={**os.environ, **settings}, stdout=log, stderr=log, cwd=folder)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        said = _output(words, run, folder, capsys)
        missing = [line for line in command.prints if line not in said]
        # The last command of a page waits for a worker that has not done all yet.
        if not missing or "skew" not in words or time.monotonic() > deadline:
            assert not missing, f"$ {command.text}\ndoes not print {missing[0]!r} but\n{said}"
            return None


def _output(words: list[str], run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    if words[0] == "millrace":
        done = run(*words[1:])
        assert done.code == 0 or "skew" in words, done.err
        return done.out + done.err
    if words[0] == "python":
        before, sys.argv = sys.argv, words[1:]
        try:
            runpy.run_path(str(folder / words[1]), run_name="__main__")
        finally:
            sys.argv = before
        return capsys.readouterr().out
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout
