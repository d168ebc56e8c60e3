"""The harness's own Redis: one that does not answer is no answer, and not the end of a long run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import LocalServiceError
from streams.faults import servers
from streams.faults.servers import OwnRedis
from tests.live.scene import wait_for


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[OwnRedis, OwnRedis]]:
    both = OwnRedis(tmp_path / "master"), OwnRedis(tmp_path / "replica")
    yield both
    for each in both:
        each.kill()


def test_a_replica_takes_over_with_what_its_master_had(pair: tuple[OwnRedis, OwnRedis]) -> None:
    master, replica = pair
    master.ask("SET", "name", "value")
    assert not replica.has_followed()
    replica.follow(master.port)
    wait_for("the replica", replica.has_followed)
    master.kill()
    replica.follow(None)
    assert replica.ask("GET", "name") == b"value"
    assert replica.ask("SET", "name", "another") == b"OK"


def test_one_that_does_not_answer_has_not_followed_and_is_told_of(pair: tuple[OwnRedis, OwnRedis], monkeypatch: pytest.MonkeyPatch) -> None:
    master, replica = pair
    monkeypatch.setattr(servers, "ASK_SECONDS", 0.2)
    replica.signal(signal.SIGSTOP)
    assert not replica.has_followed()
    with pytest.raises(LocalServiceError, match=f"Redis on port {replica.port} does not change its master: timed out"):
        replica.follow(master.port)
    replica.signal(signal.SIGCONT)
