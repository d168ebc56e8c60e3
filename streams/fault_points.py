"""Named points at which a test may end the process, as `kill -9` would: nothing unless ``MILLRACE_FAULT`` names one.

``MILLRACE_FAULT=after_commit:17`` ends it the 17th time that point is passed. The points stand where a crash matters:

    before_commit    outputs are on their way, the transaction is open
    offsets_sent     outputs and offsets are in the transaction, which is still open
    after_commit     the transaction is final, the state has yet to follow
    after_write      the state's write is sent, its answer not read
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Literal

Point = Literal["before_commit", "offsets_sent", "after_commit", "after_write"]

_name, _, _times = os.environ.get("MILLRACE_FAULT", "").partition(":")
_passed: Counter[str] = Counter()


def passing(point: Point) -> None:
    """Say that a point is passed."""
    if point == _name:
        _passed[point] += 1
        if _passed[point] == int(_times or 1):
            os.kill(os.getpid(), signal.SIGKILL)
