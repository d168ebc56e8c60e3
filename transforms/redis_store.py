"""State kept in Redis; the one door to redis-py, which parses addresses, authenticates and speaks TLS.

Beyond that it is by-passed: a client that reconnects or repeats on its own would send a write without its fence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import redis
from numpy.typing import NDArray
from redis.connection import Connection, UnixDomainSocketConnection, parse_url

from schemas.columns import PackedBytes
from schemas.errors import FenceLost, SettingsError, StoreDown
from transforms.fence import FencedShard, shard_key
from transforms.redis_cluster import SLOTS, Address, Cluster
from transforms.redis_server import ServerFacts, ask_server, together
from transforms.store import Claim, Writes
from transforms.wire import Wire


class RedisStore:
    """A store in a Redis server (or Valkey), or in a cluster of them, with a connection for each shard that is held.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database if needed; of a cluster
            ``redis+cluster://`` or ``rediss+cluster://``, with one or more of its nodes: ``redis+cluster://user:secret@a:6379,b:6379``.
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
        options, seeds = _options(url, self._address)
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
        self._cluster = Cluster(seeds, lambda node: self._open("map", node), self._address) if seeds else None
        self._held: dict[str, FencedShard] = {}

    def check_server(self) -> ServerFacts:
        """What the server says of itself.

        Raises:
            SettingsError: state would not be safe in it; the message says how it can be.
            StoreDown: it can't be reached, or refuses us.
        """
        if self._cluster is None:
            return self._check(None, shard_key(self._namespace, "probe"))
        masters = self._cluster.masters()
        served = sum(len(slots) for master in masters for slots in master.slots)
        if served < SLOTS:
            raise StoreDown(f"{self._address}: {SLOTS - served} of {SLOTS} slots are no node's")
        return together(self._address, [self._check(master.address, master.key("millrace")) for master in masters])

    def _check(self, node: Address | None, probe: bytes) -> ServerFacts:
        wire = self._open("check", node)
        try:
            return ask_server(wire, f"redis at {node}" if node else self._address, probe, node is not None)
        finally:
            wire.close()

    def claim(self, shard: str, notes: dict[str, str]) -> Claim:
        """See `Store`."""
        held = self._held.get(shard)
        if held is None:
            held = self._held[shard] = FencedShard(lambda: self._open(shard, self._node_of(shard)), self._namespace, _name(shard))
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

    def _node_of(self, shard: str) -> Address | None:
        return None if self._cluster is None else self._cluster.node_of(shard_key(self._namespace, shard))

    def _open(self, purpose: str, node: Address | None = None) -> Wire:
        """A connection: to a node of the cluster, or to the one server."""
        place = {} if node is None else {"host": node.host, "port": node.port}
        address = self._address if node is None else f"redis at {node}"
        connection = self._connection_class(**self._options, **place, client_name=f"{self._namespace}.{purpose}")
        try:
            connection.connect()  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            raise StoreDown(f"{address}: {error}") from error
        sock = connection._get_socket()
        assert sock is not None
        moved = None
        if (cluster := self._cluster) is not None and node is not None:
            moved = partial(cluster.learn, asked=node)
        return Wire(sock, address, self._answer_timeout_seconds, connection.disconnect, moved)


def _options(url: str, shown: str) -> tuple[dict[str, Any], tuple[Address, ...]]:
    """What redis-py makes of an address; and the nodes it names, if it is a cluster's."""
    parts = urlsplit(url)
    is_cluster = parts.scheme.endswith("+cluster")
    user, at, places = parts.netloc.rpartition("@")
    scheme = parts.scheme.removesuffix("+cluster")
    try:
        if not is_cluster:
            return dict(parse_url(url)), ()  # type: ignore[no-untyped-call]
        found = [
            dict(parse_url(urlunsplit((scheme, f"{user}{at}{place}", parts.path, parts.query, ""))))  # type: ignore[no-untyped-call]
            for place in places.split(",")
        ]
    except ValueError as error:
        raise SettingsError(f"{shown} is no address of a Redis server: {error}") from error
    if found[0].get("db"):
        raise SettingsError(f"{shown}: database {found[0]['db']} was given; wanted 0, the only one that a cluster has")
    seeds = tuple(Address(each.pop("host", "localhost"), each.pop("port", 6379)) for each in found)
    return found[0], seeds


def _name(text: str) -> str:
    # Braces mark what decides a key's slot; a client's name has no spaces.
    if not re.fullmatch(r"[!-z|~]+", text):
        raise ValueError(f"{text!r} can't stand in a key: wanted ASCII letters, digits or signs, and neither spaces nor braces")
    return text


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"redis at {parts.netloc.rpartition('@')[2] or parts.path}"
