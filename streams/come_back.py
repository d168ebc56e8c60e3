"""The headers of a record that came back as a dead letter: where it stood first, and which windows hold its event already.

A pipeline of several stages has windows over several logs. What is counted in those of a later stage is said by the name of the internal
topic that it reads; where the record goes on to that topic, it takes along what the next stage has to know, in the same words.
"""

from __future__ import annotations

from collections.abc import Sequence

from transforms.kernel import REFUSED

Headers = Sequence[tuple[str, bytes | None]]

REPLAY = "millrace.replay."  # before the name of each of them
TOPIC = REPLAY + "topic"
PARTITION = REPLAY + "partition"
OFFSET = REPLAY + "offset"
COUNTED = REPLAY + "counted"
COUNTED_OFFSET = REPLAY + "counted_offset"  # under which the windows hold it
COUNTED_AT = REPLAY + "counted_at."  # before the name of an internal topic: PARTITION@OFFSET under which its stage's windows hold it


def first_offset(topic: str, partition: int, headers: Headers) -> int:
    """Under which offset the windows hold a record of this partition, or `REFUSED` less the one at which it was refused when it came first.

    -1 where it did not come back, or came from elsewhere. What was refused is held all the same by who reads the log again after the rules
    were relaxed.
    """
    said = dict(headers)
    try:
        if (said[TOPIC], int(said[PARTITION] or b"")) != (topic.encode(), partition):
            return -1
        return int(said[COUNTED_OFFSET] or b"") if said[COUNTED] == b"true" else REFUSED - int(said[OFFSET] or b"")
    except (KeyError, ValueError):
        return -1


def passed_on(topic: str, headers: Headers) -> Headers:
    """What goes along to an internal topic with a record that came back; nothing, if the stage there does not hold its event yet."""
    further = {name: text for name, text in headers if name.startswith(COUNTED_AT)}
    partition, at, offset = (further.pop(COUNTED_AT + topic, None) or b"").partition(b"@")
    if not at:
        return ()
    return (
        (TOPIC, topic.encode()),
        (PARTITION, partition),
        (COUNTED, b"true"),
        (COUNTED_OFFSET, offset),
        *further.items(),
    )
