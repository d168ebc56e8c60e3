"""Dead letters: refused records, byte for byte as they came, with the reason and the address in their headers.

The context headers are those of Kafka Connect, since most tools know them; ours follow under ``millrace.``. A letter goes out in the
transaction of its batch, so a record is either scored or a letter, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import MillraceError, RecordError
from streams.batch import Batch

Header = tuple[str, bytes | None]

CONNECT = "__connect.errors."
OURS = "millrace."
HEADER_ROOM_BYTES = 65_536  # how much larger than its record a letter may be


class TooManyRefused(MillraceError):
    """So many records are refused that something larger is wrong; going on would empty the input into the dead letters."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One refused record on its way out."""

    row: int
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
    batch: Batch, row: int, error: RecordError, stage: str, sender: Sender, now_ms: int, max_bytes: int, refused_before: bool
) -> Letter:
    """The dead letter of one row.

    A value that is larger than the dead letters' topic takes, or whose letter was refused before, is left out; its size and
    SHA-256 stand in the headers, and the address says where the record itself is.
    """
    at = batch.address(row)
    value = None if batch.absent[row] else batch.raw[row]
    schema_id = -1 if batch.schema_ids is None else int(batch.schema_ids[row])
    headers: list[Header] = [
        *batch.headers(row),
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
                "exception.message": f"{at} refused by {stage}: {error}",
            },
        ),
        *_texts(
            OURS,
            {
                "reason": error.reason,
                "stage": stage,
                "schema_id": schema_id,
                "timestamp_ms": int(batch.arrived_ms[row]),
                "first_seen_ms": now_ms,
                "attempt": 1,
                "counted": "true" if stage in ("model", "produce") else "false",
                "feature_fingerprint": sender.feature_fingerprint,
                "model_version": sender.model_version,
            },
        ),
    ]
    key = batch.keys[row]
    size = len(value or b"") + len(key or b"") + sum(len(name) + len(text or b"") for name, text in headers) + 1_024
    if value is not None and (refused_before or size > max_bytes):
        headers += _texts(OURS, {"value_size_bytes": len(value), "value_sha256": hashlib.sha256(value).hexdigest()})
        value = None
    return Letter(row, value, key, int(batch.arrived_ms[row]), tuple(headers))


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
