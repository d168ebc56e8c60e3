"""Which trouble is whose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from schemas.errors import FenceLost, MillraceError, StoreDown
from streams.batch import Batch
from streams.dead_letters import TooManyRefused
from streams.ownership import Ownership, Tokens
from streams.run_step import StepFailed, StepRunner
from streams.transaction import Void
from tests.streams.batches import batch_of


class Seen:
    """Remembers what a runner tells."""

    def __init__(self) -> None:
        self.took: list[tuple[str, int]] = []
        self.started_over: list[tuple[Tokens, MillraceError]] = []

    def step_took(self, step: str, seconds: float, records: int) -> None:
        assert seconds >= 0
        self.took.append((step, records))

    def start_over(self, tokens: Tokens, error: MillraceError) -> None:
        self.started_over.append((tokens, error))


def run(step: Callable[[Batch], Batch], *, owned: bool = True) -> tuple[Batch, Batch, Seen]:
    ownership, seen = Ownership(), Seen()
    token = ownership.grant(3) + (0 if owned else 1)
    batch = batch_of([b"a", b"b"], token=token)
    return batch, StepRunner("score", step, ownership, seen.start_over, seen)(batch), seen


def raising(error: BaseException) -> Callable[[Batch], Batch]:
    def step(batch: Batch) -> Batch:
        raise error

    return step


def test_a_step_is_timed_with_the_records_it_was_given() -> None:
    batch, done, seen = run(lambda batch: batch)
    assert done is batch
    assert seen.took == [("score", 2)]
    assert not seen.started_over


def test_a_batch_whose_partition_left_is_not_touched() -> None:
    batch, done, seen = run(raising(AssertionError("must not run")), owned=False)
    assert done is batch
    assert not seen.took


@pytest.mark.parametrize("error", [StoreDown("redis is away"), FenceLost("another owner"), Void("aborted")])
def test_a_dependencys_trouble_starts_the_partitions_over(error: MillraceError) -> None:
    batch, done, seen = run(raising(error))
    assert done is batch
    assert seen.started_over == [(batch.tokens, error)]


def test_a_bug_stops_the_worker_with_the_batchs_addresses() -> None:
    with pytest.raises(StepFailed, match=r"score failed on payments\[3\]@1042\.\.1044: ZeroDivisionError") as failed:
        run(raising(ZeroDivisionError("division by zero")))
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


def test_what_is_said_on_purpose_stops_the_worker_as_it_is() -> None:
    with pytest.raises(TooManyRefused):
        run(raising(TooManyRefused("too many")))


def test_a_batch_that_lost_one_partition_has_its_others_read_again() -> None:
    ownership, seen = Ownership(), Seen()
    tokens = {3: ownership.grant(3), 4: ownership.grant(4)}
    ownership.revoke(4)
    batch = replace(batch_of([b"a", b"b"]), tokens=tokens)
    StepRunner("score", raising(AssertionError("must not run")), ownership, seen.start_over, seen)(batch)
    assert [kept for kept, _ in seen.started_over] == [{3: tokens[3]}]
