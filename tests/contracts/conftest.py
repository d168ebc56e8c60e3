"""A Redis server for all tests of a run's process; a namespace of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer, running


@pytest.fixture(scope="session")
def server() -> Iterator[RedisServer]:
    with running() as started:
        yield started


@pytest.fixture
def namespace() -> str:
    return f"test.{uuid.uuid4().hex[:12]}"
