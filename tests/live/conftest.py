"""Scenes for the live tests; a worker that a test leaves running is ended with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.scene import Scene, nursery
from tests.redis_server import RedisServer, running
from tests.services import Broker

SetUp = Callable[..., Scene]


@pytest.fixture(scope="session", autouse=True)
def first_worker(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One that says its version and ends: what has to be compiled is compiled in nobody's time."""
    assert nursery().start(["millrace", "version"], {}, tmp_path_factory.mktemp("first") / "log").ends() == 0


@pytest.fixture
def set_up(broker: Broker, redis_url: str, tmp_path: Path) -> Iterator[SetUp]:
    """Makes scenes on the run's broker and Redis, or on another Redis: ``set_up(partitions=2, redis_url=...)``."""
    made: list[Scene] = []

    def make(**options: Any) -> Scene:
        scene = Scene(tmp_path / f"scene-{len(made)}", options.pop("broker", broker), options.pop("redis_url", redis_url), **options)
        made.append(scene)
        return scene

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def scene(set_up: SetUp) -> Scene:
    """The example's pipeline on one partition."""
    return set_up()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, which keeps what it was told."""
    with running("--appendonly", "yes") as server:
        yield server
