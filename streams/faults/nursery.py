"""The nursery: a process that has imported everything and compiled every kernel, and forks a worker whenever one is asked for.

A worker that dies a thousand times must not import numpy a thousand times. What it runs after the fork is the command a user runs, under
settings of its own, with its log in a file.

    harness ──▶ {"start": 3, "argv": [...], "environment": {...}, "log": "..."}     a line each
            ◀── {"start": 3, "pid": 4711}, {"pid": 4711, "stopped": true}, {"pid": 4711, "code": -9}
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.01
END_SECONDS = 90.0
READY_SECONDS = 300.0  # where no kernel was ever compiled, and much else is going on
COMMAND = "millrace.__main__:main"


class Overdue(Exception):
    """A worker did not do in time what it was asked to."""


@dataclass(eq=False)
class Child:
    """A worker that the nursery forked."""

    pid: int
    log_file: Path
    began: float = field(default_factory=time.monotonic)
    code: int | None = None  # None while it runs; negative = a signal's number
    is_stopped: bool = False
    expected: bool = False  # whether it is known why it ended
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def lives(self) -> bool:
        """Whether it runs, stopped or not."""
        return self.code is None

    @property
    def log(self) -> str:
        """What it said."""
        try:
            return self.log_file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""  # it has not come so far yet

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        with self._changed:
            if self.code is None:
                os.kill(self.pid, number)
                if number == signal.SIGCONT:
                    self.is_stopped = False

    def kill(self) -> None:
        """End it as a crash does."""
        self.expected = True
        self.signal(signal.SIGKILL)
        self.ends()

    def ends(self, seconds: float = END_SECONDS) -> int:
        """Wait until it ended; its exit code.

        Raises:
            Overdue: it goes on.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.code is not None, seconds):
                raise Overdue(f"worker {self.pid} goes on after {seconds:.0f} s; its log is {self.log_file}")
            assert self.code is not None
            return self.code

    def stops(self, seconds: float = END_SECONDS) -> None:
        """Wait until it is stopped (SIGSTOP).

        Raises:
            Overdue: it is not, or it ended.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.is_stopped or self.code is not None, seconds) or self.code is not None:
                raise Overdue(
                    f"worker {self.pid} was not stopped within {seconds:.0f} s (exit code {self.code}); its log is {self.log_file}"
                )

    def note(self, said: Mapping[str, Any]) -> None:
        """Take what the nursery says of it."""
        with self._changed:
            self.is_stopped = bool(said.get("stopped", False))
            self.code = said.get("code", self.code)
            self._changed.notify_all()


class Nursery:
    """The harness's end.

    Args:
        module: what is run as the nursery; one that patches the engine first plants a bug in every worker.
        entry: ``module:function`` that a worker runs.
    """

    def __init__(self, module: str = "streams.faults.nursery", entry: str = COMMAND, python_path: Sequence[str] = ()) -> None:
        path = os.pathsep.join([*python_path, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, entry], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self._children: dict[int, Child] = {}
        self._asked: dict[int, Path] = {}
        self._begun: dict[int, Child] = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def start(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
        """Fork a worker. Variables are its own; of ours it has all that do not begin with MILLRACE_.

        Raises:
            Overdue: the nursery is gone, or does not answer.
        """
        with self._changed:
            number = len(self._asked)
            self._asked[number] = log
            asked = {"start": number, "argv": list(argv), "environment": dict(environment), "log": str(log)}
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps(asked) + "\n")
                self._process.stdin.flush()
            except OSError as error:
                raise Overdue(f"the nursery is gone: {error}") from error
            if not self._changed.wait_for(lambda: number in self._begun or self._process.poll() is not None, READY_SECONDS):
                raise Overdue("the nursery does not answer")
            if number not in self._begun:
                raise Overdue(f"the nursery ended with {self._process.returncode}")
            return self._begun[number]

    def close(self) -> None:
        """End it, and every worker that still runs."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self._changed:
                if "start" in said:
                    child = Child(said["pid"], self._asked[said["start"]])
                    self._children[said["pid"]] = self._begun[said["start"]] = child
                    self._changed.notify_all()
                else:
                    self._children[said["pid"]].note(said)


def main(before: Callable[[], None] = lambda: None) -> None:
    """Be the nursery; `before` is called in each worker before it begins."""
    module, _, function = sys.argv[1].partition(":")
    run = getattr(import_module(module), function)
    _prepare()
    begin = _serve()
    if begin is not None:  # a worker from here on: nothing of the nursery's is left to go back to
        begin()
        before()
        code: object = 0
        try:
            run()
        except SystemExit as error:
            code = error.code
        # Libraries have begun threads in the nursery, which a fork leaves behind: to end them in an ordinary end would abort.
        logging.shutdown()
        os._exit(code if isinstance(code, int) else code is not None)


def _prepare() -> None:
    """Import what a worker will need, and compile it."""
    for name in ("streams.worker", "streams.commands.cli", "streams.definition.load", "streams.load_settings", "streams.local.addresses"):
        import_module(name)
    import_module("schemas.compiled").warm_up()


def _serve() -> Callable[[], None] | None:
    """Fork until there is no more to do; in a worker, what makes it one."""
    children: set[int] = set()
    rest = b""
    while True:
        if select.select([0], [], [], LOOK_SECONDS)[0]:
            read = os.read(0, 1 << 16)
            if not read:
                _end(children)
                return None
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    return lambda: _become(asked)
                children.add(pid)
                _say({"start": asked["start"], "pid": pid})
        _look_after(children)


def _become(asked: Mapping[str, Any]) -> None:
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in ((0, nothing), (1, log), (2, log)):
        os.dup2(file, number)
    for name in [name for name in os.environ if name.startswith("MILLRACE_") and name != "MILLRACE_CACHE_DIR"]:
        del os.environ[name]
    os.environ.update(asked["environment"])
    sys.argv = list(asked["argv"])
    import_module("streams.fault_points").arm(os.environ.get("MILLRACE_FAULT", ""))


def _look_after(children: set[int]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if not ended:
            continue
        if os.WIFSTOPPED(status):
            _say({"pid": pid, "stopped": True})
        else:
            children.discard(pid)
            _say({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _end(children: set[int]) -> None:
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)


def _say(said: Mapping[str, Any]) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main()
