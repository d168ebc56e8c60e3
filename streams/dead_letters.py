"""Dead letters: refused records, byte for byte as they came, with the reason and the address in their headers.

The context headers are those of Kafka Connect, since most tools know them; ours follow under ``millrace.``. A letter goes out in the
transaction of its batch, so a record is either scored or a letter, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import MillraceError, RecordError
from streams.batch import Address, Batch

Header = tuple[str, bytes | None]

CONNECT = "__connect.errors."
OURS = "millrace."
HEADER_ROOM_BYTES = 65_536  # how much larger than its record a letter may be
MOST_WORDS = 2_000
BEHIND_WINDOWS = ("model", "produce")  # what refuses rows that the windows hold
BAREST = 2  # refusals after which a letter has neither value, key nor the original headers


class TooManyRefused(MillraceError):
    """So many records are refused that something larger is wrong; going on would empty the input into the dead letters."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused record as it came into the pipeline. What the log does not have any more is not `there`."""

    at: Address
    value: bytes | None
    key: bytes | None
    headers: Sequence[Header]
    arrived_ms: int
    there: bool = True


def as_it_came(batch: Batch, row: int) -> Refused:
    """The record of a row, where the stage that refuses it is the one that read it first."""
    value = None if batch.absent[row] else batch.raw[row]
    return Refused(batch.address(row), value, batch.keys[row], tuple(batch.headers.get(row, ())), int(batch.arrived_ms[row]))


@dataclass(frozen=True, slots=True)
class Letter:
    """One refused record on its way out, to the dead letters of the topic it came from."""

    row: int
    topic: str
    value: bytes | None
    key: bytes | None
    timestamp_ms: int
    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True)
class Sender:
    """Who writes letters: what every one of them says of the worker."""

    pipeline: str
    instance: str
    feature_fingerprint: str
    model_version: str


def letter(
    row: int,
    refused: Refused,
    topic: str,
    schema_id: int,
    error: RecordError,
    stage: str,
    sender: Sender,
    now_ms: int,
    max_bytes: int,
    times_refused: int,
    is_label: bool = False,
) -> Letter:
    """The dead letter of one row; no window counts one that is a label.

    What is larger than the dead letters' topic takes, or was refused before, is left out: first the value, then key and original
    headers as well. Sizes and SHA-256 stand in for them, and the address says where the record itself is.
    """
    at = refused.at
    ours: list[Header] = [
        *_texts(
            CONNECT,
            {
                "topic": at.topic,
                "partition": at.partition,
                "offset": at.offset,
                "connector.name": sender.pipeline,
                "task.id": sender.instance,
                "stage": stage,
                "class.name": f"millrace.{stage}",
                "exception.class.name": "schemas.errors.RecordError",
                "exception.message": f"{at} refused by {stage}: {error}"[:MOST_WORDS],
            },
        ),
        *_texts(
            OURS,
            {
                "reason": error.reason,
                "stage": stage,
                "schema_id": schema_id,
                "timestamp_ms": refused.arrived_ms,
                "first_seen_ms": now_ms,
                "attempt": 1,
                "counted": "true" if stage in BEHIND_WINDOWS and not is_label else "false",
                "feature_fingerprint": sender.feature_fingerprint,
                "model_version": sender.model_version,
            },
        ),
    ]
    key, value, given, arrived_ms = refused.key, refused.value, refused.headers, refused.arrived_ms
    if not refused.there:
        ours += _texts(OURS, {"original": "gone"})
    if times_refused < 1 and _size((*given, *ours), key, value) <= max_bytes:
        return Letter(row, topic, value, key, arrived_ms, (*given, *ours))
    ours += _stand_in("value", value)
    if times_refused < BAREST and _size((*given, *ours), key, None) <= max_bytes:
        return Letter(row, topic, None, key, arrived_ms, (*given, *ours))
    ours += _stand_in("key", key)
    return Letter(row, topic, None, None, arrived_ms, tuple(ours))


def _stand_in(name: str, content: bytes | None) -> Iterator[Header]:
    found = content or b""
    return _texts(OURS, {f"{name}_size_bytes": len(found), f"{name}_sha256": hashlib.sha256(found).hexdigest()})


def _size(headers: Iterable[Header], key: bytes | None, value: bytes | None) -> int:
    """Bytes a record takes, at most."""
    return len(value or b"") + len(key or b"") + sum(len(name.encode()) + len(text or b"") + 10 for name, text in headers) + 256


def _texts(prefix: str, values: dict[str, object]) -> Iterator[Header]:
    return ((prefix + name, str(value).encode()) for name, value in values.items())


class HaltLimit:
    """Stops the worker when more than a share of the last records was refused.

    Args:
        share: the largest share refused, 0 to 1; 1 never stops.
        window_records: how many records are looked back on; nothing is judged before that many came.
    """

    def __init__(self, share: float, window_records: int) -> None:
        self._share = share
        self._window_records = window_records
        self._records = 0
        self._refused = 0

    def count(self, rejected: NDArray[np.uint8]) -> None:
        """Count a batch's rows.

        Raises:
            TooManyRefused: the share is above the limit.
        """
        self._records += len(rejected)
        self._refused += int(np.count_nonzero(rejected))
        if self._records < self._window_records:
            return
        if self._refused > self._share * self._records:
            raise TooManyRefused(
                f"{self._refused} of the last {self._records} records were refused, the limit is {self._share:.0%} "
                "(dead_letters.halt_share); see `millrace dlq ls`"
            )
        # Forget half: an old calm must not hide a new storm for long.
        self._records //= 2
        self._refused //= 2
