"""What a dead letter carries, and when there are too many."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from schemas.errors import RecordError
from streams.dead_letters import HaltLimit, Letter, Sender, TooManyRefused, as_it_came, letter
from tests.streams.batches import batch_of

SENDER = Sender("card_fraud", "worker-1", "00ff00ff00ff00ff", "7")
ERROR = RecordError("amount_in_range", "amount is -1.0, wanted 0 to 50000")


def write(value: bytes | None, *, max_bytes: int = 10_000, times_refused: int = 0, stage: str = "rule", is_label: bool = False) -> Letter:
    batch = batch_of([b"first", value], [b"k0", b"k1"], headers=[("traceparent", b"00-1-2-01"), ("empty", None)])
    return letter(1, as_it_came(batch, 1), "payments.dlq", -1, ERROR, stage, SENDER, 1_700_000_001_000, max_bytes, times_refused, is_label)


def test_key_value_and_headers_are_the_originals_byte_for_byte() -> None:
    sent = write(b"\x00\xff raw")
    assert (sent.key, sent.value, sent.timestamp_ms) == (b"k1", b"\x00\xff raw", 1_700_000_000_000)
    assert sent.headers[:2] == (("traceparent", b"00-1-2-01"), ("empty", None))


def test_the_headers_say_where_it_came_from_and_why_it_is_here() -> None:
    headers = dict(write(b"raw").headers)
    assert headers["__connect.errors.topic"] == b"payments"
    assert headers["__connect.errors.partition"] == b"3"
    assert headers["__connect.errors.offset"] == b"1043"
    assert headers["__connect.errors.stage"] == b"rule"
    assert headers["__connect.errors.exception.message"] == (
        b"payments[3]@1043 refused by rule: amount_in_range: amount is -1.0, wanted 0 to 50000"
    )
    assert headers["millrace.reason"] == b"amount_in_range"
    assert headers["millrace.timestamp_ms"] == b"1700000000000"
    assert headers["millrace.model_version"] == b"7"


def test_a_letter_says_whether_its_event_is_counted_in_the_windows() -> None:
    assert dict(write(b"raw", stage="rule").headers)["millrace.counted"] == b"false"
    assert dict(write(b"raw", stage="model").headers)["millrace.counted"] == b"true"
    assert dict(write(b"raw", stage="produce").headers)["millrace.counted"] == b"true"
    assert dict(write(b"raw", stage="produce", is_label=True).headers)["millrace.counted"] == b"false"


def test_a_tombstones_letter_is_a_tombstone() -> None:
    assert write(None).value is None


@pytest.mark.parametrize(("max_bytes", "times_refused"), [(1_400, 0), (1_000_000, 1)])
def test_a_value_no_letter_can_hold_is_named_by_size_and_digest(max_bytes: int, times_refused: int) -> None:
    value = b"x" * 5_000
    sent = write(value, max_bytes=max_bytes, times_refused=times_refused)
    headers = dict(sent.headers)
    assert sent.value is None
    assert headers["millrace.value_size_bytes"] == b"5000"
    assert headers["millrace.value_sha256"] == hashlib.sha256(value).hexdigest().encode()


@pytest.mark.parametrize(("max_bytes", "times_refused"), [(900, 0), (1_000_000, 2)])
def test_the_last_form_of_a_letter_has_digests_alone(max_bytes: int, times_refused: int) -> None:
    sent = write(b"x" * 5_000, max_bytes=max_bytes, times_refused=times_refused)
    headers = dict(sent.headers)
    assert (sent.key, sent.value) == (None, None)
    assert "traceparent" not in headers
    assert headers["millrace.key_sha256"] == hashlib.sha256(b"k1").hexdigest().encode()
    assert headers["__connect.errors.offset"] == b"1043"


def test_the_worker_halts_when_too_large_a_share_is_refused() -> None:
    limit = HaltLimit(share=0.5, window_records=100)
    limit.count(np.zeros(60, np.uint8))
    with pytest.raises(TooManyRefused, match="61 of the last 121 records were refused"):
        limit.count(np.ones(61, np.uint8))


def test_a_few_refused_records_never_halt_it_however_large_their_share() -> None:
    limit = HaltLimit(share=0.1, window_records=100)
    limit.count(np.ones(99, np.uint8))
    with pytest.raises(TooManyRefused):
        limit.count(np.ones(1, np.uint8))


def test_an_old_calm_does_not_hide_a_new_storm() -> None:
    limit = HaltLimit(share=0.5, window_records=100)
    for _ in range(50):
        limit.count(np.zeros(100, np.uint8))
    limit.count(np.ones(50, np.uint8))
    with pytest.raises(TooManyRefused):
        limit.count(np.ones(100, np.uint8))
