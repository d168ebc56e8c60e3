"""The stores that a contract is held against: in memory, on a real Redis and on a cluster of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from transforms.memory_store import Memory, MemoryStore
from transforms.redis_store import RedisStore
from transforms.store import Store

Owners = Callable[[], Store]  # each call makes another owner of the same state


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.broker), pytest.param("cluster", marks=pytest.mark.broker)])
def states(request: pytest.FixtureRequest) -> Iterator[Callable[[], Owners]]:
    """Each call makes a new state, with nothing in it."""
    if request.param == "memory":

        def in_memory() -> Owners:
            memory = Memory()
            return lambda: MemoryStore(memory)

        yield in_memory
        return
    server: RedisServer | RedisCluster = request.getfixturevalue("server" if request.param == "redis" else "cluster")
    stack = ExitStack()

    def in_redis() -> Owners:
        namespace = f"test.{uuid.uuid4().hex[:12]}"

        def owner() -> Store:
            store = RedisStore(server.url, namespace)
            stack.callback(store.close)
            return store

        return owner

    with stack:
        yield in_redis
