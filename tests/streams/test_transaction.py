"""Transactions: what a successor does about those that a dead worker left open."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from streams.kafka import KafkaDown, KafkaError, KafkaException, Producer
from streams.transaction import fence

SECONDS = 10


class Named:
    """A producer whose transactions end once all of them have been asked for."""

    def __init__(self, name: str, asked: threading.Barrier, ended: list[str]) -> None:
        self.name, self.asked, self.ended = name, asked, ended

    def init_transactions(self, timeout_seconds: float) -> None:
        self.asked.wait(SECONDS)
        if self.name == "away":
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))
        self.ended.append(self.name)


def ended_of(names: list[str], ended: list[str]) -> None:
    asked = threading.Barrier(len(names))
    fence(names, lambda name: cast(Producer, cast(Any, Named(name, asked, ended))))


def test_the_producers_of_a_dead_worker_are_ended_all_at_once() -> None:
    ended: list[str] = []
    ended_of(["one-0", "one-1"], ended)
    assert sorted(ended) == ["one-0", "one-1"]


def test_one_that_can_not_be_ended_is_named_and_the_other_is_ended() -> None:
    ended: list[str] = []
    with pytest.raises(KafkaDown, match="transaction of away could not be ended: no answer"):
        ended_of(["away", "one-1"], ended)
    assert ended == ["one-1"]
