"""Small batches for tests, without a client."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schemas.columns import PackedBytes
from streams.batch import Batch, Span


def batch_of(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None = None,
    *,
    partition: int = 3,
    first_offset: int = 1042,
    arrived_ms: int = 1_700_000_000_000,
    headers: Sequence[tuple[str, bytes | None]] = (),
    token: int = 1,
    replay: bool = False,
) -> Batch:
    """A batch of one partition of `payments`, at consecutive offsets."""
    n = len(values)
    return Batch(
        spans=(Span("payments", partition, 0, n, first_offset, first_offset + n),),
        offsets=np.arange(first_offset, first_offset + n, dtype=np.int64),
        arrived_ms=np.full(n, arrived_ms, np.int64),
        keys=list(keys) if keys is not None else [b"key"] * n,
        raw=PackedBytes.pack([value or b"" for value in values]),
        absent=np.array([value is None for value in values], np.bool_),
        headers=dict.fromkeys(range(n), headers) if headers else {},
        columns={},
        rejected=np.zeros(n, np.uint8),
        tokens={partition: token},
        replay=replay,
    )
