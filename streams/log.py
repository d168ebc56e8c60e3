"""Log lines: one an event, to standard error, as ``time level where what``."""

from __future__ import annotations

import logging
import sys
import time

FORMAT = "%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s %(message)s"


class OneLine(logging.Formatter):
    """UTC, lower-case levels, and one line even for a text of several; tracebacks keep theirs."""

    def __init__(self) -> None:
        super().__init__(FORMAT, "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        record.levelname = record.levelname.lower()
        return super().formatMessage(record).replace("\n", " ")


def write_log(level: str) -> None:
    """Send this process's log lines from `level` up to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What the libraries below find worth saying is rarely worth an operator's time.
    for name in ("faust", "mode", "aiohttp", "asyncio", "numba", "librdkafka"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
