"""Bytes to checked columns: which records are refused, and that a replay refuses the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from schemas.codec import Decoder
from schemas.errors import RetryLater
from schemas.reject import FIRST_RULE, Reject
from streams.dead_letters import TooManyRefused
from streams.extract import Extract
from streams.recovery import CommitNote
from streams.refusals import MOST_REFUSED_SCHEMAS, NOISY_SCHEMAS, Refusals
from tests.streams.batches import batch_of
from tests.streams.payments import SOME_DAY_MS, Schemas, card_fraud, payment_values, payments_batch


class Waiting:
    """An extract step whose waits are counted, and may change the registry."""

    def __init__(self, *known: int, registered_after: int | None = None, refusals: Refusals | None = None) -> None:
        self.schemas = Schemas(*known)
        self.refusals = refusals or Refusals()
        self.waits = 0
        self._registered_after = registered_after
        bound = card_fraud()
        self.step = Extract(bound, Decoder(bound.schema, "confluent", self.schemas), self.refusals, 500, 2.0, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.waits += 1
        if self.waits == self._registered_after:
            self.schemas.known[9] = self.schemas.known[1]


def test_good_payments_become_columns_in_log_order() -> None:
    done = Waiting(1).step(payments_batch([1.0, 2.5, 3.25]))
    assert not done.rejected.any()
    assert np.array_equal(np.asarray(done.columns["amount"]), [1.0, 2.5, 3.25])
    assert np.array_equal(np.asarray(done.columns["event_time"]), SOME_DAY_MS + np.arange(3) * 60_000)
    assert done.schema_ids is not None
    assert done.schema_ids.tolist() == [1, 1, 1]


def test_a_bad_record_is_refused_and_its_neighbours_are_not() -> None:
    good = payment_values([1.0, -1.0, 2.0])
    values = [good[0], good[1], None, b"", b"\x05bad", good[0][:-3], good[2], b"\x00" * 501]
    done = Waiting(1).step(batch_of(values, [b"C1"] * len(values)))
    assert done.rejected[[0, 6]].tolist() == [0, 0]
    assert card_fraud().rules[done.rejected[1] - FIRST_RULE].name == "amount_in_range"
    assert done.rejected[[2, 3, 4, 7]].tolist() == [Reject.TOMBSTONE, Reject.EMPTY_VALUE, Reject.BAD_MAGIC, Reject.TOO_LARGE]
    assert done.rejected[5] != 0


def test_a_key_that_is_missing_or_not_the_fields_text_is_refused() -> None:
    done = Waiting(1).step(batch_of(payment_values([1.0] * 4), [b"C1", None, b"C2", b"C11"]))
    assert done.rejected.tolist() == [0, Reject.NULL_KEY, Reject.KEY_MISMATCH, Reject.KEY_MISMATCH]


def test_an_unknown_schema_is_waited_for() -> None:
    extract = Waiting(1, registered_after=3)
    done = extract.step(payments_batch([1.0], schema_id=9))
    assert done.rejected.tolist() == [0]
    assert extract.waits == 3


def test_a_schema_registered_after_it_was_refused_stays_refused_from_that_offset_on() -> None:
    extract = Waiting(1)
    assert extract.step(payments_batch([1.0], schema_id=9, first_offset=70)).rejected.tolist() == [Reject.UNKNOWN_SCHEMA]
    assert extract.waits == 8
    assert extract.refusals.schemas(3) == {9: 70}

    replayed = Waiting(1, 9, refusals=extract.refusals)
    assert replayed.step(payments_batch([1.0, 1.0], schema_id=9, first_offset=70)).rejected.tolist() == [Reject.UNKNOWN_SCHEMA] * 2
    assert replayed.step(payments_batch([1.0], schema_id=9, first_offset=69)).rejected.tolist() == [0]
    assert replayed.waits == 0


def test_a_replay_never_refuses_a_schema_that_was_known_when_its_records_were_scored() -> None:
    extract = Waiting(1)
    with pytest.raises(RetryLater, match=r"payments\[3\]@70 was scored with schema id 9"):
        extract.step(payments_batch([1.0], schema_id=9, first_offset=70, replay=True))
    assert extract.refusals.schemas(3) == {}


def test_what_was_refused_in_one_partition_is_not_in_another() -> None:
    extract = Waiting(1, 9)
    extract.refusals.refuse_schema(3, 9, 0)
    batch = payments_batch([1.0], schema_id=9)
    elsewhere = replace(batch, spans=(replace(batch.spans[0], partition=4),), tokens={4: 1})
    assert extract.step(elsewhere).rejected.tolist() == [0]


def test_noise_that_looks_like_schema_ids_is_waited_for_a_few_times_only() -> None:
    extract = Waiting(1)
    for noise in range(1_000, 1_000 + NOISY_SCHEMAS + 5):
        extract.step(payments_batch([1.0], schema_id=noise, first_offset=noise))
    assert extract.waits == 8 * NOISY_SCHEMAS


def test_noise_ends_the_worker_before_it_outgrows_an_offsets_metadata() -> None:
    refusals = Refusals()
    for noise in range(MOST_REFUSED_SCHEMAS):
        refusals.refuse_schema(3, 2**32 - 1 - noise, 10**11)
    assert len(CommitNote("f" * 16, refusals.schemas(3)).dump()) < 4_096
    with pytest.raises(TooManyRefused, match="schema ids are not in the registry"):
        refusals.refuse_schema(3, 7, 10**11)
