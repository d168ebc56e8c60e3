"""A real Redis Cluster of three nodes, and a replica where one is wanted; put together over the bare protocol."""

from __future__ import annotations

import random
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.redis_server import RedisServer
from transforms.redis_cluster import SLOTS, slot_of

WAIT_SECONDS = 20.0
BUS_AHEAD = 10_000  # the nodes talk to each other on a port so much higher


class Node:
    """One node."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port = _free_port()
        self.server = RedisServer(
            folder, "--port", str(self.port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--cluster-node-timeout", "500",
            "--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0",
            "--appendonly", "yes", "--appendfsync", "always",
        )  # fmt: skip
        self.id: str = self.ask("CLUSTER", "MYID").decode()

    def ask(self, *command: Any) -> Any:
        return self.server.ask(*command)

    def sees(self, count: int) -> bool:
        """Whether it is connected with so many nodes, itself among them, and serves."""
        links = [line.split() for line in self.nodes().splitlines()]
        settled = all(fields[7] == "connected" and "handshake" not in fields[2] for fields in links)
        return len(links) == count and settled and b"cluster_state:ok" in self.ask("CLUSTER", "INFO")

    def nodes(self) -> str:
        found: bytes = self.ask("CLUSTER", "NODES")
        return found.decode()


class RedisCluster:
    """Three masters with a third of the slots each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes = [Node(folder / f"{number}") for number in range(3)]
        for number, node in enumerate(self.nodes):
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3
            node.ask("CLUSTER", "ADDSLOTS", *range(first, last))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        wait_for(lambda: all(node.sees(3) for node in self.nodes))

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def add_replica(self, master: Node) -> Node:
        """A node that follows a master, and takes its place when it dies."""
        replica = Node(self._folder / f"{len(self.nodes)}")
        self.nodes.append(replica)
        replica.ask("CLUSTER", "MEET", "127.0.0.1", master.port)
        wait_for(lambda: all(node.sees(len(self.nodes)) for node in self.nodes))
        replica.ask("CLUSTER", "REPLICATE", master.id)
        wait_for(lambda: replica.ask("ROLE")[3] == b"connected")
        wait_for(lambda: all(f"slave {master.id}" in node.nodes() for node in self.nodes))
        return replica

    def node_of(self, key: str) -> Node:
        """The node that keeps a key, as it says itself."""
        for node in self.nodes:
            for line in node.nodes().splitlines():
                fields = line.split()
                if "myself,master" in fields[2] and any(slot_of(key.encode()) in _stretch(field) for field in fields[8:]):
                    return node
        raise AssertionError(f"no node keeps {key}")

    @contextmanager
    def moving(self, key: str, target: Node) -> Iterator[Callable[[int], None]]:
        """Move a key's slot: the block gets a function that moves so many keys, and the rest follows at its end."""
        slot, source = slot_of(key.encode()), self.node_of(key)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

        def move(most: int) -> None:
            keys = sorted(source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10_000))[:most]
            if keys:
                source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)

        yield move
        move(10_000)
        for node in (target, source, *(node for node in self.nodes if node not in (target, source))):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)


def wait_for(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not seen():
        assert time.monotonic() < end, "the cluster doesn't come together"
        time.sleep(0.01)


def _stretch(text: str) -> range:
    if text.startswith("["):
        return range(0)
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _free_port() -> int:
    while True:
        port = random.randint(20_000, 30_000)
        try:
            for wanted in (port, port + BUS_AHEAD):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", wanted))
            return port
        except OSError:
            continue


@contextmanager
def running_cluster() -> Iterator[RedisCluster]:
    """A cluster in a folder of its own, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-"))
    nodes: list[Node] = []
    try:
        cluster = RedisCluster(folder)
        nodes = cluster.nodes
        yield cluster
    finally:
        for node in nodes:
            node.server.kill()
        shutil.rmtree(folder)
