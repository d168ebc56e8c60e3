"""Read one usable record as Python's values: for people who look at it, and for whoever writes it anew."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from schemas.avro import read_value
from schemas.codec import Body, Decoder
from schemas.columns import Column, Nullable, PackedBytes
from schemas.framing import Headers
from schemas.json_record import as_it_travels

_plain = lru_cache(maxsize=64)(as_it_travels)


def as_written(decoder: Decoder, value: bytes, headers: Headers = ()) -> Any:
    """What its writer wrote, as it travels: times and decimals as the numbers they are.

    Raises:
        RetryLater: the registry does not answer.
    """
    body = decoder.body(value, headers)
    return _with_attributes(read_value(body.avro, _plain(body.writer)), body)


def as_read(decoder: Decoder, value: bytes, headers: Headers = ()) -> Any:
    """The same as the decoder's own schema has it.

    Raises:
        RetryLater: the registry does not answer.
    """
    body = decoder.body(value, headers)
    return _with_attributes(read_value(body.avro, _plain(body.writer), _plain(decoder.reader)), body)


def _with_attributes(record: Any, body: Body) -> Any:
    return {**record, **{name: _only(column) for name, column in body.columns.items()}} if body.columns else record


def _only(column: Column) -> Any:
    inner = column.values if isinstance(column, Nullable) else column
    if isinstance(inner, PackedBytes):
        return inner[0].decode()
    assert isinstance(inner, np.ndarray)
    return int(inner[0])
