"""Redis's append-only file, cut inside a transaction: what Redis carries out of it later on is found before it counts twice."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import LostBlock
from tests.oracles.play import Event, columns_of
from tests.redis_server import running
from transforms.aggregate import Count
from transforms.entity import Entity
from transforms.redis_store import RedisStore
from transforms.shard import ShardState
from transforms.store import Claim
from transforms.window import Window

pytestmark = pytest.mark.broker

ENTITY = Entity("e", "key", (Window(100),), (Count(),))
SHARD = "0"


class Owner:
    """A worker's part: the shard, claimed anew, and its state."""

    def __init__(self, url: str) -> None:
        self._store = RedisStore(url, "cut")
        self.claim: Claim = self._store.claim(SHARD, {})
        self._state = ShardState(SHARD, (ENTITY,), self._store, "t", 100)

    def count(self, event: Event, position: int) -> list[float]:
        """What the event's window holds; the state follows, and is in the store."""
        done = self._state.advance(columns_of([event], 1), np.ones(1, np.bool_), np.array([position]))
        self._store.write(SHARD, done.writes, position + 1)
        self._store.settle(SHARD)
        return [float(number) for number in done.features[0]]

    def note(self) -> None:
        """A write that moves nothing: one more transaction in the log."""
        assert self.claim.position is not None
        self._store.write(SHARD, (), self.claim.position)
        self._store.settle(SHARD)

    def close(self) -> None:
        self._store.close()


def cut_inside_the_last_transaction(folder: Path) -> None:
    """The file then ends behind the blocks of the last write, before its position and its EXEC."""
    (log,) = [*folder.glob("appendonly.aof"), *folder.glob("appendonlydir/*.incr.aof")]
    said = log.read_bytes()
    last = [match.start() for match in re.finditer(rb"\*4\r\n\$4\r\nHSET\r\n", said)][-1]
    assert said.rindex(b"MULTI", 0, last) > said.rindex(b"EXEC", 0, last), "not inside a transaction"
    log.write_bytes(said[: last + 10])


def test_no_event_counts_twice_when_a_transaction_that_was_cut_off_is_carried_out_later() -> None:
    first, second = Event(1, 0, 1), Event(2, 1, 1)
    with running("--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--appendfsync", "always") as server:
        owner = Owner(server.url)
        assert owner.count(first, 0) == [1.0]
        assert owner.count(second, 1) == [1.0]
        owner.close()
        server.kill()
        cut_inside_the_last_transaction(server.folder)
        server.start()

        owner = Owner(server.url)  # it begins where the state stands, at 1, and ends before it comes to the second event
        assert owner.claim.position == 1
        owner.note()
        owner.close()
        server.kill()
        server.start()

        owner = Owner(server.url)
        assert owner.claim.position == 1
        found: object
        try:
            found = owner.count(second, 1)
        except LostBlock as error:
            found = str(error)
        assert found == [1.0] or "still to come" in str(found), "a Redis that took the transaction back whole, or its rest was noticed"
        owner.close()
