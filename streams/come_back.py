"""The headers of a record that came back as a dead letter: where it stood first, and whether the windows hold its event already."""

from __future__ import annotations

from collections.abc import Sequence

REPLAY = "millrace.replay."  # before the name of each of them
COUNTED = REPLAY + "counted"
COUNTED_OFFSET = REPLAY + "counted_offset"  # under which the windows hold it


def counted_offset(topic: str, partition: int, headers: Sequence[tuple[str, bytes | None]]) -> int:
    """The offset under which a record of this partition is in its windows; -1 where its headers name another partition, or nothing."""
    said = dict(headers)
    try:
        here = (said[REPLAY + "topic"], int(said[REPLAY + "partition"] or b"")) == (topic.encode(), partition)
        return int(said[COUNTED_OFFSET] or b"") if here else -1
    except (KeyError, ValueError):
        return -1
