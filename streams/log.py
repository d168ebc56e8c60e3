"""Log lines: one an event, to standard error, as ``time level where what``."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable

SELDOM_SECONDS = 5.0
MOST_KINDS = 200
FORMAT = "%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s %(message)s"


class OneLine(logging.Formatter):
    """UTC, lower-case levels, and one line even for a text of several; tracebacks keep theirs."""

    def __init__(self) -> None:
        super().__init__(FORMAT, "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        record.levelname = record.levelname.lower()
        return super().formatMessage(record).replace("\n", " ")


class Seldom(logging.Filter):
    """Lets one line of a kind pass in some seconds, with how many were left out since the one before it.

    Lines are of a kind if they differ in digits only. A broker that is away makes each of its clients say so several times a second.
    """

    def __init__(self, every_seconds: float = SELDOM_SECONDS, now_seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_seconds = every_seconds
        self._now_seconds = now_seconds
        self._seen: dict[str, tuple[float, int]] = {}  # by kind: when one passed, and how many were left out since

    def filter(self, record: logging.LogRecord) -> bool:
        now, kind = self._now_seconds(), re.sub(r"\d+", "", record.getMessage())
        passed, left_out = self._seen.get(kind, (now - self._every_seconds, 0))
        if now < passed + self._every_seconds:
            self._seen[kind] = passed, left_out + 1
            return False
        if len(self._seen) > MOST_KINDS:
            self._seen.clear()
        self._seen[kind] = now, 0
        if left_out:
            record.msg, record.args = f"{record.getMessage()} left_out={left_out}", ()
        return True


def write_log(level: str) -> None:
    """Send this process's log lines from `level` up to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What the libraries below find worth saying is rarely worth an operator's time.
    for name in ("faust", "mode", "aiohttp", "asyncio", "numba", "librdkafka", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("librdkafka", "streams.kafka"):
        logging.getLogger(name).filters[:] = [Seldom()]
