"""State kept in Redis; the one door to redis-py, which parses addresses, authenticates and speaks TLS.

Beyond that it is by-passed: a client that reconnects or repeats on its own would send a write without its fence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import redis
from numpy.typing import NDArray
from redis.connection import Connection, UnixDomainSocketConnection, parse_url

from schemas.columns import PackedBytes
from schemas.errors import FenceLost, SettingsError, StoreDown
from transforms.fence import FencedShard
from transforms.redis_server import ServerFacts, ask_server
from transforms.store import Claim, Writes
from transforms.wire import Wire


class RedisStore:
    """A store in one Redis server (or Valkey), with a connection for each shard that is held.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database if needed.
        namespace: before every key; another namespace is another state.
        connect_timeout_seconds: how long to wait for a connection.
        answer_timeout_seconds: how long to wait while no byte comes or goes.

    Raises:
        SettingsError: the address isn't one.
    """

    def __init__(self, url: str, namespace: str, connect_timeout_seconds: float = 2.0, answer_timeout_seconds: float = 5.0) -> None:
        self._namespace = _name(namespace)
        self._answer_timeout_seconds = answer_timeout_seconds
        self._address = _without_secrets(url)
        try:
            options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise SettingsError(f"{self._address} is no address of a Redis server: {error}") from error
        given = options.pop("connection_class", None)
        self._connection_class: Callable[..., Connection | UnixDomainSocketConnection] = given or Connection
        self._options = options | {
            "socket_connect_timeout": connect_timeout_seconds,
            "socket_timeout": answer_timeout_seconds,
            "protocol": 2,
            "retry": None,
            "retry_on_error": [],
            "health_check_interval": 0,
            "driver_info": None,
        }
        self._held: dict[str, FencedShard] = {}

    def check_server(self) -> ServerFacts:
        """What the server says of itself.

        Raises:
            SettingsError: state would not be safe in it; the message says how it can be.
            StoreDown: it can't be reached, or refuses us.
        """
        wire = self._connect("check")
        try:
            return ask_server(wire, self._address)
        finally:
            wire.close()

    def claim(self, shard: str, notes: dict[str, str]) -> Claim:
        """See `Store`."""
        held = self._held.get(shard)
        if held is None:
            held = self._held[shard] = FencedShard(lambda: self._connect(shard), self._namespace, _name(shard))
        return held.claim(notes)

    def read(self, shard: str, entity: str, keys: NDArray[np.uint64]) -> PackedBytes:
        """See `Store`."""
        return self._hold(shard).read(entity, keys)

    def write(self, shard: str, writes: tuple[Writes, ...], position: int) -> None:
        """See `Store`."""
        self._hold(shard).write(writes, position)

    def settle(self, shard: str) -> None:
        """See `Store`."""
        self._hold(shard).settle()

    def release(self, shard: str) -> None:
        """See `Store`."""
        self._hold(shard).release()
        self.forget(shard)

    def forget(self, shard: str) -> None:
        """See `Store`."""
        held = self._held.pop(shard, None)
        if held is not None:
            held.close()

    def drop(self, shard: str) -> None:
        """See `Store`."""
        self._hold(shard).drop()
        self.forget(shard)

    def close(self) -> None:
        """See `Store`."""
        for shard in list(self._held):
            self.forget(shard)

    def _hold(self, shard: str) -> FencedShard:
        held = self._held.get(shard)
        if held is None:
            raise FenceLost(f"shard {shard} is not claimed here")
        return held

    def _connect(self, purpose: str) -> Wire:
        connection = self._connection_class(**self._options, client_name=f"{self._namespace}.{purpose}")
        try:
            connection.connect()  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            raise StoreDown(f"{self._address}: {error}") from error
        sock = connection._get_socket()
        assert sock is not None
        return Wire(sock, self._address, self._answer_timeout_seconds, connection.disconnect)


def _name(text: str) -> str:
    # Braces mark what decides a key's slot; a client's name has no spaces.
    if not re.fullmatch(r"[!-z|~]+", text):
        raise ValueError(f"{text!r} can't stand in a key: wanted ASCII letters, digits or signs, and neither spaces nor braces")
    return text


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"redis at {parts.netloc.rpartition('@')[2] or parts.path}"
