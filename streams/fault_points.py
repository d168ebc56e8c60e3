"""Named points at which a test may hurt the process: nothing unless ``MILLRACE_FAULT`` names one.

``MILLRACE_FAULT=after_commit:17`` ends it the 17th time that point is passed, as `kill -9` would; ``after_commit:17:stop`` stops it there
(SIGSTOP), until somebody lets it go on, and ``after_commit:17:term`` asks it to end (SIGTERM). The points stand where it matters:

    polled           a batch was read, nothing is done yet
    claimed          a partition's state is claimed, its position not yet judged
    before_commit    outputs are on their way, the transaction is open
    offsets_sent     outputs and offsets are in the transaction, which is still open; at_least_once: the outputs are taken, the offsets not
    after_commit     the transaction is final, the state has yet to follow
    after_write      the state's write is sent, its answer not read
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from typing import Literal, get_args

Point = Literal["polled", "claimed", "before_commit", "offsets_sent", "after_commit", "after_write"]
POINTS: tuple[Point, ...] = get_args(Point)
DEEDS = {"": signal.SIGKILL, "kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}

_passed: Counter[str] = Counter()
_armed: tuple[str, int, signal.Signals] = ("", 0, signal.SIGKILL)


def arm(text: str) -> None:
    """Take a point, how often it is to be passed, and what happens then; an empty text takes none."""
    global _armed
    name, _, rest = text.partition(":")
    times, _, deed = rest.partition(":")
    _passed.clear()
    _armed = name, int(times or 1), DEEDS[deed]


def passing(point: Point) -> None:
    """Say that a point is passed."""
    name, times, deed = _armed
    if point == name:
        _passed[point] += 1
        if _passed[point] == times:
            # To this very thread: a process that stops has its other threads stopped first, and this one would go on for a while.
            signal.pthread_kill(threading.get_ident(), deed)


arm(os.environ.get("MILLRACE_FAULT", ""))
