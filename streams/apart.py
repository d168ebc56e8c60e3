"""Stages apart: each in a process of its own, started together and ended together.

Three stages in one process take turns at one interpreter. Apart they use as many cores as there are, and less of each.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas.errors import RetryLater
from streams.definition.bound import Bound
from streams.kafka import admin
from streams.planning.stage import stages
from streams.planning.topics import check_topics, facts_of
from streams.settings import Settings

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.1
PARENT_SECONDS: Final = 0.5
GRACE_SECONDS: Final = 5.0  # beyond the budget a worker has for its own stop
STOPPED: Final = 0


def run_apart(command: Sequence[str], names: Sequence[str], settings: Settings) -> int:
    """Run each stage as a process, until all have stopped or one of them ends by itself, which ends the others.

    The first SIGTERM or SIGINT goes to all of them, and so does a second one.

    Args:
        command: of a worker, without its stages.
        names: of the stages. The pages of the first are at ``health.port``, those of the next at the port after it, and so on.
        settings: the workers'.

    Returns:
        0 if all stopped because they were told to, else the exit code of the first that ended by itself, 128 + the signal that ended it.
    """
    fleet = _Fleet()
    command = [*command, "--ends-with", str(os.getpid())]
    before: Mapping[int, Any] = {number: signal.signal(number, fleet.pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for place, name in enumerate(names):
            port = settings.health.port and settings.health.port + place
            fleet.start(name, [*command, "--stages", name], os.environ | {"MILLRACE_HEALTH__PORT": str(port)})
            log.info("started stage=%s pid=%d health_port=%d", name, fleet.pid(name), port)
        return fleet.watch(settings.worker.stop_budget_seconds + GRACE_SECONDS)
    finally:
        fleet.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Fleet:
    """The processes of a pipeline's stages."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._told = False

    def start(self, stage: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        # In a group of its own: Ctrl-C comes from us, once, and not from the terminal as well.
        self._processes[stage] = subprocess.Popen(command, env=environment, start_new_session=True)

    def pid(self, stage: str) -> int:
        return self._processes[stage].pid

    def pass_on(self, number: int, frame: object) -> None:
        """Tell every process that lives."""
        self._told = True
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(number)

    def watch(self, grace_seconds: float) -> int:
        """Wait for all to end; the exit code."""
        code = self._first_to_end()
        if not self._told:  # a second signal would cut their stop short
            self.pass_on(signal.SIGTERM, None)
        deadline = time.monotonic() + grace_seconds
        for process in self._processes.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                process.kill()
        return code or next((_exit_code(p) for p in self._processes.values() if p.wait() != 0), STOPPED)

    def _first_to_end(self) -> int:
        """Wait until one ends by itself, or all were told to; its exit code, or 0."""
        while not self._told:
            for stage, process in self._processes.items():
                if process.poll() is not None:
                    log.error("ended stage=%s code=%d; ending the others", stage, _exit_code(process))
                    return _exit_code(process)
            time.sleep(LOOK_SECONDS)
        return STOPPED

    def kill(self) -> None:
        """Leave none behind."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def end_with(parent: int) -> None:
    """Stop this process, as SIGTERM does, once the one that started it is gone: nobody else would."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        log.error("stopping because=%r", f"process {parent}, which started this stage, is gone")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def stage_names(bound: Bound, settings: Settings) -> list[str]:
    """The names of a pipeline's stages, which depend on how many partitions its input has: waits for a broker that is away.

    Raises:
        TopicError: the input is not there.
    """
    while True:
        try:
            facts = facts_of(admin(settings.kafka), bound)
            check_topics(bound, facts)
            return [stage.name for stage in stages(bound, facts[bound.input.name].partitions)]
        except RetryLater as error:
            log.warning("waiting for the broker: %s", error)
            time.sleep(error.after_seconds)
